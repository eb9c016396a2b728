"""What makes a plan void, and what does not."""

from msgspec.structs import replace

from tests.unit.rebalancing.made import node, placed
from timemachine.model import Collection, NodeState
from timemachine.rebalancing import basis

_NODES = [node(1), node(2)]
_PLACED = placed((1, 2), (2, 1))
_COLLECTION = Collection(
    uid=1, db="d", name="c", num_vnodes=2, replicas=2, history_retention_ms=0, created_ms=0
)
_BASIS = basis(_NODES, [_COLLECTION], _PLACED)


def test_the_order_is_no_matter() -> None:
    """Nor is what no plan looks at."""
    assert _BASIS == basis(_NODES[::-1], [_COLLECTION], _PLACED[::-1])
    assert _BASIS == basis(
        [replace(_NODES[0], version="2", http="h:1"), _NODES[1]],
        [replace(_COLLECTION, name="other", history_retention_ms=7)],
        _PLACED,
    )
    gone = node(3, state=NodeState.REMOVED)
    assert _BASIS == basis([*_NODES, gone], [_COLLECTION], _PLACED)


def test_whatever_plans_are_made_from_counts() -> None:
    """Each of it, by itself."""
    changed = [
        basis([*_NODES, node(3)], [_COLLECTION], _PLACED),
        basis([node(1), node(2, weight=7)], [_COLLECTION], _PLACED),
        basis([node(1), node(2, "z")], [_COLLECTION], _PLACED),
        basis([node(1), node(2, host="h")], [_COLLECTION], _PLACED),
        basis([node(1), node(2, state=NodeState.LEAVING)], [_COLLECTION], _PLACED),
        basis(_NODES, [replace(_COLLECTION, replicas=3)], _PLACED),
        basis(_NODES, [], _PLACED),
        basis(_NODES, [_COLLECTION], [_PLACED[0], replace(_PLACED[1], version=2)]),
        basis(_NODES, [_COLLECTION], _PLACED[:1]),
    ]
    assert len(changed) + 1 == len({_BASIS, *changed})
