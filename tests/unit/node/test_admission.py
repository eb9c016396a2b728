"""What a node that wants to join is told."""

import hashlib

from msgspec.structs import replace

from node.admission import Admission
from node.rpc.joinwords import Elsewhere, JoinAnswer, Joined, JoinRequest, Refused
from tests.unit.node.three import ThreeNodes
from timemachine.model import Node
from timemachine.replica import meta as m

TOKEN = "t"
HASH = hashlib.sha256(b"secret").digest()
JOINER = Node(id="new", name="", http="", rpc="10.0.0.9:9001", zone="", version="0")


def _ask(nodes: ThreeNodes, number: int, node: Node, with_id: str = TOKEN) -> JoinAnswer:
    answers: list[JoinAnswer] = []
    Admission(nodes.engines[number]).decide(JoinRequest(with_id, node), answers.append)
    nodes.world.run_until(lambda: bool(answers))
    return answers[0]


def test_what_a_joiner_is_told() -> None:
    """Who decides, what is wrong with it, and what it needs once it is a node."""
    nodes = ThreeNodes()
    nodes.ask_meta(
        lambda now_ms: m.IssueToken(
            now_ms=now_ms, id=TOKEN, secret_hash=HASH, expires_ms=now_ms + 60_000
        )
    )
    nodes.world.run_for(1_000)
    leader = nodes.leader((0, 0))
    assert isinstance(_ask(nodes, nodes.others(leader)[0], JOINER), Elsewhere)
    unknown = _ask(nodes, leader, JOINER, "u")
    assert isinstance(unknown, Refused)
    older = _ask(nodes, leader, replace(JOINER, formats=(0,)))
    assert older == Refused(
        "This cluster has finalised format 1; the program of the node that wants to join knows 0."
        " Install the version that the other nodes run."
    )
    joined = _ask(nodes, leader, JOINER)
    assert isinstance(joined, Joined)
    assert joined.number == 4
