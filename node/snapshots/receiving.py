"""The follower's side of a transfer: chunks become rows of a range that nobody reads yet.

The range is marked to be erased before its first row is written, and stays so until the replica
switches to it; whatever happens in between, a start or the eraser cleans up.
"""

from collections.abc import Callable
from functools import partial

from node.env import Timer, World
from timemachine import limits
from timemachine.errors import CodecError
from timemachine.raft import Message, MessageType
from timemachine.replica.snapshot import ImageEnd, ImageIn
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.overlay import Overlay
from timemachine.transfers import Group, SnapshotAnswer, SnapshotChunk, TransferId

_GIVEN_UP_MS = limits.SNAPSHOT_CHUNK_TIMEOUT_MS * limits.SNAPSHOT_CHUNK_TRIES_MAX
"""How long a sender sends a chunk that is not answered."""


class _Arrival:
    """An image that has come in part. `taken` steps are in the overlay, `durable` on the disk."""

    __slots__ = ("durable", "group", "heard_ms", "image", "keys", "message", "taken", "timer", "id")

    def __init__(
        self, group: Group, id: TransferId, message: Message, keys: ReplicaKeys, now_ms: float
    ) -> None:
        self.group = group
        self.id = id
        self.message = message
        self.keys = keys
        self.image = ImageIn(keys)
        self.taken = 0
        self.durable = 0
        self.heard_ms = now_ms
        self.timer: Timer | None = None


