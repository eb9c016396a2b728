"""The leader of a vnode is killed at every step of a delivery, or lives, and nobody sends too much.

The steps are all events between the answer to the create and rest, on whichever of the three nodes.
"""

from collections import Counter
from itertools import count
from typing import Any

import msgspec
import pytest

from node.engine import Engine
from tests.faults.effects import Effects
from tests.sim.cluster.clients import COLLECTION, DB, ROUTE
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.recipients import Mood
from timemachine.group import META_GROUP
from timemachine.model import AttemptRecord, DeadReason, JobRecord, JobState
from timemachine.replica import commands as c
from timemachine.replica import meta as m

ONCE, MORE = "at_most_once", "at_least_once"
NOT_ASKED, ASKED, LEFT, ARRIVED, ENDED = range(5)
PATIENCE_MS = 60_000.0
DUE_MS = 30
STEPS = {
    (NOT_ASKED, "succeeded"),  # before the intent is committed
    (NOT_ASKED, "unknown"),  # after it, and no byte has left
    (ASKED, "unknown"),
    (LEFT, "unknown"),  # in the middle of the request
    (ARRIVED, "unknown"),  # the recipient has it, and has not answered
    (ENDED, "unknown"),  # the response is there, its outcome is not committed
    (ENDED, "succeeded"),
}
"""How far the request is at the crash, and what is known of its attempt in the end."""


class Run:
    """One job on three nodes, whose leader dies a number of events after the ack.

    `keep` says whether what was under way at the crash, on disk and wire, gets to its end.
    """

    def __init__(self, delivery: str, *, keep: bool, timeout_ms: int = 1_000) -> None:
        self.delivery = delivery
        harness = Harness(Knobs(seed=5, num_vnodes=1, fault_kinds=0))
        harness.boot()
        self.members, self.clock = harness.members, harness.clock
        recipients = self.members.recipients
        recipients.connect_rate = 1.0
        recipients.lost_rate = 0.0 if keep else 1.0
        engine = self.engine(self.leader(META_GROUP))
        route = msgspec.structs.replace(
            engine.meta.routes[DB, ROUTE], delivery=delivery, timeout_ms=timeout_ms
        )
        command = m.PutRoute(now_ms=engine.now_ms(), route=route, expected_version=route.version)
        self.ask(engine, command)
        self.group = (engine.meta.collections[DB, COLLECTION].uid, 0)
        self.clock.run_for(1_000.0)
        self.victim = self.leader(self.group)
        self.members.disk(self.victim).keep_rate = 1.0 if keep else 0.0
        engine = self.engine(self.victim)
        now_ms = engine.now_ms()
        put = c.PutJob(
            now_ms=now_ms,
            job_id="job",
            uid=b"u" * 16,
            trigger_ms=now_ms + DUE_MS,
            delay_ms=None,
            route=ROUTE,
            route_uid=route.uid,
            meta=b"null",
        )
        answers: list[Any] = []
        engine.runtime.propose(engine.runtime.vnodes[self.group], put, answers.append)
        self.run_until(lambda: bool(answers))
        assert "created" == answers[0].kind

    def engine(self, number: int) -> Engine:
        """The engine of a node that runs."""
        engine = self.members.members[number].engine
        assert engine is not None
        return engine

    def leader(self, group: tuple[int, int]) -> int:
        """Who leads a group, once somebody does."""
        self.run_until(lambda: self.members.leader_of(group) != 0)
        return self.members.leader_of(group)

    def ask(self, engine: Engine, command: Any) -> None:
        """Have a command of the meta group done."""
        answers: list[Any] = []
        engine.propose_meta(command, answers.append)
        self.run_until(lambda: bool(answers))
        assert isinstance(answers[0], m.MetaResult), answers

    def run_until(self, until: Any) -> None:
        """Let time pass until something holds."""
        assert self.clock.run_until(self.clock.now_ms + PATIENCE_MS, until)

    def record(self) -> JobRecord | None:
        """The job as its leader has it durably."""
        number = self.members.leader_of(self.group)
        if number == 0:
            return None
        engine = self.engine(number)
        read = engine.read_job(engine.meta.collections[DB, COLLECTION], "job")
        return None if read is None else read[0]

    def attempts(self) -> list[AttemptRecord]:
        """The attempts that users are shown."""
        engine, record = self.engine(self.leader(self.group)), self.record()
        assert record is not None
        return engine.read_attempts(engine.meta.collections[DB, COLLECTION], "job", record)

    def is_over(self) -> bool:
        """Whether the job is at rest."""
        record = self.record()
        return record is not None and record.state in (JobState.DELIVERED, JobState.DEAD)

    def run_events(self, events: int) -> bool:
        """Let so many events happen on all nodes; False when the job came to rest before."""
        left = events + 1

        def until() -> bool:
            nonlocal left
            left -= 1
            return left <= 0 or self.is_over()

        self.run_until(until)
        return left <= 0

    def step(self) -> int:
        """How far the newest request is."""
        sendings = self.members.recipients.sendings
        if not sendings:
            return NOT_ASKED
        newest = sendings[-1]
        times = (newest.ended_ms, newest.arrived_ms, newest.left_ms)
        for step, at_ms in zip((ENDED, ARRIVED, LEFT), times, strict=True):
            if at_ms is not None:
                return step
        return ASKED

    def finish(self, *, at_once: bool) -> tuple[int, str]:
        """The leader dies; check what holds. Returns how far it was, and what is known of it.

        It starts again `at_once`, or when another one has gone on and the job is at rest.
        """
        step = self.step()
        self.members.crash(self.victim)
        if at_once:
            assert self.members.start(self.victim)
        self.run_until(self.is_over)
        assert at_once or self.leader(self.group) != self.victim
        if not at_once:
            assert self.members.start(self.victim)
        self.clock.run_for(5_000.0)
        self.run_until(self.is_over)
        attempts = self.attempts()
        self.check(attempts)
        if step == NOT_ASKED and attempts[0].status == "succeeded":
            assert 1 == len(self.members.recipients.arrivals), "nothing was under way"
        return step, attempts[0].status

    def check(self, attempts: list[AttemptRecord]) -> None:
        """What holds whatever happened."""
        recipients, record = self.members.recipients, self.record()
        assert record is not None
        arrivals = [each.request.body for each in recipients.arrivals]
        assert len({each.identity for each in recipients.sendings}) <= 1
        for dedupe in (False, True):
            effects = Effects(dedupe=dedupe)
            for sending in recipients.arrivals:
                effects.take(sending.identity.decode(), sending.request.body)
            assert [] == effects.wrong()
            times = min(1, len(arrivals)) if dedupe else len(arrivals)
            assert times == effects.counts().total()
            effects.close()
        sent = [each.attempt for each in recipients.sendings if each.left_ms is not None]
        assert len(sent) == len(set(sent)), "one attempt is one request"
        numbers = Counter(each.attempt for each in attempts)
        assert {1} == set(numbers.values()), "an attempt has two records"
        assert set(sent) <= numbers.keys(), "R99: a request without a record"
        if record.state == JobState.DELIVERED:
            assert 1 <= len(arrivals) <= 2
        else:
            assert (JobState.DEAD, DeadReason.UNKNOWN) == (record.state, record.reason)
            assert ONCE == self.delivery
            assert "unknown" == attempts[-1].status
        if self.delivery == ONCE:
            assert len(sent) <= 1, "sent again after bytes may have left"


