"""Bulk tasks: each job is changed once, through crashes at every sync, and firing goes on."""

from typing import Any

import pytest

from node.tasks import running
from tests.sim.node import SimNode
from timemachine import codec, limits
from timemachine.model import Collection, JobState, Task, TaskKind, TaskState
from timemachine.outbound import Outcome
from timemachine.replica import meta as m
from timemachine.replica.results import BulkProgress

HOUR_MS = 3_600_000
JOBS = 30
PENDING = (JobState.SCHEDULED, JobState.RETRYING, JobState.HELD, JobState.FIRING)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BULK_JOBS_PER_COMMAND_MAX", 4)


def _started(seed: int) -> tuple[SimNode, Collection, int]:
    node = SimNode(seed)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    base_ms = node.now_ms() + HOUR_MS
    for number in range(JOBS):
        node.put_job(jobs, f"job-{number}", base_ms + number * 1_000, route, answers)
    node.world.run_until(lambda: len(answers) == JOBS)
    return node, jobs, base_ms


def _task(node: SimNode, jobs: Collection, kind: TaskKind, **fields: Any) -> Task:
    return Task(
        id="task-1",
        kind=kind,
        db="default",
        collections=(jobs.uid,),
        states=tuple(map(int, fields.pop("states", PENDING))),
        created_ms=node.now_ms(),
        **fields,
    )


def _begin(node: SimNode, task: Task) -> None:
    result = node.ask_meta(m.PutTask(now_ms=node.now_ms(), task=task))
    assert result is not None
    assert "created" == result.kind


def _ended(node: SimNode) -> Task:
    def over() -> bool:
        task = node.engine.meta.tasks.get("task-1")
        return node.crashed or (task is not None and task.state is not TaskState.RUNNING)

    node.world.run_until(over)
    return node.engine.meta.tasks["task-1"]


def _progress_rows(node: SimNode, jobs: Collection) -> int:
    vnodes = node.engine._vnodes[jobs.uid].values()
    store = node.disk.store
    return sum(len(store.scan(v.keys.task, v.keys.prefix + b"l", 100)) for v in vnodes)


def _triggers(node: SimNode, jobs: Collection) -> dict[str, int]:
    found = {}
    for number in range(JOBS):
        job = node.engine.read_job(jobs, f"job-{number}")
        assert job is not None
        found[f"job-{number}"] = job[0].trigger_ms
    return found


@pytest.mark.parametrize("shift_ms", [3_500, -3_500, HOUR_MS])
@pytest.mark.parametrize("keep", [True, False])
def test_a_shift_moves_each_job_once_whenever_the_node_dies(shift_ms: int, keep: bool) -> None:
    """Also where jobs move to where the walk still has to come, and a step is done twice."""
    crash_at = 0
    while True:
        node, jobs, base_ms = _started(3)
        _begin(node, _task(node, jobs, TaskKind.RESCHEDULE, shift_ms=shift_ms))
        if crash_at:
            node.disk.crash_at = node.disk.syncs + crash_at
            node.disk.keep = keep
        task = _ended(node)
        crashed = node.crashed
        if crashed:
            assert node.start()
            task = _ended(node)
        assert TaskState.DONE is task.state
        assert {"rescheduled": JOBS} == task.counts
        expected = {f"job-{n}": base_ms + n * 1_000 + shift_ms for n in range(JOBS)}
        assert expected == _triggers(node, jobs)
        node.world.run_for(200)
        if node.crashed and not crashed:
            crashed = True
            assert node.start()
            node.world.run_for(200)
        assert 0 == _progress_rows(node, jobs), "the progress of a task that ended is kept"
        if crash_at and not crashed:
            break
        crash_at += 1
    assert crash_at > 10


def test_cancel_takes_what_is_meant_and_leaves_the_rest() -> None:
    """By trigger time; what is cancelled does not fire."""
    node, jobs, base_ms = _started(4)
    until_ms = base_ms + 10_000
    uid = node.engine.meta.routes["default", "hook"].uid
    task = _task(node, jobs, TaskKind.CANCEL, to_ms=until_ms, route="hook", route_uid=uid)
    _begin(node, task)
    assert {"cancelled": 10} == _ended(node).counts
    node.world.run_for(2 * HOUR_MS)
    states = {}
    for number in range(JOBS):
        job = node.engine.read_job(jobs, f"job-{number}")
        assert job is not None
        states[number] = JobState(job[0].state)
    assert {JobState.CANCELLED} == {states[number] for number in range(10)}
    assert {JobState.DELIVERED} == {states[number] for number in range(10, JOBS)}


