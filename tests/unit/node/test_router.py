"""Commands find their leader from any node, are done once, and are answered in the end."""

from typing import Any

import msgspec
import pytest

from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine import limits
from timemachine.errors import DiskFull, NotLeader, TooManyRequests, Unavailable
from timemachine.frames import Frame, read_frame
from timemachine.model import Collection, JobState
from timemachine.replica import commands as c
from timemachine.replica import meta as m


class _Routed(ThreeNodes):
    """Three nodes with a collection. `lose` decides which frames do not arrive."""

    def __init__(self, seed: int = 1) -> None:
        self.lose: Any = lambda _: False
        super().__init__(seed)
        self.group = self.put_collection()
        self.world.run_until(lambda: all(self.group in e.runtime.vnodes for e in self.all()))

    def all(self) -> list[Any]:
        """The engines."""
        return list(self.engines.values())

    def deliver(self, node: int, frame: bytes) -> None:
        """See ThreeNodes."""
        if not self.lose(read_frame(frame)):
            super().deliver(node, frame)

    @property
    def collection(self) -> Collection:
        """The collection, as node 1 knows it."""
        return self.engines[1].meta.collections["default", "jobs"]

    def now_ms(self) -> int:
        """The wall clock of all nodes."""
        return self.engines[1].now_ms()

    def follower(self) -> int:
        """A node that does not lead the vnode."""
        return self.others(self.leader(self.group))[0]

    def create(self, number: int, job_id: str, **more: Any) -> list[Any]:
        """Ask a node to create a job; the answer appears in the list."""
        return self.ask(number, self.put_command(number, job_id, create_only=True, **more))

    def put_command(self, number: int, job_id: str, **more: Any) -> c.PutJob:
        engine = self.engines[number]
        return c.PutJob(
            now_ms=engine.now_ms(),
            job_id=job_id,
            uid=engine.random_bytes(16),
            trigger_ms=engine.now_ms() + 3_600_000,
            delay_ms=None,
            route="r",
            route_uid=7,
            meta=b"{}",
            **more,
        )

    def ask(self, number: int, command: Any) -> list[Any]:
        """Ask a node for anything about a job."""
        answers: list[Any] = []
        self.engines[number].propose_job(self.collection, command.job_id, command, answers.append)
        return answers

    def wait(self, answers: list[Any]) -> Any:
        """The answer, when it is there."""
        self.world.run_until(lambda: bool(answers), 2_000_000)
        return answers[0]

    def version(self, job_id: str) -> int:
        """The version of a job at its leader."""
        found = self.engines[self.leader(self.group)].read_job(self.collection, job_id)
        return 0 if found is None else found[0].version


def test_any_node_takes_any_command() -> None:
    """And gives the leader's answer."""
    nodes = _Routed()
    for number in MEMBERS:
        result = nodes.wait(nodes.create(number, f"job-{number}"))
        assert ("created", 1) == (result.kind, result.record.version)
        patch = c.PatchJob(now_ms=1, job_id=f"job-{number}", meta=b"[]")
        assert "changed" == nodes.wait(nodes.ask(number, patch)).kind
        found = nodes.wait(nodes.ask(number, c.DeleteJob(now_ms=1, job_id="never")))
        assert ("refused", "job_not_found") == (found.kind, found.code)


def test_the_leader_proposes_by_its_own_clock() -> None:
    """What is due is judged by that; a delay begins by it."""
    nodes = _Routed()
    number = nodes.follower()
    ahead = nodes.put_command(number, "job", create_only=True)
    ahead = msgspec.structs.replace(ahead, now_ms=ahead.now_ms + 5_000)
    record = nodes.wait(nodes.ask(number, ahead)).record
    assert (ahead.trigger_ms, True) == (record.trigger_ms, record.created_ms < ahead.now_ms)
    late = msgspec.structs.replace(
        ahead, job_id="late", delay_ms=100, trigger_ms=ahead.now_ms + 100
    )
    record = nodes.wait(nodes.ask(number, late)).record
    assert 100 == record.trigger_ms - record.created_ms
    nodes.wait(nodes.ask(number, c.RunJob(now_ms=ahead.now_ms, job_id="job")))
    found = nodes.engines[nodes.leader(nodes.group)].read_job(nodes.collection, "job")
    assert found is not None
    assert found[0].due_ms <= nodes.now_ms()


