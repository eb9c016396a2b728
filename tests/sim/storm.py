"""One seeded storm: jobs come, change, go, are moved by tasks; nodes crash; then the reckoning."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from tests.sim.node import SimNode, headers_of
from timemachine.model import PENDING_STATES, Collection, JobState, Task, TaskKind, TaskState
from timemachine.outbound import Outcome, Request
from timemachine.replica import meta as m

_OUTCOMES = (
    Outcome(status=200, bytes_sent=True),
    Outcome(status=500, bytes_sent=True),
    Outcome(error_code="timeout", bytes_sent=True),
    Outcome(error_code="connection_refused"),
)


class Note(list[Any]):
    """Answers that are noted, not kept."""

    def __init__(self, note: Callable[[Any], None]) -> None:
        super().__init__()
        self._note = note

    def append(self, answer: Any) -> None:
        """Note one answer."""
        self._note(answer)


class History:
    """What the creators were told, and what must follow from it."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.acked: dict[str, int] = {}
        self.unsure: set[str] = set()
        self.ended: list[tuple[str, int, int]] = []
        """(job id, version, requests received so far): no send of it may start from here on."""

    def put(self, job_id: str) -> Callable[[Any], None]:
        """A PUT is under way."""
        self.unsure.add(job_id)

        def answered(answer: Any) -> None:
            record = getattr(answer, "record", None)
            if record is None or answer.kind == "refused":
                return
            self.unsure.discard(job_id)
            self.acked[job_id] = record.version
            previous = answer.previous
            if previous is not None and previous[1] == "replaced":
                self._end(job_id, previous[0])

        return answered

    def delete(self, job_id: str) -> Callable[[Any], None]:
        """A DELETE is under way."""
        self.unsure.add(job_id)

        def answered(answer: Any) -> None:
            record = getattr(answer, "record", None)
            if record is None or answer.kind == "refused":
                return
            self.unsure.discard(job_id)
            self.acked.pop(job_id, None)
            if answer.outcome == "cancelled":
                self._end(job_id, record.version)

        return answered

    def _end(self, job_id: str, version: int) -> None:
        self.ended.append((job_id, version, len(self.node.sender.received)))


def storm(seed: int) -> int:
    """Run one seed; returns the number of events. Raises AssertionError on a violation."""
    rng = random.Random(seed)
    node = SimNode(seed)
    history = History(node)
    failure_rate = rng.choice([0.0, 0.1, 0.6])
    excused: set[str] = set()

    def answer(_: Request) -> Outcome:
        return rng.choice(_OUTCOMES[1:]) if rng.random() < failure_rate else _OUTCOMES[0]

    node.sender.answer = answer
    node.start()
    jobs = node.put_collection(num_vnodes=rng.choice([1, 3, 12]))
    route = node.put_route(max_in_flight=rng.choice([1, 4, 64]))
    assert jobs is not None
    assert route is not None
    for _ in range(rng.randrange(2, 6)):
        life_ms = rng.choice([20, 120, 600])
        for _ in range(rng.randrange(5, 40)):
            job_id = f"job-{rng.randrange(20)}"
            if rng.random() < 0.05:
                _shift_all(node, jobs, rng.choice([-300, -20, 20, 300]))
            if rng.random() < 0.25:
                node.delete_job(jobs, job_id, Note(history.delete(job_id)))
            else:
                due_ms = node.now_ms() + rng.choice([-50, 0, 5, 30, 200, 400])
                meta = b"%d" % rng.randrange(1000)
                node.put_job(jobs, job_id, due_ms, route, Note(history.put(job_id)), meta=meta)
            node.world.run_for(rng.choice([0, 0, 1, 5, life_ms / 10]))
        node.world.run_for(life_ms)
        excused |= {headers_of(request)["webhook-id"] for _, request in node.sender.received}
        node.crash()
        node.world.run_for(rng.choice([1, 100, 5_000]))
        assert node.start(), "the node does not start again"
        found = node.engine.meta.collections.get(("default", "jobs"))
        assert found is not None
        jobs = found
        route = node.engine.meta.routes["default", "hook"]
        _never_lost(node, history)
    node.sender.answer = lambda _: _OUTCOMES[0]
    node.world.run_for(60_000)
    _drained(node)
    _reckon(node, history, excused, failure_rate)
    return node.world.events


