"""Runs seeds until one of them finds a mutation."""

import re
from collections.abc import Iterable
from typing import Final

from tests.sim.mutations import MUTATIONS
from tests.sim.runs import Order, Run, run_seed

CRASH: Final = "crash"
"""The check that speaks where production's assertions do, or its refusals, or Python."""

_CHECK: Final = re.compile(r"[SC]\d+(?=: )")


def checks_of(run: Run) -> set[str]:
    """The checks that have found something in a run."""
    matches = [_CHECK.match(sentence) for sentence in run.found]
    return {CRASH if match is None else match[0] for match in matches}


def first_found(name: str, seeds: Iterable[int]) -> Run | None:
    """The first of some seeds in which a mutation is found by a check that should."""
    for seed in seeds:
        run = run_seed(Order(mutation=name), seed)
        if not checks_of(run).isdisjoint(MUTATIONS[name].checks):
            return run
    return None
