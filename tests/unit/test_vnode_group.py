"""Three replicas of one group, each between its rows and its core, with messages by hand."""

from typing import Any

import pytest

from node.members import Rhythm
from timemachine import limits
from timemachine.errors import NotLeader, TooManyRequests
from timemachine.group import GroupConfig
from timemachine.raft import Message, MessageType
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode

KEYS = ReplicaKeys(5)
VOTERS = (1, 2, 3)


def _put(job_id: str) -> c.PutJob:
    return c.PutJob(
        now_ms=1_000,
        job_id=job_id,
        uid=b"u" * 16,
        trigger_ms=9_000,
        delay_ms=None,
        route="r",
        route_uid=7,
        meta=b"{}",
    )


class _Group:
    """Replicas over stores that outlive them. Messages wait in `post` until `deliver`."""

    def __init__(self, **config: Any) -> None:
        self.config = config
        self.mono_ms = 5_000.0
        self.stores = {number: MemoryStore() for number in VOTERS}
        self.post: list[Message] = []
        self.cut: set[int] = set()
        self.overlays: dict[int, Overlay] = {}
        self.machines: dict[int, JobMachine] = {}
        self.vnodes: dict[int, Vnode] = {}
        for number in VOTERS:
            self.start(number)

    def start(self, number: int, *, started_ms: float = 0.0) -> None:
        """Take up a replica from its store."""
        store = self.stores[number]
        overlay = self.overlays[number] = Overlay(store)
        machine = self.machines[number] = JobMachine(KEYS, overlay)
        machine.load(store.get(KEYS.state), [])
        config = GroupConfig(id=number, voters=VOTERS, started_ms=started_ms, **self.config)
        self.vnodes[number] = Vnode((1, 0), KEYS, overlay, machine, store, config)

    def cycle(self, number: int) -> None:
        """One batch of one replica."""
        vnode, overlay, store = self.vnodes[number], self.overlays[number], self.stores[number]
        vnode.gather(self.mono_ms)
        self.post += vnode.early
        vnode.early = []
        store.write(store.prepare(overlay.seal()))
        overlay.settled()
        outcome = vnode.persisted()
        if outcome is not None:
            self.post += outcome.messages
            for done, result in outcome.answers:
                done(result)

    def settle(self) -> None:
        """Deliver and cycle until nothing moves."""
        while self.post or any(vnode.has_work() for vnode in self.vnodes.values()):
            post, self.post = self.post, []
            for message in post:
                if message.to not in self.cut and message.from_ not in self.cut:
                    self.vnodes[message.to].step(message, self.mono_ms)
            for number in VOTERS:
                if self.vnodes[number].has_work():
                    self.cycle(number)

    def elect(self, number: int) -> None:
        """Have a replica elected."""
        self.vnodes[number].campaign()
        self.settle()
        assert self.vnodes[number].serving

    def succeed(self, number: int) -> None:
        """A leader that is cut off has not been heard of for long: have another one elected."""
        self.mono_ms += 5_000.0
        for other in VOTERS:
            if other not in self.cut:
                self.vnodes[other].core.forget_leader()
        self.elect(number)

    def put(self, number: int, job_id: str) -> list[Any]:
        """Propose a job there; the answers appear in the list."""
        answers: list[Any] = []
        self.vnodes[number].propose(_put(job_id), answers.append)
        return answers

    def jobs(self, number: int) -> set[bytes]:
        """What one store holds."""
        start = KEYS.job
        rows = self.stores[number].scan(start, start + b"\xff", 10_000)
        return {key[len(start) :] for key, _ in rows}

    def log(self, number: int) -> list[int]:
        """The indexes of the entries that one store holds."""
        rows = self.stores[number].scan(KEYS.log, KEYS.log_stop, 10_000)
        return [int.from_bytes(key[len(KEYS.log) :], "big") for key, _ in rows]

    def beat(self, leader: int) -> None:
        """A round of heartbeats, answered."""
        self.vnodes[leader].tick(self.mono_ms)
        self.settle()


