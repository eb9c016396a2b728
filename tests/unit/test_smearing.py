"""How jobs of one moment are spread over the time after it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timemachine import limits
from timemachine.ring import vnode_of
from timemachine.smearing import first_due_ms, smear_of


@pytest.mark.parametrize(
    ("job_id", "smear_ms", "expected"),
    [
        ("nxz123bnj", 1_000, 203),
        ("nxz123bnj", limits.ROUTE_SMEAR_MS_MAX, 17_539_504),
        ("cart/7", 1_000, 411),
        ("Zoë", 60_000, 44_247),
    ],
)
def test_the_part_of_a_job_never_changes(job_id: str, smear_ms: int, expected: int) -> None:
    """Nodes of different releases mean the same moment by a repeated request."""
    assert expected == smear_of(job_id, smear_ms)


@given(st.text(), st.integers(0, limits.ROUTE_SMEAR_MS_MAX))
def test_it_is_within_what_was_promised(job_id: str, smear_ms: int) -> None:
    """From the trigger time on, both ends included, and again the same."""
    assert 0 <= smear_of(job_id, smear_ms) <= smear_ms
    assert smear_of(job_id, smear_ms) == smear_of(job_id, smear_ms)


def test_jobs_spread_evenly() -> None:
    """In each tenth of the time there is about a tenth, of all jobs and of those of each vnode."""
    vnodes: dict[int, Counter[int]] = {number: Counter() for number in range(4)}
    for number in range(20_000):
        job_id = f"job-{number}"
        vnodes[vnode_of(job_id, 4)][smear_of(job_id, 999) // 100] += 1
    for counts in vnodes.values():
        mean = counts.total() / 10
        assert set(range(10)) == set(counts)
        assert all(abs(count - mean) < mean / 4 for count in counts.values())


def test_both_ends_are_used() -> None:
    """Over one millisecond, half of the jobs have their trigger time itself."""
    assert {0, 1} == {smear_of(f"job-{number}", 1) for number in range(100)}


def test_there_is_a_last_moment() -> None:
    """Nothing is due after the year 9999."""
    assert limits.TIME_MS_MAX == first_due_ms(limits.TIME_MS_MAX - 5, 6)
    assert limits.TIME_MS_MAX - 1 == first_due_ms(limits.TIME_MS_MAX - 5, 4)
