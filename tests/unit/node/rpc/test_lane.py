"""What waits for a peer, and what goes when it is too much."""

from hypothesis import given
from hypothesis import strategies as st

from node.rpc.lane import Lane


def test_in_order() -> None:
    """First come, first served."""
    lane = Lane(10, 100, 1_000)
    lane.push(b"1", 0)
    lane.push(b"2", 1)
    assert (2, 2) == (len(lane), lane.bytes)
    assert [b"1", b"2", None] == [lane.pop(2) for _ in range(3)]
    assert (0, 0, 0) == (len(lane), lane.bytes, lane.dropped)


def test_the_oldest_goes() -> None:
    """When they are too many, or too many bytes."""
    lane = Lane(3, 10, 1_000)
    for frame in (b"1", b"2", b"3", b"4"):
        lane.push(frame, 0)
    assert 1 == lane.dropped
    lane.push(b"123456789", 0)
    assert (2, 10, 3) == (len(lane), lane.bytes, lane.dropped)
    assert [b"4", b"123456789"] == [lane.pop(0) for _ in range(2)]


def test_what_never_fits_takes_nothing_with_it() -> None:
    """It is dropped itself."""
    lane = Lane(3, 4, 1_000)
    lane.push(b"1", 0)
    lane.push(b"12345", 0)
    assert (1, 1) == (len(lane), lane.dropped)


def test_the_old_does_not_leave() -> None:
    """However long nobody asked for it; nor does it stay in memory."""
    lane = Lane(10, 100, 1_000)
    lane.push(b"1", 0)
    lane.push(b"2", 500)
    lane.push(b"3", 1_200)
    assert (2, 1) == (len(lane), lane.dropped)
    assert b"3" == lane.pop(1_600)
    assert None is lane.pop(1_600)
    assert (0, 2) == (lane.bytes, lane.dropped)


def test_clear() -> None:
    """What is cleared is dropped."""
    lane = Lane(10, 100, 1_000)
    lane.push(b"1", 0)
    lane.clear()
    assert (0, 0, 1) == (len(lane), lane.bytes, lane.dropped)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 50)), max_size=40))
def test_bounds(steps: list[tuple[int, int]]) -> None:
    """Never more than it may hold; every frame leaves, waits or is counted."""
    lane = Lane(4, 20, 100)
    now, left, put = 0.0, 0, 0
    for size, pause in steps:
        now += pause
        if size == 12:
            left += lane.pop(now) is not None
        else:
            lane.push(bytes(size), now)
            put += 1
        assert len(lane) <= 4
        assert lane.bytes <= 20
        assert put == left + lane.dropped + len(lane)
