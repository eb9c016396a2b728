"""The loop of a node that has peers: what leaves before its disk has written, and what after."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.node.three import ThreeNodes
from timemachine import codec, limits
from timemachine.errors import NotLeader, StoreError, StoreFailed, TooManyRequests, Unavailable
from timemachine.logrows import LogState
from timemachine.raft import MessageType
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult


class _HeldDisk:
    """A disk that writes when it is told to."""

    def __init__(self, nodes: ThreeNodes, number: int) -> None:
        runtime = nodes.engines[number].runtime
        self.disk = runtime._disk
        self.held: list[tuple[Any, Callable[[StoreError | None], None]]] = []
        runtime._disk = self

    def write(self, prepared: Any, done: Callable[[StoreError | None], None]) -> None:
        """See Disk."""
        self.held.append((prepared, done))

    def release(self) -> None:
        """Write what is held."""
        held, self.held = self.held, []
        for prepared, done in held:
            self.disk.write(prepared, done)


class _Loop:
    """A group that is led, awake, and quiet for the moment."""

    def __init__(self) -> None:
        self.nodes = nodes = ThreeNodes()
        self.group = nodes.put_collection()
        self.leader = nodes.leader(self.group)
        self.follower = nodes.others(self.leader)[0]
        self.runtime = nodes.engines[self.leader].runtime
        self.vnode = nodes.vnode(self.leader, self.group)
        nodes.world.run_for(250)
        nodes.sent.clear()

    def kinds(self, number: int) -> set[MessageType]:
        """What a node has sent in the group."""
        return {
            each.message.type
            for frame in self.nodes.frames(number)
            for each in frame.messages
            if (each.uid, each.index) == self.group
        }


def test_what_a_leader_sends_leaves_while_its_disk_writes() -> None:
    """A majority of others may have it first; who asked is told when it is applied on this disk."""
    loop = _Loop()
    disk = _HeldDisk(loop.nodes, loop.leader)
    answers = loop.nodes.put(loop.leader, loop.group, "a")
    loop.nodes.world.run_for(50)
    assert 1 == len(disk.held)
    assert MessageType.APPEND in loop.kinds(loop.leader)
    assert MessageType.APPEND_RESPONSE in loop.kinds(loop.follower)
    assert [] == answers
    # The entry, then its effects.
    disk.release()
    loop.nodes.world.run_until(lambda: bool(disk.held))
    loop.nodes.world.run_for(50)
    assert [] == answers
    disk.release()
    loop.nodes.world.run_until(lambda: bool(answers))
    assert "created" == answers[0].kind


def test_a_follower_answers_when_its_disk_has_written() -> None:
    """Before, it may still lose what it would have acknowledged."""
    loop = _Loop()
    disk = _HeldDisk(loop.nodes, loop.follower)
    loop.nodes.put(loop.leader, loop.group, "a")
    loop.nodes.world.run_for(50)
    assert 1 == len(disk.held)
    assert MessageType.APPEND_RESPONSE not in loop.kinds(loop.follower)
    disk.release()
    loop.nodes.world.run_for(5)
    assert MessageType.APPEND_RESPONSE in loop.kinds(loop.follower)


def test_a_vote_leaves_when_it_is_on_the_disk() -> None:
    """Else a restart could give it to somebody else in the same term."""
    loop = _Loop()
    nodes = loop.nodes
    other = next(number for number in nodes.others(loop.leader) if number != loop.follower)
    voter, term = nodes.vnode(other, loop.group), loop.vnode.term
    disk = _HeldDisk(nodes, other)
    nodes.engines[loop.leader].hand_over(loop.vnode, loop.follower, lambda _: None)

    def stored() -> int:
        row = nodes.engines[other]._store.get(voter.keys.hard_state)
        assert row is not None
        state: LogState = codec.decoder(LogState)(row)
        return state.term

    nodes.world.run_until(lambda: voter.core.term > term)
    voted = voter.core.term
    while stored() < voted:
        nodes.world.run_for(20)
        assert MessageType.VOTE_RESPONSE not in loop.kinds(other)
        disk.release()
        nodes.world.run_until(lambda: bool(disk.held) or stored() == voted)
    nodes.world.run_for(5)
    assert MessageType.VOTE_RESPONSE in loop.kinds(other)


def test_a_cycle_that_writes_nothing_does_not_touch_the_disk() -> None:
    """Heartbeats of thousands of groups, and their answers, are not worth a sync."""
    loop = _Loop()
    runtimes = [engine.runtime for engine in loop.nodes.engines.values()]
    disks = [_HeldDisk(loop.nodes, number) for number in loop.nodes.engines]
    before = [(runtime.cycles, runtime.rows) for runtime in runtimes]
    answers: list[Any] = []
    loop.runtime.read(loop.vnode, answers.append)
    loop.nodes.world.run_until(lambda: bool(answers))
    loop.nodes.world.run_for(50)
    assert [None] == answers
    assert {MessageType.HEARTBEAT} == loop.kinds(loop.leader)
    assert {MessageType.HEARTBEAT_RESPONSE} == loop.kinds(loop.follower)
    assert [[], [], []] == [disk.held for disk in disks]
    for runtime, (cycles, rows) in zip(runtimes, before, strict=True):
        assert runtime.cycles > cycles
        assert runtime.rows == rows


def test_all_groups_of_a_cycle_share_the_frames() -> None:
    """One to each peer, whatever there is to say."""
    loop = _Loop()
    meta_leader = loop.nodes.leader((0, 0))
    nodes = loop.nodes
    if meta_leader != loop.leader:
        nodes.engines[meta_leader].hand_over(
            nodes.vnode(meta_leader, (0, 0)), loop.leader, lambda _: None
        )
        nodes.world.run_until(lambda: nodes.leader((0, 0)) == loop.leader)
        nodes.world.run_for(250)
    nodes.sent.clear()
    for group in ((0, 0), loop.group):
        loop.runtime.read(nodes.vnode(loop.leader, group), lambda _: None)
    nodes.world.run_for(0)
    frames = nodes.frames(loop.leader)
    assert 2 == len(frames)
    for frame in frames:
        assert {(0, 0), loop.group} <= {(each.uid, each.index) for each in frame.messages}


def test_a_read_is_answered_when_a_majority_follows() -> None:
    """And not before, however sure the leader is of itself."""
    loop = _Loop()
    loop.nodes.cut = {2, 3} if loop.leader == 1 else {1, 3}
    answers: list[Any] = []
    loop.runtime.read(loop.vnode, answers.append)
    loop.nodes.world.run_for(500)
    assert [] == answers
    loop.nodes.cut = set()
    loop.nodes.world.run_until(lambda: bool(answers))
    assert [None] == answers


def test_a_command_that_a_send_was_revoked_for_is_never_refused_for_load() -> None:
    """That send is removed already, and the log must hear of it."""
    loop = _Loop()
    size = limits.PROPOSAL_BYTES_WAITING_MAX
    now_ms = loop.nodes.world.wall_ms()
    answers: list[Any] = []
    for revoked in (None, c.Revoked(b"u" * 16, 1, 1)):
        command = c.DeleteJob(now_ms=now_ms, job_id="a", revoked=revoked)
        loop.runtime.submit(loop.vnode, command, answers.append, size + 1)
    loop.nodes.world.run_until(lambda: len(answers) == 2)
    refused, result = answers
    assert isinstance(refused, TooManyRequests)
    assert isinstance(result, JobResult)


def test_a_barrier_asks_nobody_while_the_lease_holds() -> None:
    """Then a majority; and a replica that does not lead says so."""
    loop = _Loop()
    answers: list[Any] = []
    loop.runtime.barrier(loop.vnode, answers.append)
    assert [None] == answers
    loop.nodes.cut = {2, 3} if loop.leader == 1 else {1, 3}
    loop.nodes.world.run_until(lambda: not loop.runtime.leads_surely(loop.vnode))
    assert loop.vnode.is_leader()
    answers.clear()
    loop.runtime.barrier(loop.vnode, answers.append)
    loop.nodes.world.run_for(50)
    assert [] == answers
    loop.nodes.cut = set()
    loop.nodes.world.run_until(lambda: bool(answers))
    assert [None] == answers
    follower = loop.nodes.engines[loop.follower].runtime
    follower.barrier(loop.nodes.vnode(loop.follower, loop.group), answers.append)
    assert [NotLeader] == [type(answer) for answer in answers[1:]]


def test_a_barrier_of_a_node_that_has_stopped_is_refused() -> None:
    """Whatever its lease says."""
    loop = _Loop()
    loop.runtime.close()
    answers: list[Any] = []
    loop.runtime.barrier(loop.vnode, answers.append)
    assert [Unavailable] == [type(answer) for answer in answers]


def test_a_read_shows_what_was_acknowledged_before_it() -> None:
    """Also while the batch of it is on its way to the disk."""
    loop = _Loop()
    disk = _HeldDisk(loop.nodes, loop.leader)
    loop.nodes.put(loop.leader, loop.group, "a")
    loop.nodes.world.run_for(20)
    disk.release()
    loop.nodes.world.run_until(lambda: bool(disk.held))
    # It is committed: another leader would show it.
    assert loop.vnode.core.commit == loop.vnode.last_index
    answers: list[Any] = []
    loop.runtime.read(loop.vnode, answers.append)
    loop.nodes.world.run_for(50)
    assert [] == answers
    while not answers:
        disk.release()
        loop.nodes.world.run_for(5)
    assert [None] == answers
    key = loop.vnode.keys.job + b"a"
    assert loop.nodes.engines[loop.leader]._store.get(key) is not None


def test_a_replica_that_does_not_lead_says_who_does() -> None:
    """To reads and to writes, at once."""
    loop = _Loop()
    runtime = loop.nodes.engines[loop.follower].runtime
    vnode = loop.nodes.vnode(loop.follower, loop.group)
    answers: list[Any] = []
    runtime.read(vnode, answers.append)
    runtime.propose(vnode, object(), answers.append)
    assert [NotLeader, NotLeader] == [type(answer) for answer in answers]
    assert [loop.leader] * 2 == [answer.leader for answer in answers]
    assert not vnode.has_work()


def test_a_leader_that_hands_over_takes_no_writes() -> None:
    """Its log must not grow while another one is to have all of it; reads go on."""
    loop = _Loop()
    loop.nodes.cut = {loop.follower}
    loop.nodes.engines[loop.leader].hand_over(loop.vnode, loop.follower, lambda _: None)
    loop.nodes.world.run_until(lambda: loop.vnode.core.hands_over)
    last = loop.vnode.last_index
    answers = loop.nodes.put(loop.leader, loop.group, "a")
    assert [NotLeader] == [type(answer) for answer in answers]
    assert last == loop.vnode.last_index
    read: list[Any] = []
    loop.runtime.read(loop.vnode, read.append)
    loop.nodes.world.run_for(50)
    assert [None] == read


@pytest.mark.parametrize("how", ["closed", "failed", "removed"])
def test_reads_of_what_is_gone_are_refused(how: str) -> None:
    """Those that wait for a majority, and those that come later."""
    loop = _Loop()
    loop.nodes.cut = {loop.leader}
    waiting: list[Any] = []
    loop.runtime.read(loop.vnode, waiting.append)
    loop.nodes.world.run_for(10)
    if how == "closed":
        loop.runtime.close()
    elif how == "failed":
        loop.runtime.fail(StoreFailed("The disk is gone."))
    else:
        loop.runtime.remove(loop.vnode)
    later: list[Any] = []
    loop.runtime.read(loop.vnode, later.append)
    assert [Unavailable] == [type(answer) for answer in later]
    if how != "closed":
        assert [Unavailable] == [type(answer) for answer in waiting]


def test_what_was_proposed_and_not_committed_is_answered_when_the_leadership_goes() -> None:
    """Nobody waits for ever; what became of it is not known."""
    loop = _Loop()
    loop.nodes.cut = {loop.leader}
    answers = loop.nodes.put(loop.leader, loop.group, "a")
    loop.nodes.world.run_for(100)
    assert [] == answers
    loop.nodes.world.run_until(lambda: bool(answers))
    assert [NotLeader] == [type(answer) for answer in answers]


def test_a_replica_that_is_removed_during_a_sync_says_nothing_more() -> None:
    """Its rows are being erased: nobody may count on what it has, nor is it asked what to do."""
    loop = _Loop()
    disk = _HeldDisk(loop.nodes, loop.follower)
    loop.nodes.put(loop.leader, loop.group, "a")
    loop.nodes.world.run_until(lambda: bool(disk.held))
    engine = loop.nodes.engines[loop.follower]
    vnode = loop.nodes.vnode(loop.follower, loop.group)
    told: list[Any] = []
    engine.runtime._on_effects = lambda *what: told.append(what)
    engine._lose(vnode)
    loop.nodes.sent.clear()
    disk.release()
    loop.nodes.world.run_for(50)
    assert set() == loop.kinds(loop.follower)
    assert vnode not in engine.runtime._active
    assert vnode.group not in {each.group for each, _, _ in told}
