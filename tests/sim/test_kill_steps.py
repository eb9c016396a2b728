"""A node that is killed at every step of a delivery, and again at every step of what follows.

The steps are all events between the answer to the create and the last row of the delivery, and
every batch is lost or kept by the crash. What was on the wire is lost or arrives.
"""

from collections import Counter
from enum import Enum
from itertools import product
from typing import Any

import pytest

from tests.sim.node import SimNode
from tests.sim.steps import Step, StepSender
from timemachine.model import AttemptRecord, Collection, DeadReason, JobRecord, JobState, Retry

ONCE, MORE = "at_most_once", "at_least_once"


class Moment(Enum):
    """Where a crash found the delivery, by what the disk remembers and how far the request was."""

    BEFORE_INTENT = "nothing is committed"
    AFTER_INTENT = "the intent is committed, no byte has left"
    MID_WRITE = "bytes have left, the recipient does not have all"
    BEFORE_RESPONSE = "the recipient has it and has not answered"
    AFTER_RESPONSE = "the response is on its way"
    BEFORE_SETTLE = "the node has the response, its outcome is not committed"
    SETTLED = "the outcome is committed"


_OF_STEP = {
    Step.NONE: Moment.AFTER_INTENT,
    Step.ASKED: Moment.AFTER_INTENT,
    Step.LEFT: Moment.MID_WRITE,
    Step.ARRIVED: Moment.BEFORE_RESPONSE,
    Step.ANSWERED: Moment.AFTER_RESPONSE,
    Step.HEARD: Moment.BEFORE_SETTLE,
}


class Run:
    """One job on one node, up to a crash before the event number `event`, counted from its ack."""

    def __init__(self, delivery: str, *, keep_wire: bool) -> None:
        self.delivery = delivery
        self.node = node = SimNode(11)
        self.sender = StepSender(node.world, keeps=keep_wire)
        node.sender = self.sender  # type: ignore[assignment]
        assert node.start()
        jobs = node.put_collection(num_vnodes=1)
        # A single attempt: those that we lost ourselves are none of the budget (R25).
        retry = Retry(schedule_ms=(50,), max_attempts=1)
        route = node.put_route(delivery=delivery, retry=retry)
        assert jobs is not None
        assert route is not None
        self.jobs: Collection = jobs
        answers: list[Any] = []
        node.put_job(jobs, "job", node.now_ms() + 60, route, answers)
        node.world.run_until(lambda: bool(answers))

    @property
    def record(self) -> JobRecord:
        """The job, as far as it is durable."""
        read = self.node.engine.read_job(self.jobs, "job")
        assert read is not None
        return read[0]

    def attempts(self) -> list[AttemptRecord]:
        """The attempts that users are shown."""
        return self.node.engine.read_attempts(self.jobs, "job", self.record)

    def is_over(self) -> bool:
        """Whether the job is at rest."""
        return self.record.state in (JobState.DELIVERED, JobState.DEAD)

    def run_events(self, count: int) -> bool:
        """Let so many events happen; False when the job came to rest before."""
        for _ in range(count):
            if self.is_over():
                return False
            self.node.world.step()
        return True

    def crash(self, *, keep_batch: bool) -> None:
        """The power goes; the batch that is being written is lost or kept."""
        if keep_batch:
            self.node.disk.finish()
        self.node.crash()
        self.node.world.run_for(10.0)  # what is outside goes on

    def restart(self) -> None:
        """Start again on what the disk remembers."""
        assert self.node.start()

    def moment(self, step: Step) -> Moment:
        """Where the crash was that has just been followed by a restart."""
        state = self.record.state
        if state == JobState.SCHEDULED:
            return Moment.BEFORE_INTENT
        if state == JobState.FIRING:
            return _OF_STEP[step]
        assert state == JobState.DELIVERED
        return Moment.SETTLED

    def finish(self) -> None:
        """Let the job come to rest, and check what holds whatever happened."""
        world = self.node.world
        world.run_until(self.is_over)
        world.run_for(2_000.0)
        sender, record, attempts = self.sender, self.record, self.attempts()
        assert [] == sender.effects.wrong()
        assert [] == sender.plain.wrong()
        assert len({flight.webhook_id for flight in sender.flights}) <= 1
        came = len(sender.arrived)
        assert min(1, came) == sender.effects.counts().total(), "with dedupe each fire is once"
        assert came == sender.plain.counts().total()
        # R99: of every request that the recipient saw, and of no other, there is one record.
        numbers = Counter(each.attempt for each in attempts)
        assert {1} >= set(numbers.values()), "an attempt has two records"
        assert {flight.attempt for flight in sender.sent} <= numbers.keys()
        assert len(sender.sent) == len({flight.attempt for flight in sender.sent}), (
            "one attempt is one request"
        )
        if record.state == JobState.DELIVERED:
            assert came >= 1
        else:
            assert (JobState.DEAD, DeadReason.UNKNOWN) == (record.state, record.reason)
            assert ONCE == self.delivery
            assert "unknown" == attempts[-1].status
        if self.delivery == ONCE:
            assert len(sender.sent) <= 1, "sent again after bytes may have left"
        else:
            assert came >= 1
        assert not self.node.failures
        sender.close()


