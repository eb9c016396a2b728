"""What is kept for a time goes after it, a little at a time."""

from typing import Any

import pytest

from tests.sim.node import SimNode
from tests.unit.node.gathering.made import Spread
from timemachine.errors import NotLeader
from timemachine.group import META_GROUP
from timemachine.model import Collection, Route
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.storage.api import Row
from timemachine.storage.keys import ReplicaKeys


def _started(seed: int, num_vnodes: int) -> tuple[SimNode, Collection, Route]:
    """A node with a collection and a route."""
    node = SimNode(seed)
    assert node.start()
    jobs, route = node.put_collection(num_vnodes=num_vnodes), node.put_route()
    assert jobs is not None
    assert route is not None
    return node, jobs, route


def _retain(node: SimNode, retention_ms: int, num_vnodes: int) -> None:
    """Have ended jobs kept for so long."""
    node.ask_meta(
        m.PutCollection(
            now_ms=node.now_ms(),
            db="default",
            name="jobs",
            num_vnodes=num_vnodes,
            history_retention_ms=retention_ms,
            request=c.Request(b"%016d" % node.now_ms(), b"f" * 16),
        )
    )


def _fire(node: SimNode, jobs: Collection, route: Route, count: int) -> None:
    """Have jobs fire, and one deleted; the answers to some of the requests are kept for a day."""
    answers: list[Any] = []
    for number in range(count):
        job_id = f"job-{number}"
        command = c.PutJob(
            now_ms=node.now_ms(),
            job_id=job_id,
            uid=node.engine.random_bytes(16),
            trigger_ms=node.now_ms(),
            delay_ms=None,
            route=route.name,
            route_uid=route.uid,
            meta=b"null",
            request=c.Request(b"%016d" % number, c.MADE_BY_NODE if number % 2 else b"f" * 16),
        )
        node.engine.propose_job(jobs, job_id, command, answers.append)
    node.put_job(jobs, "deleted", node.now_ms() + 60_000, route, answers)
    node.world.run_until(lambda: len(answers) == count + 1)
    node.delete_job(jobs, "deleted", answers)
    ended = {"delivered": count, "cancelled": 1}
    node.world.run_until(lambda: ended.items() <= node.engine.counts(jobs).items())


