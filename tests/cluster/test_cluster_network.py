"""Networks that are cut: nobody is acknowledged by a minority, and everybody comes back.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.checks.history import NEVER
from tests.checks.jobmodel import Get
from tests.cluster.cluster import PATIENCE_S
from tests.cluster.network import between
from tests.cluster.process import wait_until
from tests.cluster.recorder import Request, wall_ms
from tests.cluster.stage import SEED, staged
from tests.cluster.switch import Sky
from tests.cluster.witness import writes_between

pytestmark = [pytest.mark.timeout(300), pytest.mark.root("namespace")]


def _came(requests: list[Request], prefix: str) -> int:
    return len({each.job for each in requests if each.job.startswith(prefix)})


@pytest.mark.slow
def test_05_one_node_is_killed_and_another_cut_off(tmp_path: Path) -> None:
    """Scenario 5 (C1, C8): with no majority nobody is acknowledged; then nothing is missing."""
    with staged(tmp_path, cuttable=True) as (cluster, _, witness):
        witness.start(patience_s=10)
        witness.wait_for(100)
        cluster.cut(between([1], [2, 3]))
        cluster.kill(2)
        alone_ms = wall_ms()
        time.sleep(4)
        mended_ms = wall_ms()
        cluster.heal()
        cluster.restart(2)
        cluster.wait_whole()
        witness.wait_for(50)
        history = witness.finish()
    # While a lease lasts its holder may read; it writes nothing.
    fooled = writes_between(history, alone_ms, mended_ms)
    assert not fooled, fooled


def test_06_a_leader_is_cut_off_with_its_clients(tmp_path: Path) -> None:
    """Scenario 6 (C2, C5, C6): it acknowledges nothing and fires nothing; the others do."""
    with staged(tmp_path, cuttable=True, timeout_ms=5_000) as (cluster, recorder, witness):
        witness.start()
        witness.wait_for(100)
        victim = cluster.leads_most()
        others = {1, 2, 3} - {victim}
        with witness.clerk() as clerk:
            begin_ms = int(wall_ms())
            for number in range(90):
                clerk.put(f"meanwhile{number}", begin_ms + 4_000 + 50 * number)
        witness.start(3, only=victim, patience_s=2)
        witness.wait_for(50)
        cut_ms = wall_ms()
        cluster.cut(between([victim], others))
        cluster.wait_led(without=victim, asked=others)
        led_ms = wall_ms()
        wait_until(lambda: 90 <= _came(recorder.requests(), "meanwhile"), "they do not fire", 60)
        witness.wait_for(50)
        mended_ms = wall_ms()
        cluster.heal()
        witness.wait_for(100)
        cluster.wait_whole()
        history = witness.finish()
    fooled = [
        call
        for call in history.calls
        if call.node == victim and led_ms < call.called_ms and call.returned_ms < mended_ms
    ]
    assert not fooled, fooled
    asked = [
        call
        for call in history.calls
        if call.node == victim and led_ms < call.called_ms < mended_ms
    ]
    assert [call for call in asked if not isinstance(call.asked, Get)], "nobody asked it"
    assert NEVER in {call.returned_ms for call in asked}
    came = Counter(each.job for each in history.webhooks if each.due_ms > cut_ms + 3_000)
    twice = [job for job, count in came.items() if job.startswith("mean") and count > 1]
    assert not twice, twice


def test_07_a_leader_does_not_reach_one_follower(tmp_path: Path) -> None:
    """Scenario 7 (C10, terms counted): it goes on to lead, or another does; no storm of terms."""
    with staged(tmp_path, cuttable=True, num_vnodes=1) as (cluster, _, witness):
        witness.start(2)
        witness.wait_for(50)
        (leader,) = cluster.leaders().values()
        (row,) = cluster.vnodes()
        follower = max({1, 2, 3} - {leader})
        cluster.cut([(leader, follower)])
        witness.wait_for(200)
        time.sleep(5)
        witness.wait_for(50)
        cluster.heal()
        cluster.wait_whole()
        (now,) = cluster.vnodes()
        assert now["term"] - row["term"] < 3, (row, now)
        witness.finish()


@pytest.mark.slow
def test_08_a_bridge_between_two_halves(tmp_path: Path) -> None:
    """Scenario 8 (C10): with {1, 2} 3 {4, 5} somebody leads all the time, and the same one."""
    with staged(tmp_path, 5, cuttable=True, num_vnodes=5) as (cluster, _, witness):
        witness.start(3)
        witness.wait_for(50)
        cluster.cut(between([1, 2], [4, 5]))
        witness.wait_for(150)
        time.sleep(3)
        before = {row["index"]: row["term"] for row in cluster.vnodes()}
        time.sleep(5)
        witness.wait_for(100)
        after = {row["index"]: row["term"] for row in cluster.vnodes()}
        assert before.keys() == after.keys()
        assert all(after[index] - before[index] < 3 for index in before), (before, after)
        cluster.heal()
        cluster.wait_whole()
        witness.finish()


@pytest.mark.slow
def test_09_a_link_that_flaps(tmp_path: Path) -> None:
    """Scenario 9 (C10): one second on, one second off; there is progress, and it comes back."""
    with staged(tmp_path, cuttable=True) as (cluster, _, witness):
        witness.start()
        witness.wait_for(50)
        pairs = between([cluster.leads_most()], {1, 2, 3} - {cluster.leads_most()})
        for _ in range(10):
            cluster.cut(pairs)
            time.sleep(1)
            cluster.heal()
            time.sleep(1)
        witness.wait_for(50)
        cluster.wait_whole()
        witness.finish()


@pytest.mark.slow
def test_10_links_are_cut_one_by_one_and_mended_in_another_order(tmp_path: Path) -> None:
    """Scenario 10 (C1 to C8)."""
    with staged(tmp_path, cuttable=True) as (cluster, _, witness):
        witness.start()
        witness.wait_for(50)
        assert cluster.network is not None
        for cut, mended in (
            ([(1, 2), (3, 1), (2, 3), (2, 1)], [(2, 3), (1, 2), (2, 1), (3, 1)]),
            ([(3, 2), (2, 3), (1, 3)], [(1, 3), (2, 3), (3, 2)]),
        ):
            for pair in cut:
                cluster.cut([pair])
                time.sleep(0.7)
            for pair in mended:
                cluster.network.mend([pair])
                time.sleep(0.7)
            cluster.heal()
            witness.wait_for(50)
        cluster.wait_whole()
        witness.finish()


@pytest.mark.slow
def test_11_a_fifth_of_all_packets_is_lost(tmp_path: Path) -> None:
    """Scenario 11 (all): nothing but loss; slower, and right."""
    with staged(tmp_path, cuttable=True) as (cluster, _, witness):
        witness.start()
        cluster.lose(between([1], [2, 3]) + between([2], [3]))
        witness.wait_for(200)
        cluster.heal()
        cluster.wait_whole()
        witness.finish()


@pytest.mark.root("namespace", "tun")
@pytest.mark.parametrize(
    ("sky", "calls"),
    [
        pytest.param(Sky(10, 20, loss=0.02, twice=0.05, held=0.05), 150, id="bad"),
        pytest.param(
            Sky(50, 50, loss=0.2, twice=0.1, held=0.1), 100, id="dreadful", marks=pytest.mark.slow
        ),
    ],
)
def test_11_packets_are_late_and_doubled_and_overtaken(
    tmp_path: Path, sky: Sky, calls: int
) -> None:
    """Scenario 11 (all): the same with everything else that a network does to packets."""
    with staged(tmp_path, cuttable=True, weather=True) as (cluster, _, witness):
        assert cluster.weather is not None
        witness.start()
        cluster.endure(sky)
        witness.wait_for(calls, 180)
        seen = cluster.weather.become(sky)
        print(seen)
        assert min(seen.lost, seen.doubled, seen.overtaken) > 10, seen
        cluster.heal()
        cluster.wait_whole()
        witness.finish()


@pytest.mark.slow
def test_12_a_node_that_was_cut_off_comes_back(tmp_path: Path) -> None:
    """Scenario 12 (leader and term constant): it has tried to be elected all the time."""
    with staged(tmp_path, cuttable=True, num_vnodes=1) as (cluster, _, witness):
        witness.start(2)
        witness.wait_for(50)
        (leader,) = cluster.leaders().values()
        victim = min({1, 2, 3} - {leader, cluster.node_leader()})
        before = [(row["leader"], row["term"]) for row in cluster.vnodes()]
        cluster.cut(between([victim], {1, 2, 3} - {victim}))
        time.sleep(8)
        witness.wait_for(50)
        cluster.heal()
        cluster.wait_whole()
        witness.wait_for(50)
        time.sleep(2)
        assert before == [(row["leader"], row["term"]) for row in cluster.vnodes()]
        witness.finish()


@pytest.mark.slow
@pytest.mark.root("namespace", "tun")
def test_leaders_are_lost_one_way_or_other_in_foul_weather(tmp_path: Path) -> None:
    """Scenarios 1, 6, 11 and 13 together (C1 to C8, C10): killed, paused, cut off, as dice fall."""
    dice = random.Random(SEED)
    with staged(tmp_path, cuttable=True, weather=True) as (cluster, _, witness):
        assert cluster.network is not None
        witness.start()
        witness.wait_for(30)
        cluster.endure(Sky(5, 30, loss=0.03, twice=0.1, held=0.1))
        for _ in range(6):
            victim = cluster.leads_most()
            pairs = between([victim], {1, 2, 3} - {victim})
            what = dice.choice(("kill", "pause", "cut"))
            if what == "kill":
                cluster.kill(victim)
            elif what == "pause":
                cluster.pause(victim)
            else:
                cluster.cut(pairs)
            time.sleep(5 * dice.random())
            if what == "kill":
                cluster.restart(victim)
            elif what == "pause":
                cluster.resume(victim)
            else:
                cluster.network.mend(pairs)
            witness.wait_for(20, 2 * PATIENCE_S)
        cluster.heal()
        cluster.wait_whole()
        witness.wait_for(30)
        witness.finish()
