"""Bulk tasks in a cluster: each job is changed once, whichever nodes die meanwhile."""

from typing import Any

import pytest

from node.engine import Engine
from tests.sim.cluster.clients import COLLECTION, DB, ROUTE
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs
from timemachine import limits
from timemachine.group import META_GROUP
from timemachine.model import Collection, JobState, Task, TaskKind, TaskState
from timemachine.replica import commands as c
from timemachine.replica import meta as m

HOUR_MS = 3_600_000
JOBS = 40
PENDING = (JobState.SCHEDULED, JobState.RETRYING, JobState.HELD, JobState.FIRING)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BULK_JOBS_PER_COMMAND_MAX", 2)


class Scene:
    """A cluster of three nodes with jobs that are due in an hour or two."""

    def __init__(self, seed: int) -> None:
        self.harness = Harness(Knobs(seed=seed, num_vnodes=4, fault_kinds=0))
        self.harness.boot()
        self.members, self.clock = self.harness.members, self.harness.clock
        self.first_ms = self.engine(1).now_ms() + HOUR_MS
        self.put_jobs()

    def engine(self, number: int) -> Engine:
        """The engine of a node that runs."""
        engine = self.members.members[number].engine
        assert engine is not None
        return engine

    def leader(self, group: tuple[int, int] = META_GROUP) -> Engine:
        """The engine that leads a group."""
        self.run_until(lambda: self._serving(group) != 0)
        return self.engine(self._serving(group))

    def _serving(self, group: tuple[int, int]) -> int:
        number = self.members.leader_of(group)
        vnode = self.members.members[number].vnode(group) if number else None
        return number if vnode is not None and vnode.serving else 0

    @property
    def collection(self) -> Collection:
        """The one collection."""
        return self.leader().meta.collections[DB, COLLECTION]

    def run_until(self, until: Any, ms: float = 60_000.0) -> None:
        """Let time pass until something holds."""
        assert self.clock.run_until(self.clock.now_ms + ms, until)

    def ask_meta(self, command: Any) -> m.MetaResult:
        """Have a command of the meta group done."""
        answers: list[Any] = []
        self.leader().propose_meta(command, answers.append)
        self.run_until(lambda: bool(answers))
        assert isinstance(answers[0], m.MetaResult), answers
        return answers[0]

    def put_jobs(self) -> None:
        """Create the jobs."""
        uid, answers = self.collection.uid, []  # type: tuple[int, list[Any]]
        for number in range(JOBS):
            job = f"job-{number}"
            group = (uid, self.members.place_of(job))
            engine = self.leader(group)
            command = c.PutJob(
                now_ms=engine.now_ms(),
                job_id=job,
                uid=b"u" * 16,
                trigger_ms=self.first_ms + number * 1_000,
                delay_ms=None,
                route=ROUTE,
                route_uid=engine.meta.routes[DB, ROUTE].uid,
                meta=b"null",
            )
            engine.runtime.propose(engine.runtime.vnodes[group], command, answers.append)
        self.run_until(lambda: len(answers) == JOBS)

    def begin(self, kind: TaskKind, **fields: Any) -> None:
        """Begin a task."""
        now_ms = self.leader().now_ms()
        task = Task(
            id="task-1",
            kind=kind,
            db=DB,
            collections=(self.collection.uid,),
            states=tuple(map(int, PENDING)),
            created_ms=now_ms,
            **fields,
        )
        assert "created" == self.ask_meta(m.PutTask(now_ms=now_ms, task=task)).kind

    def ended(self) -> Task:
        """The task as it ended, as all nodes know it."""

        def over() -> bool:
            engines = [member.engine for member in self.members.members.values()]
            tasks = [each.meta.tasks.get("task-1") for each in engines if each is not None]
            return all(task is not None and task.state is not TaskState.RUNNING for task in tasks)

        self.run_until(over)
        return self.leader().meta.tasks["task-1"]

    def triggers(self) -> list[int]:
        """When each job is due, as the leaders of their vnodes know."""
        found = []
        collection = self.collection
        for number in range(JOBS):
            job = f"job-{number}"
            engine = self.leader((collection.uid, self.members.place_of(job)))
            record = engine.read_job(collection, job)
            assert record is not None
            found.append(record[0].trigger_ms)
        return found

    def progress_rows(self) -> int:
        """What is kept about tasks, on all nodes."""
        rows = 0
        for member in self.members.members.values():
            if member.engine is not None:
                for group, vnode in member.engine.runtime.vnodes.items():
                    if group[0]:
                        store = member.engine._store
                        rows += len(store.scan(vnode.keys.task, vnode.keys.prefix + b"l", 100))
        return rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift_ms", [3_500, -3_500])
