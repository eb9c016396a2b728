"""Three replicas of one group, each between its rows and its core, with messages by hand."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest

from node.members import Rhythm
from timemachine import limits
from timemachine.errors import NotLeader, TooManyRequests
from timemachine.group import GroupConfig
from timemachine.members import read_members
from timemachine.raft import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Message,
    MessageType,
    PeerUnknown,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine
from timemachine.replica.snapshot import ImageIn, applied_in, image_out
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode

KEYS = ReplicaKeys(5)
VOTERS = (1, 2, 3)
ADD, LEARN, REMOVE = (
    ConfChangeType.ADD_NODE,
    ConfChangeType.ADD_LEARNER,
    ConfChangeType.REMOVE_NODE,
)


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

    def __init__(self, voters: tuple[int, ...] = VOTERS, **config: Any) -> None:
        self.config = config
        self.voters = voters
        self.mono_ms = 5_000.0
        self.stores = {number: MemoryStore() for number in voters}
        self.images = 5
        self.post: list[Message] = []
        self.cut: set[int] = set()
        self.overlays: dict[int, Overlay] = {}
        self.machines: dict[int, JobMachine] = {}
        self.vnodes: dict[int, Vnode] = {}
        for number in voters:
            self.start(number)

    def start(self, number: int, *, started_ms: float = 0.0) -> None:
        """Take up a replica from its store; one that the group did not begin with begins empty."""
        store = self.stores.setdefault(number, MemoryStore())
        keys = self.vnodes[number].keys if number in self.vnodes else KEYS
        overlay = self.overlays[number] = Overlay(store)
        machine = self.machines[number] = JobMachine(keys, overlay)
        machine.load(store.get(keys.state), [])
        born = self.voters if number in self.voters else ()
        config = GroupConfig(id=number, voters=born, started_ms=started_ms, **self.config)
        self.vnodes[number] = Vnode((1, 0), keys, overlay, machine, store, config)

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
                if not self.cut.isdisjoint((message.to, message.from_)):
                    continue
                if message.type is MessageType.SNAPSHOT:
                    self.send_image(message)
                elif message.to in self.vnodes:
                    with suppress(PeerUnknown):
                        self.vnodes[message.to].step(message, self.mono_ms)
            for number in list(self.vnodes):
                if self.vnodes[number].has_work():
                    self.cycle(number)

    def send_image(self, message: Message) -> None:
        """Write an image as of now beside what is there, and have it installed."""
        assert message.snapshot is not None
        self.images += 1
        source, keys = self.vnodes[message.from_], ReplicaKeys(self.images)
        view, image = self.stores[message.from_].view(), ImageIn(keys)
        index, term = applied_in(view, source.keys)
        row = view.get(source.keys.members)
        assert row is not None
        metadata = SnapshotMetadata(read_members(row), index, term)
        for part in image_out(view, source.keys, chunk_bytes=4_096):
            if isinstance(part, bytes):
                self.stores[message.to].write(dict(image.chunk(part)))
        told = msgspec.structs.replace(message, snapshot=Snapshot(metadata=metadata))
        taken = self.vnodes[message.to].install(told, keys)
        source.core.report_snapshot(message.to, failed=not taken)

    def elect(self, number: int) -> None:
        """Have a replica elected."""
        self.vnodes[number].campaign()
        self.settle()
        assert self.vnodes[number].serving

    def succeed(self, number: int) -> None:
        """A leader that is cut off has not been heard of for long: have another one elected."""
        self.mono_ms += 5_000.0
        for other, vnode in self.vnodes.items():
            if other not in self.cut:
                vnode.core.forget_leader()
        self.elect(number)

    def put(self, number: int, job_id: str) -> list[Any]:
        """Propose a job there; the answers appear in the list."""
        answers: list[Any] = []
        self.vnodes[number].propose(_put(job_id), answers.append)
        return answers

    def jobs(self, number: int) -> set[bytes]:
        """What one store holds."""
        start = self.vnodes[number].keys.job
        rows = self.stores[number].scan(start, start + b"\xff", 10_000)
        return {key[len(start) :] for key, _ in rows}

    def log(self, number: int) -> list[int]:
        """The indexes of the entries that one store holds."""
        keys = self.vnodes[number].keys
        rows = self.stores[number].scan(keys.log, keys.log_stop, 10_000)
        return [int.from_bytes(key[len(keys.log) :], "big") for key, _ in rows]

    def beat(self, leader: int) -> None:
        """A round of heartbeats, answered."""
        self.vnodes[leader].tick(self.mono_ms)
        self.settle()

    def change(self, leader: int, *changes: tuple[ConfChangeType, int]) -> None:
        """Have the members changed, and what follows from it done."""
        singles = tuple(ConfChangeSingle(*each) for each in changes)
        self.vnodes[leader].change_members(ConfChangeV2(changes=singles))
        self.settle()
        for _ in range(3):
            self.beat(leader)

    def members(self) -> dict[int, ConfState]:
        """What each replica has for the members."""
        return {number: vnode.members for number, vnode in self.vnodes.items()}

    def restart(self) -> None:
        """All processes end and begin."""
        self.mono_ms += 5_000.0
        for number in list(self.vnodes):
            self.start(number)


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


# --- other members -------------------------------------------------------------------------------


def test_a_replica_without_voters_waits() -> None:
    """It neither campaigns nor is born: somebody else's group is to take it in."""
    group = _Group()
    group.start(4)
    newcomer = group.vnodes[4]
    for _ in range(100):
        group.mono_ms += 100.0
        newcomer.tick(group.mono_ms)
    newcomer.campaign()
    assert not newcomer.has_work()
    assert (0, 0, False) == (newcomer.term, newcomer.leader, newcomer.sole)
    assert ConfState() == newcomer.members


