"""What a replica takes part with when its host says nothing else."""

from timemachine.group import SOLE, GroupConfig, node_of, replica_id


def test_a_lease_is_shorter_than_the_wait() -> None:
    """By more than any clock that works drifts in a second."""
    config = GroupConfig()
    assert config.lease_ms < 0.95 * config.vote_wait_ms


def test_a_sole_voter_is_its_whole_group() -> None:
    """It is a member of what it votes in, and draws the shortest time-outs: nobody competes."""
    assert (SOLE.id,) == SOLE.voters
    assert {0} == {SOLE.draw(10) for _ in range(10)}


def test_the_first_replica_of_a_node_has_its_number() -> None:
    """Later ones have other ids, and all of them tell the node."""
    assert replica_id(3) == 3
    ids = {replica_id(node, generation) for node in (1, 2, 65_535) for generation in range(3)}
    assert len(ids) == 9
    assert {node_of(each) for each in ids} == {1, 2, 65_535}