def test_a_shift_moves_each_job_once(seed: int, shift_ms: int) -> None:
    """Vnodes that three nodes lead, and the sums of all of them."""
    scene = Scene(seed)
    scene.begin(TaskKind.RESCHEDULE, shift_ms=shift_ms)
    task = scene.ended()
    assert TaskState.DONE is task.state
    assert {"rescheduled": JOBS} == task.counts
    expected = [scene.first_ms + n * 1_000 + shift_ms for n in range(JOBS)]
    assert expected == scene.triggers()
    scene.clock.run_for(2_000)
    assert 0 == scene.progress_rows(), "the progress of a task that ended is kept"


@pytest.mark.parametrize("who", ["node leader", "vnode leader", "all, one by one"])
@pytest.mark.parametrize("after_ms", [0.0, 3.0, 10.0, 30.0, 70.0])
def test_a_node_dies_in_the_middle(who: str, after_ms: float) -> None:
    """The node leader, who leads a vnode, or one after the other: it goes on where it was."""
    scene = Scene(7)
    scene.begin(TaskKind.RESCHEDULE, shift_ms=HOUR_MS)
    scene.clock.run_for(after_ms)
    group = (scene.collection.uid, 1)
    victims = {
        "node leader": [scene.leader().number],
        "vnode leader": [scene.leader(group).number],
        "all, one by one": [1, 2, 3],
    }[who]
    for number in victims:
        scene.members.crash(number)
        scene.clock.run_for(2_500.0)
        assert scene.members.start(number)
        scene.clock.run_for(500.0)
    task = scene.ended()
    assert TaskState.DONE is task.state
    assert {"rescheduled": JOBS} == task.counts
    assert [scene.first_ms + n * 1_000 + HOUR_MS for n in range(JOBS)] == scene.triggers()


def test_a_node_that_stays_dead_does_not_keep_a_task_from_its_end() -> None:
    """Its vnodes are led by others."""
    scene = Scene(3)
    scene.begin(TaskKind.CANCEL)
    scene.clock.run_for(5.0)
    scene.members.crash(scene.leader((scene.collection.uid, 0)).number)
    assert {"cancelled": JOBS} == scene.ended().counts


@pytest.mark.parametrize("dies", [False, True])
def test_a_task_that_is_cancelled_does_nothing_after_the_answer(dies: bool) -> None:
    """Also where a node that had orders is cut off when it is cancelled."""
    scene = Scene(5)
    before = scene.triggers()
    scene.begin(TaskKind.RESCHEDULE, shift_ms=HOUR_MS)
    leader = scene.leader()
    scene.clock.run_for(20.0)
    if dies:
        scene.members.network.isolate(1 + leader.number % 3)
    answers: list[Any] = []
    leader.tasks.cancel("task-1", answers.append)
    scene.run_until(lambda: bool(answers))
    task = answers[0].task
    assert TaskState.CANCELLED is task.state
    scene.members.network.heal()
    scene.clock.run_for(100.0)
    after = scene.triggers()
    moved = sum(at_ms != old for at_ms, old in zip(after, before, strict=True))
    assert {"rescheduled": moved} == task.counts
    assert 0 < moved < JOBS
    scene.clock.run_for(20_000.0)
    assert after == scene.triggers()
    assert 0 == scene.progress_rows()