@pytest.mark.parametrize("log_entries_max", [1, 1_000])
def test_who_comes_learns_and_then_votes(log_entries_max: int) -> None:
    """From the log or from an image, and it has all of it after a restart as well."""
    group = _Group(log_entries_max=log_entries_max)
    group.elect(1)
    for number in range(20):
        group.put(1, f"job{number}")
        group.settle()
    reformed: list[ConfState] = []
    group.vnodes[1].reformed = lambda vnode: reformed.append(vnode.members)
    group.start(4)
    group.change(1, (LEARN, 4))
    assert {ConfState(VOTERS, (4,))} == set(group.members().values())
    assert group.jobs(4) == group.jobs(1)
    assert not group.vnodes[1].plain
    assert (group.vnodes[1].last_index, True) == group.vnodes[1].core.standing(4)
    group.change(1, (ADD, 4))
    assert {ConfState((1, 2, 3, 4))} == set(group.members().values())
    assert [ConfState(VOTERS, (4,)), ConfState((1, 2, 3, 4))] == reformed
    group.restart()
    group.elect(4)
    assert group.put(4, "more") == []
    group.settle()
    assert b"more" in group.jobs(2)
    assert {ConfState((1, 2, 3, 4))} == set(group.members().values())


def test_a_follower_may_hear_of_everything_at_once() -> None:
    """Also of a change, with the first entry and that it is all committed, in one batch."""
    group = _Group()
    group.cut = {3}
    group.elect(1)
    group.start(4)
    group.vnodes[1].change_members(ConfChangeV2(changes=(ConfChangeSingle(LEARN, 4),)))
    leader = group.vnodes[1]
    leader.gather(group.mono_ms)
    (append, *_) = [message for message in leader.early if message.to == 2]
    entries = (*leader.core._raft.log.entries_from(1, 1 << 62),)
    everything = msgspec.structs.replace(
        append, to=3, index=0, log_term=0, acked=0, entries=entries, commit=entries[-1].index
    )
    group.vnodes[3].step(everything, group.mono_ms)
    group.cycle(3)
    assert ConfState(VOTERS, (4,)) == group.vnodes[3].members
    assert 1 not in group.log(3)
    group.start(3)
    assert ConfState(VOTERS, (4,)) == group.vnodes[3].members


