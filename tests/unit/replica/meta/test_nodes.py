"""Nodes: how a cluster begins, who joins it, and with which number."""

import pytest
from msgspec.structs import replace

from tests.unit.replica.meta.driven import HASH, DrivenMeta, node
from timemachine import codec, limits
from timemachine.model import Node, NodeState, Settings
from timemachine.placement import Move
from timemachine.replica.meta import (
    Bootstrap,
    Finalise,
    IssueToken,
    JoinNode,
    MetaResult,
    Place,
    PutCollection,
    PutNode,
)
from timemachine.replica.meta.nodes import forget_removed

JOINER = replace(node(0), id="new")


def _issue(
    meta: DrivenMeta, name: str = "t", now_ms: int = 10, expires_ms: int = 100
) -> str | None:
    result = meta.apply(IssueToken(now_ms=now_ms, id=name, secret_hash=HASH, expires_ms=expires_ms))
    return result.code


def _join(
    meta: DrivenMeta,
    who: Node = JOINER,
    name: str = "t",
    now_ms: int = 20,
    replaces: str | None = None,
    secret_hash: bytes = HASH,
) -> MetaResult:
    return meta.apply(
        JoinNode(now_ms=now_ms, token_id=name, secret_hash=secret_hash, node=who, replaces=replaces)
    )


def test_a_cluster_begins_with_its_nodes_and_once() -> None:
    """Two leaders may both have proposed it."""
    meta = DrivenMeta(3)
    assert {"n1": 1, "n2": 2, "n3": 3} == {
        each.id: each.number for each in meta.machine.nodes.values()
    }
    assert meta.machine.state.next_number == 4
    again = Bootstrap(now_ms=2, node=node(9), settings=Settings(restore_epoch=5))
    assert meta.apply(again).kind == "unchanged"
    assert meta.machine.state.next_number == 4
    assert meta.machine.settings == Settings()


def test_a_node_from_before_there_were_numbers_is_number_one() -> None:
    """What its row and the machine's row lack has a meaning."""
    old = codec.encode({"id": "a", "name": "", "http": "", "rpc": "", "zone": "", "version": "0"})
    meta = DrivenMeta(0)
    meta.machine.load(codec.encode([7, 1, 3, 0]), [(meta.keys.record + b"na", old)])
    read = meta.machine.nodes["a"]
    assert (1, NodeState.MEMBER, (1,)) == (read.number, read.state, read.formats)
    assert (2, 1) == (meta.machine.state.next_number, meta.machine.state.cluster_version)


def test_a_token_lets_one_node_in() -> None:
    """The next number is its own; the same node may ask again, another may not."""
    meta = DrivenMeta(2)
    assert _issue(meta) is None
    joined = _join(meta)
    assert joined.kind == "created"
    assert joined.node == replace(JOINER, number=3)
    again = _join(meta, now_ms=limits.JOIN_TOKEN_KEPT_MS)
    assert ("unchanged", joined.node) == (again.kind, again.node)
    moved = _join(meta, replace(JOINER, rpc="10.9.9.9:1"))
    assert moved.node == replace(JOINER, rpc="10.9.9.9:1", number=3)
    assert _join(meta, replace(JOINER, id="other")).code == "token_used"
    assert meta.machine.state.next_number == 4
    assert meta.reloaded().nodes == meta.machine.nodes
    assert meta.reloaded().tokens == meta.machine.tokens


def test_what_is_refused_changes_nothing() -> None:
    """Each with a code of its own."""
    meta = DrivenMeta(1)
    _issue(meta)
    before = meta.reloaded()
    assert _join(meta, name="u").code == "token_unknown"
    assert _join(meta, secret_hash=b"x" * 32).code == "token_unknown"
    assert _join(meta, now_ms=100).code == "token_expired"
    assert _join(meta, node(1)).code == "node_known"
    assert _join(meta, replaces="nobody").code == "node_unknown"
    assert _join(meta, replace(JOINER, formats=(2, 3))).code == "format_unknown"
    assert (before.nodes, before.tokens) == (meta.machine.nodes, meta.machine.tokens)
    assert _join(meta).kind == "created"


def test_tokens_are_bounded_and_forgotten_when_void() -> None:
    """One that was used is kept for a node that did not hear that it joined."""
    meta = DrivenMeta(1)
    for number in range(limits.JOIN_TOKENS_MAX):
        assert _issue(meta, f"t{number}") is None
    assert _issue(meta, "more") == "too_many_tokens"
    _join(meta, name="t0")
    assert _issue(meta, "more", now_ms=100, expires_ms=200) is None
    assert {"t0", "more"} == meta.machine.tokens.keys()
    _issue(meta, "last", now_ms=20 + limits.JOIN_TOKEN_KEPT_MS, expires_ms=1 << 50)
    assert {"last"} == meta.machine.tokens.keys() == meta.reloaded().tokens.keys()


def test_a_node_says_its_addresses_and_not_its_number() -> None:
    """Number and state are meta's."""
    meta = DrivenMeta(2)
    said = replace(node(2), http="h:9", number=7, state=NodeState.LEAVING)
    assert meta.apply(PutNode(now_ms=5, node=said)).kind == "replaced"
    assert meta.machine.nodes["n2"] == replace(node(2), http="h:9")
    assert meta.apply(PutNode(now_ms=6, node=said)).kind == "unchanged"
    assert meta.apply(PutNode(now_ms=7, node=node(5))).code == "node_unknown"
    older = replace(node(2), formats=(0,))
    assert meta.apply(PutNode(now_ms=8, node=older)).code == "format_unknown"


