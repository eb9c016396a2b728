"""Every planted fault is found, and the page on the simulator says how soon."""

from functools import cache

import pytest

from tests.sim.mutations import MUTATIONS, is_rare, planted, seeds_needed
from tests.sim.mutations.counted import FIRST_FOUND
from tests.sim.mutations.finding import first_found
from tests.sim.mutations.table import PAGE, table
from tests.sim.runs import Order, run_seed
from timemachine.vnode import Vnode

_TRIES = 15
"""Seeds from the recorded one on: histories move with each change of the code."""
_TRIES_RARE = 500


@cache
def _clean(seed: int) -> tuple[str, ...]:
    return run_seed(Order(), seed).found


def _found(name: str, tries: int) -> None:
    mutation = MUTATIONS[name]
    first = FIRST_FOUND[name]
    run = first_found(name, range(first, first + tries))
    assert run is not None, f"no seed of {tries} from {first} on finds {name}"
    if not mutation.core:
        # By what was planted, and not by what is there anyway.
        assert () == _clean(run.seed)


@pytest.mark.parametrize("name", [name for name in MUTATIONS if not is_rare(name)])
def test_a_planted_fault_is_found(name: str) -> None:
    """By a check that should."""
    _found(name, _TRIES)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in MUTATIONS if is_rare(name)])
def test_a_planted_fault_is_found_in_time(name: str) -> None:
    """Those that need more seeds."""
    _found(name, _TRIES_RARE)


def test_a_planted_fault_is_taken_out_again() -> None:
    """Whatever was raised meanwhile."""
    before = Vnode._sort_messages

    def fail() -> None:
        with planted("ack-before-sync"):
            assert before is not Vnode._sort_messages
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert before is Vnode._sort_messages


def test_each_was_found_soon_enough() -> None:
    """Within 5,000 seeds, the bar that was set."""
    assert FIRST_FOUND.keys() == MUTATIONS.keys()
    assert all(0 < seeds_needed(name) <= 5_000 for name in MUTATIONS)


def test_the_page_tells_the_same() -> None:
    """The table is that of the code; `python -m tests.sim.mutations.table` writes it."""
    assert table() in PAGE.read_text()