@pytest.mark.parametrize("at_once", [False, True], ids=["another leads", "it comes back"])
@pytest.mark.parametrize("keep", [False, True], ids=["lost", "kept"])
@pytest.mark.parametrize("delivery", [MORE, ONCE])
def test_the_leader_is_killed_at_every_step(delivery: str, keep: bool, at_once: bool) -> None:
    """R105, R106, R108: with dedupe the effect is once; at most once is never sent again."""
    seen = set()
    for events in count():
        run = Run(delivery, keep=keep)
        reached = run.run_events(events)
        seen.add(run.finish(at_once=at_once))
        if not reached:
            break
    assert seen >= STEPS


def test_an_attempt_that_nobody_saw_end_names_the_node_that_made_it() -> None:
    """It named the node that led next, and closed it; found by killing leaders step by step."""
    run = Run(MORE, keep=True)
    run.run_until(lambda: run.step() == ARRIVED)
    run.finish(at_once=False)
    lost, again = run.attempts()
    ids = {number: member.id for number, member in run.members.members.items()}
    assert ("unknown", ids[run.victim]) == (lost.status, lost.node)
    assert ("succeeded", ids[run.leader(run.group)]) == (again.status, again.node)
    assert lost.term < again.term


@pytest.mark.parametrize("moves", [False, True])
def test_a_slow_recipient_makes_no_other_node_send(moves: bool) -> None:
    """R45: until its deadline a request is nobody else's, also when its vnode is handed over."""
    timeout_ms = 60_000
    run = Run(MORE, keep=True, timeout_ms=timeout_ms)
    recipients = run.members.recipients
    recipients.fair = Mood((("silence", 1.0),))
    run.run_until(lambda: run.step() == ARRIVED)
    if moves:
        run.members.transfer(run.group, run.victim % 3 + 1)
        run.run_until(lambda: run.members.leader_of(run.group) not in (0, run.victim))
    first = recipients.sendings[0]
    run.clock.run_until(first.asked_ms + timeout_ms - 1.0)
    assert [first] == recipients.sendings
    recipients.heal()
    run.run_until(run.is_over)
    assert first.ended_ms is not None
    assert [first.ended_ms <= each.asked_ms for each in recipients.sendings[1:]] == [True]
    assert ["failed", "succeeded"] == [each.status for each in run.attempts()]
