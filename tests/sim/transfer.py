"""Two nodes with nothing but snapshots between them, and a pipe that may do anything to a frame.

The sending node has a store that changes all the time; the receiving one has a store, a disk that
forgets what was not synced, and what a host does around a transfer: it stages ranges, switches to
them, and erases what is marked.
"""

from collections.abc import Callable
from typing import Any, cast

from node.env import Disk, Timer
from node.runtime import Runtime
from node.snapshots.receiving import SnapshotsIn
from node.snapshots.sending import SnapshotsOut
from tests.sim.world import SimDisk, SimWorld
from timemachine import codec
from timemachine.members import members_row
from timemachine.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from timemachine.replica.records import MachineState, read_state
from timemachine.storage.api import Row
from timemachine.storage.keys import (
    ERASE_START,
    ERASE_STOP,
    GROUPS_START,
    GROUPS_STOP,
    ReplicaKeys,
    erase_key,
    group_key,
    group_of_key,
    u32,
    u64,
)
from timemachine.storage.memory import MemoryStore, MemoryStoreView
from timemachine.storage.overlay import Overlay
from timemachine.transfers import Group, SnapshotAnswer, SnapshotChunk

LEADER, FOLLOWER = 1, 2
GROUPS: list[Group] = [(4, 0), (4, 1), (5, 0)]
BEHIND = 3
"""Up to where the follower has applied."""
COMPACTED = 5
"""Where the leader's logs begin, so that the follower needs a snapshot."""
MEMBERS = ConfState((1, 2, 3))
NOT_IN_AN_IMAGE = (b"b", b"h", b"l")

Image = dict[bytes, bytes]

_read_chunk = codec.decoder(SnapshotChunk)
_read_answer = codec.decoder(SnapshotAnswer)


def image_of(rows: list[Row]) -> Image:
    """The rows of one range that belong to an image, without their prefix."""
    cut = {key[4:]: value for key, value in rows}
    return {key: value for key, value in cut.items() if key[:1] not in NOT_IN_AN_IMAGE}


