"""Reads over many vnodes while nodes die and are cut off: nothing acknowledged is missing."""

from typing import Any

import pytest

from node.engine import Engine
from node.gathering import Counts, ListJobs
from node.selection import Selection
from tests.sim.cluster.clients import DB, ROUTE
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs
from timemachine import limits
from timemachine.model import JobState
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult

_FAR_MS = 3_600_000
_ROUNDS = 60


class Shelf:
    """A cluster whose clients create jobs and list them, and a hand that breaks it."""

    def __init__(self, seed: int) -> None:
        self.harness = Harness(Knobs(seed=seed, num_vnodes=4, fault_kinds=0))
        self.harness.boot()
        self.members, self.clock = self.harness.members, self.harness.clock
        self.dice = self.clock.child("shelf")
        self.acked: dict[str, None] = {}
        self.tried = 0
        self.answers: list[tuple[set[str], Any]] = []

    def create(self) -> None:
        """Create a job at whoever seems to lead its vnode."""
        job = f"job-{self.tried}"
        self.tried += 1
        uid = self.members.collection_uid
        group = (uid, self.members.place_of(job))
        engine = self._engine(self.members.leader_of(group))
        if engine is None or (DB, ROUTE) not in engine.meta.routes:
            return
        command = c.PutJob(
            now_ms=engine.now_ms(),
            job_id=job,
            uid=b"u" * 16,
            trigger_ms=engine.now_ms() + _FAR_MS,
            delay_ms=None,
            route=ROUTE,
            route_uid=engine.meta.routes[DB, ROUTE].uid,
            meta=b"null",
        )

        def answered(result: Any) -> None:
            if isinstance(result, JobResult):
                self.acked[job] = None

        engine.runtime.propose(engine.runtime.vnodes[group], command, answered)

    def ask(self, question: Any) -> None:
        """Ask some node; what was acknowledged before must be in the answer."""
        engine = self._engine(self.dice.choice(self.members.numbers))
        if engine is None:
            return
        known = set(self.acked)
        groups = [(self.members.collection_uid, index) for index in range(4)]
        engine.gathering.ask(question, groups, lambda found: self.answers.append((known, found)))

    def _engine(self, number: int) -> Engine | None:
        member = self.members.members.get(number)
        return None if member is None or not member.ready else member.engine

    def harm(self) -> None:
        """One fault after another, or the end of all."""
        if self.dice.random() < 0.8:
            self.heal()
        number = self.dice.choice(self.members.numbers)
        match self.dice.randrange(5):
            case 0:
                self.members.network.isolate(number)
            case 1:
                self.members.crash(number)
            case 2:
                group = self.dice.choice(list(self.members.groups()))
                self.members.transfer(group, number)
            case 3:
                self.members.pause(number, 1_500.0)
            case _:
                self.heal()

    def heal(self) -> None:
        """All nodes up and connected."""
        self.members.network.heal()
        for number, member in self.members.members.items():
            if member.engine is None:
                self.members.start(number)


@pytest.mark.parametrize("seed", range(6))
def test_what_was_acknowledged_is_in_every_answer(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whoever is asked, whatever has happened meanwhile; a read may also be refused."""
    monkeypatch.setattr(limits, "GATHER_PAGE_BYTES", 2_000)
    shelf = Shelf(seed)
    for _ in range(_ROUNDS):
        for _ in range(3):
            shelf.create()
        shelf.clock.run_for(30.0 * shelf.dice.random())
        shelf.ask(ListJobs(Selection(), None, 1_000))
        shelf.ask(Counts())
        if shelf.dice.random() < 0.3:
            shelf.harm()
        shelf.clock.run_for(300.0 * shelf.dice.random())
    shelf.heal()
    shelf.clock.run_for(30_000.0)
    told = 0
    for known, found in shelf.answers:
        if isinstance(found, list):
            told += 1
            assert len(known) <= found[JobState.SCHEDULED] <= shelf.tried
        elif not isinstance(found, Exception):
            told += 1
            jobs = [job_id for job_id, *_ in found.jobs]
            assert len(set(jobs)) == len(jobs), "a job stands twice in a list"
            assert known <= set(jobs), f"missing: {sorted(known - set(jobs))}"
            order = [(record.trigger_ms, job_id) for job_id, record, _ in found.jobs]
            assert sorted(order) == order
    assert told > _ROUNDS // 2
    assert len(shelf.acked) > _ROUNDS
