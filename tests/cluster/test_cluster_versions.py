"""An upgrade, node by node, while clients write: old and new programs run beside each other.

The test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.newer import NEWER
from tests.cluster.process import wait_until
from tests.cluster.stage import Stage, staged
from tests.cluster.witness import came_twice

pytestmark = pytest.mark.timeout(300)

_OLD, _NEW = "node", "tests.cluster.newer"


def _install(stage: Stage, number: int, program: str) -> None:
    """Stop a node in order and start it with another program, as an upgrade does."""
    stage.cluster.stop(number)
    stage.cluster.nodes[number].program = program
    stage.cluster.restart(number)
    stage.cluster.wait_whole()
    stage.witness.wait_for(30)


def _known(cluster: Cluster) -> int:
    """The newest format that every node knows, as all of them see it."""
    seen = {
        cluster.nodes[number].ask("GET", "/v1/cluster")[1]["known_version"] for number in (1, 2, 3)
    }
    return int(min(seen))


def _finalise(cluster: Cluster) -> tuple[int, Any]:
    return cluster.ask("POST", "/v1/cluster/finalise", {"cluster_version": NEWER[-1]})


@pytest.mark.slow
def test_30_nodes_are_upgraded_in_turn(tmp_path: Path) -> None:
    """Scenario 30 (C1, C3, C8, C10): back and forth until it is finalised, and then for good.

    No call fails, and nothing is sent twice.
    """
    with staged(tmp_path, excused_moves=False) as stage:
        cluster, _, witness = stage
        witness.start()
        witness.wait_for(30)
        for number, program in ((1, _NEW), (2, _NEW), (1, _OLD), (3, _NEW)):
            _install(stage, number, program)
            status, answer = _finalise(cluster)
            assert (409, "nodes_behind") == (status, answer["code"])
        _install(stage, 1, _NEW)
        wait_until(lambda: _known(cluster) == NEWER[-1], "nobody tells the new format", PATIENCE_S)
        assert 200 == _finalise(cluster)[0]
        witness.wait_for(50)
        cluster.stop(3)
        node = cluster.nodes[3]
        node.program = _OLD
        node.launch()
        assert not node.becomes_ready(), "an older program starts"
        assert 3 == node.wait(), node.log_tail()
        node.program = _NEW
        cluster.restart(3)
        cluster.wait_whole()
        witness.wait_for(50)
        history = witness.finish()
    assert not witness.notes.failed, witness.notes.failed
    assert [] == came_twice(history)