def test_a_learner_is_not_counted_and_a_voter_is() -> None:
    """Neither for what is committed nor for the lease."""
    group = _Group((1, 2))
    group.elect(1)
    group.start(3)
    group.change(1, (LEARN, 3))
    group.cut = {2}
    group.mono_ms += 5_000.0
    answers = group.put(1, "one")
    group.settle()
    group.beat(1)
    assert [] == answers
    assert not group.vnodes[1].may_fire(group.mono_ms)
    group.cut = set()
    group.beat(1)
    group.settle()
    assert "created" == answers[0].kind
    group.change(1, (ADD, 3))
    group.cut = {2}
    group.mono_ms += 5_000.0
    answers = group.put(1, "two")
    group.beat(1)
    assert "created" == answers[0].kind
    assert group.vnodes[1].may_fire(group.mono_ms)


def test_a_replica_is_replaced_in_one_step() -> None:
    """Through a joint configuration, which ends by itself; who is gone is told nothing more."""
    group = _Group()
    group.elect(1)
    group.start(4)
    group.change(1, (LEARN, 4))
    group.cut = {3}
    seen: list[ConfState] = []
    group.vnodes[1].reformed = lambda vnode: seen.append(vnode.members)
    group.change(1, (ADD, 4), (REMOVE, 3))
    joint = ConfState((1, 2, 4), (), (1, 2, 3), (), auto_leave=True)
    assert [joint, ConfState((1, 2, 4))] == seen
    assert {ConfState((1, 2, 4))} == {group.vnodes[each].members for each in (1, 2, 4)}
    assert ConfState(VOTERS, (4,)) == group.vnodes[3].members
    group.cut = set()
    group.put(1, "one")
    group.settle()
    assert b"one" not in group.jobs(3)
    # It does not know, and disturbs nobody: whoever hears a leader gives no pre-vote.
    term = group.vnodes[1].term
    for number in group.vnodes:
        group.beat(1)
        group.vnodes[3].campaign()
        group.settle()
        assert group.vnodes[1].is_leader(), number
    assert term == group.vnodes[1].term


def test_a_joint_configuration_is_taken_up_again() -> None:
    """The next leader ends it, also after all have restarted."""
    group = _Group()
    group.elect(1)
    group.start(4)
    group.change(1, (LEARN, 4))
    joint = ConfState((1, 2, 4), (), (1, 2, 3), (), auto_leave=True)
    group.vnodes[1].change_members(
        ConfChangeV2(changes=(ConfChangeSingle(ADD, 4), ConfChangeSingle(REMOVE, 3)))
    )
    while group.vnodes[1].members != joint:
        for number in (1, 2, 3, 4):
            group.cycle(number)
        post, group.post = group.post, []
        for message in post:
            group.vnodes[message.to].step(message, group.mono_ms)
    group.post = []
    group.restart()
    assert joint == group.vnodes[1].members
    group.elect(1)
    for _ in range(3):
        group.beat(1)
    assert {ConfState((1, 2, 4))} == {group.vnodes[each].members for each in (1, 2, 4)}


def test_a_leader_that_is_demoted_leads_no_more() -> None:
    """Another one takes over, and it goes on learning."""
    group = _Group()
    group.elect(1)
    group.vnodes[1].change_members(ConfChangeV2(changes=(ConfChangeSingle(LEARN, 1),)))
    group.settle()
    assert not group.vnodes[1].is_leader()
    assert not group.vnodes[1].serving
    group.succeed(2)
    group.put(2, "one")
    group.settle()
    group.beat(2)
    assert ConfState((2, 3), (1,)) == group.vnodes[1].members
    assert b"one" in group.jobs(1)
    group.mono_ms += 5_000.0
    group.vnodes[1].core.forget_leader()
    group.vnodes[1].campaign()
    group.settle()
    assert group.vnodes[2].serving


def test_a_group_shrinks_to_one_voter_and_goes_on() -> None:
    """From then on it needs nobody; its log is as a sole voter's is, and a restart finds all."""
    group = _Group()
    group.elect(1)
    group.put(1, "one")
    group.settle()
    group.change(1, (REMOVE, 2), (REMOVE, 3))
    vnode = group.vnodes[1]
    assert ConfState((1,)) == vnode.members
    assert vnode.sole
    assert vnode.may_fire(group.mono_ms + 1e9)
    group.cut = {2, 3}
    answers = group.put(1, "two")
    reads: list[Any] = []
    vnode.read(reads.append)
    group.settle()
    assert ("created", [None]) == (answers[0].kind, reads)
    for number in (2, 3):
        del group.vnodes[number]
    group.restart()
    assert group.vnodes[1].sole
    group.settle()
    assert group.vnodes[1].serving
    group.put(1, "three")
    group.settle()
    assert {b"one", b"two", b"three"} == group.jobs(1)


