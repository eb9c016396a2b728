"""Plans as they are asked for: which moves, and what is said of them beforehand."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from tests.unit.rebalancing.made import node, placed
from timemachine import limits
from timemachine.group import node_of
from timemachine.model import Collection, NodeState, Placement, PlanKind
from timemachine.placement import Move
from timemachine.rebalancing import Draft, cut

_FOUR = [node(number) for number in (1, 2, 3, 4)]
_PLACED = placed((1, 2, 4), (2, 3, 4))


def _collections(replicas: int = 3) -> dict[int, Collection]:
    collection = Collection(
        uid=1,
        db="default",
        name="c",
        num_vnodes=2,
        replicas=replicas,
        history_retention_ms=0,
        created_ms=0,
    )
    return {1: collection}


def _risks(
    draft: Draft,
    placements: list[Placement],
    nodes: Any = _FOUR,
    down: frozenset[int] = frozenset(),
    replicas: int = 3,
) -> list[str]:
    collections = _collections(replicas)
    moves = draft.moves(nodes, collections, placements)
    return draft.risks(moves, nodes, collections, placements, down)


def test_a_drained_node_gives_all_away() -> None:
    """So does one that is removed; of a dead one the others are the sources."""
    for kind, lost in ((PlanKind.DRAIN, ()), (PlanKind.REMOVE, ()), (PlanKind.REMOVE, (4,))):
        draft = Draft(kind=kind, nodes=(4,), lost=frozenset(lost))
        moves = draft.moves(_FOUR, _collections(), _PLACED)
        assert [Move(1, 0, 1, (3,), (4,)), Move(1, 1, 1, (1,), (4,))] == moves
        assert [] == draft.risks(moves, _FOUR, _collections(), _PLACED, frozenset())


def test_a_node_is_taken_back() -> None:
    """It gets its share again, as if it had never left."""
    nodes = [*_FOUR[:3], replace(_FOUR[3], state=NodeState.LEAVING)]
    placements = placed((1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3))
    assert [] == Draft(kind=PlanKind.REBALANCE).moves(nodes, _collections(), placements)
    moves = Draft(kind=PlanKind.REBALANCE, nodes=(4,)).moves(nodes, _collections(), placements)
    assert {(4,)} == {move.add for move in moves}
    assert 3 == len(moves)


def test_another_count_of_replicas() -> None:
    """More come, or some go."""
    more = Draft(kind=PlanKind.REPLICATE, uid=1, replicas=4)
    assert [((3,), ()), ((1,), ())] == [
        (move.add, move.remove) for move in more.moves(_FOUR, _collections(), _PLACED)
    ]
    fewer = Draft(kind=PlanKind.REPLICATE, uid=1, replicas=2)
    assert [((), 1)] * 2 == [
        (move.add, len(move.remove)) for move in fewer.moves(_FOUR, _collections(), _PLACED)
    ]


def test_who_does_not_answer_is_a_risk() -> None:
    """Unless it is what is removed."""
    draft = Draft(kind=PlanKind.REMOVE, nodes=(4,), lost=frozenset({4}))
    assert [] == _risks(draft, _PLACED, down=frozenset({4}))
    (sentence,) = _risks(draft, _PLACED, down=frozenset({2, 4}))
    assert sentence.startswith("n2 does not answer")


def test_placements_are_not_looked_through_for_each_collection() -> None:
    """Named regression: with thousands of collections that held the loop up for many seconds."""
    collection = _collections()[1]
    collections = {uid: replace(collection, uid=uid, num_vnodes=1) for uid in range(1, 201)}
    looked = [0]

    class Placements(list[Placement]):
        def __iter__(self) -> Iterator[Placement]:
            looked[0] += 1
            return super().__iter__()

    placements = Placements(placed((1, 2, 3), uid=uid)[0] for uid in collections)
    draft = Draft(kind=PlanKind.REMOVE, nodes=(3,))
    (stay, few) = draft.risks([], _FOUR[:3], collections, placements, frozenset())[:2]
    assert stay.startswith("200 replicas stay")
    assert few.startswith("200 vnodes more than now")
    assert looked[0] < 10


def test_few_replicas_are_a_risk() -> None:
    """While they move, and afterwards."""
    (moving, later) = _risks(
        Draft(kind=PlanKind.DRAIN, nodes=(4,)), placed((1, 4), (2, 4)), replicas=2
    )
    assert moving.startswith("2 vnodes that move have fewer than three")
    assert later.startswith("2 vnodes will have fewer than three")
    few = _risks(Draft(kind=PlanKind.DRAIN, nodes=(3,)), placed((1, 2, 3)), _FOUR[:3])
    assert few[0].startswith("1 vnodes more than now will have fewer replicas than")


def test_what_stays_is_a_risk() -> None:
    """Of a vnode that is being changed nothing is planned."""
    changing = Placement(1, 0, (1, 2, 4), (1, 2, 4), (3,), 2, 1)
    draft = Draft(kind=PlanKind.DRAIN, nodes=(4,))
    assert [] == draft.moves(_FOUR, _collections(), [changing])
    (sentence,) = _risks(draft, [changing])
    assert sentence.startswith("1 replicas stay on what is to be emptied")


def test_one_plan_takes_so_many_moves() -> None:
    """The others are for another one."""
    moves = [Move(1, index, 1, (2,), (1,)) for index in range(limits.PLAN_MOVES_MAX + 3)]
    first, left = cut(moves)
    assert (moves[:-3], 3) == (first, left)
    assert (moves[:2], 0) == cut(moves[:2])
    assert {1} == {node_of(each) for move in first for each in move.remove}
