"""Nodes and placements for these tests."""

from timemachine.model import Node, NodeState, Placement


def node(
    number: int,
    zone: str = "",
    *,
    host: str = "",
    weight: int = 100,
    state: NodeState = NodeState.MEMBER,
) -> Node:
    """A node, alone on its host unless one is given."""
    return Node(
        id=f"n{number}",
        name="",
        http="",
        rpc=f"{host or f'10.0.0.{number}'}:9001",
        zone=zone,
        version="",
        number=number,
        weight=weight,
        state=state,
    )


def placed(*replicas: tuple[int, ...], uid: int = 1) -> list[Placement]:
    """Vnodes 0, 1, ... of a collection, with first replicas on the nodes of these numbers."""
    return [Placement(uid, index, each, each) for index, each in enumerate(replicas)]