def test_a_lost_node_is_replaced_and_does_not_come_back() -> None:
    """Its replicas become another's, under ids that were never there."""
    meta = DrivenMeta(3)
    meta.apply(PutCollection(now_ms=3, db="default", name="c", num_vnodes=2))
    meta.apply(PutCollection(now_ms=3, db="default", name="sole", num_vnodes=6, replicas=1))
    _issue(meta)
    joined = _join(meta, replaces="n2")
    assert joined.node is not None
    assert joined.node.number == 4
    assert meta.machine.nodes["n2"].state is NodeState.REMOVED
    assert meta.apply(PutNode(now_ms=9, node=node(2))).code == "node_removed"
    _issue(meta, "again")
    assert _join(meta, replace(JOINER, id="b"), "again", replaces="n2").code == "node_removed"
    for placement in meta.machine.placements_of(meta.machine.collections["default", "c"]):
        assert {1, 2, 3} == set(placement.born)
        assert {1, 3, 1 << 16 | 4} == set(placement.replicas)
        assert (2,) == placement.removing
        assert 1 == placement.generation
    # Where it had the only replica there is nothing to copy.
    sole = meta.machine.placements_of(meta.machine.collections["default", "sole"])
    assert {(1,), (2,), (3,)} == {placement.replicas for placement in sole}


def test_a_sole_replica_on_its_way_to_a_node_that_is_replaced_goes_to_the_other() -> None:
    """Named regression: it waited for the lost node for ever; what there is was never lost."""
    meta = DrivenMeta(3)
    meta.apply(PutCollection(now_ms=3, db="default", name="sole", num_vnodes=3, replicas=1))
    sole = meta.machine.collections["default", "sole"]
    (at_one,) = [each for each in meta.machine.placements_of(sole) if each.replicas == (1,)]
    move = Move(sole.uid, at_one.index, at_one.version, (2,), (1,))
    assert meta.apply(Place(now_ms=4, moves=[move])).kind == "replaced"
    _issue(meta)
    assert _join(meta, replaces="n2").kind == "created"
    placement = meta.machine.placement(sole.uid, at_one.index)
    assert (2 << 16 | 4,) == placement.replicas
    assert (1, 1 << 16 | 2) == placement.removing


def test_there_are_so_many_nodes_and_not_more() -> None:
    """One that is replaced makes room; removed ones are forgotten some day, never their numbers."""
    meta = DrivenMeta(limits.NODES_MAX)
    _issue(meta)
    assert _join(meta).code == "limit_reached"
    assert _join(meta, replaces="n1").kind == "created"
    assert meta.machine.state.next_number == limits.NODES_MAX + 2


def test_all_that_are_too_many_are_forgotten_at_once() -> None:
    """Named regression: a plan removes many nodes, and one only was forgotten for them."""
    tables = DrivenMeta(3).machine
    for number in range(10, limits.NODES_REMOVED_KEPT_MAX + 20):
        tables.keep(replace(node(number), state=NodeState.REMOVED))
    forget_removed(tables)
    numbers = sorted(each.number for each in tables.nodes.values())
    assert [1, 2, 3, *range(20, limits.NODES_REMOVED_KEPT_MAX + 20)] == numbers


@pytest.mark.parametrize(
    ("rpc", "host"),
    [("10.0.0.1:9001", "10.0.0.1"), ("[FE80::1]:9001", "fe80::1"), ("a.example:1", "a.example")],
)
def test_the_host_is_that_of_the_rpc(rpc: str, host: str) -> None:
    """Whatever the port."""
    assert replace(node(1), rpc=rpc).host == host


def test_a_format_is_finalised_once_and_for_good() -> None:
    """When every member knows it; who does not know it joins no more."""
    meta = DrivenMeta(2)
    _issue(meta, "early")
    _issue(meta, "late")
    assert meta.apply(Finalise(now_ms=3, version=2)).code == "nodes_behind"
    assert meta.apply(Finalise(now_ms=3, version=1)).kind == "unchanged"
    for number in (1, 2):
        assert meta.machine.state.cluster_version == 1
        assert meta.apply(PutNode(now_ms=4, node=replace(node(number), formats=(1, 2)))).node
    # One that joins meanwhile holds it back.
    assert _join(meta, name="early").kind == "created"
    assert meta.apply(Finalise(now_ms=5, version=2)).code == "nodes_behind"
    meta.apply(PutNode(now_ms=6, node=replace(JOINER, formats=(1, 2))))
    changes = meta.machine.changes
    assert meta.apply(Finalise(now_ms=7, version=2)).kind == "replaced"
    assert meta.machine.changes == changes + 1
    assert meta.machine.state.cluster_version == meta.reloaded().state.cluster_version == 2
    assert meta.apply(Finalise(now_ms=8, version=1)).code == "format_finalised"
    assert _join(meta, replace(JOINER, id="other"), name="late").code == "format_unknown"
    assert meta.apply(PutNode(now_ms=9, node=node(2))).code == "format_unknown"
