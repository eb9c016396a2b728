"""Wall clocks of one of three nodes that jump or drift: nothing early, nothing twice, no rest.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.checks.history import Fault
from tests.checks.promises import Rules
from tests.cluster.cluster import LASTING_MS, PATIENCE_S
from tests.cluster.process import wait_until
from tests.cluster.recorder import wall_ms
from tests.cluster.stage import Stage, staged
from tests.cluster.witness import RULES
from tests.needs import faketime_library
from timemachine import limits

pytestmark = [pytest.mark.timeout(300), pytest.mark.root("faketime")]
HOUR_S = 3_600
JOBS = 24
BOUND = Rules(drain_ms=RULES.drain_ms, probe_ms=RULES.probe_ms, early_ms=limits.CLOCK_OFFSET_MAX_MS)

Skew = Callable[[str], None]
VICTIM = 1
"""The node whose clock is not the machine's. It leads two of six vnodes, as every node does."""


@contextmanager
def _skewed(directory: Path) -> Iterator[tuple[Stage, Skew]]:
    """Three nodes, and what sets the wall clock of one, in libfaketime's words."""

    def skew(words: str) -> None:
        new = directory / "clock.new"
        new.write_text(words + "\n")
        new.rename(directory / "clock")

    skew("+0")
    environment = {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_TIMESTAMP_FILE": str(directory / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
    }
    with staged(directory, environments={VICTIM: environment}) as stage:
        wait_until(lambda: VICTIM in stage.cluster.leaders().values(), "it leads nothing")
        yield stage, skew


def _offset_ms(stage: Stage) -> float:
    """By how much another node sees its clock ahead."""
    asked = 2
    status, answer = stage.cluster.nodes[asked].ask("GET", "/v1/cluster")
    assert 200 == status
    (found,) = (
        each["clock_offset_ms"]
        for each in answer["nodes"]
        if stage.cluster.ids[each["id"]] == VICTIM
    )
    return float(found)


@pytest.mark.parametrize(
    "hours",
    [
        pytest.param(1, id="15 an hour ahead"),
        pytest.param(-2, id="16 two hours behind", marks=pytest.mark.slow),
    ],
)
def test_15_16_the_clock_of_a_leader_jumps(tmp_path: Path, hours: int) -> None:
    """Scenarios 15 and 16 (C1, C2, C4): others lead and fire; nothing is early, twice or stuck."""
    with _skewed(tmp_path) as (stage, skew):
        cluster, recorder, witness = stage
        witness.start()
        witness.wait_for(50)
        with witness.clerk() as clerk:
            begin_ms = int(wall_ms())
            for number in range(JOBS):
                clerk.put(f"soon{number}", begin_ms + 3_000 + 100 * number)
            for number in range(JOBS):
                clerk.put(f"later{number}", begin_ms + 1_800_000)
            skewed_ms = wall_ms()
            skew(f"{hours * HOUR_S:+d}")
            wait_until(
                lambda: abs(_offset_ms(stage) - hours * HOUR_S * 1_000) < 60_000,
                "the jump is not seen",
                PATIENCE_S,
            )
            cluster.wait_led(without=VICTIM)
            wait_until(
                lambda: (
                    {f"soon{number}" for number in range(JOBS)}
                    <= {each.job for each in recorder.requests()}
                ),
                "they do not fire",
                PATIENCE_S,
            )
            witness.wait_for(100)
            skew("+0")
            wait_until(lambda: abs(_offset_ms(stage)) < 300, "it is not seen", PATIENCE_S)
            witness.wait_for(50)
            cluster.wait_whole()
            cluster.faults.append(
                Fault(skewed_ms, wall_ms() + LASTING_MS, "clock", frozenset({VICTIM}))
            )
            assert not [each for each in recorder.requests() if each.job.startswith("later")]
            for number in range(JOBS):
                assert "cancelled" == clerk.delete(f"later{number}").outcome
        witness.finish(BOUND)


@pytest.mark.slow
def test_17_a_clock_drifts_while_leaders_change(tmp_path: Path) -> None:
    """Scenario 17 (C4, C7): by whichever clock, nothing is earlier than the bound allows."""
    with _skewed(tmp_path) as (stage, skew):
        cluster, _, witness = stage
        witness.start()
        witness.wait_for(50)
        skewed_ms = wall_ms()
        skew("+0 x1.5")
        witness.wait_for(50)
        cluster.pause(3)
        cluster.wait_led(without=3)
        cluster.resume(3)
        witness.wait_for(100)
        cluster.wait_whole()
        fault = Fault(skewed_ms, wall_ms() + LASTING_MS, "clock", frozenset({VICTIM}))
        cluster.faults.append(fault)
        # Between two looks at the others it gets half a look's time further ahead.
        witness.finish(dataclasses.replace(BOUND, early_ms=limits.CLOCK_OFFSET_MAX_MS + 500))
