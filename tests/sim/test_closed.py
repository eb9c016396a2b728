"""After the answer that a route is paused, nothing leaves, on a node without others either."""

from typing import Any

import pytest

from tests.sim.node import SimNode


@pytest.mark.parametrize("seed", range(30))
def test_nothing_leaves_after_a_route_was_paused(seed: int) -> None:
    """Whatever was claimed, was to be claimed, or waited for its connection at that moment."""
    node = SimNode(seed)
    assert node.start()
    collection, route = node.put_collection(), node.put_route()
    assert collection is not None
    assert route is not None
    rng = node.world.rng
    answers: list[Any] = []
    count = 0
    for _ in range(5):
        for _ in range(rng.randrange(1, 20)):
            due_ms = node.now_ms() + rng.choice([-5, 0, 5, 18, 60])
            node.put_job(collection, f"job-{count}", due_ms, route, answers)
            count += 1
        node.world.run_for(rng.uniform(0.0, 30.0))
        assert node.put_route(paused=True) is not None
        sealed: list[Any] = []
        node.engine.seal("default", sealed.append)
        assert [[]] == sealed
        received = len(node.sender.received)
        node.world.run_for(rng.choice([1.0, 300.0]))
        assert received == len(node.sender.received)
        assert node.put_route(paused=False) is not None
    node.world.run_until(lambda: len(node.sender.received) == count)
    node.world.run_for(200.0)
    assert count == len(node.sender.received)
