"""Nodes come and go while something else goes wrong: every vnode ends with whom it should have.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

from pathlib import Path

import pytest

from tests.checks.history import NEVER
from tests.checks.jobmodel import Get
from tests.cluster.cluster import PATIENCE_S
from tests.cluster.copying import disturb, holders, kill_changing_leader, weigh_down
from tests.cluster.network import between
from tests.cluster.process import wait_until
from tests.cluster.recorder import wall_ms
from tests.cluster.stage import staged

pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
def test_28_leaders_are_killed_while_nodes_are_replaced(tmp_path: Path) -> None:
    """Scenario 28 (C1, C8, C10): two of three are replaced, and each change is interrupted."""
    with staged(tmp_path) as (cluster, _, witness):
        weigh_down(cluster)
        witness.start()
        witness.wait_for(50)
        for newcomer in (4, 5):
            lost = cluster.leads_most()
            cluster.kill(lost)
            cluster.lose_disk(lost)
            cluster.wait_led(without=lost)
            cluster.join(newcomer, "--replace", cluster.id_of(lost))
            disturb(cluster, [newcomer], 2, lambda: kill_changing_leader(cluster))
            del cluster.nodes[lost]
            assert holders(cluster) == set(cluster.nodes)
            witness.wait_for(50)
        history = witness.finish()
    assert {4, 5} < {image.node for image in history.images}


def test_28_leaders_are_killed_while_a_cluster_grows(tmp_path: Path) -> None:
    """Scenario 28 (C1, C8, C10): two nodes join one at once, so each vnode changes twice."""
    with staged(tmp_path, 1) as (cluster, _, witness):
        weigh_down(cluster)
        witness.start()
        witness.wait_for(50)
        for newcomer in (2, 3):
            cluster.begin_join(newcomer)
        for newcomer in (2, 3):
            cluster.end_join(newcomer)
        disturb(cluster, [2, 3], 3, lambda: kill_changing_leader(cluster))
        witness.wait_for(100)
        history = witness.finish()
    assert {1, 2, 3} == {image.node for image in history.images}


@pytest.mark.slow
@pytest.mark.root("namespace")
def test_28_a_node_is_replaced_that_is_only_cut_off(tmp_path: Path) -> None:
    """Scenario 28 (C1, C2, C5, C8): it runs on until it hears of that, and acknowledges nothing.

    Links to the newcomer are cut one by one while it copies.
    """
    with staged(tmp_path, cuttable=True) as (cluster, _, witness):
        assert cluster.network is not None
        weigh_down(cluster)
        witness.start()
        witness.wait_for(50)
        victim = cluster.leads_most()
        one, other = {1, 2, 3} - {victim}
        witness.start(2, only=victim, patience_s=2)
        cluster.cut(between([victim], [one, other, 4]))
        cluster.wait_led(without=victim, asked=[one, other])
        led_ms = wall_ms()
        cluster.join(4, "--replace", cluster.id_of(victim))
        for pair in ((one, 4), (4, other), (4, one), (other, 4)):
            cluster.cut([pair])
            witness.wait_for(20)
            cluster.network.mend([pair])
        wait_until(
            lambda: cluster.is_whole(3) and holders(cluster) == {one, other, 4},
            "the newcomer does not take its place",
            2 * PATIENCE_S,
        )
        cluster.heal()
        witness.wait_for(100)
        before = {row["index"]: row["term"] for row in cluster.vnodes([one, other, 4])}
        wait_until(
            lambda: "our number has been retired" in cluster.nodes[victim].log.read_text(),
            "nobody tells it",
            PATIENCE_S,
        )
        assert 0 == cluster.nodes[victim].wait()
        witness.wait_for(100)
        after = {row["index"]: row["term"] for row in cluster.vnodes([one, other, 4])}
        # Leaders are still being spread to the newcomer; a disturber would raise terms on and on.
        assert all(after[index] - before[index] < 3 for index in before), (before, after)
        witness.rest()
        cluster.kill(victim)
        del cluster.nodes[victim]
        history = witness.finish()
    asked = [call for call in history.calls if call.node == victim and led_ms < call.called_ms]
    fooled = [
        call for call in asked if call.returned_ms != NEVER and not isinstance(call.asked, Get)
    ]
    assert asked
    assert not fooled, fooled