class Life:
    """The `World` of one process: what it waits for dies with it."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.rng = world.rng
        self.alive = True
        self.wall_ms = world.wall_ms
        self.mono_ms = world.mono_ms
        self.random = world.random
        self.random_bytes = world.random_bytes

    def call_soon(self, function: Callable[[], None]) -> None:
        """See World."""
        self.call_later(0.0, function)

    def call_later(self, delay_ms: float, function: Callable[[], None]) -> Timer:
        """See World."""

        def run() -> None:
            if self.alive:
                function()

        return self.world.call_later(delay_ms, run)


class Pipe:
    """Frames from one node to the other. `fate` gives the delays of a frame's copies, in ms."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.frames = 0
        self.fate: Callable[[], list[float]] = lambda: [1.0]
        self.after: Callable[[], None] = lambda: None

    def send(self, frame: Any, deliver: Callable[[bytes], None]) -> None:
        """Send a frame, as its bytes."""
        data = codec.encode(frame)
        for delay_ms in self.fate():
            self.world.call_later(delay_ms, lambda: self._arrive(data, deliver))

    def _arrive(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        deliver(data)
        self.frames += 1
        self.after()


class SendingNode:
    """Leads all groups. `history` holds the image of a group at each index."""

    def __init__(self, world: SimWorld, pipe: Pipe) -> None:
        self.world = world
        self.store = MemoryStore()
        self.keys = {group: ReplicaKeys(10 + at) for at, group in enumerate(GROUPS)}
        self.history: dict[tuple[Group, int], Image] = {}
        self.reports: list[tuple[Group, bool]] = []
        self.views: list[MemoryStoreView] = []
        self.again = True
        self.to: Callable[[bytes], None] = lambda _: None
        for group in GROUPS:
            self.history[group, 0] = {}
            for index in range(1, COMPACTED + 3):
                self.apply(group, index)
        self.out = SnapshotsOut(
            world,
            view=self._view,
            keys_of=self.keys.get,
            log_base=lambda _: COMPACTED,
            send=lambda _, chunk: pipe.send(chunk, self.to),
            report=self._report,
            chunk_bytes=60,
        )

    def _view(self) -> MemoryStoreView:
        view = self.store.view()
        self.views.append(view)
        return view

    def apply(self, group: Group, index: int) -> None:
        """Change some rows, as entry `index` would; its term is a tenth of it."""
        keys = self.keys[group]
        rng = self.world.rng
        rows: dict[bytes, bytes | None] = {
            keys.state: codec.encode(MachineState(index, 1 + index // 10)),
            keys.hard_state: b"the leader's own",
            keys.log + u64(index): b"entry",
            keys.members: members_row(MEMBERS),
        }
        for _ in range(4):
            rows[keys.job + b"%02d" % rng.randrange(30)] = rng.randbytes(rng.randrange(60))
            rows[keys.due + u64(rng.randrange(5))] = b"%d" % index
            rows[keys.tag + b"%02d" % rng.randrange(30)] = None
        self.store.write(self.store.prepare(rows))
        found = self.store.scan(keys.prefix, keys.stop, 10_000)
        self.history[group, index] = image_of(found)

    def applied(self, group: Group) -> int:
        """The newest index of a group."""
        return max(index for other, index in self.history if other == group)

    def start(self, group: Group) -> None:
        """What the core would say to a follower that its log cannot serve."""
        index = self.applied(group)
        metadata = SnapshotMetadata(ConfState((1, 2)), index, 1 + index // 10)
        snapshot = Snapshot(metadata=metadata)
        message = Message(MessageType.SNAPSHOT, FOLLOWER, LEADER, 4, snapshot=snapshot)
        self.out.start(group, message)

    def _report(self, group: Group, to: int, failed: bool) -> None:
        self.reports.append((group, failed))
        if failed and self.again:
            self.world.call_later(100, lambda: self.start(group))

    def answered(self, data: bytes) -> None:
        """Bytes from the pipe."""
        self.out.answered(FOLLOWER, _read_answer(data))


class ReceivingNode:
    """One life of the follower's node, over what its disk kept."""

    def __init__(
        self, world: SimWorld, rows: Image, pipe: Pipe, to: Callable[[bytes], None]
    ) -> None:
        self.life = life = Life(world)
        self.disk = SimDisk(cast("SimWorld", life), rows)
        self.store = store = self.disk.store
        self.overlay = overlay = Overlay(store)
        self.runtime = Runtime(
            life,
            store,
            cast("Disk", self.disk),
            overlay,
            on_effects=lambda *_: None,
            on_moved=lambda *_: None,
            on_failure=lambda error: None,
        )
        self.installed: list[tuple[Group, Message]] = []
        self._staged: set[int] = set()
        self._next = 1 + max(
            [100, *(number for number in self._marked()), *self.current().values()]
        )
        self.taking = SnapshotsIn(
            life,
            overlay,
            stage=self._stage,
            discard=self._discard,
            install=self._install,
            send=lambda _, answer: pipe.send(answer, to),
            when_written=self.runtime.when_written,
        )
        self._erase()

    def current(self) -> dict[Group, int]:
        """The durable incarnation of each group."""
        rows = self.store.scan(GROUPS_START, GROUPS_STOP)
        return {group_of_key(key): int.from_bytes(value, "big") for key, value in rows}

    def _marked(self) -> list[int]:
        return [
            int.from_bytes(key[-4:], "big") for key, _ in self.store.scan(ERASE_START, ERASE_STOP)
        ]

    def image(self, group: Group) -> Image:
        """The durable image of a group."""
        keys = ReplicaKeys(self.current()[group])
        return image_of(self.store.scan(keys.prefix, keys.stop, 10_000))

    def applied(self, group: Group) -> int:
        """Up to where a group's durable image goes."""
        return read_state(self.image(group)[b"s"]).applied_index

    def take(self, data: bytes) -> None:
        """Bytes from the pipe."""
        if self.life.alive:
            self.taking.take(LEADER, _read_chunk(data))

    def _stage(self, group: Group, message: Message) -> ReplicaKeys | None:
        if message.snapshot is None or message.snapshot.metadata.index <= self.applied(group):
            return None
        number = self._next
        self._next += 1
        self._staged.add(number)
        self.overlay.put(erase_key(number), b"")
        return ReplicaKeys(number)

    def _discard(self, keys: ReplicaKeys) -> None:
        self._staged.remove(int.from_bytes(keys.prefix, "big"))

    def _install(self, group: Group, message: Message, keys: ReplicaKeys) -> None:
        assert message.snapshot is not None
        before = self.current()[group]
        self.installed.append((group, message))
        if message.snapshot.metadata.index <= self.applied(group):
            self._discard(keys)
            return
        number = int.from_bytes(keys.prefix, "big")
        self.overlay.put(group_key(*group), u32(number))
        self.overlay.put(keys.members, members_row(message.snapshot.metadata.conf_state))
        self.overlay.put(keys.hard_state, b"the follower's own")
        self.overlay.delete(erase_key(number))
        self.overlay.put(erase_key(before), b"")
        self.runtime.when_written(lambda: self._discard(keys))

    def _erase(self) -> None:
        """Erase what is marked and not staged, some rows at a time."""
        marked = [number for number in self._marked() if number not in self._staged]
        for number in marked[:1]:
            keys = ReplicaKeys(number)
            doomed = self.store.scan(keys.prefix, keys.stop, 5)
            for key, _ in doomed:
                self.overlay.delete(key)
            if not doomed:
                self.overlay.delete(erase_key(number))
            self.runtime.write_soon()
        self.life.call_later(20, self._erase)


class Pair:
    """Both nodes, and what must hold of them at any time and at the end."""

    def __init__(self, seed: int) -> None:
        self.world = SimWorld(seed)
        self.chunks, self.answers = Pipe(self.world), Pipe(self.world)
        self.sender = SendingNode(self.world, self.chunks)
        rows: Image = {b"\0\0\0\0I": b"identity"}
        for at, group in enumerate(GROUPS):
            old = ReplicaKeys(1 + at)
            rows[group_key(*group)] = u32(1 + at)
            rows[old.hard_state] = b"the follower's own"
            image = self.sender.history[group, BEHIND]
            rows |= {old.prefix + key: value for key, value in image.items()}
        self.installed: list[tuple[Group, Message]] = []
        self.begin(rows)

    def begin(self, rows: Image) -> None:
        """A life of the receiver begins; frames that are under way reach it."""
        self.receiver = ReceivingNode(self.world, rows, self.answers, self.sender.answered)
        self.receiver.installed = self.installed
        self.sender.to = self._deliver
        self.check()

    def _deliver(self, data: bytes) -> None:
        self.receiver.take(data)

    def crash(self) -> None:
        """The receiver dies, and starts again with what its disk kept."""
        self.receiver.life.alive = False
        self.begin(self.receiver.store.image())

    def check(self) -> None:
        """Each group's durable replica is one that there was: all of the old or all of the new."""
        for group in GROUPS:
            applied = self.receiver.applied(group)
            assert self.sender.history[group, applied] == self.receiver.image(group)

    def check_end(self) -> None:
        """Nothing is left of any transfer but what was switched to."""
        self.check()
        store = self.receiver.store
        own = [ReplicaKeys(number) for number in self.receiver.current().values()]
        for key, _ in store.scan(b"\0\0\0\1", b"\xff", 100_000):
            assert any(keys.prefix <= key < keys.stop for keys in own), key
        assert [] == store.scan(ERASE_START, ERASE_STOP)
        for keys in own:
            assert b"the follower's own" == store.get(keys.hard_state)
            assert [] == store.scan(keys.log, keys.log_stop)
        assert not self.sender.out._open
        assert not self.receiver.taking._open
        assert all(view._content is None for view in self.sender.views)
        for group, message in self.installed:
            assert message.snapshot is not None
            metadata = message.snapshot.metadata
            assert MEMBERS == metadata.conf_state
            assert 1 + metadata.index // 10 == metadata.term
            assert (group, metadata.index) in self.sender.history