def test_a_task_that_is_cancelled_stops_and_says_how_far_it_got(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No job is touched after the answer."""
    node, jobs, _ = _started(5)
    _begin(node, _task(node, jobs, TaskKind.RESCHEDULE, shift_ms=HOUR_MS))
    before = _triggers(node, jobs)
    node.world.run_until(lambda: bool(node.engine.tasks.counts("task-1")))
    answers: list[Any] = []
    node.engine.tasks.cancel("task-1", answers.append)
    node.world.run_until(lambda: bool(answers))
    task = node.engine.meta.tasks["task-1"]
    assert TaskState.CANCELLED is task.state
    moved = [name for name, at_ms in _triggers(node, jobs).items() if at_ms != before[name]]
    assert 0 < len(moved) < JOBS
    assert {"rescheduled": len(moved)} == task.counts
    after = _triggers(node, jobs)
    node.world.run_for(10_000)
    assert after == _triggers(node, jobs)


def test_a_task_whose_collection_goes_ends() -> None:
    """Deleted in the middle: nothing is left to do."""
    node, jobs, _ = _started(6)
    _begin(node, _task(node, jobs, TaskKind.RESCHEDULE, shift_ms=HOUR_MS))
    node.world.run_until(lambda: bool(node.engine.tasks.counts("task-1")))
    node.ask_meta(m.DeleteCollection(now_ms=node.now_ms(), db="default", name="jobs"))
    assert TaskState.DONE is _ended(node).state
    node.world.run_for(200)
    assert [] == node.failures


def test_tasks_are_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have ended, when their time is over."""
    monkeypatch.setattr(limits, "TASKS_KEPT_MS", 20_000)
    node, jobs, _ = _started(7)
    _begin(node, _task(node, jobs, TaskKind.CANCEL))
    assert TaskState.DONE is _ended(node).state
    node.world.run_for(25_000)
    assert {} == node.engine.meta.tasks


def test_cancel_takes_back_claims_that_are_not_sent() -> None:
    """What was claimed ahead of its time, and is cancelled before it, is never sent."""
    node, jobs, base_ms = _started(8)
    node.world.run_for(base_ms - node.now_ms() - 5)
    _begin(node, _task(node, jobs, TaskKind.CANCEL))
    counts = _ended(node).counts
    node.world.run_for(2 * HOUR_MS)
    states = []
    for number in range(JOBS):
        job = node.engine.read_job(jobs, f"job-{number}")
        assert job is not None
        states.append(JobState(job[0].state))
    assert {JobState.DELIVERED, JobState.CANCELLED} >= set(states)
    assert counts["cancelled"] == states.count(JobState.CANCELLED) > JOBS - 5
    assert node.engine.delivery.sends == states.count(JobState.DELIVERED)


def test_a_redrive_takes_the_dead_of_its_route() -> None:
    """Once each; jobs that never had an attempt can be taken alone."""
    node, jobs, base_ms = _started(9)
    node.ask_meta(m.DeleteRoute(now_ms=node.now_ms(), db="default", name="hook"))
    node.world.run_for(5_000)
    route = node.put_route()
    assert route is not None
    task = _task(
        node,
        jobs,
        TaskKind.REPLAY_MISSING,
        states=[JobState.DEAD],
        route="hook",
        route_uid=route.uid,
        unattempted=True,
        from_ms=base_ms + 10_000,
    )
    _begin(node, task)
    assert {"redriven": JOBS - 10} == _ended(node).counts
    node.world.run_for(60_000)
    assert JOBS - 10 == node.engine.delivery.sends
    assert 10 == node.engine.counts(jobs)["dead"]
    assert JOBS - 10 == node.engine.counts(jobs)["delivered"]


def test_what_is_redriven_keeps_new_jobs_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """R65: it comes as its route takes it; what is held of the route in memory is never full of it.

    Named regression: all came at once, and new jobs of the route waited until the last was sent.
    """
    monkeypatch.setattr(limits, "REDRIVE_BACKLOG_JOBS", 5)
    monkeypatch.setattr(limits, "ROUTE_WINDOW_JOBS_MAX", 12)
    node, jobs, _ = _started(9)
    node.ask_meta(m.DeleteRoute(now_ms=node.now_ms(), db="default", name="hook"))
    node.world.run_for(5_000)
    route = node.put_route(max_in_flight=1)
    assert route is not None
    task = _task(
        node,
        jobs,
        TaskKind.REDRIVE,
        states=[JobState.DEAD],
        route="hook",
        route_uid=route.uid,
    )
    _begin(node, task)
    most = 0

    def sent(count: int) -> bool:
        nonlocal most
        most = max(most, node.engine.delivery.queued(route.uid))
        return node.engine.delivery.sends >= count

    node.world.run_until(lambda: sent(3))
    answers: list[Any] = []
    node.put_job(jobs, "new", node.now_ms(), route, answers)
    node.world.run_until(lambda: len(answers) == 1)
    before = node.engine.delivery.sends

    def delivered() -> bool:
        job = node.engine.read_job(jobs, "new")
        return sent(JOBS + 2) or (job is not None and job[0].state == JobState.DELIVERED)

    node.world.run_until(delivered)
    assert node.engine.delivery.sends - before < 12, "it waited for those in memory, not for all"
    assert {"redriven": JOBS} == _ended(node).counts
    node.world.run_until(lambda: sent(JOBS + 1))
    assert 0 < most < 12


@pytest.mark.parametrize("where", [{"shift_ms": -2 * HOUR_MS}, {"trigger_ms": 1_000}])
def test_a_job_that_was_moved_and_has_fired_is_not_moved_again(
    monkeypatch: pytest.MonkeyPatch, where: dict[str, int]
) -> None:
    """It waits for a retry then, in a range where the walk still has to come."""
    monkeypatch.setattr(running, "_LOOK_PAUSE_MS", 100.0)
    node, jobs, _ = _started(10)
    node.sender.answer = lambda _: Outcome(status=503, bytes_sent=True)
    before = _triggers(node, jobs)
    _begin(node, _task(node, jobs, TaskKind.RESCHEDULE, **where))
    assert {"rescheduled": JOBS} == _ended(node).counts
    for name, at_ms in _triggers(node, jobs).items():
        assert where.get("trigger_ms", before[name] + where.get("shift_ms", 0)) == at_ms
        job = node.engine.read_job(jobs, name)
        assert job is not None
        assert 2 == job[0].version, "a webhook of another id would follow the one that was sent"


@pytest.mark.parametrize("wall_ms", [-HOUR_MS // 2, 0])
def test_what_was_moved_is_known_whatever_the_clock_does(
    monkeypatch: pytest.MonkeyPatch, wall_ms: int
) -> None:
    """A clock that goes back while a task runs has nothing moved twice."""
    monkeypatch.setattr(running, "_LOOK_PAUSE_MS", 100.0)
    node, jobs, base_ms = _started(11)
    node.sender.answer = lambda _: Outcome(status=503, bytes_sent=True)
    task = _task(node, jobs, TaskKind.RESCHEDULE, shift_ms=-2 * HOUR_MS)
    _begin(node, task)
    node.world.wall_offset_ms += wall_ms
    assert {"rescheduled": JOBS} == _ended(node).counts
    expected = {f"job-{n}": base_ms + n * 1_000 - 2 * HOUR_MS for n in range(JOBS)}
    assert expected == _triggers(node, jobs)


def test_cancel_meets_jobs_whose_route_is_resumed_meanwhile() -> None:
    """They are not held any more when the walk comes to where they were."""
    node, jobs, base_ms = _started(12)
    node.put_route(paused=True, max_in_flight=1)
    node.world.run_for(base_ms - node.now_ms() + 15_000)
    assert 0 < node.engine.counts(jobs)["held"] < JOBS
    _begin(node, _task(node, jobs, TaskKind.CANCEL))
    node.world.run_until(lambda: bool(node.engine.tasks.counts("task-1")))
    node.put_route(paused=False)
    counts = _ended(node).counts
    sends = node.engine.delivery.sends
    node.world.run_for(2 * HOUR_MS)
    assert sends == node.engine.delivery.sends, "what was to be cancelled has fired afterwards"
    assert counts["cancelled"] == node.engine.counts(jobs)["cancelled"] >= JOBS - sends


def test_what_is_left_of_a_task_goes_within_an_hour_though_nothing_else_happens() -> None:
    """To look each second was to walk over what had been deleted from the log."""
    node, jobs, _ = _started(9)
    node.world.run_for(5_000)
    vnode = node.engine._vnodes[jobs.uid][1]
    node.disk.store.write({vnode.keys.task + b"task-9": codec.encode(BulkProgress())})
    node.world.run_for(5_000)
    assert 1 == _progress_rows(node, jobs)
    node.world.run_for(limits.FORGET_SWEEP_MS)
    assert 0 == _progress_rows(node, jobs)
