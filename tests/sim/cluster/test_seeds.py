"""Clusters of production's code through faults: the same seeds each time, fresh ones, failed ones.

300 seeds that everybody runs and 300 that nobody has run yet, on all cores. What fails is told
with the line that runs it again.
"""

import os
import re
from pathlib import Path

import pytest

from tests.sim.runs import Order, Run, commit, fresh_seed, run_many, run_seed

SEEDS = 300
PART = 30
FRESH = fresh_seed()
_ANY = Order()
_LIST = Path(__file__).with_name("failed_seeds.txt")
_KNOB = re.compile(r"([a-z_]+)=(\d+)")


def _failed(line: str) -> tuple[int, Order]:
    """A seed, the knobs that are fixed for it, and a sentence."""
    seed, *words = line.split()
    fixed = [found for found in map(_KNOB.fullmatch, words) if found]
    return int(seed), Order(knobs=tuple((each[1], int(each[2])) for each in fixed))


FAILED = [_failed(line) for line in _LIST.read_text().splitlines() if line[:1] != "#"]


def _told(runs: list[Run], order: Order = _ANY) -> list[str]:
    return [
        f"seed {run.seed}, commit {commit()}: {'; '.join(run.found[:3])}\n{order.again(run.seed)}"
        for run in runs
        if run.found
    ]


def _part(first: int) -> list[Run]:
    jobs = os.cpu_count() or 1
    return list(run_many(Order(), range(first, first + PART), jobs=jobs))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_seeds_that_everybody_runs(first: int) -> None:
    """The same for each commit."""
    assert [] == _told(_part(first))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(0, SEEDS, PART))
def test_seeds_that_nobody_has_run(part: int) -> None:
    """Others each time."""
    assert [] == _told(_part(FRESH + part))


@pytest.mark.parametrize(("seed", "order"), FAILED)
def test_seeds_that_once_failed(seed: int, order: Order) -> None:
    """Each found something."""
    assert [] == _told([run_seed(order, seed)], order)
