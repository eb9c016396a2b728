"""How late first attempts started."""

from timemachine.delivery.lateness import BOUNDS_MS, Lateness


def test_bounds_are_included() -> None:
    """Exactly a bound falls under it, and what is beyond the last has a place of its own."""
    lateness = Lateness()
    for late_ms in (0, 1, 2, 3, BOUNDS_MS[-1], BOUNDS_MS[-1] + 1):
        lateness.note(late_ms)
    assert [2, 1, 1] == lateness.counts[:3]
    assert [1, 1] == lateness.counts[-2:]
    assert 6 + 2 * BOUNDS_MS[-1] + 1 == lateness.sum_ms