class SnapshotsIn:
    """Receives images of replicas for this node.

    stage         makes a range for an image that (group, message) announce, and marks it to be
                  erased, in the overlay; the eraser must leave it alone until it is discarded.
                  None if this node does not want it
    discard       the eraser may have a range, of which nothing is under way to the disk any more
    install       (group, message, keys): the image is complete and durable, and the range is the
                  host's now, to switch to it or to discard it
    send          gives an answer to the network, for a node; it may be lost
    when_written  calls once everything that was put into the overlay is durable

    Of each group it takes the newest transfer, and SNAPSHOTS_IN_MAX at once; others are refused,
    and the core of their leader asks for them again. One whose sender has fallen silent may still
    go on, but gives up its place to another one.
    """

    def __init__(
        self,
        world: World,
        overlay: Overlay,
        *,
        stage: Callable[[Group, Message], ReplicaKeys | None],
        discard: Callable[[ReplicaKeys], None],
        install: Callable[[Group, Message, ReplicaKeys], None],
        send: Callable[[int, SnapshotAnswer], None],
        when_written: Callable[[Callable[[], None]], None],
    ) -> None:
        self._world = world
        self._overlay = overlay
        self._stage = stage
        self._discard = discard
        self._install = install
        self._send = send
        self._when_written = when_written
        self._open: dict[Group, _Arrival] = {}
        # The newest transfer of each group that was begun here, and its steps if it is complete.
        self._newest: dict[Group, tuple[TransferId, int | None]] = {}
        self._closed = False

    # --- what the host asks ----------------------------------------------------------------

    def take(self, sender: int, chunk: SnapshotChunk) -> None:
        """A chunk has come from node `sender`."""
        if self._closed:
            return
        arrival = self._open.get(chunk.group)
        if arrival is None or arrival.id != chunk.transfer:
            arrival = self._begin(sender, chunk)
        if arrival is None:
            return
        arrival.heard_ms = self._world.mono_ms()
        if chunk.number < arrival.durable:
            # A repeat, whose answer was lost perhaps.
            self._answer(sender, chunk, arrival.durable)
        elif chunk.number < arrival.taken:
            # A repeat, which is answered when its rows are durable.
            return
        elif chunk.number > arrival.taken:
            # Answered in an earlier life, where its rows are gone: a late repeat began this one.
            self._drop(arrival.group)
            self._refuse(sender, chunk)
        elif chunk.end is not None:
            self._finish(sender, chunk, arrival, chunk.end)
        else:
            self._write(sender, chunk, arrival)

    def forget(self, group: Group) -> None:
        """This node has no such replica any more."""
        self._newest.pop(group, None)
        self._drop(group)

    def close(self) -> None:
        """Take nothing more. What has come in part is erased at the next start."""
        self._closed = True
        for arrival in self._open.values():
            if arrival.timer is not None:
                arrival.timer.cancel()
        self._open.clear()

    # --- one transfer ----------------------------------------------------------------------

    def _begin(self, sender: int, chunk: SnapshotChunk) -> _Arrival | None:
        """The arrival that `chunk` is the first of; None if it is of a transfer not to be taken."""
        group, message = chunk.group, chunk.message
        newest, steps = self._newest.get(group, ((0, 0), None))
        if chunk.transfer == newest and steps is not None:
            self._answer(sender, chunk, steps)
            return None
        if (
            chunk.transfer <= newest
            or chunk.number != 0
            or message is None
            or message.type is not MessageType.SNAPSHOT
            or message.snapshot is None
            or (group not in self._open and not self._has_room())
        ):
            self._refuse(sender, chunk)
            return None
        keys = self._stage(group, message)
        if keys is None:
            self._refuse(sender, chunk)
            return None
        self._drop(group)
        self._make_room()
        self._newest[group] = (chunk.transfer, None)
        now_ms = self._world.mono_ms()
        arrival = _Arrival(group, chunk.transfer, message, keys, now_ms)
        self._open[group] = arrival
        self._look_after(arrival, limits.SNAPSHOT_SILENCE_MS)
        return arrival

    def _silent(self) -> _Arrival | None:
        """What was heard of least lately, if its sender has given up sending it."""
        arrival = min(self._open.values(), key=lambda each: each.heard_ms)
        silent_ms = self._world.mono_ms() - arrival.heard_ms
        return arrival if silent_ms >= _GIVEN_UP_MS else None

    def _has_room(self) -> bool:
        return len(self._open) < limits.SNAPSHOTS_IN_MAX or self._silent() is not None

    def _make_room(self) -> None:
        if len(self._open) >= limits.SNAPSHOTS_IN_MAX:
            silent = self._silent()
            assert silent is not None, "there was room when it was asked for"
            self._drop(silent.group)

    def _write(self, sender: int, chunk: SnapshotChunk, arrival: _Arrival) -> None:
        """Put the rows of a chunk on their way to the disk, and answer when they are there."""
        try:
            rows = arrival.image.chunk(chunk.data)
        except CodecError:
            # Damaged on the way: as if it were lost, it is sent again.
            return
        self._overlay.put_all(rows)
        arrival.taken = taken = chunk.number + 1

        def written() -> None:
            if self._open.get(arrival.group) is arrival:
                arrival.durable = taken
                self._answer(sender, chunk, taken)

        self._when_written(written)

    def _finish(self, sender: int, chunk: SnapshotChunk, arrival: _Arrival, end: ImageEnd) -> None:
        """Everything has come: check it, and hand it over."""
        if arrival.durable != arrival.taken:
            return
        message = arrival.message
        assert message.snapshot is not None
        metadata = message.snapshot.metadata
        try:
            arrival.image.finish(end)
            if (end.applied_index, end.applied_term) != (metadata.index, metadata.term):
                raise CodecError("The image is not the one that was announced.")
        except CodecError:
            self._drop(arrival.group)
            self._refuse(sender, chunk)
            return
        steps = chunk.number + 1
        self._newest[arrival.group] = (arrival.id, steps)
        self._release(arrival)
        self._answer(sender, chunk, steps)
        self._install(arrival.group, message, arrival.keys)

    def _look_after(self, arrival: _Arrival, delay_ms: float) -> None:
        """Drop an arrival of which nothing comes any more."""

        def look() -> None:
            rest_ms = arrival.heard_ms + limits.SNAPSHOT_SILENCE_MS - self._world.mono_ms()
            if rest_ms > 0:
                self._look_after(arrival, rest_ms)
            else:
                self._drop(arrival.group)

        arrival.timer = self._world.call_later(delay_ms, look)

    def _drop(self, group: Group) -> None:
        """Give up what has come of a group's image."""
        arrival = self._open.get(group)
        if arrival is not None:
            self._release(arrival)
            # Its last rows may still be on their way: erased before them, they would stay.
            self._when_written(partial(self._discard, arrival.keys))

    def _release(self, arrival: _Arrival) -> None:
        del self._open[arrival.group]
        if arrival.timer is not None:
            arrival.timer.cancel()

    def _answer(self, sender: int, chunk: SnapshotChunk, following: int) -> None:
        self._send(sender, SnapshotAnswer(chunk.group, chunk.transfer, following))

    def _refuse(self, sender: int, chunk: SnapshotChunk) -> None:
        self._send(sender, SnapshotAnswer(chunk.group, chunk.transfer, 0, refused=True))