@pytest.mark.parametrize("jobs", [0, 30])
def test_a_sole_voter_grows_though_its_log_was_never_written(jobs: int) -> None:
    """Who comes gets an image, and all that was answered is there when only it is left."""
    group = _Group((1,))
    group.settle()
    assert group.vnodes[1].sole
    for number in range(jobs):
        group.put(1, f"job{number}")
        group.settle()
    assert [] == group.log(1)
    group.start(2)
    group.put(1, "before")
    group.change(1, (LEARN, 2))
    assert not group.vnodes[1].sole
    group.put(1, "learning")
    group.settle()
    group.change(1, (ADD, 2))
    assert ConfState((1, 2)) == group.vnodes[2].members
    answers = group.put(1, "both")
    group.settle()
    assert "created" == answers[0].kind
    group.beat(1)
    assert group.jobs(2) == group.jobs(1)
    assert jobs + 3 == len(group.jobs(2))
    group.restart()
    group.elect(2)
    assert jobs + 3 == len(group.jobs(2))


@pytest.mark.parametrize("stray", [True, False])
def test_a_sole_voter_that_is_disturbed_during_a_sync_goes_on(stray: bool) -> None:
    """A change that is proposed then, or a message of one that was here once: nothing is lost.

    Its core has more to do than to learn that what it gave out is committed, and asks for it later.
    """
    group = _Group((1,))
    group.settle()
    vnode = group.vnodes[1]
    answers = group.put(1, "one")
    vnode.gather(group.mono_ms)
    group.start(2)
    if stray:
        vote = Message(MessageType.PRE_VOTE, 1, 2, vnode.term + 1, index=1, log_term=1)
        vnode.core.step(vote)
    else:
        vnode.change_members(ConfChangeV2(changes=(ConfChangeSingle(LEARN, 2),)))
    group.stores[1].write(group.stores[1].prepare(group.overlays[1].seal()))
    group.overlays[1].settled()
    outcome = vnode.persisted()
    assert outcome is not None
    for done, result in outcome.answers:
        done(result)
    later = group.put(1, "two")
    group.settle()
    for _ in range(3):
        group.beat(1)
    assert ["created"] * 2 == [answer.kind for answer in (*answers, *later)]
    assert vnode.sole is stray
    group.restart()
    assert {b"one", b"two"} == group.jobs(1)
    assert stray or group.jobs(2) == group.jobs(1)


def test_a_sole_voter_takes_no_more_than_fits_behind_a_change() -> None:
    """The change is on its way and counts, though nobody waits for it."""
    group = _Group((1,), uncommitted_size_max=1)
    group.settle()
    group.start(2)
    group.vnodes[1].change_members(ConfChangeV2(changes=(ConfChangeSingle(LEARN, 2),)))
    answers = group.put(1, "one")
    group.settle()
    for _ in range(3):
        group.beat(1)
    assert ["created"] == [answer.kind for answer in answers]
    assert {b"one"} == group.jobs(2)


def test_what_is_proposed_behind_a_change_waits_for_those_whom_it_adds() -> None:
    """What is on its way with it does not: it is committed by those who were there before."""
    group = _Group((1,))
    group.settle()
    group.start(2)
    group.change(1, (LEARN, 2))
    vnode = group.vnodes[1]
    group.cut = {2}
    answers = group.put(1, "before")
    vnode.change_members(ConfChangeV2(changes=(ConfChangeSingle(ADD, 2),)))
    group.settle()
    assert ConfState((1, 2)) == vnode.members
    assert ["created"] == [answer.kind for answer in answers]
    later = group.put(1, "later")
    group.settle()
    assert [] == later
    group.cut = set()
    group.beat(1)
    group.beat(1)
    assert ["created"] == [answer.kind for answer in later]
    assert group.jobs(2) == group.jobs(1) == {b"before", b"later"}


