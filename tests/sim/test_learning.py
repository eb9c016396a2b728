"""What a vnode learns anew from its rows after a start is true, whatever is written meanwhile."""

from typing import Any

import pytest

from node import learning
from node.replicas import job_machine
from tests.sim.node import SimNode
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine
from timemachine.ring import vnode_of
from timemachine.storage.keys import ReplicaKeys

JOBS = 40
FAR_MS = 3_600_000


@pytest.mark.parametrize("wait_ms", [0, 5, 10, 15, 1_000])
def test_ids_of_before_a_restart_exist(wait_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create of an id that is kept is refused, while the ids are read and afterwards."""
    monkeypatch.setattr(learning, "_ROWS", 7)
    node = SimNode(5)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    due_ms = node.now_ms() + FAR_MS

    def create(number: int, due_ms: int) -> str:
        answers: list[Any] = []
        node.put_job(jobs, f"job-{number}", due_ms, route, answers, create_only=True)
        node.world.run_until(lambda: bool(answers))
        return str(answers[0].code or answers[0].kind)

    assert {"created"} == {create(number, due_ms) for number in range(JOBS)}
    node.crash()
    assert node.start()
    node.world.run_for(wait_ms)
    assert {"job_exists"} == {create(number, due_ms + 1) for number in range(JOBS)}
    assert {"created"} == {create(number, due_ms) for number in range(JOBS, 2 * JOBS)}
    assert {"job_exists"} == {create(number, due_ms + 1) for number in range(2 * JOBS)}
    node.world.run_for(1_000)
    machines = [vnode.machine for vnode in node.engine._vnodes[jobs.uid].values()]
    assert all(isinstance(machine, JobMachine) and machine.ids.complete for machine in machines)


@pytest.mark.parametrize("seed", range(8))
def test_due_jobs_are_counted_while_others_come_and_go(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Created, moved and deleted while a node that has started counts what it finds."""
    monkeypatch.setattr(learning, "_ROWS", 7)
    node = SimNode(seed)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    rng = node.world.rng
    answers: list[Any] = []

    def write() -> None:
        due_ms = node.now_ms() + FAR_MS + rng.randrange(3_600_000)
        name = f"job-{rng.randrange(JOBS)}"
        if rng.random() < 0.3:
            command = c.DeleteJob(now_ms=node.now_ms(), job_id=name, purge=rng.random() < 0.5)
            node.engine.propose_job(jobs, name, command, answers.append)
        else:
            node.put_job(jobs, name, due_ms, route, answers)

    for _ in range(2 * JOBS):
        write()
    node.world.run_for(1_000)
    node.crash()
    assert node.start()
    for _ in range(60):
        write()
        node.world.run_for(rng.uniform(0, 3))
    node.world.run_for(1_000)
    for vnode in node.engine._vnodes[jobs.uid].values():
        machine = vnode.machine
        assert isinstance(machine, JobMachine)
        assert machine.due_counts.complete
        keys = vnode.keys
        rows = node.disk.store.scan(keys.due, keys.due_stop, 1_000)
        at = len(keys.due)
        minutes = [int.from_bytes(key[at : at + 8], "big") // 60_000 for key, _ in rows]
        for minute in set(minutes):
            assert minutes.count(minute) == machine.due_counts.count(minute, minute + 1)
        assert len(rows) == machine.due_counts.count(0, max(minutes, default=0) + 1)


@pytest.mark.parametrize("wait_ms", [0, 10, 20])
def test_what_is_being_learned_of_rows_that_are_left_is_not_taken_for_the_new_ones(
    wait_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot comes while ids are read: none that it brought may be called unknown."""
    monkeypatch.setattr(learning, "_ROWS", 7)
    node = SimNode(5)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    for number in range(JOBS):
        node.put_job(jobs, f"job-{number}", node.now_ms() + FAR_MS, route, answers)
    node.world.run_for(1_000)
    node.crash()
    assert node.start()
    node.world.run_for(wait_ms)
    vnodes = list(node.engine._vnodes[jobs.uid].values())
    store = node.disk.store
    for vnode in vnodes:
        old, new = vnode.keys, ReplicaKeys(1_000 + vnode.group[1])
        rows = store.scan(old.prefix, old.stop, 10_000)
        store.write(store.prepare({new.prefix + key[4:]: value for key, value in rows}))
        store.write(store.prepare(dict.fromkeys(key for key, _ in rows)))
        machine = job_machine(vnode)
        machine.rebase(new, store)
        vnode.keys = new
    machines = [job_machine(vnode) for vnode in vnodes]
    names = [f"job-{number}" for number in range(JOBS)]
    placed = [(machines[vnode_of(name, jobs.num_vnodes)], name) for name in names]
    for added in (False, True):
        for vnode in vnodes if added else []:
            node.engine._learning.add(vnode)
        node.world.run_for(1_000)
        for machine, name in placed:
            assert machine.ids.complete or not added
            assert not machine.ids.complete or machine.ids.add(name.encode())
        for machine in machines:
            here = [name for other, name in placed if other is machine]
            assert machine.due_counts.complete or not added
            if machine.due_counts.complete:
                assert len(here) == machine.due_counts.count(0, 1 << 40)
