"""The leader's side of a transfer: a view, read and sent chunk by chunk.

The core says that a follower needs a snapshot; what it gets is newer: whatever the store holds
when the transfer begins. So nothing is prepared in advance and nothing waits for an image.
"""

from collections.abc import Callable, Iterator
from functools import partial

from msgspec.structs import replace

from node.env import Timer, World
from timemachine import limits
from timemachine.byterate import ByteRate
from timemachine.errors import StoreDamaged, StoreError
from timemachine.group import node_of
from timemachine.members import read_members
from timemachine.raft import Message, SnapshotMetadata
from timemachine.replica.snapshot import ImageEnd, applied_in, image_out
from timemachine.storage.api import View
from timemachine.storage.keys import ReplicaKeys
from timemachine.transfers import (
    Group,
    SnapshotAnswer,
    SnapshotChunk,
    TransferId,
    may_resume,
    pause_after_failures_ms,
)

_Way = tuple[Group, int]
"""A group, and the replica that its image goes to.

Not the node of that: one may have a new replica while its old one, which is gone, still votes.
"""


class _Transfer:
    """One image under way."""

    __slots__ = ("frame", "id", "index", "message", "number", "parts", "timer", "tries", "view")

    def __init__(
        self, id: TransferId, message: Message, view: View, parts: Iterator[bytes | ImageEnd]
    ) -> None:
        assert message.snapshot is not None
        self.id = id
        self.message = message
        self.view = view
        self.parts = parts
        self.index = message.snapshot.metadata.index
        self.number = 0
        self.tries = 0
        self.frame: SnapshotChunk | None = None
        self.timer: Timer | None = None


