"""What the follower's side of a transfer takes, refuses and answers, and when it gives up."""

from typing import Any

from msgspec.structs import replace

from node.snapshots.receiving import SnapshotsIn
from tests.sim.world import SimWorld
from timemachine import codec, limits
from timemachine.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from timemachine.replica.records import MachineState
from timemachine.replica.snapshot import ImageEnd, image_out
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay
from timemachine.transfers import Group, SnapshotAnswer, SnapshotChunk, TransferId

GROUP = (3, 0)
MESSAGE = Message(
    MessageType.SNAPSHOT,
    2,
    1,
    7,
    snapshot=Snapshot(metadata=SnapshotMetadata(ConfState((1, 2)), 9, 2)),
)


def _steps(group: Group = GROUP, transfer: TransferId = (7, 1)) -> list[SnapshotChunk]:
    """All steps of a transfer."""
    keys = ReplicaKeys(5)
    rows = {keys.job + b"%03d" % number: b"j" * 50 for number in range(30)}
    rows[keys.state] = codec.encode(MachineState(9, 2))
    steps = []
    for number, part in enumerate(image_out(MemoryStore(rows).view(), keys, chunk_bytes=500)):
        message = MESSAGE if number == 0 else None
        if isinstance(part, ImageEnd):
            steps.append(SnapshotChunk(group, transfer, number, b"", message, part))
        else:
            steps.append(SnapshotChunk(group, transfer, number, part, message))
    return steps


class Follower:
    """The receiving side of a node, whose disk writes when a test says so."""

    def __init__(self) -> None:
        self.world = SimWorld(1)
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.staged: list[int] = []
        self.wanted = True
        self.discarded: list[int] = []
        self.installed: list[tuple[Group, Message, int]] = []
        self.answers: list[tuple[int, SnapshotAnswer]] = []
        self._waiters: list[Any] = []
        self.taking = SnapshotsIn(
            self.world,
            self.overlay,
            stage=self._stage,
            discard=lambda keys: self.discarded.append(keys.prefix[-1]),
            install=lambda group, message, keys: self.installed.append(
                (group, message, keys.prefix[-1])
            ),
            send=lambda to, answer: self.answers.append((to, answer)),
            when_written=self._waiters.append,
        )

    def _stage(self, group: Group, message: Message) -> ReplicaKeys | None:
        if not self.wanted:
            return None
        self.staged.append(len(self.staged) + 1)
        return ReplicaKeys(self.staged[-1])

    def sync(self) -> None:
        """Everything in the overlay becomes durable."""
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        waiters, self._waiters[:] = self._waiters[:], []
        for waiter in waiters:
            waiter()

    def take(self, *steps: SnapshotChunk, sync: bool = True) -> list[tuple[int, bool]]:
        """Take steps from node 1; returns (following, refused) of what is answered."""
        before = len(self.answers)
        for step in steps:
            self.taking.take(1, step)
            if sync:
                self.sync()
        assert all(to == 1 for to, _ in self.answers)
        return [(answer.following, answer.refused) for _, answer in self.answers[before:]]


def test_an_image_is_installed_when_all_of_it_is_durable() -> None:
    """Each chunk is answered when it is on the disk, and the host gets the range at the end."""
    follower = Follower()
    steps = _steps()
    assert [] == follower.take(steps[0], sync=False)
    follower.sync()
    assert [1] == [answer.following for _, answer in follower.answers]
    assert [(number, False) for number in range(2, len(steps))] == follower.take(*steps[1:-1])
    assert [] == follower.installed
    assert [(len(steps), False)] == follower.take(steps[-1], sync=False)
    assert [(GROUP, MESSAGE, 1)] == follower.installed
    keys = ReplicaKeys(1)
    assert 31 == len(follower.store.scan(keys.prefix, keys.stop))
    follower.world.run_for(10 * limits.SNAPSHOT_SILENCE_MS)
    assert [] == follower.discarded


def test_a_repeat_is_answered_and_not_taken_again() -> None:
    """Whether it is on the disk, on the way there, or part of an image that is complete."""
    follower = Follower()
    steps = _steps()
    assert [] == follower.take(steps[0], steps[0], sync=False)
    follower.sync()
    assert 1 == len(follower.answers)
    follower.take(*steps[1:3])
    assert [(3, False), (3, False)] == follower.take(steps[0], steps[2])
    follower.take(*steps[3:])
    for step in steps:
        assert [(len(steps), False)] == follower.take(step)
    assert 1 == len(follower.installed)
    assert [1] == follower.staged


def test_a_damaged_chunk_is_as_good_as_lost() -> None:
    """It is not answered, so it is sent again."""
    follower = Follower()
    steps = _steps()
    follower.take(steps[0])
    broken = steps[1].data[:-1] + bytes((steps[1].data[-1] ^ 1,))
    assert [] == follower.take(replace(steps[1], data=broken))
    follower.take(*steps[1:])
    assert 1 == len(follower.installed)


def test_a_transfer_whose_beginning_is_not_here_is_refused() -> None:
    """After a crash; also when a late repeat of its first chunk has come meanwhile."""
    follower = Follower()
    steps = _steps()
    assert [(0, True)] == follower.take(steps[3])
    assert [] == follower.staged
    follower.take(steps[0])
    assert [(0, True)] == follower.take(steps[3])
    assert [1] == follower.discarded
    assert [(0, True), (0, True)] == follower.take(steps[0], steps[1])
    assert [1] == follower.staged


