"""What a node takes of the others' frames, and what it drops."""

from typing import Any

import pytest

from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine import codec
from timemachine.frames import Forward, GroupMessage
from timemachine.raft import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.snapshot import ImageEnd
from timemachine.storage.keys import group_key
from timemachine.transfers import SnapshotChunk

_SNAPSHOT = Snapshot(metadata=SnapshotMetadata(ConfState(MEMBERS), 50, 1))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (MessageType.PROPOSE, {}),
        (MessageType.PROPOSE, {"entries": (Entry(data=b"junk"),)}),
        (MessageType.PROPOSE, {"entries": (Entry(type=EntryType.CONF_CHANGE, data=b"x"),)}),
        (MessageType.READ_INDEX, {}),
        (MessageType.READ_INDEX_RESPONSE, {}),
        (MessageType.SNAPSHOT, {"snapshot": _SNAPSHOT}),
        (MessageType.TIMEOUT_NOW, {"term": 2**64 - 1}),
        (MessageType.APPEND, {"entries": (Entry(1, 40),)}),
        (MessageType.APPEND, {"entries": (Entry(1, 2**64 - 1), Entry(1, -4))}),
    ],
)
@pytest.mark.parametrize("to_leader", [True, False])
def test_no_frame_stops_a_node_that_no_replica_would_have_sent(
    kind: MessageType, fields: dict[str, Any], to_leader: bool
) -> None:
    """It is dropped and counted, and the group goes on."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    other = next(number for number in MEMBERS if number != leader)
    to, sender = (leader, other) if to_leader else (other, leader)
    vnode = nodes.vnode(to, group)
    last = vnode.last_index
    known = {"term": vnode.core.term, "index": last, "log_term": vnode.core.term, **fields}
    message = Message(kind, to, sender, **known)
    nodes.say(to, sender, messages=[GroupMessage(*group, message)])
    nodes.world.run_for(3_000)
    consensus = nodes.engines[to].consensus
    assert consensus is not None
    assert consensus.dropped == 1
    assert not nodes.failures
    assert nodes.leader(group) == leader
    assert nodes.vnode(leader, group).last_index == last


@pytest.mark.parametrize(
    ("in_meta", "command", "taken"),
    [
        (False, c.Settle(now_ms=1, items=[]), True),
        (False, c.Purge(now_ms=1, before_ms=2**50, job_ids=["a"]), False),
        (True, m.DisableRoute(now_ms=1, uid=9, reason="gone"), True),
        (True, m.DeleteCollection(now_ms=1, db="default", name="jobs"), False),
    ],
)
def test_only_what_may_be_repeated_is_taken_from_another_node(
    in_meta: bool, command: Any, taken: bool
) -> None:
    """A forwarded command is proposed each time that it comes."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    if in_meta:
        group = (0, 0)
    leader = nodes.leader(group)
    other = next(number for number in MEMBERS if number != leader)
    last = nodes.vnode(leader, group).last_index
    nodes.say(leader, other, forwards=[Forward(7, *group, codec.encode([command]))])
    nodes.world.run_for(3_000)
    assert (last + taken) == nodes.vnode(leader, group).last_index
    consensus = nodes.engines[leader].consensus
    assert consensus is not None
    assert consensus.dropped == (not taken)


def test_a_command_that_is_forwarded_again_waits_for_the_first_time() -> None:
    """It comes again and again until it is acknowledged, and a leader may be slow to commit."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    last = nodes.vnode(leader, group).last_index
    others = [number for number in MEMBERS if number != leader]
    data = codec.encode([c.Settle(now_ms=1, items=[])])
    nodes.cut = set(others)
    for _ in range(5):
        nodes.say(leader, others[0], forwards=[Forward(7, *group, data)])
        nodes.world.run_for(10)
    assert last + 1 == nodes.vnode(leader, group).last_index
    nodes.cut = set()
    nodes.world.run_for(500)
    nodes.say(leader, others[0], forwards=[Forward(7, *group, data)])
    nodes.world.run_for(500)
    assert last + 2 == nodes.vnode(leader, group).last_index


def test_a_replica_that_has_lost_its_log_is_not_given_an_image() -> None:
    """What it lost may have been a vote: the node stops, as for any other message that shows it."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    other = next(number for number in MEMBERS if number != leader)
    vnode = nodes.vnode(other, group)
    term = vnode.core.term
    metadata = SnapshotMetadata(ConfState(MEMBERS), 50, term)
    message = Message(
        MessageType.SNAPSHOT,
        other,
        leader,
        term,
        snapshot=Snapshot(metadata=metadata),
        acked=vnode.last_index + 1,
    )
    image = ImageEnd(50, term, 0, 0, 0)
    chunk = SnapshotChunk(group, (term, 1), 0, b"", message, image)
    nodes.say(other, leader, chunks=[chunk])
    nodes.world.run_for(1_000)
    assert ["StoreDamaged"] == [type(failure).__name__ for failure in nodes.failures]


def test_an_image_that_is_not_what_was_announced_is_never_served() -> None:
    """The node stops before the replica has switched to it."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    other = next(number for number in MEMBERS if number != leader)
    vnode = nodes.vnode(other, group)
    term, keys = vnode.core.term, vnode.keys
    metadata = SnapshotMetadata(ConfState(MEMBERS), 50, term)
    snapshot = Snapshot(metadata=metadata)
    message = Message(MessageType.SNAPSHOT, other, leader, term, snapshot=snapshot)
    image = ImageEnd(50, term, 0, 0, 0)
    nodes.say(other, leader, chunks=[SnapshotChunk(group, (term, 1), 0, b"", message, image)])
    nodes.world.run_for(1_000)
    assert ["StoreDamaged"] == [type(failure).__name__ for failure in nodes.failures]
    row = nodes.engines[other]._store.get(group_key(*group))
    assert row is not None
    assert keys.incarnation == int.from_bytes(row, "big")
