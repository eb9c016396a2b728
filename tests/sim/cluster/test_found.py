"""What the simulator found, each as a history of its own."""

from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs


def test_a_leader_that_steps_down_half_asleep_lets_its_followers_go() -> None:
    """Its node's beats went on for a group that nobody led, so that nobody else was ever elected.

    A leader that is awake for the sake of one peer alone hears no majority and steps down; those
    that slept under it kept refusing their votes.
    """
    harness = Harness(Knobs(seed=1, nodes=5, num_vnodes=1))
    harness.boot()
    clock, members = harness.clock, harness.members
    clock.run_for(3_000.0)
    for group in members.groups():
        leader = members.leader_of(group)
        others = [number for number in members.numbers if number != leader]
        members.network.isolate(others[0])
        clock.run_for(3_000.0)
        for other in others:
            members.network.cut(other, leader)
        clock.run_for(3_000.0)
        members.network.heal()
        clock.run_for(10_000.0)
    assert all(members.leader_of(group) for group in members.groups())