def test_what_a_majority_has_is_answered_and_stands_in_every_store() -> None:
    """One of three may be away; it gets what it missed."""
    group = _Group()
    group.elect(1)
    group.cut = {3}
    answers = group.put(1, "one")
    group.settle()
    assert [answer.kind for answer in answers] == ["created"]
    assert group.jobs(1) == {b"one"}
    group.cut = set()
    group.beat(1)
    group.beat(1)
    assert group.jobs(2) == group.jobs(3) == {b"one"}


def test_without_a_majority_nothing_is_answered() -> None:
    """What is written on one disk only is no promise."""
    group = _Group()
    group.elect(1)
    group.cut = {2, 3}
    answers = group.put(1, "one")
    group.settle()
    assert not answers
    assert not group.jobs(1)


def test_a_deposed_leader_lets_its_writers_go_and_takes_the_log_of_the_next() -> None:
    """Entries that nobody else had are replaced, rows and all; who waited learns who leads."""
    group = _Group()
    group.elect(1)
    group.cut = {1}
    lost = [group.put(1, f"lost{number}") for number in range(3)]
    group.settle()
    group.vnodes[1].gather()
    group.succeed(2)
    kept = group.put(2, "kept")
    group.settle()
    assert kept[0].kind == "created"
    group.cut = set()
    group.beat(2)
    group.beat(2)
    for answers in lost:
        assert isinstance(answers[0], NotLeader)
    assert group.jobs(1) == group.jobs(2) == group.jobs(3) == {b"kept"}
    assert group.log(1) == group.log(2)
    again = group.machines[1].applied_index
    group.start(1)
    assert group.machines[1].applied_index == again


@pytest.mark.parametrize("lone", [True, False])
def test_a_replica_takes_up_its_log_where_it_was(lone: bool) -> None:
    """Also entries that it has and nobody called committed yet."""
    group = _Group()
    group.elect(1)
    for number in range(5):
        group.put(1, f"job{number}")
        if lone:
            group.settle()
    group.settle()
    for number in VOTERS:
        group.start(number)
    group.mono_ms += 5_000.0
    group.elect(2)
    assert group.jobs(2) == {b"job%d" % number for number in range(5)}
    group.beat(2)
    assert group.jobs(1) == group.jobs(3) == group.jobs(2)


def test_the_log_is_cut_where_everybody_has_applied_it_long_ago() -> None:
    """Rows and memory are bounded, and the rest is enough for a restart."""
    group = _Group(log_entries_max=10)
    group.elect(1)
    for number in range(100):
        group.put(1, f"job{number}")
        group.settle()
    for number in VOTERS:
        assert 5 <= len(group.log(number)) <= 11
        group.start(number)
    group.mono_ms += 5_000.0
    group.elect(3)
    answers = group.put(3, "more")
    group.settle()
    assert answers[0].kind == "created"


def test_the_log_is_cut_by_bytes_as_well() -> None:
    """Few entries can be large."""
    group = _Group(log_bytes_max=2_000)
    group.elect(1)
    for number in range(100):
        group.put(1, f"job{number}")
        group.settle()
    rows = group.stores[1].scan(KEYS.log, KEYS.log_stop, 10_000)
    assert sum(len(row) for _, row in rows) < 4_000


def test_only_a_leader_with_a_lease_fires() -> None:
    """It has one after a round, and for a while."""
    group = _Group()
    group.elect(1)
    vnode = group.vnodes[1]
    assert not vnode.may_fire(group.mono_ms)
    group.beat(1)
    assert vnode.may_fire(group.mono_ms)
    assert vnode.may_fire(group.mono_ms + 899.0)
    assert not vnode.may_fire(group.mono_ms + 900.0)
    assert not group.vnodes[2].may_fire(group.mono_ms)
    group.cut = {2, 3}
    group.mono_ms += 800.0
    group.beat(1)
    assert not vnode.may_fire(group.mono_ms + 100.0)