def events_of_a_calm_run(delivery: str) -> int:
    """How many events there are from the ack to rest."""
    run = Run(delivery, keep_wire=True)
    events = 0
    while not run.is_over():
        run.run_events(1)
        events += 1
    run.finish()
    return events


@pytest.mark.parametrize("delivery", [MORE, ONCE])
def test_killed_at_every_step(delivery: str) -> None:
    """R25, R105, R106, R108: with dedupe the effect is once; at most once is never sent again.

    A delivery at least once comes twice exactly where the recipient had it and the outcome was not
    committed. One at most once is left to an operator, as `unknown`, wherever its intent was open.
    """
    seen: set[Moment] = set()
    events = events_of_a_calm_run(delivery)
    assert events > 10
    for event, keep_batch, keep_wire in product(range(events + 1), (False, True), (False, True)):
        run = Run(delivery, keep_wire=keep_wire)
        run.run_events(event)
        step = run.sender.step
        run.crash(keep_batch=keep_batch)
        had_it = len(run.sender.arrived)
        run.restart()
        moment = run.moment(step)
        seen.add(moment)
        run.finish()
        where = (event, keep_batch, keep_wire, moment)
        came, record = len(run.sender.arrived), run.record
        if moment is Moment.SETTLED or moment is Moment.BEFORE_INTENT:
            assert (1, JobState.DELIVERED) == (came, record.state), where
        elif delivery == ONCE:
            assert (had_it, JobState.DEAD) == (came, record.state), where
        else:
            assert (had_it + 1, JobState.DELIVERED) == (came, record.state), where
            statuses = [each.status for each in run.attempts()]
            assert ["unknown", "succeeded"] == statuses, where
    assert set(Moment) == seen


@pytest.mark.parametrize("delivery", [MORE, ONCE])
def test_killed_at_every_step_and_again_while_it_recovers(delivery: str) -> None:
    """R108: the steps of the recovery are steps like others."""
    events = events_of_a_calm_run(delivery)
    first_at: dict[Step, int] = {}
    for event in range(events + 1):
        run = Run(delivery, keep_wire=True)
        run.run_events(event)
        first_at.setdefault(run.sender.step, event)
        run.sender.close()
    assert set(Step) == first_at.keys()
    for event, keep_batch, keep_wire in product(first_at.values(), (False, True), (False, True)):
        again = 0
        while True:
            run = Run(delivery, keep_wire=keep_wire)
            run.run_events(event)
            run.crash(keep_batch=True)
            run.restart()
            reached = run.run_events(again)
            run.crash(keep_batch=keep_batch)
            run.restart()
            run.finish()
            if not reached:
                break
            again += 1
