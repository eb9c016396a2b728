"""Which change of membership comes next, by example and against a twin that only counts."""

from dataclasses import dataclass, field
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timemachine import limits
from timemachine.group import replica_id
from timemachine.membership import (
    Standing,
    Wanted,
    is_taken_in,
    next_change,
    settled,
    wanted_in_meta,
    wanted_of,
)
from timemachine.model import Node, NodeState, Placement
from timemachine.raft import ConfChangeType, ConfChangeV2, ConfState

ADD, LEARN, REMOVE = (
    ConfChangeType.ADD_NODE,
    ConfChangeType.ADD_LEARNER,
    ConfChangeType.REMOVE_NODE,
)
LAST = 1_000


def _next(
    wanted: Wanted, members: ConfState, **unlike: Standing
) -> list[tuple[ConfChangeType, int]] | None:
    """The next change where everybody has everything, but for those that are named `_3=...`."""
    standings = {
        each: unlike.get(f"_{each}", Standing(LAST, heard=True))
        for each in (*members.voters, *members.learners)
    }
    change = next_change(wanted, members, standings, LAST)
    return None if change is None else [(each.type, each.node_id) for each in change.changes]


def test_what_is_as_wanted_stays() -> None:
    """In whatever order the members are named."""
    members = ConfState((1, 2, 3), (4,))
    assert settled(Wanted((3, 2, 1), (4,)), members)
    assert _next(Wanted((3, 2, 1), (4,)), members) is None


def test_a_joint_configuration_is_left_first() -> None:
    """It is not settled, though both halves may have what is wanted, and nothing is proposed."""
    members = ConfState((1, 2, 4), voters_outgoing=(1, 2, 3))
    assert not settled(Wanted((1, 2, 4)), members)
    assert _next(Wanted((1, 2, 5)), members) is None


def test_nobody_is_no_wish() -> None:
    """A collection that meta does not know any more wants nothing of its group."""
    assert _next(Wanted(()), ConfState((1, 2, 3))) is None


def test_who_comes_learns_first() -> None:
    """Also who is to vote, and one after the other."""
    assert [(LEARN, 4)] == _next(Wanted((1, 2, 3, 4, 5)), ConfState((1, 2, 3)))
    assert [(LEARN, 5)] == _next(Wanted((1, 2, 3, 4, 5)), ConfState((1, 2, 3), (4,)))


@pytest.mark.parametrize(
    ("standing", "change"),
    [
        (Standing(0, heard=False), None),
        (Standing(LAST, heard=False), None),
        (Standing(LAST - limits.LEARNER_BEHIND_MAX - 1, heard=True), None),
        (Standing(LAST - limits.LEARNER_BEHIND_MAX, heard=True), [(ADD, 4)]),
        (Standing(LAST, heard=True), [(ADD, 4)]),
    ],
)
def test_a_learner_votes_once_it_has_nearly_all(
    standing: Standing, change: list[tuple[ConfChangeType, int]] | None
) -> None:
    """And is there: otherwise it would only be one more whom the others wait for."""
    assert change == _next(Wanted((1, 2, 3, 4)), ConfState((1, 2, 3), (4,)), _4=standing)


def test_a_learner_of_an_empty_log_has_nothing() -> None:
    """It is within a few entries of the end, and has not said a word."""
    standings = {1: Standing(3, heard=True), 2: Standing(0, heard=True)}
    assert next_change(Wanted((1, 2)), ConfState((1,), (2,)), standings, 3) is None


def test_a_substitute_comes_in_the_step_in_which_the_other_goes() -> None:
    """Before that, who goes is kept: even one that is dead."""
    wanted = Wanted((1, 2, 4))
    behind, dead = Standing(1, heard=True), Standing(LAST, heard=False)
    assert _next(wanted, ConfState((1, 2, 3), (4,)), _4=behind, _3=dead) is None
    assert [(ADD, 4), (REMOVE, 3)] == _next(wanted, ConfState((1, 2, 3), (4,)), _3=dead)


def test_who_is_not_wanted_at_all_goes_at_once() -> None:
    """A learner that nobody waits for, and voters where fewer are wanted."""
    assert [(REMOVE, 9)] == _next(Wanted((1, 2, 3)), ConfState((1, 2), (3, 9)))
    assert [(REMOVE, 3)] == _next(Wanted((1, 2)), ConfState((1, 2, 3)))
    assert [(REMOVE, 2), (REMOVE, 3)] == _next(Wanted((1,)), ConfState((1, 2, 3)))


def test_a_voter_that_is_to_learn_is_demoted() -> None:
    """When a node with a lower number takes its place in the meta group."""
    assert [(LEARN, 3)] == _next(Wanted((1, 2), (3,)), ConfState((1, 2, 3)))
    members = ConfState((1, 2, 3), (4,))
    assert [(ADD, 4), (LEARN, 3)] == _next(Wanted((1, 2, 4), (3,)), members)


def test_those_that_stay_must_be_a_majority_that_is_there() -> None:
    """Else a group that works would be changed to one that does not, and could not go back."""
    dead = Standing(LAST, heard=False)
    members = ConfState((1, 2, 3, 4, 5))
    assert _next(Wanted((1, 2, 3)), members, _2=dead, _3=dead) is None
    assert [(REMOVE, 4), (REMOVE, 5)] == _next(Wanted((1, 2, 3)), members, _2=dead)
    assert [(REMOVE, 4), (REMOVE, 5)] == _next(Wanted((1, 2, 3)), members, _4=dead, _5=dead)


