"""Knobs: drawn from their extremes, the same for a seed, and always fit to live with."""

import pytest

from tests.sim.cluster.knobs import draw


def test_a_seed_draws_the_same_knobs() -> None:
    """And another seed others."""
    assert draw(5) == draw(5) != draw(6)
    assert str(draw(5)) == str(draw(5))


def test_every_seed_can_live() -> None:
    """`validate` holds for all, and each extreme is met."""
    drawn = [draw(seed) for seed in range(2_000)]
    assert {3, 4, 5, 7} == {knobs.nodes for knobs in drawn}
    assert 1 == min(knobs.message_bytes_max for knobs in drawn)
    assert 1 == min(knobs.log_entries_max for knobs in drawn)
    assert {True, False} == {knobs.sleeps for knobs in drawn}
    assert all(0 < knobs.lease_ms_max < knobs.election_ms for knobs in drawn)


def test_knobs_can_be_fixed_without_changing_the_rest() -> None:
    """So that one seed can be looked at in other sizes."""
    fixed = draw(5, nodes=7, num_vnodes=1)
    assert (7, 1) == (fixed.nodes, fixed.num_vnodes)
    assert draw(5).changed(nodes=7, num_vnodes=1) == fixed
    with pytest.raises(TypeError):
        draw(5, no_such_knob=1)


def test_knobs_print_themselves() -> None:
    """Every name with its value."""
    knobs = draw(5, nodes=3)
    assert str(knobs).startswith("seed=5 nodes=3 num_vnodes=")


def test_no_cluster_of_which_no_election_could_succeed() -> None:
    """A time-out shorter than a round trip is refused."""
    with pytest.raises(AssertionError):
        draw(5, tick_ms=1.0, election_tick=5, net_base_ms=10.0)
