"""timemachine/raft/inflights.py: the window of unanswered appends."""

import pytest

from timemachine.raft.inflights import Inflights


def window(size: int, *indexes: int, bytes_max: int = 0) -> Inflights:
    """A window with messages up to `indexes`, 10 bytes each."""
    inflights = Inflights(size, bytes_max)
    for index in indexes:
        inflights.add(index, 10)
    return inflights


def test_full_at_its_size() -> None:
    """And not before."""
    inflights = window(3, 1, 2)
    assert not inflights.full()
    inflights.add(3, 10)
    assert inflights.full()
    assert 3 == inflights.count()
    with pytest.raises(AssertionError, match="full"):
        inflights.add(4, 10)


def test_full_at_its_bytes() -> None:
    """The message that crosses the line is taken, the next one is not."""
    inflights = window(9, 1, bytes_max=15)
    assert not inflights.full()
    inflights.add(2, 100)
    assert inflights.full()
    inflights.free_le(1)
    assert inflights.full()
    inflights.free_le(2)
    assert not inflights.full()


def test_full_exactly_at_its_bytes() -> None:
    """The limit itself is full; without one, bytes do not matter."""
    assert window(9, 1, 2, bytes_max=20).full()
    assert not window(9, 1, 2, bytes_max=21).full()
    assert not window(9, *range(8), bytes_max=0).full()


@pytest.mark.parametrize(
    ("freed", "left"), [(0, 4), (2, 4), (3, 3), (4, 3), (5, 2), (8, 1), (9, 0), (99, 0)]
)
def test_an_answer_frees_everything_up_to_its_index(freed: int, left: int) -> None:
    """A message counts as answered when its last entry is."""
    inflights = window(4, 3, 5, 8, 9)
    inflights.free_le(freed)
    assert left == inflights.count()


def test_an_index_never_falls() -> None:
    """Messages are sent in order, and may repeat the last index."""
    inflights = window(9, 5, 5)
    with pytest.raises(AssertionError, match="falls"):
        inflights.add(4, 10)


def test_reset_forgets_all() -> None:
    """Messages and their bytes."""
    inflights = window(2, 1, 2, bytes_max=20)
    inflights.reset()
    assert (0, False) == (inflights.count(), inflights.full())
    inflights.add(1, 10)
    assert (1, False) == (inflights.count(), inflights.full())