def test_many_creates_go_to_one_node_at_once() -> None:
    """A call for each node and turn of the loop; results in order."""
    nodes = _Routed()
    number = nodes.follower()
    engine = nodes.engines[number]
    nodes.world.run_for(50)
    nodes.sent.clear()
    creates = [
        (0, nodes.put_command(number, f"job-{each}", create_only=True)) for each in range(100)
    ]
    answers: list[Any] = []
    engine.propose_creates(nodes.collection, creates, answers.append)
    more = [nodes.create(number, f"more-{each}") for each in range(10)]
    results = nodes.wait(answers)
    assert ["created"] * 100 == [result.kind for result in results]
    assert all(nodes.wait(each).kind == "created" for each in more)
    calls = [call for frame in nodes.frames(number) for call in frame.calls]
    assert 1 == len(calls)
    empty: list[Any] = []
    engine.propose_creates(nodes.collection, [], empty.append)
    assert [[]] == empty


def test_any_node_changes_meta_and_then_knows_it() -> None:
    """Who asked may look at once at what it has changed."""
    nodes = _Routed()
    for number in MEMBERS:
        engine = nodes.engines[number]
        answers: list[Any] = []
        name = f"db-{number}"
        engine.propose_meta(m.PutDatabase(now_ms=engine.now_ms(), name=name), answers.append)
        assert "created" == nodes.wait(answers).kind
        assert name in engine.meta.databases


@pytest.mark.parametrize("to_leader", [True, False])
def test_what_its_leader_leaves_open_is_done_once_by_the_next(to_leader: bool) -> None:
    """The leader loses the others with the command in its log, and comes back to follow."""
    nodes = _Routed()
    leader = nodes.leader(nodes.group)
    number = leader if to_leader else nodes.follower()
    assert "created" == nodes.wait(nodes.create(number, "job")).kind
    # The others hear of the entry, and the leader does not hear of that.
    nodes.lose = lambda frame: (
        frame.sender != leader and any(each.message.to == leader for each in frame.messages)
    )
    answers = nodes.ask(number, c.PatchJob(now_ms=nodes.now_ms(), job_id="job", meta=b"1"))
    nodes.world.run_for(20)
    assert [] == answers
    nodes.cut = {leader}
    nodes.world.run_until(lambda: nodes.leader(nodes.group) != 0)
    nodes.world.run_for(500)
    nodes.cut = set()
    nodes.lose = lambda _: False
    result = nodes.wait(answers)
    assert ("changed", False) == (result.kind, result.replayed)
    assert leader != nodes.leader(nodes.group)
    assert 2 == nodes.version("job")


def _answers(frame: Frame) -> bool:
    return bool(frame.replies)


def test_a_create_whose_answer_got_lost_is_told_as_created() -> None:
    """The uid tells the repeat, with no row kept for it."""
    nodes = _Routed()
    nodes.lose = _answers
    answers = nodes.create(nodes.follower(), "job")
    nodes.world.run_for(limits.ROUTER_TRY_MS - 10)
    assert ([], 1) == (answers, nodes.version("job"))
    nodes.lose = lambda _: False
    result = nodes.wait(answers)
    assert ("created", 1, False) == (result.kind, result.record.version, result.replayed)
    other = nodes.wait(nodes.create(nodes.follower(), "job"))
    assert "refused" == other.kind
    machine: Any = nodes.vnode(1, nodes.group).machine
    assert 0 == machine.state.requests


def test_a_change_whose_answer_got_lost_is_done_once() -> None:
    """A key that the node makes tells it; who asked is not told of a repeat."""
    nodes = _Routed()
    number = nodes.follower()
    nodes.wait(nodes.create(number, "job"))
    nodes.lose = _answers
    answers = nodes.ask(number, nodes.put_command(number, "job", tags=("x",)))
    nodes.world.run_for(limits.ROUTER_TRY_MS - 10)
    assert ([], 2) == (answers, nodes.version("job"))
    nodes.lose = lambda _: False
    result = nodes.wait(answers)
    assert ("replaced", False) == (result.kind, result.replayed)
    assert 2 == nodes.version("job")


