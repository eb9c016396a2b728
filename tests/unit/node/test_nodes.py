"""Who the other nodes are, before and after the meta group is known."""

import msgspec

from node.nodes import Nodes
from node.rpc.hello import Known
from timemachine.addresses import AddressPolicy
from timemachine.model import Node, NodeState
from timemachine.storage.leveldb import FORMAT, Identity

JOINED = Identity(
    FORMAT, "cluster", "n3", 1, b"check", 3, ((1, "n1", "h1:9001"), (2, "n2", "[::1]:9002"))
)


def _node(number: int, state: NodeState = NodeState.MEMBER) -> Node:
    return Node(
        id=f"n{number}",
        name="",
        http="",
        rpc=f"h{number}:9{number}",
        zone="",
        version="0",
        number=number,
        state=state,
    )


def test_a_joiner_knows_whom_it_was_told() -> None:
    """The one that let it in has to reach it before it knows anything else."""
    nodes = Nodes(JOINED)
    assert (1, 2) == nodes.others
    assert ("h1", 9001) == nodes.address(1)
    assert ("::1", 9002) == nodes.address(2)
    assert Known("n1") == nodes.known(1)
    assert nodes.address(7) is None


def test_meta_knows_better() -> None:
    """Who was removed is retired, and called no more."""
    nodes = Nodes(JOINED)
    nodes.set([_node(1, NodeState.REMOVED), _node(2), _node(3), _node(4)])
    assert (2, 4) == nodes.others
    assert ("h2", 92) == nodes.address(2)
    assert Known("n1", retired=True) == nodes.known(1)


def test_who_joined_meanwhile_is_heard() -> None:
    """It may lead the cluster by now, and nobody else tells a node that was away."""
    nodes = Nodes(JOINED)
    nodes.set([_node(1), _node(3)])
    assert nodes.known(2) is None
    assert Known("") == nodes.known(4)
    assert nodes.hear(4, "h4:94")
    assert not nodes.hear(4, "h4:94")
    assert (1, 4) == nodes.others
    assert ("h4", 94) == nodes.address(4)


def test_who_joined_meanwhile_is_not_forgotten_on_the_way_there() -> None:
    """What meta says comes entry by entry, from the new node itself if that leads by now."""
    nodes = Nodes(JOINED)
    nodes.set([_node(1), _node(2), _node(3)])
    assert nodes.hear(5, "h5:95")
    nodes.set([_node(1), _node(2), _node(3), _node(4)])
    assert (1, 2, 4, 5) == nodes.others
    assert ("h5", 95) == nodes.address(5)
    nodes.set([_node(1), _node(2), _node(3), _node(4), _node(5, NodeState.REMOVED), _node(6)])
    assert (1, 2, 4, 6) == nodes.others
    assert nodes.address(5) is None


def test_the_first_node_is_alone() -> None:
    """Its data may be from before there were clusters."""
    nodes = Nodes(Identity(FORMAT, "cluster", "n1", 1, b"check"))
    assert () == nodes.others
    assert Known("") == nodes.known(2)


def test_nothing_is_to_be_sent_to_other_nodes() -> None:
    """A private range that is allowed does not open the API of the neighbour."""
    nodes = Nodes(JOINED)
    replace = msgspec.structs.replace
    nodes.set(
        [
            replace(_node(1), http="10.0.0.1:8001", rpc="10.0.0.1:9001"),
            # Its API is for its own machine, and nobody knows which one that is.
            replace(_node(2), http="127.0.0.1:8001", rpc="[fd00::2]:9001"),
            replace(_node(3), http="10.0.0.3:8001", rpc="10.0.0.3:9001"),
            replace(_node(4), http="127.0.0.1:8004", rpc="127.0.0.1:9004"),
            replace(_node(5), http="0.0.0.0:8005", rpc="a.example:9005"),
            replace(_node(6, NodeState.REMOVED), http="10.0.0.6:8001", rpc="10.0.0.6:9001"),
        ]
    )
    assert {
        ("10.0.0.1", 8001),
        ("10.0.0.1", 9001),
        ("fd00::2", 9001),
        ("127.0.0.1", 8004),
        ("127.0.0.1", 9004),
    } == nodes.listeners
    policy = AddressPolicy(("10.0.0.0/8", "127.0.0.0/8"), nodes.listeners)
    assert not policy.permits("10.0.0.1", 8001)
    assert not policy.permits("127.0.0.1", 9004)
    assert policy.permits("127.0.0.1", 8001)
    assert policy.permits("10.0.0.1", 8080)
