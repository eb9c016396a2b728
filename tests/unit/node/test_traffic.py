"""How busy a node says that it is."""

from node.traffic import Rates, Traffic
from tests.sim.world import SimWorld


def test_rates_are_those_of_the_last_few_seconds() -> None:
    """Not of all the time since the node began."""
    world = SimWorld(1)
    counts = [0, 0]
    traffic = Traffic(world, lambda: counts[0], lambda: counts[1])
    traffic.start()
    assert Rates() == traffic.rates
    counts[:] = 500, 50
    world.run_for(5_001)
    assert Rates(100.0, 10.0) == traffic.rates
    counts[1] += 5
    world.run_for(5_000)
    assert Rates(0.0, 1.0) == traffic.rates