def test_without_a_leader_it_takes_as_long_as_patience_lasts() -> None:
    """Then it is not known whether it was done, and the client may ask again."""
    nodes = _Routed()
    number = nodes.follower()
    nodes.cut = set(nodes.others(number))
    began_ms = nodes.world.mono_ms()
    answers = nodes.create(number, "job")
    local = nodes.create(nodes.leader(nodes.group) or 1, "other")
    error = nodes.wait(answers)
    assert isinstance(error, Unavailable)
    assert not isinstance(error, NotLeader)
    assert error.retry_after_s >= 1
    patience_ms = limits.ROUTER_PATIENCE_MS
    waited_ms = nodes.world.mono_ms() - began_ms
    assert patience_ms <= waited_ms < patience_ms + limits.ROUTER_TRY_MS + 100
    nodes.cut = set()
    nodes.wait(local)
    assert "created" == nodes.wait(nodes.create(number, "again")).kind


def test_a_full_disk_is_judged_where_it_is_written() -> None:
    """Deletes go on."""
    nodes = _Routed()
    leader = nodes.leader(nodes.group)
    number = nodes.follower()
    nodes.engines[number].space_low = True
    assert "created" == nodes.wait(nodes.create(number, "job")).kind
    nodes.engines[number].space_low = False
    nodes.engines[leader].space_low = True
    for asked in (number, leader):
        assert isinstance(nodes.wait(nodes.create(asked, "more")), DiskFull)
    assert "deleted" == nodes.wait(nodes.ask(number, c.DeleteJob(now_ms=1, job_id="job"))).kind


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and bytes; all of a request or nothing."""
    nodes = _Routed()
    number = nodes.follower()
    monkeypatch.setattr(limits, "PROPOSALS_WAITING_MAX", 2)
    taken = [nodes.create(number, f"job-{each}") for each in range(3)]
    assert isinstance(taken[2][0], TooManyRequests)
    assert ["created", "created"] == [nodes.wait(each).kind for each in taken[:2]]
    creates = [(0, nodes.put_command(number, f"x-{each}", create_only=True)) for each in range(3)]
    answers: list[Any] = []
    nodes.engines[number].propose_creates(nodes.collection, creates, answers.append)
    assert [TooManyRequests] * 3 == [type(each) for each in answers[0]]
    assert (0, 0) == (nodes.engines[number].router._count, nodes.engines[number].router._bytes)


def test_a_leader_that_has_too_much_to_do_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is told, as by that node itself."""
    nodes = _Routed()
    leader = nodes.engines[nodes.leader(nodes.group)]
    leader.runtime._waiting = limits.PROPOSALS_WAITING_MAX
    assert isinstance(nodes.wait(nodes.create(nodes.follower(), "job")), TooManyRequests)


def test_a_collection_that_is_gone_is_told_at_once() -> None:
    """Nobody will ever lead its vnodes."""
    nodes = _Routed()
    collection = nodes.collection
    nodes.ask_meta(lambda now_ms: m.DeleteCollection(now_ms=now_ms, db="default", name="jobs"))
    nodes.world.run_until(lambda: all(nodes.group not in e.runtime.vnodes for e in nodes.all()))
    answers: list[Any] = []
    engine = nodes.engines[1]
    command = nodes.put_command
    engine.propose_job(collection, "job", command(1, "job"), answers.append)
    assert isinstance(answers[0], Unavailable)
    engine.router.propose(nodes.group, command(1, "job"), answers.append, 100)
    nodes.world.run_for(100)
    assert isinstance(answers[1], Unavailable)


def test_a_node_without_a_replica_finds_the_leader() -> None:
    """It asks who may know, and remembers."""
    nodes = _Routed()
    leader = nodes.leader(nodes.group)
    number = nodes.follower()
    engine = nodes.engines[number]
    vnode = nodes.vnode(number, nodes.group)
    engine.runtime.remove(vnode)
    engine._vnodes[nodes.group[0]].clear()
    assert "created" == nodes.wait(nodes.create(number, "job")).kind
    assert leader == engine.router.leader(nodes.group)
    other = next(each for each in MEMBERS if each not in (leader, number))
    given: list[bool] = []
    nodes.engines[leader].hand_over(nodes.vnode(leader, nodes.group), other, given.append)
    nodes.world.run_until(lambda: bool(given))
    assert "created" == nodes.wait(nodes.create(number, "other")).kind
    assert other == engine.router.leader(nodes.group)