def test_a_newer_transfer_takes_the_place_of_an_older_one() -> None:
    """By term, then by number. The range is given up when nothing of it is under way any more."""
    follower = Follower()
    old = _steps(transfer=(7, 9))
    follower.take(*old[:2])
    follower.take(old[2], sync=False)
    new = _steps(transfer=(8, 1))
    follower.take(new[0], sync=False)
    assert [] == follower.discarded
    follower.answers.clear()
    follower.sync()
    assert [1] == follower.discarded
    assert [((8, 1), 1)] == [(one.transfer, one.following) for _, one in follower.answers]
    assert [(0, True), (0, True)] == follower.take(old[0], old[3])
    follower.take(*new[1:])
    assert [(GROUP, MESSAGE, 2)] == follower.installed
    assert [(0, True)] == follower.take(old[0])


def test_an_image_that_does_not_add_up_is_refused() -> None:
    """A chunk too few, or another image than the one that was announced."""
    for change in ({"rows": 30}, {"checksum": 1}, {"applied_index": 8}, {"applied_term": 1}):
        follower = Follower()
        *steps, last = _steps()
        follower.take(*steps)
        assert last.end is not None
        assert [(0, True)] == follower.take(replace(last, end=replace(last.end, **change)))
        assert [] == follower.installed
        assert [1] == follower.discarded


def test_what_does_not_announce_an_image_is_refused() -> None:
    """A first chunk without a message, or with another one; or one that is not wanted."""
    follower = Follower()
    first = _steps()[0]
    other = replace(MESSAGE, type=MessageType.HEARTBEAT)
    for message in (None, other, replace(MESSAGE, snapshot=None)):
        assert [(0, True)] == follower.take(replace(first, message=message))
    follower.wanted = False
    assert [(0, True)] == follower.take(first)
    assert [] == follower.staged
    follower.wanted = True
    assert [(1, False)] == follower.take(first)


def test_only_some_are_taken_at_once() -> None:
    """Beyond, they are refused until there is room; a newer one of the same group is not more."""
    follower = Follower()
    groups = [(3, number) for number in range(limits.SNAPSHOTS_IN_MAX)]
    for group in groups:
        assert [(1, False)] == follower.take(_steps(group)[0])
    more = _steps((4, 0))
    assert [(0, True)] == follower.take(more[0])
    assert [(1, False)] == follower.take(_steps(groups[0], (7, 2))[0])
    follower.take(*_steps(groups[1])[1:])
    assert [(1, False)] == follower.take(more[0])


def test_a_silent_transfer_gives_up_its_place() -> None:
    """Its sender has given it up for now: it may go on, as long as nobody else needs the place."""
    follower = Follower()
    groups = [(3, number) for number in range(limits.SNAPSHOTS_IN_MAX)]
    for group in groups:
        assert [(1, False)] == follower.take(_steps(group)[0])
    given_up_ms = limits.SNAPSHOT_CHUNK_TIMEOUT_MS * limits.SNAPSHOT_CHUNK_TRIES_MAX
    follower.world.run_for(given_up_ms - 1)
    for group in groups[1:]:
        assert [(2, False)] == follower.take(_steps(group)[1])
    more = _steps((4, 0))
    assert [(0, True)] == follower.take(more[0])
    assert [] == follower.discarded
    follower.world.run_for(1)
    assert [(1, False)] == follower.take(more[0])
    assert [1] == follower.discarded
    assert [(0, True)] == follower.take(_steps(groups[0])[1])
    assert [(3, False)] == follower.take(_steps(groups[1])[2])


def test_a_silent_transfer_is_given_up() -> None:
    """So long after its last chunk; what was heard in between counts."""
    follower = Follower()
    steps = _steps()
    for step in (steps[0], steps[1], steps[1]):
        follower.take(step)
        follower.world.run_for(limits.SNAPSHOT_SILENCE_MS - 1)
        follower.sync()
        assert [] == follower.discarded
    follower.world.run_for(1)
    assert [] == follower.discarded
    follower.sync()
    assert [1] == follower.discarded
    assert [(0, True)] == follower.take(steps[2])


def test_a_replica_that_is_gone_takes_nothing_more() -> None:
    """What has come is given up; a later replica of the group begins anew."""
    follower = Follower()
    steps = _steps()
    follower.take(*steps[:2])
    follower.taking.forget(GROUP)
    follower.sync()
    assert [1] == follower.discarded
    assert [(1, False)] == follower.take(steps[0])


def test_after_close_nothing_happens() -> None:
    """No answer, and nothing is handed over; the start after it erases what is marked."""
    follower = Follower()
    steps = _steps()
    follower.take(*steps[:2])
    follower.take(steps[2], sync=False)
    follower.answers.clear()
    follower.taking.close()
    follower.sync()
    follower.take(*steps[3:])
    follower.world.run_for(10 * limits.SNAPSHOT_SILENCE_MS)
    assert [] == follower.answers
    assert [] == follower.installed
    assert [] == follower.discarded