class SnapshotsOut:
    """Sends images of this node's replicas.

    view     makes a view of the node's store
    keys_of  the keys of this node's replica of a group, None if there is none any more
    log_base the index behind which the log of such a replica begins
    send     gives a chunk to the network, for a node; it may be lost
    report   how a transfer ended, (group, replica, failed): for the core's `report_snapshot`
    damaged  the store cannot be read: whoever leads with such a store could bring nobody up to date

    Of its transfers SNAPSHOTS_OUT_MAX go on at once; the others wait, one for each replica, and
    take their view when it is their turn. Nothing is called from within `start`. All together
    send `bytes_per_s` at most.

    A transfer that is not answered any more has failed for the core, and its place is another's.
    Its view is kept for SNAPSHOT_RESUME_MS: if the core asks for an image again that this one will
    do for, it goes on with the chunk that was not answered. A transfer that fails again and again
    pauses before it begins anew, longer and longer.
    """

    def __init__(
        self,
        world: World,
        *,
        view: Callable[[], View],
        keys_of: Callable[[Group], ReplicaKeys | None],
        log_base: Callable[[Group], int],
        send: Callable[[int, SnapshotChunk], None],
        report: Callable[[Group, int, bool], None],
        damaged: Callable[[StoreDamaged], None] = lambda _: None,
        chunk_bytes: int = limits.SNAPSHOT_CHUNK_BYTES,
        bytes_per_s: int = limits.SNAPSHOT_RATE_BYTES_DEFAULT,
    ) -> None:
        self._world = world
        self._rate = ByteRate(bytes_per_s, limits.SNAPSHOT_BURST_BYTES)
        self._view = view
        self._keys_of = keys_of
        self._log_base = log_base
        self._send = send
        self._report = report
        self._damaged = damaged
        self._chunk_bytes = chunk_bytes
        self._pausing: dict[_Way, Timer] = {}
        self._waiting: dict[_Way, Message] = {}
        self._open: dict[_Way, _Transfer] = {}
        self._kept: dict[_Way, _Transfer] = {}
        self._failures: dict[_Way, int] = {}
        self.sent_bytes = 0
        self._arrived: dict[_Way, _Transfer] = {}
        self._number = 0
        self._closed = False

    # --- what the host asks ----------------------------------------------------------------

    def start(self, group: Group, message: Message) -> None:
        """Send a replica what the core's SNAPSHOT `message` promises it, or something newer.

        A transfer to that replica that is still under way ends without a report: the core has given
        it up.
        """
        if self._closed:
            return
        way = (group, message.to)
        self._drop(way)
        kept = self._kept.get(way)
        if kept is not None and not may_resume(kept.message, message, self._log_base(group)):
            self._release(way)
        pause_ms = pause_after_failures_ms(self._failures.get(way, 0))
        if pause_ms:
            begin = partial(self._wait, way, message)
            self._pausing[way] = self._world.call_later(pause_ms, begin)
        else:
            self._wait(way, message)

    def answered(self, sender: int, answer: SnapshotAnswer) -> None:
        """Node `sender` says how far it is. What is not about the chunk under way is ignored."""
        about = (answer.group, sender, answer.transfer)
        for way, transfer in self._open.items():
            if (way[0], node_of(way[1]), transfer.id) == about:
                break
        else:
            return
        if answer.refused:
            self._fail(way)
            return
        frame = transfer.frame
        if frame is None or answer.following != frame.number + 1:
            return
        self._stop_timer(transfer)
        transfer.frame = None
        if frame.end is not None:
            self._remember(way, transfer)
            self._failures.pop(way, None)
            self._end(way, failed=False)
        else:
            following = partial(self._read, way, transfer)
            transfer.timer = self._world.call_later(limits.SNAPSHOT_PAUSE_MS, following)

    def cancel(self, group: Group) -> None:
        """Stop all transfers of a group without a report: this replica leads it no more."""
        for way in [way for way in self._ways() if way[0] == group]:
            self._drop(way)
            self._release(way)
        for way in [way for way in self._arrived if way[0] == group]:
            del self._arrived[way]
        for way in [way for way in self._failures if way[0] == group]:
            del self._failures[way]
        self._world.call_soon(self._fill)

    def keep_from(self, group: Group) -> int | None:
        """The lowest index at which an image ends that is under way or kept, or has just arrived.

        Entries behind it should stay in the log: who installs the image needs them next.
        """
        transfers = (*self._open.items(), *self._kept.items(), *self._arrived.items())
        return min([transfer.index for way, transfer in transfers if way[0] == group], default=None)

    def close(self) -> None:
        """Stop everything, without reports: the store is about to be closed."""
        self._closed = True
        for way in self._ways():
            self._drop(way)
            self._release(way)

    # --- one transfer ----------------------------------------------------------------------

    def _ways(self) -> list[_Way]:
        """All that something is under way of, or might be soon."""
        return list({**self._open, **self._waiting, **self._pausing, **self._kept})

    def _wait(self, way: _Way, message: Message) -> None:
        """Wait for a place."""
        self._pausing.pop(way, None)
        self._waiting[way] = message
        self._world.call_soon(self._fill)

    def _fill(self) -> None:
        """Begin transfers, as many as there is room for."""
        while self._waiting and len(self._open) < limits.SNAPSHOTS_OUT_MAX:
            way = next(iter(self._waiting))
            self._begin(way, self._waiting.pop(way))

    def _begin(self, way: _Way, message: Message) -> None:
        kept = self._kept.pop(way, None)
        if kept is not None:
            self._stop_timer(kept)
            self._open[way] = kept
            kept.tries = 0
            self._try(way, kept)
            return
        keys = self._keys_of(way[0])
        transfer = None if keys is None else self._take_view(keys, message)
        if transfer is None:
            self._failures[way] = self._failures.get(way, 0) + 1
            self._report(*way, True)
            return
        self._open[way] = transfer
        self._read(way, transfer)

    def _take_view(self, keys: ReplicaKeys, message: Message) -> _Transfer | None:
        """The transfer of what the store shows now; None when that is less than was promised."""
        snapshot = message.snapshot
        assert snapshot is not None, "not a SNAPSHOT"
        try:
            view = self._view()
        except StoreError as error:
            self._tell(error)
            return None
        try:
            index, term = applied_in(view, keys)
            row = view.get(keys.members)
        except StoreError as error:
            view.close()
            self._tell(error)
            return None
        if index < max(1, snapshot.metadata.index):
            view.close()
            return None
        # The membership as of that index, which may have changed since the core's message.
        members = snapshot.metadata.conf_state if row is None else read_members(row)
        metadata = SnapshotMetadata(members, index, term)
        self._number += 1
        return _Transfer(
            (message.term, self._number),
            replace(message, snapshot=replace(snapshot, metadata=metadata)),
            view,
            image_out(view, keys, chunk_bytes=self._chunk_bytes),
        )

    def _read(self, way: _Way, transfer: _Transfer) -> None:
        """Read the next chunk and send it."""
        try:
            part = next(transfer.parts)
        except StoreError as error:
            self._fail(way)
            self._tell(error)
            return
        number = transfer.number
        transfer.number = number + 1
        transfer.tries = 0
        transfer.frame = SnapshotChunk(
            way[0],
            transfer.id,
            number,
            part if isinstance(part, bytes) else b"",
            transfer.message if number == 0 else None,
            part if isinstance(part, ImageEnd) else None,
        )
        self._try(way, transfer)

    def _tell(self, error: StoreError) -> None:
        if isinstance(error, StoreDamaged):
            self._damaged(error)

    def _try(self, way: _Way, transfer: _Transfer) -> None:
        """Send the chunk under way, once more if it was not answered in time."""
        if transfer.tries == limits.SNAPSHOT_CHUNK_TRIES_MAX:
            self._give_up(way, transfer)
            return
        transfer.tries += 1
        frame = transfer.frame
        assert frame is not None
        wait_ms = self._rate.book(len(frame.data), self._world.mono_ms())
        if wait_ms:
            leave = partial(self._leave, way, transfer, frame)
            transfer.timer = self._world.call_later(wait_ms, leave)
        else:
            self._leave(way, transfer, frame)

    def _leave(self, way: _Way, transfer: _Transfer, frame: SnapshotChunk) -> None:
        again = partial(self._try, way, transfer)
        transfer.timer = self._world.call_later(limits.SNAPSHOT_CHUNK_TIMEOUT_MS, again)
        self.sent_bytes += len(frame.data)
        self._send(node_of(way[1]), frame)

    def _give_up(self, way: _Way, transfer: _Transfer) -> None:
        """A node does not answer: what waits for it fails too, or it would hold up the others."""
        if transfer.number > 1:
            self._keep(way, transfer)
        self._end(way, failed=True)
        node = node_of(way[1])
        for other in [other for other in self._waiting if node_of(other[1]) == node]:
            if other in self._waiting:
                self._end(other, failed=True)

    def _keep(self, way: _Way, transfer: _Transfer) -> None:
        """Part of it has arrived: go on from there, if the node is back soon."""
        del self._open[way]
        if len(self._kept) >= limits.SNAPSHOTS_KEPT_MAX:
            self._release(next(iter(self._kept)))
        self._kept[way] = transfer
        forget = partial(self._release, way)
        transfer.timer = self._world.call_later(limits.SNAPSHOT_RESUME_MS, forget)

    def _release(self, way: _Way) -> None:
        """Give up what is kept of a transfer."""
        transfer = self._kept.pop(way, None)
        if transfer is not None:
            self._stop_timer(transfer)
            transfer.view.close()

    def _fail(self, way: _Way) -> None:
        """It has failed, and not for want of answers: the next one pauses before."""
        self._failures[way] = self._failures.get(way, 0) + 1
        self._end(way, failed=True)

    def _end(self, way: _Way, *, failed: bool) -> None:
        self._drop(way)
        self._world.call_soon(self._fill)
        self._report(*way, failed)

    def _remember(self, way: _Way, transfer: _Transfer) -> None:
        """Until the follower has installed the image and asked for what comes next."""
        self._arrived[way] = transfer

        def forget() -> None:
            if self._arrived.get(way) is transfer:
                del self._arrived[way]

        self._world.call_later(limits.SNAPSHOT_LOG_KEPT_MS, forget)

    def _drop(self, way: _Way) -> None:
        """Forget a transfer that has not arrived, wherever it is, but what is kept of it."""
        pausing = self._pausing.pop(way, None)
        if pausing is not None:
            pausing.cancel()
        self._waiting.pop(way, None)
        transfer = self._open.pop(way, None)
        if transfer is not None:
            self._stop_timer(transfer)
            transfer.view.close()

    def _stop_timer(self, transfer: _Transfer) -> None:
        if transfer.timer is not None:
            transfer.timer.cancel()
            transfer.timer = None