def test_meta_is_read_no_older_than_asked() -> None:
    """A node that is behind waits until it is not; all who wait at once ask once."""
    nodes = _Routed()
    number = nodes.others(nodes.leader((0, 0)))[0]
    engine = nodes.engines[number]
    nodes.lose = lambda frame: any(
        (each.uid, each.message.to) == (0, number) for each in frame.messages
    )
    nodes.ask_meta(lambda now_ms: m.PutDatabase(now_ms=now_ms, name="new"))
    assert "new" not in engine.meta.databases
    nodes.world.run_for(10)
    nodes.sent.clear()
    answers: list[Any] = []
    for _ in range(10):
        engine.router.read_meta(answers.append)
    nodes.world.run_for(20)
    assert [] == answers
    nodes.lose = lambda _: False
    nodes.world.run_until(lambda: len(answers) == 10)
    assert [None] * 10 == answers
    assert "new" in engine.meta.databases
    asked = [call for frame in nodes.frames(number) for call in frame.calls]
    assert len(asked) <= 2
    at_leader: list[Any] = []
    nodes.engines[nodes.leader((0, 0))].router.read_meta(at_leader.append)
    assert [None] == at_leader


def test_meta_that_cannot_be_asked_for_is_told() -> None:
    """As unavailable, when patience ends."""
    nodes = _Routed()
    number = nodes.others(nodes.leader((0, 0)))[0]
    nodes.cut = set(nodes.others(number))
    answers: list[Any] = []
    nodes.engines[number].router.read_meta(answers.append)
    assert isinstance(nodes.wait(answers), Unavailable)


def test_a_create_that_is_offered_again_finds_what_became_of_it() -> None:
    """Whatever the retention: a job that was cancelled and forgotten would be made once more."""
    nodes = _Routed()
    nodes.ask_meta(
        lambda now_ms: m.PutCollection(
            now_ms=now_ms, db="default", name="jobs", history_retention_ms=0
        )
    )
    number, leader = nodes.follower(), nodes.leader(nodes.group)
    nodes.lose = lambda frame: any(frame.replies) and frame.sender == leader
    answers = nodes.create(number, "job")
    nodes.world.run_until(lambda: nodes.version("job") == 1)
    delete = c.DeleteJob(now_ms=nodes.now_ms(), job_id="job")
    assert "cancelled" == nodes.wait(nodes.ask(leader, delete)).outcome
    nodes.world.run_for(limits.ROUTER_TRY_MS // 2)
    nodes.lose = lambda _: False
    assert "created" == nodes.wait(answers).kind
    found = nodes.engines[leader].read_job(nodes.collection, "job")
    assert found is not None
    assert JobState.CANCELLED == found[0].state
    nodes.world.run_for(limits.REQUESTS_MADE_KEPT_MS + 5_000)
    assert 0 == nodes.version("job")


def test_a_creator_that_may_have_been_heard_is_not_told_of_a_conflict() -> None:
    """Its job has ended and was begun anew meanwhile: by its uid nobody knows it any more."""
    nodes = _Routed()
    number, leader = nodes.follower(), nodes.leader(nodes.group)
    nodes.lose = lambda frame: any(frame.replies) and frame.sender == leader
    answers = nodes.create(number, "job")
    nodes.world.run_until(lambda: nodes.version("job") == 1)
    delete = c.DeleteJob(now_ms=nodes.now_ms(), job_id="job")
    assert "cancelled" == nodes.wait(nodes.ask(leader, delete)).outcome
    anew = nodes.put_command(leader, "job", tags=("x",))
    assert 2 == nodes.wait(nodes.ask(leader, anew)).record.version
    nodes.world.run_for(limits.ROUTER_TRY_MS // 2)
    nodes.lose = lambda _: False
    assert isinstance(nodes.wait(answers), Unavailable)
    assert "job_exists" == nodes.wait(nodes.create(number, "job")).code
