"""The plan of faults: drawn before, cut down at will, and over when everything is healed."""

import pytest

from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.nemesis import FAULT_KINDS, Fault, draw_plan
from tests.sim.cluster.toy import ToyCluster

_KNOBS = Knobs(
    seed=1,
    nodes=5,
    safety_ms=4_000.0,
    fault_pace_ms=50.0,
    restart_ms_max=300.0,
    wall_jump_ms_max=1_000.0,
    loss_max=0.3,
    drift_max=0.01,
)


def test_a_plan_is_drawn_from_the_seed() -> None:
    """In order of time, within the safety phase, of some kinds or of all."""
    plan = draw_plan(_KNOBS)
    assert plan == draw_plan(_KNOBS) != draw_plan(_KNOBS.changed(seed=2))
    times = [fault.at_ms for fault in plan]
    assert times == sorted(times)
    assert times[-1] < 4_000
    assert len({fault.kind for fault in plan}) > 10
    assert 2 >= len({fault.kind for fault in draw_plan(_KNOBS.changed(fault_kinds=2))})


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_kind_of_fault_strikes_and_heals(kind: str) -> None:
    """Alone, many times; afterwards everybody is up, hears everybody and writes."""
    cluster = ToyCluster(_KNOBS)
    plan = [Fault(50.0 * number, kind, number) for number in range(1, 60)]
    cluster.nemesis.plan = plan
    calm = ToyCluster(_KNOBS)
    calm.nemesis.plan = []
    calm.live(4_000.0, 0.0)
    cluster.live(4_000.0, 0.0)
    assert calm.clock.trace != cluster.clock.trace
    _all_is_well(cluster)


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_all_kinds_heals(seed: int) -> None:
    """Also with two nodes, or one."""
    cluster = ToyCluster(_KNOBS.changed(seed=seed, nodes=seed % 6 + 1))
    cluster.live(4_000.0, 0.0)
    assert len(cluster.nemesis.plan) == cluster.nemesis.done
    _all_is_well(cluster)


def test_who_is_paused_with_a_dead_handle_is_started_again() -> None:
    """It would end with its next write (named: seed 709175073128304, a node stayed down)."""
    cluster = ToyCluster(_KNOBS)
    cluster.nemesis.plan = []
    cluster.live(500.0, 0.0)
    disk = cluster.disk(1)
    disk.sync_ms = (1_000.0, 1_000.0)
    cluster.clock.run_for(20.0)
    disk.failing = 1
    disk.do(lambda: None, lambda _: None)
    assert cluster.clock.run_until(cluster.clock.now_ms + 100.0, lambda: disk.dead)
    cluster.pause(1, 10_000.0)
    cluster.clock.run_for(100.0)
    assert cluster.world(1).up
    cluster.nemesis.heal()
    _all_is_well(cluster)
    assert cluster.world(1).up


def test_a_fault_that_is_left_out_does_not_change_the_others() -> None:
    """Each has its own dice: the same crash comes at the same time."""
    plan = [Fault(100.0, "wall_jump", 1), Fault(500.0, "crash", 2)]
    crashes = []
    for part in (plan, plan[1:]):
        cluster = ToyCluster(_KNOBS)
        cluster.nemesis.plan = part
        cluster.live(1_000.0, 0.0)
        crashes.append([line for line in cluster.clock.journal() if "crash" in line])
    assert crashes[0] == crashes[1] != []


def test_a_majority_is_never_damaged() -> None:
    """Of five nodes two, and they stay down when they have found out."""
    cluster = ToyCluster(_KNOBS)
    cluster.nemesis.plan = [Fault(100.0 + 20.0 * n, "flip_bits", n) for n in range(60)]
    cluster.live(4_000.0, 1_000.0)
    damaged = cluster.nemesis.damaged
    assert 2 == len(damaged)
    for node in cluster.numbers:
        cluster.crash(node)
        assert (node not in damaged) == cluster.start(node)


def test_who_lies_in_wait_strikes_after_a_proposal() -> None:
    """Once, within moments."""
    cluster = ToyCluster(_KNOBS)
    cluster.nemesis.plan = [Fault(1.0, "crash_proposer", 1)]
    cluster.live(10.0, 0.0)
    assert cluster.world(2).up
    cluster = ToyCluster(_KNOBS)
    cluster.nemesis.plan = [Fault(1.0, "crash_proposer", 1)]
    cluster.clock.later(100.0, cluster.nemesis.proposed, 2)
    cluster.clock.later(113.0, lambda: crashed.append(cluster.world(2).generation))
    crashed: list[int] = []
    cluster.live(200.0, 0.0)
    assert [1] == crashed


def _all_is_well(cluster: ToyCluster) -> None:
    """Everybody but the damaged is up, hears everybody, and its disk takes what it writes."""
    heard = {}
    damaged = cluster.nemesis.damaged
    for number in cluster.numbers:
        world = cluster.world(number)
        assert world.up or number in damaged
        assert world.held is None
        heard[number] = cluster.nodes[number].heard
        heard[number].clear()
    writes = {number: cluster.disk(number).writes for number in cluster.numbers}
    cluster.clock.run_for(2_500.0)  # a sync that stalls already goes on doing so
    up = [number for number in cluster.numbers if cluster.world(number).up]
    for number in up:
        said = {int(frame.split()[0]) for frame in heard[number]}
        assert {other for other in up if other != number} <= said
        assert len(up) == 1 or cluster.disk(number).writes > writes[number]