@pytest.mark.parametrize("context", [b"", b"\0", b"\xff" * 7, b"\xff" * 8, b"\xff" * 17])
def test_an_answer_to_what_was_not_sent_yet_is_worth_no_lease(context: bytes) -> None:
    """Nor is one that is cut."""
    group = _Group()
    group.elect(1)
    vnode = group.vnodes[1]
    kind = MessageType.HEARTBEAT_RESPONSE
    vnode.step(Message(kind, 1, 2, vnode.core.term, context=context), group.mono_ms)
    assert not vnode.may_fire(group.mono_ms)


def test_a_voter_that_answered_a_leader_votes_for_nobody_for_a_while() -> None:
    """Whatever its core has forgotten meanwhile: the lease counts on it."""
    group = _Group()
    group.elect(1)
    group.beat(1)
    group.cut = {1}
    group.vnodes[3].core.forget_leader()
    group.vnodes[2].core.forget_leader()
    group.vnodes[3].campaign()
    group.settle()
    assert not group.vnodes[3].is_leader()
    group.mono_ms += 1_000.0
    group.vnodes[3].campaign()
    group.settle()
    assert group.vnodes[3].serving


def test_a_voter_that_answered_a_leader_does_not_vote_for_itself_either() -> None:
    """Its first tick may come right after the heartbeat, and its tenth too early."""
    rhythm = Rhythm()
    group = _Group(lease_ms=rhythm.lease_ms, vote_wait_ms=rhythm.vote_wait_ms)
    group.elect(1)
    group.cut = {3}
    group.mono_ms = 10_000.0
    group.beat(1)
    group.cut = {1}
    group.vnodes[3].core.forget_leader()
    group.mono_ms += 1.0
    while not group.vnodes[2].is_leader():
        assert group.mono_ms < 11_100.0
        group.vnodes[2].tick(group.mono_ms)
        group.settle()
        group.mono_ms += rhythm.tick_ms
    assert not group.vnodes[1].may_fire(group.mono_ms - rhythm.tick_ms)


def test_a_voter_that_restarted_votes_for_nobody_for_a_while() -> None:
    """It may have answered a leader just before."""
    group = _Group()
    group.elect(1)
    group.beat(1)
    group.cut = {1}
    for number in (2, 3):
        group.start(number, started_ms=group.mono_ms)
    group.mono_ms += 999.0
    group.vnodes[3].campaign()
    group.settle()
    assert not group.vnodes[3].is_leader()


def test_a_leader_that_hands_over_gives_up_its_lease_and_the_next_need_not_wait() -> None:
    """Nobody's patience binds a candidate that the leader has asked."""
    group = _Group()
    group.elect(1)
    group.beat(1)
    group.vnodes[1].transfer(2)
    assert not group.vnodes[1].may_fire(group.mono_ms)
    assert not group.vnodes[1].takes_proposals()
    group.settle()
    assert group.vnodes[2].serving
    assert not group.vnodes[1].is_leader()
    group.beat(2)
    assert group.vnodes[2].may_fire(group.mono_ms)


def test_a_read_waits_until_a_majority_says_that_the_leader_leads() -> None:
    """And is let go when it does not."""
    group = _Group()
    group.elect(1)
    answers: list[Any] = []
    group.vnodes[1].read(answers.append)
    group.settle()
    assert answers == [None]
    group.cut = {1}
    group.vnodes[1].read(answers.append)
    group.settle()
    assert answers == [None]
    group.succeed(2)
    group.cut = set()
    group.beat(2)
    assert isinstance(answers[1], NotLeader)


def test_a_read_that_the_core_would_lose_is_refused() -> None:
    """It would never be answered, and the group would never be idle again."""
    group = _Group()
    group.elect(1)
    group.beat(1)
    answers: list[Any] = []
    for _ in range(limits.RAFT_READS_WAITING_MAX + 2):
        group.vnodes[1].read(answers.append)
    assert [TooManyRequests] * 2 == [type(answer) for answer in answers]
    group.settle()
    assert len(answers) == limits.RAFT_READS_WAITING_MAX + 2
    assert group.vnodes[1].idle()


