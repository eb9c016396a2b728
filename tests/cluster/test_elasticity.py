"""A cluster grows, shrinks and loses machines under load, by plans that are disturbed.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

import pytest

from tests.checks.history import NEVER, History
from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.copying import holders, weigh_down
from tests.cluster.plans import (
    Strike,
    all_up,
    carry_out,
    copied_move,
    ends_itself,
    kill_node_leader,
    kill_source,
    kill_target,
    propose,
    read,
    refused,
    steer,
    wait_moving,
    wait_still,
)
from tests.cluster.process import wait_until
from tests.cluster.recorder import wall_ms
from tests.cluster.stage import staged
from tests.cluster.witness import came_twice
from timemachine.ring import vnode_of

pytestmark = pytest.mark.timeout(300)

_SLOWLY: Final = ("--snapshot-mb-per-s", "1")
_BALLAST: Final = 600
"""Jobs of 8 kB: with them an image of one of six vnodes is on its way for most of a second."""


def _counts(cluster: Cluster) -> dict[int, int]:
    """How many replicas each node has that has any."""
    counts: dict[int, int] = defaultdict(int)
    for row in cluster.vnodes():
        for each in row["replicas"]:
            counts[cluster.ids[each["node"]]] += 1
    return dict(counts)


def _led(cluster: Cluster) -> list[int]:
    """How many vnodes each node leads that leads any."""
    return sorted(Counter(cluster.leaders().values()).values())


def _wait_spread(cluster: Cluster, numbers: set[int]) -> None:
    """Wait until every vnode is whole, and these nodes and no others have replicas, evenly."""
    wait_until(
        lambda: cluster.is_whole(3) and holders(cluster) == numbers,
        f"not whole on {numbers}: {cluster.vnodes()}\n{cluster.logs()}",
        PATIENCE_S,
    )
    counts = _counts(cluster).values()
    assert max(counts) - min(counts) <= 1, counts


def _wait_up(cluster: Cluster) -> None:
    wait_until(lambda: all_up(cluster), "not all are up", PATIENCE_S)
    cluster.wait_whole()


def test_31_a_cluster_grows_and_shrinks_while_nodes_are_killed(tmp_path: Path) -> None:
    """Scenario 31 (C1 to C8, C10): one node, three, five and three again.

    While replicas move, who sends them, who gets them and who has them moved is killed.
    """
    kinds: list[Strike] = [kill_source, kill_target, kill_node_leader]
    with staged(tmp_path, 1, *_SLOWLY) as (cluster, _, witness):
        weigh_down(cluster, _BALLAST)
        witness.start()
        witness.wait_for(50)
        for newcomer in (2, 3):
            cluster.begin_join(newcomer)
        for newcomer in (2, 3):
            cluster.end_join(newcomer)
        cluster.wait_whole()
        # What was missing has come by itself, and is where it belongs.
        assert 0 == carry_out(cluster, propose(cluster, "rebalance"))["moves"]["total"]
        for newcomer in (4, 5):
            cluster.begin_join(newcomer)
        for newcomer in (4, 5):
            cluster.end_join(newcomer)
        # Those who ask have known the first node only, and it may be removed.
        witness.rest()
        witness.start()
        witness.wait_for(50)
        strikes = list(kinds)
        grown = carry_out(cluster, propose(cluster, "rebalance"), strikes)
        _wait_spread(cluster, {1, 2, 3, 4, 5})
        # Eighteen replicas: each of the two gets three or four.
        assert 6 <= grown["moves"]["copies"] <= 8, grown["moves"]
        assert grown["moves"]["total"] == grown["moves"]["done"], grown["moves"]
        witness.wait_for(50)
        _wait_up(cluster)
        # Who has plans carried out takes part in its own removal.
        removed = {leader := cluster.node_leader(), 1 if leader != 1 else 2}
        strikes += kinds
        carry_out(cluster, propose(cluster, "remove", *removed), strikes)
        for number in removed:
            ends_itself(cluster, number)
        _wait_spread(cluster, {1, 2, 3, 4, 5} - removed)
        witness.wait_for(100)
        history = witness.finish()
    # Some of them may have found nobody in one of the plans: it was over before.
    assert len(strikes) < len(kinds), strikes
    assert {1, 2, 3, 4, 5} - removed == {image.node for image in history.images}


def test_31_a_plan_is_paused_resumed_and_cancelled(tmp_path: Path) -> None:
    """Scenario 31 (C1, C8, C10): between any two of its moves a cluster is as it should be."""
    with staged(tmp_path, 3, *_SLOWLY, num_vnodes=12) as (cluster, _, witness):
        weigh_down(cluster, _BALLAST)
        cluster.join(4)
        witness.start()
        witness.wait_for(50)
        older, plan = propose(cluster, "rebalance"), propose(cluster, "rebalance")
        steer(cluster, plan, "confirm")
        assert "plan_running" == refused(cluster, older, "confirm")
        wait_moving(cluster, plan)
        assert "paused" == steer(cluster, plan, "pause")["state"]
        paused = wait_still(cluster, plan)
        assert 0 < paused["moves"]["waiting"], paused["moves"]
        cluster.wait_whole()
        # Whoever leads next knows as well that it is paused.
        leader = cluster.node_leader()
        cluster.kill(leader)
        wait_until(lambda: cluster.node_leader() != leader, "nobody else leads", PATIENCE_S)
        cluster.restart(leader)
        _wait_up(cluster)
        witness.wait_for(50)
        later = read(cluster, plan)
        assert ("paused", paused["moves"]) == (later["state"], later["moves"])
        assert "running" == steer(cluster, plan, "resume")["state"]
        wait_moving(cluster, plan)
        assert "cancelled" == steer(cluster, plan, "cancel")["state"]
        cancelled = wait_still(cluster, plan)
        assert cancelled["moves"]["done"] > paused["moves"]["done"], cancelled["moves"]
        assert cancelled["moves"]["waiting"], cancelled["moves"]
        _wait_up(cluster)
        assert cancelled["moves"] == read(cluster, plan)["moves"]
        assert "plan_ended" == refused(cluster, plan, "resume")
        assert "plan_outdated" == refused(cluster, older, "confirm")
        rest = carry_out(cluster, propose(cluster, "rebalance", transfers=4))
        assert cancelled["moves"]["waiting"] == rest["moves"]["total"], rest["moves"]
        _wait_spread(cluster, {1, 2, 3, 4})
        witness.wait_for(50)
        witness.finish()


def test_31_a_dead_node_is_removed(tmp_path: Path) -> None:
    """Scenario 31 (C1, C8, C10): what it had comes elsewhere, and it never comes back.

    It was the node leader.
    """
    with staged(tmp_path, 4) as (cluster, _, witness):
        witness.start()
        witness.wait_for(100)
        dead = cluster.node_leader()
        cluster.kill(dead)
        wait_until(lambda: cluster.node_leader() != dead, "nobody else leads", PATIENCE_S)
        cluster.wait_led(without=dead)
        _remove_dead(cluster, dead)
        witness.wait_for(50)
        _comes_in_vain(cluster, dead)
        witness.wait_for(50)
        witness.finish()


def test_31_a_node_dies_while_it_gets_replicas(tmp_path: Path) -> None:
    """Scenario 31 (C1, C8, C10): the plan waits for it, and says so; then it is removed."""
    with staged(tmp_path, 3, *_SLOWLY) as (cluster, _, witness):
        weigh_down(cluster, _BALLAST)
        cluster.join(4)
        witness.start()
        witness.wait_for(50)
        plan = propose(cluster, "rebalance")
        steer(cluster, plan, "confirm")
        wait_until(
            lambda: copied_move(cluster, read(cluster, plan)) is not None,
            "nothing moves",
            PATIENCE_S,
        )
        cluster.kill(4)
        wait_until(
            lambda: read(cluster, plan)["waits_for"] == [cluster.id_of(4)],
            "nobody says what it waits for",
            PATIENCE_S,
        )
        witness.wait_for(50)
        assert "running" == read(cluster, plan)["state"]
        steer(cluster, plan, "cancel")
        _remove_dead(cluster, 4)
        _comes_in_vain(cluster, 4)
        witness.wait_for(50)
        witness.finish()


def _remove_dead(cluster: Cluster, dead: int) -> None:
    """Remove a node that does not answer; the others have everything then."""
    name = cluster.id_of(dead)
    status, told = cluster.ask("POST", "/v1/cluster/plans", {"kind": "drain", "nodes": [name]})
    assert (409, "node_down") == (status, told.get("code")), told
    carry_out(cluster, propose(cluster, "remove", dead))
    _wait_spread(cluster, {1, 2, 3, 4} - {dead})


def _comes_in_vain(cluster: Cluster, dead: int) -> None:
    """Start a node that was removed: it is told so, and ends."""
    cluster.nodes[dead].launch()
    ends_itself(cluster, dead)


def test_31_most_nodes_are_removed(tmp_path: Path) -> None:
    """Scenario 31 (C1, C2, C3, C8, C10): two of four at once, then one of two.

    Whoever is removed was a voter of the meta group, and its leader is removed each time. All that
    is left goes on: no call fails.
    """
    with staged(tmp_path, 4, excused_moves=False) as (cluster, _, witness):
        witness.start()
        witness.wait_for(100)
        for voters in (2, 1):
            left = set(cluster.running())
            leader = cluster.node_leader()
            removed = {leader, *sorted(left - {leader})[: len(left) - voters - 1]}
            carry_out(cluster, propose(cluster, "remove", *removed))
            for number in removed:
                ends_itself(cluster, number)
            cluster.wait_whole(voters)
            assert left - removed == holders(cluster)
            # The meta group takes changes.
            cluster.route(f"after{voters}", "http://127.0.0.1:1024/")
            witness.wait_for(50)
        history = witness.finish()
        failed = witness.notes.failed
    assert not came_twice(history)
    assert not failed, failed


def test_31_nothing_comes_twice_while_replicas_move(tmp_path: Path) -> None:
    """Scenario 31 (C1, C2, C3, C8): a move is no fault, so it costs no repeat, and no failed call.

    How long vnodes pause is printed; `python -m bench join` judges it.
    """
    with staged(tmp_path, 3, excused_moves=False) as (cluster, _, witness):
        weigh_down(cluster, _BALLAST)
        cluster.join(4)
        witness.start()
        witness.wait_for(100)
        begin_ms = wall_ms()
        carry_out(cluster, propose(cluster, "rebalance"))
        _wait_spread(cluster, {1, 2, 3, 4})
        drained = cluster.node_leader()
        carry_out(cluster, propose(cluster, "drain", drained))
        _wait_spread(cluster, {1, 2, 3, 4} - {drained})
        wait_until(lambda: [2, 2, 2] == _led(cluster), "leaders are not even", PATIENCE_S)
        assert drained not in cluster.leaders().values()
        end_ms = wall_ms()
        witness.wait_for(50)
        history = witness.finish()
        failed = witness.notes.failed
    assert not came_twice(history)
    assert not failed, failed
    for what, pauses in _pauses_ms(history, begin_ms, end_ms).items():
        print(f"{what}: {', '.join(f'{index}: {ms:.0f} ms' for index, ms in pauses.items())}")


def _pauses_ms(history: History, begin_ms: float, end_ms: float) -> dict[str, dict[int, float]]:
    """Of each vnode the longest call, and by how much the latest webhook was late."""
    calls: dict[int, float] = defaultdict(float)
    webhooks: dict[int, float] = defaultdict(float)
    asked_ms: dict[str, float] = defaultdict(lambda: NEVER)
    for call in history.calls:
        index = vnode_of(call.job, 6)
        if begin_ms <= call.called_ms <= end_ms and call.returned_ms != NEVER:
            calls[index] = max(calls[index], call.returned_ms - call.called_ms)
            asked_ms[call.job] = min(asked_ms[call.job], call.called_ms)
    for webhook in history.webhooks:
        if webhook.job in asked_ms and webhook.at_ms <= end_ms:
            index = vnode_of(webhook.job, 6)
            since_ms = max(webhook.due_ms, asked_ms[webhook.job])
            webhooks[index] = max(webhooks[index], webhook.at_ms - since_ms)
    return {"longest call": dict(sorted(calls.items())), "latest webhook": dict(webhooks)}
