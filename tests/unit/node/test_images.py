"""Images joined with replicas: which are taken and installed, and when sending one ends."""

from functools import partial

import pytest
from msgspec.structs import replace

from tests.unit.node.three import ThreeNodes
from timemachine import codec, limits
from timemachine.group import replica_id
from timemachine.raft import (
    ConfState,
    Message,
    MessageType,
    RawNode,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.replica.records import MachineState
from timemachine.replica.snapshot import ImageEnd, image_out
from timemachine.storage.keys import INCARNATION_KEY, ReplicaKeys, erase_key
from timemachine.storage.memory import MemoryStore
from timemachine.transfers import SnapshotChunk

_NOTHING_KEPT = 1 << 63


class _Transferring:
    """A group, and what a follower of it is sent by its leader's node."""

    def __init__(self) -> None:
        self.nodes = nodes = ThreeNodes()
        self.group = nodes.put_collection()
        self.leader = nodes.leader(self.group)
        self.follower = nodes.others(self.leader)[0]
        self.vnode = nodes.vnode(self.follower, self.group)
        self.engine = nodes.engines[self.follower]
        nodes.world.run_for(1_000)

    def steps(
        self, index: int, *, older_by: int = 0, uid: int | None = None
    ) -> list[SnapshotChunk]:
        """An image that ends at `index`, sent in a term that is older by so much."""
        group = self.group if uid is None else (uid, 0)
        term = self.vnode.core.term - older_by
        metadata = SnapshotMetadata(ConfState((1, 2, 3)), index, term)
        snapshot = Snapshot(metadata=metadata)
        message = Message(MessageType.SNAPSHOT, self.follower, self.leader, term, snapshot=snapshot)
        keys = ReplicaKeys(5)
        rows = {keys.job + b"image-%d" % number: b"job" for number in range(3)}
        rows[keys.state] = codec.encode(MachineState(index, term))
        steps = []
        for number, part in enumerate(image_out(MemoryStore(rows).view(), keys, chunk_bytes=4_096)):
            first = message if number == 0 else None
            if isinstance(part, ImageEnd):
                steps.append(SnapshotChunk(group, (9, 1), number, b"", first, part))
            else:
                steps.append(SnapshotChunk(group, (9, 1), number, part, first))
        return steps

    def take(self, *steps: SnapshotChunk) -> list[tuple[int, bool]]:
        """Let the follower take steps; what it answers, (following, refused)."""
        self.nodes.sent.clear()
        for step in steps:
            self.nodes.say(self.follower, self.leader, chunks=[step])
            self.nodes.world.run_for(20)
        return [
            (answer.following, answer.refused)
            for frame in self.nodes.frames(self.follower)
            for answer in frame.chunk_answers
        ]

    def incarnation(self) -> int:
        """The next one, as it is on the disk."""
        return int.from_bytes(self.engine._store.get(INCARNATION_KEY) or b"", "big")

    def rows(self, keys: ReplicaKeys) -> int:
        """How many there are of a range."""
        return len(self.engine._store.scan(keys.prefix, keys.stop))

    def staged(self) -> ReplicaKeys:
        """The keys of the one image that comes in."""
        (incarnation,) = self.engine._replicas._staged
        return ReplicaKeys(incarnation)


def test_an_image_that_is_needed_is_installed() -> None:
    """The replica goes on from it: what it had before is erased, and the mark is gone."""
    moving = _Transferring()
    nodes = moving.nodes
    nodes.cut = {moving.follower}
    answers = nodes.put(moving.leader, moving.group, "missed")
    nodes.world.run_until(lambda: bool(answers))
    before, index = moving.vnode.keys, nodes.vnode(moving.leader, moving.group).last_index
    assert index > moving.vnode.last_index
    steps = moving.steps(index)
    assert [(1, False)] == moving.take(*steps[:-1])
    keys = moving.staged()
    assert moving.engine._store.get(erase_key(keys.incarnation)) is not None
    assert [(2, False)] == moving.take(steps[-1])
    assert keys.incarnation == moving.vnode.keys.incarnation, "in the next cycle"
    moving.nodes.world.run_for(1_000)
    assert index == moving.vnode.machine.applied_index == moving.vnode.core.commit
    assert (0, None) == (
        moving.rows(before),
        moving.engine._store.get(erase_key(keys.incarnation)),
    )


@pytest.mark.parametrize("why", ["has it", "of a leader before", "no replica"])
def test_an_image_that_is_not_needed_has_no_place(why: str) -> None:
    """It is refused with its first step, before anything is written for it."""
    moving = _Transferring()
    index = moving.vnode.last_index
    if why == "has it":
        steps = moving.steps(index)
    elif why == "of a leader before":
        moving.vnode.core.forget_leader()
        moving.nodes.cut = {moving.leader}
        moving.nodes.world.run_for(5_000)
        steps = moving.steps(index + 40, older_by=1)
    else:
        steps = moving.steps(index + 40, uid=99)
    before = moving.incarnation()
    assert [(0, True)] == moving.take(steps[0])
    moving.nodes.world.run_for(1_000)
    assert before == moving.incarnation()
    assert not moving.engine._replicas._staged


def test_who_offers_what_a_replica_has_hears_how_far_that_is() -> None:
    """It would offer the same for ever: of two voters none can commit what would be newer."""
    moving = _Transferring()
    assert [(0, True)] == moving.take(moving.steps(moving.vnode.core.commit)[0])
    answers = [
        (each.message.type, each.message.index, each.message.reject)
        for frame in moving.nodes.frames(moving.follower)
        for each in frame.messages
    ]
    assert (MessageType.APPEND_RESPONSE, moving.vnode.core.commit, False) in answers


def test_an_image_that_is_not_needed_any_more_gives_its_range_back() -> None:
    """The log has brought what it would, while it was on its way: its rows are erased."""
    moving = _Transferring()
    steps = moving.steps(moving.vnode.last_index + 1)
    moving.take(*steps[:-1])
    keys = moving.staged()
    assert moving.rows(keys) > 0
    answers = moving.nodes.put(moving.leader, moving.group, "meanwhile")
    moving.nodes.world.run_until(lambda: bool(answers))
    moving.nodes.world.run_for(1_000)
    assert moving.vnode.core.commit == moving.vnode.last_index
    assert moving.rows(keys) > 0, "it may still be needed, for all that is known"
    before = moving.vnode.keys
    moving.take(steps[-1])
    moving.nodes.world.run_for(1_000)
    assert before is moving.vnode.keys
    assert 0 == moving.rows(keys)
    assert moving.engine._store.get(erase_key(keys.incarnation)) is None
    assert not moving.engine._replicas._staged
    assert not moving.nodes.failures


def test_a_range_is_not_erased_while_its_image_comes_in() -> None:
    """The mark is there in case of a crash; the eraser knows better meanwhile."""
    moving = _Transferring()
    moving.take(*moving.steps(moving.vnode.last_index + 40)[:-1])
    keys = moving.staged()
    count = moving.rows(keys)
    moving.engine._replicas.erase()
    moving.nodes.world.run_for(1_000)
    assert count == moving.rows(keys) > 0


def test_a_replica_that_goes_takes_what_comes_in_for_it_along() -> None:
    """And nothing is sent of it any more."""
    moving = _Transferring()
    moving.take(*moving.steps(moving.vnode.last_index + 40)[:-1])
    keys = moving.staged()
    moving.engine.runtime.remove(moving.vnode)
    moving.nodes.consensus(moving.follower).removed(moving.vnode)
    moving.nodes.world.run_for(1_000)
    assert 0 == moving.rows(keys)


def test_what_is_sent_of_a_group_ends_with_its_leadership() -> None:
    """The next leader asks for what is needed; the log is kept for nobody any more."""
    moving = _Transferring()
    nodes, group, leader = moving.nodes, moving.group, moving.leader
    vnode = nodes.vnode(leader, group)
    images = nodes.consensus(leader)._images
    metadata = SnapshotMetadata(ConfState((1, 2, 3)), vnode.last_index, vnode.term)
    snapshot = Snapshot(metadata=metadata)
    message = Message(MessageType.SNAPSHOT, moving.follower, leader, vnode.term, snapshot=snapshot)
    assert _NOTHING_KEPT == images.kept_from(group)
    nodes.cut = {moving.follower}
    images.outgoing.start(group, message)
    nodes.sent.clear()
    nodes.world.run_for(500)
    assert vnode.last_index == images.kept_from(group) == vnode.kept_from(group)
    assert any(frame.chunks for frame in nodes.frames(leader))
    to = next(number for number in nodes.others(leader) if number != moving.follower)
    nodes.engines[leader].hand_over(vnode, to, lambda _: None)
    nodes.world.run_until(lambda: not vnode.is_leader() and not vnode.has_work())
    nodes.world.run_for(10)
    assert _NOTHING_KEPT == images.kept_from(group)
    nodes.sent.clear()
    nodes.world.run_for(30_000)
    assert not any(frame.chunks for frame in nodes.frames(leader))


def test_each_of_two_replicas_of_a_node_is_told_how_its_image_fared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was reported of the successor, and until then its leader sends it nothing else.

    Found by the cluster simulator (seed 734513147058974).
    """
    moving = _Transferring()
    nodes, group, leader = moving.nodes, moving.group, moving.leader
    vnode = nodes.vnode(leader, group)
    reports: list[tuple[int, bool]] = []

    def report(_: RawNode, replica: int, *, failed: bool) -> None:
        reports.append((replica, failed))

    monkeypatch.setattr(RawNode, "report_snapshot", report)
    replaced, successor = moving.follower, replica_id(moving.follower, 1)
    metadata = SnapshotMetadata(ConfState((1, 2, 3), (successor,)), vnode.last_index, vnode.term)
    message = Message(
        MessageType.SNAPSHOT, successor, leader, vnode.term, snapshot=Snapshot(metadata=metadata)
    )
    nodes.cut = {moving.follower}
    peers = nodes.consensus(leader)._peers
    peers.post(group, [message, replace(message, to=replaced)])
    nodes.world.run_for(limits.SNAPSHOT_CHUNK_TIMEOUT_MS * limits.SNAPSHOT_CHUNK_TRIES_MAX + 1_000)
    assert [(replaced, True), (successor, True)] == sorted(reports)


def test_an_image_goes_on_although_there_were_writes_meanwhile() -> None:
    """The core asks for what is applied by then; the log has what came after the image."""
    nodes = ThreeNodes(log_entries_max=4, snapshot_chunk_bytes=600)
    group = nodes.put_collection()
    leader = nodes.leader(group)
    follower = next(each for each in nodes.others(leader) if each != nodes.leader((0, 0)))
    sending, receiving = nodes.vnode(leader, group), nodes.vnode(follower, group)
    outgoing = nodes.consensus(leader)._images.outgoing

    def put(*job_ids: str) -> None:
        for job_id in job_ids:
            answers = nodes.put(leader, group, job_id)
            nodes.world.run_until(partial(bool, answers))

    nodes.cut = {follower}
    put(*[f"missed-{number}" for number in range(200)])
    nodes.cut = set()
    nodes.world.run_until(lambda: any(each.number > 8 for each in outgoing._open.values()))
    nodes.cut = {follower}
    put("during")
    nodes.world.run_until(lambda: bool(outgoing._kept))
    put("after")
    nodes.cut = set()
    nodes.sent.clear()
    nodes.world.run_until(
        lambda: receiving.machine.applied_index == sending.machine.applied_index, 100_000
    )
    chunks = [chunk for frame in nodes.frames(leader) for chunk in frame.chunks]
    assert (1, 8) == (chunks[0].transfer[1], chunks[0].number)
    assert {chunks[0].transfer} == {chunk.transfer for chunk in chunks}
    assert not nodes.failures


def test_a_follower_sends_no_image() -> None:
    """A core that has ceased to lead since it asked for one gets a report, and nobody rows."""
    moving = _Transferring()
    other = next(n for n in moving.nodes.others(moving.follower) if n != moving.leader)
    images = moving.nodes.consensus(moving.follower)._images
    message = Message(
        MessageType.SNAPSHOT,
        other,
        moving.follower,
        moving.vnode.term,
        snapshot=Snapshot(metadata=SnapshotMetadata(ConfState((1, 2, 3)), 1, 1)),
    )
    moving.nodes.sent.clear()
    images.outgoing.start(moving.group, message)
    moving.nodes.world.run_for(1_000)
    assert not any(frame.chunks for frame in moving.nodes.frames(moving.follower))
    assert _NOTHING_KEPT == images.kept_from(moving.group)