def test_what_a_leader_sends_does_not_wait_for_its_disk() -> None:
    """But a vote does, and so does the answer to entries."""
    group = _Group()
    group.vnodes[1].campaign()
    group.vnodes[1].gather()
    assert not group.vnodes[1].early
    outcome = group.vnodes[1].persisted()
    assert outcome is not None
    assert {message.type for message in outcome.messages} == {MessageType.PRE_VOTE}
    group = _Group()
    group.elect(1)
    group.put(1, "one")
    vnode = group.vnodes[1]
    vnode.gather(group.mono_ms)
    assert {message.type for message in vnode.early} == {MessageType.APPEND}
    append = next(message for message in vnode.early if message.to == 2)
    group.vnodes[2].step(append, group.mono_ms)
    group.vnodes[2].gather(group.mono_ms)
    assert not group.vnodes[2].early
    outcome = group.vnodes[2].persisted()
    assert outcome is not None
    assert [message.type for message in outcome.messages] == [MessageType.APPEND_RESPONSE]


def test_heartbeats_on_their_way_are_nothing_to_do() -> None:
    """Otherwise thousands of groups, awake together, would keep each other awake for ever."""
    group = _Group()
    group.elect(1)
    group.beat(1)
    leader, follower = group.vnodes[1], group.vnodes[2]
    leader.tick(group.mono_ms)
    assert leader.has_work()
    leader.gather(group.mono_ms)
    assert leader.idle()
    heartbeat = next(message for message in leader.early if message.to == 2)
    leader.persisted()
    follower.step(heartbeat, group.mono_ms)
    assert follower.has_work()
    assert follower.follows(1, leader.term, leader.last_index)
    follower.gather(group.mono_ms)
    assert follower.follows(1, leader.term, leader.last_index)
    follower.persisted()
    assert follower.follows(1, leader.term, leader.last_index)


def test_entries_on_their_way_are_something_to_do() -> None:
    """From the proposal until the last batch of it is durable, on both sides."""
    group = _Group()
    group.elect(1)
    group.beat(1)
    leader, follower = group.vnodes[1], group.vnodes[2]
    group.put(1, "one")
    assert not leader.idle()
    leader.gather(group.mono_ms)
    assert not leader.idle()
    append = next(message for message in leader.early if message.to == 2)
    group.post += leader.early
    leader.early = []
    leader.persisted()
    assert not leader.idle(), "it is not committed"
    follower.step(append, group.mono_ms)
    assert not follower.follows(1, leader.term, leader.last_index)
    follower.gather(group.mono_ms)
    assert not follower.follows(1, leader.term, leader.last_index)
    follower.persisted()
    assert not follower.follows(1, leader.term, leader.last_index), "it is not committed"
    group.settle()
    group.beat(1)
    assert leader.idle()
    assert follower.follows(1, leader.term, leader.last_index)


def test_a_read_waits_until_what_is_committed_is_applied() -> None:
    """Much may be committed at once and applied in parcels; the leadership is proven before."""
    group = _Group(committed_size_per_ready_max=1)
    group.elect(1)
    vnode = group.vnodes[1]
    for number in range(10):
        group.put(1, f"job{number}")
        group.cycle(1)
    post, group.post = group.post, []
    for message in post:
        group.vnodes[message.to].step(message, group.mono_ms)
    group.cycle(2)
    post, group.post = group.post, []
    for message in post:
        group.vnodes[message.to].step(message, group.mono_ms)
    commit = vnode.core.commit
    assert commit > group.machines[1].applied_index + 5
    seen: list[int] = []
    vnode.read(lambda _: seen.append(group.machines[1].applied_index))
    group.settle()
    assert len(seen) == 1
    assert seen[0] >= commit