def test_a_change_of_members_that_comes_during_a_sync_finds_the_log_there() -> None:
    """A sole voter forgets what its core still has to be told of only when it was told."""
    group = _Group((1,))
    group.settle()
    group.start(2)
    vnode = group.vnodes[1]
    answers = group.put(1, "before")
    vnode.gather(group.mono_ms)
    vnode.change_members(ConfChangeV2(changes=(ConfChangeSingle(LEARN, 2),)))
    group.stores[1].write(group.stores[1].prepare(group.overlays[1].seal()))
    group.overlays[1].settled()
    outcome = vnode.persisted()
    for done, result in () if outcome is None else outcome.answers:
        done(result)
    assert ["created"] == [answer.kind for answer in answers]
    group.settle()
    group.beat(1)
    assert ConfState((1,), learners=(2,)) == vnode.members
    assert group.jobs(2) == group.jobs(1) == {b"before"}


def test_a_read_that_comes_before_a_sole_voter_serves_is_answered() -> None:
    """It waits for the first entry of the term, and what follows from that is not lost."""
    for cycles in range(3):
        group = _Group((1,))
        reads: list[Any] = []
        while not group.vnodes[1].is_leader():
            group.cycle(1)
        for _ in range(cycles):
            group.cycle(1)
        group.vnodes[1].read(reads.append)
        group.settle()
        assert [None] == reads, cycles


@pytest.mark.parametrize("busy", [True, False])
def test_a_read_that_comes_during_a_sync_is_answered(busy: bool) -> None:
    """Of a sole voter, which tells its core of a batch what it knows already."""
    group = _Group((1,))
    group.settle()
    vnode = group.vnodes[1]
    reads: list[Any] = []
    if busy:
        group.put(1, "one")
    vnode.gather(group.mono_ms)
    vnode.read(reads.append)
    group.stores[1].write(group.stores[1].prepare(group.overlays[1].seal()))
    group.overlays[1].settled()
    outcome = vnode.persisted()
    for done, result in () if outcome is None else outcome.answers:
        done(result)
    group.settle()
    assert [None] == reads


def test_a_read_that_waits_goes_on_when_its_group_becomes_one_of_several() -> None:
    """And one that waits for a majority is answered when none is needed any more."""
    group = _Group((1, 2))
    group.elect(1)
    group.beat(1)
    vnode = group.vnodes[1]
    reads: list[Any] = []
    vnode.change_members(ConfChangeV2(changes=(ConfChangeSingle(REMOVE, 2),)))
    vnode.read(reads.append)
    group.settle()
    group.beat(1)
    assert [None] == reads
    assert vnode.sole
    group.cut = {2}
    vnode.change_members(ConfChangeV2(changes=(ConfChangeSingle(ADD, 2),)))
    vnode.read(reads.append)
    group.settle()
    vnode.read(reads.append)
    group.settle()
    assert len(reads) < 3, "nobody has said that this one still leads"
    group.cut = set()
    for _ in range(3):
        group.beat(1)
    assert [None] * 3 == reads


def test_an_image_brings_the_members_of_its_own_place_in_the_log() -> None:
    """A straggler learns of a change that its leader has no log of any more."""
    group = _Group(log_entries_max=1)
    group.elect(1)
    group.start(4)
    group.change(1, (LEARN, 4))
    group.cut = {3}
    group.change(1, (ADD, 4))
    # More than is kept for a member that was heard of lately.
    for number in range(2 * limits.LOG_NEEDED_FACTOR):
        group.put(1, f"job{number}")
        group.settle()
    assert ConfState(VOTERS, (4,)) == group.vnodes[3].members
    reformed: list[ConfState] = []
    group.vnodes[3].reformed = lambda vnode: reformed.append(vnode.members)
    group.cut = set()
    for _ in range(3):
        group.beat(1)
    assert KEYS is not group.vnodes[3].keys
    assert [ConfState((1, 2, 3, 4))] == reformed
    group.restart()
    assert ConfState((1, 2, 3, 4)) == group.vnodes[3].members
