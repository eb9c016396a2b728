"""The shares of all nodes add up to what a route allows."""

import pytest

from timemachine.delivery.shares import SOLE_SHARE, Share


@pytest.mark.parametrize("members", range(1, 10))
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 9, 10, 64, 1_000_003])
def test_shares_add_up_to_the_limit(limit: int, members: int) -> None:
    """Where it is too small for all, each has 1; those with more are the first."""
    shares = [Share(place, members).of(limit) for place in range(members)]
    assert max(limit, members) == sum(shares)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[-1] <= 1


@pytest.mark.parametrize("members", range(1, 10))
@pytest.mark.parametrize("limit", range(1, 12))
def test_no_turn_has_more_nodes_than_the_limit(limit: int, members: int) -> None:
    """Each node has its turn, and there are no more turns than it takes."""
    turns = [Share(place, members).turn(limit) for place in range(members)]
    numbers = [turn for turn, _ in turns]
    (count,) = {count for _, count in turns}
    assert set(range(count)) == set(numbers)
    assert all(numbers.count(turn) <= limit for turn in range(count))
    assert (count == 1) == (limit >= members)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 64])
def test_a_share_never_grows_when_a_node_joins(limit: int) -> None:
    """New nodes have higher numbers, so places stay; so who hears of it late has no less."""
    for place in range(6):
        sizes = [Share(place, members).of(limit) for members in range(place + 1, 9)]
        assert sizes == sorted(sizes, reverse=True)


def test_a_node_without_others_owns_all() -> None:
    """A single node has no turns either."""
    assert (5, (0, 1)) == (SOLE_SHARE.of(5), SOLE_SHARE.turn(1))