def _node(number: int, state: NodeState = NodeState.MEMBER) -> Node:
    return Node(
        id=f"n{number}", name="", http="", rpc="", zone="", version="", number=number, state=state
    )


def test_a_vnode_is_to_have_the_replicas_of_its_placement() -> None:
    """All of them as voters; those that are to leave are not wanted."""
    placement = Placement(1, 0, (1, 2), (1, replica_id(2, 1)), (2,))
    assert Wanted((1, replica_id(2, 1))) == wanted_of(placement)


def test_who_is_to_vote_is_taken_in_when_it_votes() -> None:
    """A learner that is to vote is not counted on yet; one that is to learn is all it is to be."""
    wanted = Wanted((1, 2, 3), (4,))
    members = ConfState(voters=(1, 2), learners=(3, 4))
    taken_in = [each for each in (1, 2, 3, 4, 5) if is_taken_in(each, wanted, members)]
    assert [1, 2, 4] == taken_in
    assert is_taken_in(3, wanted, ConfState(voters=(1, 2, 3), learners=(4,)))


def test_the_first_nodes_vote_in_the_meta_group() -> None:
    """By their numbers; those that are removed do not count, and those that are leaving do."""
    nodes = [_node(number) for number in (9, 8, 7, 6, 5, 4, 3)]
    nodes += [_node(1, NodeState.REMOVED), _node(2, NodeState.LEAVING)]
    assert Wanted((2, 3, 4, 5, 6), (7, 8, 9)) == wanted_in_meta(nodes)


def test_nodes_that_are_about_to_be_removed_leave_the_meta_group_first() -> None:
    """Others vote in their place; nobody hears them once they are removed."""
    nodes = [_node(number) for number in range(1, 8)]
    assert Wanted((1, 3, 5, 6, 7)) == wanted_in_meta(nodes, {2, 4})
    assert Wanted((1,)) == wanted_in_meta(nodes[:2], {2})


# --- the twin ------------------------------------------------------------------------------------


@dataclass
class Twin:
    """A group as sets of numbers. `living` are heard, and have what they are sent."""

    voters: set[int]
    living: set[int]
    learners: set[int] = field(default_factory=set)

    def members(self) -> ConfState:
        """As the leader has it."""
        return ConfState(tuple(sorted(self.voters)), tuple(sorted(self.learners)))

    def standings(self) -> dict[int, Standing]:
        """Who is dead has nothing new."""
        return {
            each: Standing(LAST if each in self.living else 1, each in self.living)
            for each in self.voters | self.learners
        }

    def works(self) -> bool:
        """Whether a majority lives."""
        return len(self.voters & self.living) * 2 > len(self.voters)

    def apply(self, change: ConfChangeV2) -> None:
        """What the change says, all at once."""
        assert change.changes
        for each in change.changes:
            self.voters.discard(each.node_id)
            self.learners.discard(each.node_id)
            if each.type is ADD:
                self.voters.add(each.node_id)
            elif each.type is LEARN:
                self.learners.add(each.node_id)


def _share_a_majority(before: set[int], after: set[int]) -> bool:
    """Whether every majority of the one has a member in common with each of the other."""
    return all(
        set(one) & set(other)
        for one in combinations(sorted(before), len(before) // 2 + 1)
        for other in combinations(sorted(after), len(after) // 2 + 1)
    )


_SOME = st.sets(st.integers(1, 9), min_size=1, max_size=7)


@given(_SOME, _SOME, st.sets(st.integers(1, 9), max_size=4), st.sets(st.integers(1, 9)))
def test_every_way_is_safe_and_ends(
    voters: set[int], wanted: set[int], learners: set[int], dead: set[int]
) -> None:
    """From any voters to any others, whoever is dead; the dead change now and then.

    One step changes one voter or is joint, a group that works stays one that works, and has never
    fewer voters than before unless fewer are wanted. When all live it is as wanted in the end.
    """
    goal = Wanted(tuple(sorted(wanted)), tuple(sorted(learners - wanted)))
    twin = Twin(set(voters), set(range(1, 10)) - dead)
    if not twin.works():
        return
    for turn in range(60):
        before, living = set(twin.voters), len(twin.voters & twin.living)
        change = next_change(goal, twin.members(), twin.standings(), LAST)
        if change is None:
            if twin.living == set(range(1, 10)):
                break
            twin.living = set(range(1, 10))  # all come back
            continue
        assert not settled(goal, twin.members())
        learning = {each.node_id for each in change.changes if each.type is ADD}
        assert learning <= twin.learners & twin.living
        twin.apply(change)
        assert twin.works()
        assert len(twin.voters) >= min(len(before), len(wanted))
        assert len(twin.voters & twin.living) >= min(living, len(wanted & twin.living))
        if not change.enters_joint:
            assert len(before ^ twin.voters) <= 1
            assert _share_a_majority(before, twin.voters)
        assert turn < 59
    assert settled(goal, twin.members())