def _starts(store: Any, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Where scans begin from now on."""
    starts: list[bytes] = []
    scan = store.scan

    def noted(start: bytes, *arguments: Any, **named: Any) -> list[Row]:
        starts.append(start)
        rows: list[Row] = scan(start, *arguments, **named)
        return rows

    monkeypatch.setattr(store, "scan", noted)
    return starts


def test_many_vnodes_expire_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one cycle, 32 times 500 jobs, would hold up the loop for a tenth of a second."""
    node, jobs, route = _started(31, 32)
    answers: list[Any] = []
    for number in range(320):
        node.put_job(jobs, f"job-{number}", node.now_ms(), route, answers)
    node.world.run_until(lambda: node.engine.counts(jobs)["delivered"] == 320)
    purged: list[tuple[int, int]] = []
    runtime = node.engine.runtime
    propose = runtime.propose

    def watched(vnode: Any, command: Any, *rest: Any) -> None:
        if isinstance(command, c.Purge):
            purged.append((node.now_ms(), len(command.job_ids)))
        propose(vnode, command, *rest)

    monkeypatch.setattr(runtime, "propose", watched)
    _retain(node, 5_000, 32)
    node.world.run_for(8_000)
    assert 0 == sum(node.engine.counts(jobs).values())
    assert 320 == sum(count for _, count in purged)
    assert len({at_ms for at_ms, _ in purged}) == len(purged) > 16


def test_no_scan_begins_where_the_purged_rows_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """LevelDB walks over deleted keys: 20 to 100 ms each second, once a day's jobs were purged."""
    node, jobs, route = _started(32, 2)
    _retain(node, 120_000, 2)
    _fire(node, jobs, route, 40)
    node.world.run_for(115_000)
    assert 41 == sum(node.engine.counts(jobs).values())
    starts = _starts(node.engine._store, monkeypatch)
    node.world.run_for(10_000)
    assert 0 == sum(node.engine.counts(jobs).values())
    meta = node.engine._meta_vnode.keys
    fronts = {meta.request_age: 0}
    for vnode in node.engine._vnodes[jobs.uid].values():
        keys = vnode.keys
        fronts |= {
            keys.finished: 0,
            keys.request_age: 0,
            keys.route_attempts_range(route.uid)[0]: 0,
        }
        # Before the rows that are left of tasks lie those that were deleted from the log.
        assert not {keys.route_attempts, keys.task} & set(starts)
    for start in starts:
        front = start[:-8]
        if front in fronts:
            fronts[front] += 1
            assert int.from_bytes(start[-8:], "big") > node.now_ms() - 140_000
    assert not fronts.keys() & set(starts)
    assert all(fronts.values())


def test_what_was_refused_is_purged_a_round_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark goes no further than what is committed."""
    node, jobs, route = _started(33, 2)
    _fire(node, jobs, route, 20)
    runtime = node.engine.runtime
    propose = runtime.propose
    refused: list[Any] = []

    def refuse(vnode: Any, command: Any, done: Any = None) -> None:
        if isinstance(command, c.Purge) and len(refused) < 6:
            refused.append(command)
            done(NotLeader())
        else:
            propose(vnode, command, done)

    monkeypatch.setattr(runtime, "propose", refuse)
    _retain(node, 30_000, 2)
    node.world.run_for(40_000)
    assert 6 == len(refused)
    assert 0 == sum(node.engine.counts(jobs).values())


def test_nothing_else_is_proposed_until_it_is_known_what_became_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a slow disk the same jobs were purged again each second."""
    node, jobs, route = _started(34, 1)
    _fire(node, jobs, route, 20)
    runtime = node.engine.runtime
    propose = runtime.propose
    held: list[Any] = []

    def hold(vnode: Any, command: Any, done: Any = None) -> None:
        if isinstance(command, c.Purge) and not held:
            held.append(lambda: propose(vnode, command, done))
        else:
            assert not isinstance(command, c.Purge) or held[0] is None
            propose(vnode, command, done)

    monkeypatch.setattr(runtime, "propose", hold)
    _retain(node, 1_000, 1)
    node.world.run_for(10_000)
    held[0]()
    held[0] = None
    node.world.run_for(3_000)
    assert 0 == sum(node.engine.counts(jobs).values())


def test_what_is_remembered_is_of_one_replica() -> None:
    """It goes with its vnode, and is not that of the rows of a snapshot."""
    node = SimNode(35)
    assert node.start()
    jobs = node.put_collection(num_vnodes=4)
    assert jobs is not None
    node.world.run_for(2_000)
    expiry = node.engine._expiry
    groups = {(jobs.uid, index) for index in range(4)}
    assert groups | {META_GROUP} == expiry._kept.keys()
    vnode = node.engine._vnodes[jobs.uid][0]
    kept = expiry._of(vnode)
    assert kept is expiry._of(vnode)
    vnode.keys = ReplicaKeys(99)
    assert kept is not expiry._of(vnode)
    node.ask_meta(m.DeleteCollection(now_ms=node.now_ms(), db="default", name="jobs"))
    node.world.run_for(2_000)
    assert {META_GROUP} == expiry._kept.keys()


def test_nodes_look_at_what_they_lead_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others would find nobody could purge."""
    nodes = Spread().nodes
    starts = {
        number: _starts(engine._store, monkeypatch) for number, engine in nodes.engines.items()
    }
    nodes.world.run_for(3_000)
    for number, engine in nodes.engines.items():
        vnodes = [vnode for group, vnode in engine.runtime.vnodes.items() if group != META_GROUP]
        looked = [any(s.startswith(v.keys.finished) for s in starts[number]) for v in vnodes]
        assert [vnode.serving for vnode in vnodes] == looked
        assert (2, 6) == (sum(looked), len(looked))


def test_what_was_purged_is_not_walked_over_behind_the_last_due_row() -> None:
    """Named regression: each scan of the due index cost 31 ms after 300,000 purged jobs.

    LevelDB looks for the next row that there is, and that stood behind the table of what has
    finished, of which all rows had been deleted.
    """
    node, jobs, route = _started(34, 1)
    answers: list[Any] = []
    count = 40
    for number in range(count):
        node.put_job(jobs, f"c{number}", node.now_ms() + 600_000, route, answers)
    node.world.run_until(lambda: len(answers) == count)
    for number in range(count):
        command = c.DeleteJob(now_ms=node.now_ms(), job_id=f"c{number}")
        node.engine.propose_job(jobs, f"c{number}", command, answers.append)
    node.world.run_until(lambda: len(answers) == 2 * count)
    _retain(node, 1_000, 1)
    walked = _Walked(node.engine._store)
    node.world.run_for(120_000)
    (vnode,) = node.engine._vnodes[jobs.uid].values()
    keys = vnode.keys
    assert count <= sum(key.startswith(keys.finished) for key in walked.deleted)
    walked.steps.clear()
    for number in range(3):
        node.put_job(jobs, f"j{number}", node.now_ms() + 1_000, route, answers)
    node.world.run_for(20_000)
    scans = [steps for start, steps in walked.steps if keys.due <= start < keys.due_stop]
    assert scans
    # Its own rows, those of the few jobs that have just fired.
    assert all(key.startswith(keys.due) for steps in scans for key in steps)
    assert max(len(steps) for steps in scans) <= 4


class _Walked:
    """Counts the deleted keys that LevelDB would step over. `steps` are those of each scan."""

    def __init__(self, store: Any) -> None:
        self.deleted: set[bytes] = set()
        self.steps: list[tuple[bytes, list[bytes]]] = []
        self._store = store
        self._scan, self._write = store.scan, store.write
        store.scan, store.write = self._watched_scan, self._watched_write

    def _watched_write(self, prepared: dict[bytes, bytes | None]) -> None:
        self._write(prepared)
        for key, value in prepared.items():
            (self.deleted.add if value is None else self.deleted.discard)(key)

    def _watched_scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        rows: list[Row] = self._scan(start, stop, limit, reverse=reverse)
        if not reverse:
            end = rows[-1][0] if len(rows) == limit else self._next(stop)
            self.steps.append((start, [key for key in self.deleted if start <= key < end]))
        return rows

    def _next(self, stop: bytes) -> bytes:
        """The first row from there on, in the table or behind it."""
        rows = self._scan(stop, b"\xff" * 64, 1)
        return rows[0][0] if rows else b"\xff" * 64