def _shift_all(node: SimNode, jobs: Collection, shift_ms: int) -> None:
    """Begin a task that moves every job that is pending; it may have to go on after crashes."""
    task = Task(
        id=node.world.rng.randbytes(8).hex(),
        kind=TaskKind.RESCHEDULE,
        db="default",
        collections=(jobs.uid,),
        states=tuple(sorted(map(int, PENDING_STATES))),
        created_ms=node.now_ms(),
        shift_ms=shift_ms,
    )
    node.engine.propose_meta(m.PutTask(now_ms=node.now_ms(), task=task), lambda _: None)


def _never_lost(node: SimNode, history: History) -> None:
    """What was acknowledged is there after the crash, at its version or a later one."""
    collection = node.engine.meta.collections["default", "jobs"]
    for job_id, version in history.acked.items():
        read = node.engine.read_job(collection, job_id)
        assert read is not None, f"{job_id} was acknowledged and is lost"
        assert read[0].version >= version, f"{job_id} went back to version {read[0].version}"


def _drained(node: SimNode) -> None:
    counts = node.engine.counts(node.engine.meta.collections["default", "jobs"])
    open_jobs = sum(counts[name] for name in ("scheduled", "firing", "retrying", "held"))
    assert 0 == open_jobs, f"jobs that never settled: {counts}"
    tasks = node.engine.meta.tasks.values()
    assert all(task.state is TaskState.DONE for task in tasks), "a task that never ended"
    machines = [v.machine for v in node.engine.runtime.vnodes.values() if v.group[0]]
    for machine in machines:
        keys = machine.keys  # type: ignore[attr-defined]
        store = node.disk.store
        assert not store.scan(keys.due, keys.due_stop, 1), "a due row outlived its job"
        assert machine.due_counts.complete  # type: ignore[attr-defined]
        assert 0 == machine.due_counts.count(0, 1 << 40)  # type: ignore[attr-defined]
        assert not store.scan(keys.task, keys.prefix + b"l", 1), "progress outlived its task"
        start, _ = keys.waiting_range(0)
        assert not store.scan(start, keys.prefix + b"x", 1), "a waiting row outlived its job"


def _reckon(node: SimNode, history: History, excused: set[str], failure_rate: float) -> None:
    """Every promise, from what the recipients saw."""
    collection = node.engine.meta.collections["default", "jobs"]
    times: Counter[str] = Counter()
    bodies: dict[str, set[bytes]] = defaultdict(set)
    versions: dict[str, set[int]] = defaultdict(set)
    for at_ms, request in node.sender.received:
        headers = headers_of(request)
        assert at_ms >= int(headers["timemachine-trigger-time"]), "a send before its time"
        identity = headers["webhook-id"]
        times[identity] += 1
        bodies[identity].add(request.body)
        versions[headers["timemachine-job-id"]].add(_version_of(request))
    for identity, seen in bodies.items():
        assert 1 == len(seen), f"{identity} came with two bodies"
        if times[identity] > 1 and failure_rate == 0.0:
            assert identity in excused, f"{identity} came twice, and no crash excuses it"
    for job_id, version in history.acked.items():
        read = node.engine.read_job(collection, job_id)
        assert read is not None
        record = read[0]
        if job_id in history.unsure or record.version != version:
            continue
        assert record.state == JobState.DELIVERED, f"{job_id} ended as {record.state}"
        assert version in versions[job_id], f"{job_id} was never delivered"
    for job_id, version, since in history.ended:
        for _, request in node.sender.received[since:]:
            same = headers_of(request)["timemachine-job-id"] == job_id
            assert not (same and _version_of(request) == version), (
                f"{job_id} version {version} was sent after its end was acknowledged"
            )


def _version_of(request: Request) -> int:
    return int(request.body.rpartition(b'"version":')[2].rstrip(b"}"))
