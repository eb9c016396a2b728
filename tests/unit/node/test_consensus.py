"""What a node takes of the others' frames, and what it drops."""

from typing import Any

import pytest
from msgspec.structs import replace

from node.engine import Engine
from node.members import Cluster
from node.replicas import job_machine
from tests.sim.node import KEY
from tests.sim.world import SimDisk, SimSender, SimWorld
from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine import codec
from timemachine.frames import Forward, Frame, GroupMessage, write_frame
from timemachine.group import replica_id
from timemachine.liveness import Beat
from timemachine.model import Node, Plan, PlanKind, PlanState, Settings
from timemachine.placement import Move
from timemachine.raft import (
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.rebalancing import drain
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.snapshot import ImageEnd
from timemachine.storage.keys import EPOCH_KEY, group_key
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
        (True, m.DisableRoute(now_ms=1, uid=9, version=1, reason="gone"), True),
        (True, m.RouteFailed(now_ms=1, uid=9, since_ms=1, at_ms=2), True),
        (True, m.RouteSucceeded(now_ms=1, uid=9, at_ms=2), True),
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


class _Wire:
    """A network that remembers how much was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        self.sent.append((node, frame))


def test_before_its_epoch_is_durable_a_node_neither_hears_nor_speaks() -> None:
    """It might answer in a life whose number it then uses again."""
    world, wire = SimWorld(1), _Wire()
    disk = SimDisk(world, {})
    engine = Engine(
        world,
        disk.store,
        disk,  # type: ignore[arg-type]
        SimSender(world),
        cluster_id="cluster",
        node=Node(id="n1", name="", http="", rpc="", zone="", version="0"),
        master_keys=[KEY],
        on_failure=lambda _: None,
        cluster=Cluster(number=1, members=MEMBERS, network=wire),
    )
    heartbeat = Message(MessageType.HEARTBEAT, 1, 2, 5)
    frame = write_frame(Frame(2, 1, (GroupMessage(0, 0, heartbeat),), beat=Beat(1, 1, (1, 0), 0)))
    engine.receive(frame)
    engine.start(Settings(), lambda: None)
    engine.receive(frame)
    world.run_for(0)
    engine.receive(frame)
    core = engine.runtime.vnodes[0, 0].core
    assert (0, [], 0) == (core.term, wire.sent, disk.store.get(EPOCH_KEY) is not None)
    world.run_for(50)
    assert disk.store.get(EPOCH_KEY) is not None
    assert [] == wire.sent
    engine.receive(frame)
    assert 5 == core.term
    world.run_for(5)
    assert {2} == {to for to, _ in wire.sent}


def test_a_node_that_stops_hears_nothing_more() -> None:
    """Its store is closed."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    other = nodes.others(leader)[0]
    nodes.world.run_for(1_000)
    nodes.engines[other].runtime.close()
    term = nodes.vnode(other, group).core.term
    heartbeat = Message(MessageType.HEARTBEAT, other, leader, term + 3)
    nodes.sent.clear()
    nodes.say(other, leader, messages=[GroupMessage(*group, heartbeat)])
    nodes.world.run_for(1_000)
    assert term == nodes.vnode(other, group).core.term
    assert not nodes.frames(other)
    assert 0 == nodes.consensus(other).dropped


def _heartbeat(
    nodes: ThreeNodes, group: tuple[int, int], node: int, /, **fields: Any
) -> GroupMessage:
    """A heartbeat of a newer term, which anybody would follow."""
    known = {"to": node, "from_": nodes.leader(group), "term": 50, **fields}
    return GroupMessage(*group, Message(MessageType.HEARTBEAT, **known))


def test_a_node_that_joined_meanwhile_is_heard() -> None:
    """It may lead the meta group, and who was away learns of it from nobody else.

    Numbers only grow, so one that is not higher than all that are known has been removed.
    """
    nodes = ThreeNodes()
    group = nodes.put_collection()
    to = nodes.others(nodes.leader(group))[0]
    consensus = nodes.consensus(to)
    nodes.sent.clear()
    nodes.cut = {4}
    heartbeat = Message(MessageType.HEARTBEAT, to, 4, 50)
    nodes.say(to, 4, messages=[GroupMessage(*group, heartbeat)])
    assert 50 == nodes.vnode(to, group).core.term
    nodes.world.run_for(10)
    assert 4 in {node for sender, node, _ in nodes.sent if sender == to}
    assert 0 == consensus.dropped
    # The meta group, which is still behind, does not make it a stranger again.
    consensus.set_nodes(nodes.others(to), 3)
    assert (*nodes.others(to), 4) == consensus._peers.others
    consensus.set_nodes(nodes.others(to), 4)
    assert tuple(nodes.others(to)) == consensus._peers.others
    nodes.say(to, 4, messages=[GroupMessage(*group, heartbeat)])
    assert 1 == consensus.dropped


@pytest.mark.parametrize("what", ["foreign", "cut", "of a stranger", "of itself"])
def test_a_frame_that_is_none_is_dropped_as_a_whole(what: str) -> None:
    """And counted; nothing of it is taken."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    to = nodes.others(leader)[0]
    term = nodes.vnode(to, group).core.term
    nodes.consensus(to).set_nodes(nodes.others(to), 9)
    sender = {"of a stranger": 9, "of itself": to}.get(what, leader)
    data = write_frame(Frame(sender, 1, [_heartbeat(nodes, group, to, from_=sender)]))
    if what == "foreign":
        data = b"\x02" + data[1:]
    elif what == "cut":
        data = data[:-1]
    nodes.engines[to].receive(data)
    assert 1 == nodes.consensus(to).dropped
    assert term == nodes.vnode(to, group).core.term
    nodes.world.run_for(2_000)
    assert leader == nodes.leader(group)


@pytest.mark.parametrize("forged", [{"from_": 9}, {"to": 9}, {"from_": 0}, {"to": 0}])
def test_a_forged_message_is_dropped_and_what_comes_with_it_is_taken(
    forged: dict[str, int],
) -> None:
    """Nobody speaks for another node, nor is a message for another one taken."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    to = nodes.others(nodes.leader(group))[0]
    term = nodes.vnode(to, group).core.term
    sender = nodes.leader(group)
    bad = _heartbeat(nodes, group, to, **forged)
    nodes.say(to, sender, messages=[bad])
    assert (1, term) == (nodes.consensus(to).dropped, nodes.vnode(to, group).core.term)
    nodes.say(to, sender, messages=[bad, _heartbeat(nodes, group, to, term=60), bad])
    assert (3, 60) == (nodes.consensus(to).dropped, nodes.vnode(to, group).core.term)


def test_a_member_does_not_speak_for_another_one() -> None:
    """Though both are in the group."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    to, sender = nodes.others(leader)
    term = nodes.vnode(to, group).core.term
    nodes.say(to, sender, messages=[_heartbeat(nodes, group, to, from_=leader)])
    assert (1, term) == (nodes.consensus(to).dropped, nodes.vnode(to, group).core.term)


def test_a_message_for_an_unknown_group_makes_no_replica() -> None:
    """Which groups there are, the meta group says, and no stray message."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    to = nodes.others(leader)[0]
    engine = nodes.engines[to]
    known, rows = set(engine.runtime.vnodes), len(engine._store.scan(b"", b"\xff" * 9, 100_000))
    nodes.say(
        to,
        leader,
        messages=[
            GroupMessage(group[0], 7, _heartbeat(nodes, group, to).message),
            GroupMessage(99, 0, _heartbeat(nodes, group, to).message),
        ],
    )
    nodes.world.run_for(50)
    assert 2 == nodes.consensus(to).dropped
    assert known == set(engine.runtime.vnodes)
    assert rows == len(engine._store.scan(b"", b"\xff" * 9, 100_000))


def test_an_answer_that_claims_more_than_the_log_has_is_dropped() -> None:
    """Nobody can have entries of this term that its leader never had.

    (Named: the leader looked for the entry behind them, and stopped.)
    """
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    vnode = nodes.vnode(leader, group)
    other = nodes.others(leader)[0]
    answer = Message(
        MessageType.APPEND_RESPONSE, leader, other, vnode.core.term, index=vnode.last_index + 1
    )
    nodes.say(leader, other, messages=[GroupMessage(*group, answer)])
    assert 1 == nodes.consensus(leader).dropped
    answers = nodes.put(leader, group, "a")
    nodes.world.run_until(lambda: bool(answers))
    assert "created" == answers[0].kind


def _acknowledged(nodes: ThreeNodes, leader: int) -> list[int]:
    return [number for frame in nodes.frames(leader) for number in frame.forwarded]


def _settle(group: tuple[int, int]) -> Forward:
    return Forward(7, *group, codec.encode([c.Settle(now_ms=1, items=[])]))


def test_a_forward_is_acknowledged_when_it_is_committed() -> None:
    """Not before: whoever forwards it forgets it then."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    sender = nodes.others(leader)[0]
    nodes.cut = set(nodes.others(leader))
    nodes.sent.clear()
    nodes.say(leader, sender, forwards=[_settle(group)])
    nodes.world.run_for(300)
    assert [] == _acknowledged(nodes, leader)
    nodes.cut = set()
    nodes.world.run_until(lambda: bool(_acknowledged(nodes, leader)))
    assert [7] == _acknowledged(nodes, leader)
    vnode = nodes.vnode(leader, group)
    assert vnode.core.commit == vnode.last_index == vnode.machine.applied_index


def test_a_forward_that_is_lost_with_its_leader_is_not_acknowledged() -> None:
    """It is offered to the next one."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    sender = nodes.others(leader)[0]
    nodes.cut = {leader}
    nodes.sent.clear()
    nodes.say(leader, sender, forwards=[_settle(group)])
    nodes.world.run_for(10_000)
    nodes.cut = set()
    nodes.world.run_for(3_000)
    assert [] == _acknowledged(nodes, leader)


def test_a_forward_to_who_does_not_lead_is_not_taken() -> None:
    """Nor passed on, nor acknowledged: its sender finds the leader."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    to, sender = nodes.others(leader)
    last = nodes.vnode(leader, group).last_index
    nodes.sent.clear()
    nodes.say(to, sender, forwards=[_settle(group)])
    nodes.world.run_for(2_000)
    assert [] == _acknowledged(nodes, to)
    assert not any(frame.forwards for frame in nodes.frames(to))
    assert last == nodes.vnode(leader, group).last_index


@pytest.mark.parametrize("commands", [b"", b"\x01\xc0", codec.encode([]), b"\x02\x90"])
def test_a_forward_of_nothing_is_dropped(commands: bytes) -> None:
    """And counted."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    nodes.say(leader, nodes.others(leader)[0], forwards=[Forward(7, *group, commands)])
    assert 1 == nodes.consensus(leader).dropped


def test_what_is_forwarded_reaches_the_leader_and_is_forgotten() -> None:
    """From node to node, and back."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    sender = nodes.others(leader)[0]
    last = nodes.vnode(leader, group).last_index
    item = c.SettleItem("gone", b"u" * 16, 1, 1, 1, 0, b"")
    nodes.engines[sender]._late(group, [item])
    forwarding = nodes.consensus(sender).forwarding
    assert 1 == forwarding.waiting
    nodes.world.run_for(500)
    assert (0, 0) == (forwarding.waiting, forwarding.dropped)
    assert last + 1 == nodes.vnode(leader, group).last_index


def test_one_tick_however_late() -> None:
    """Who has slept through many must read what came in before it campaigns."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    nodes.world.run_for(1_000)
    before = [nodes.consensus(number).sleeping._ticks for number in MEMBERS]
    nodes.world.now_ms += 5_000
    nodes.world.run_for(50)
    after = [nodes.consensus(number).sleeping._ticks for number in MEMBERS]
    assert [ticks + 1 for ticks in before] == after
    nodes.world.run_for(100)
    assert [ticks + 1 for ticks in after] == [
        nodes.consensus(number).sleeping._ticks for number in MEMBERS
    ]
    nodes.world.run_for(3_000)
    assert nodes.leader(group)


def test_new_groups_are_led_by_each_node_in_turn() -> None:
    """At once, without waiting for anybody's time-out; the load is spread."""
    nodes = ThreeNodes()
    began_ms = nodes.world.now_ms
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(now_ms=now_ms, db="default", name="jobs", num_vnodes=6)
    )
    assert result.collection is not None
    groups = [(result.collection.uid, index) for index in range(6)]
    nodes.world.run_until(lambda: all(nodes.leader(group) for group in groups))
    assert nodes.world.now_ms - began_ms < 500
    assert [1, 2, 3, 1, 2, 3] == [nodes.leader(group) for group in groups]


def _sole() -> tuple[ThreeNodes, tuple[int, int], int, int]:
    """A group of one replica, its leader, and a node that has none of it."""
    nodes = ThreeNodes()
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(
            now_ms=now_ms, db="default", name="jobs", num_vnodes=1, replicas=1
        )
    )
    assert result.collection is not None
    group = (result.collection.uid, 0)
    nodes.world.run_until(lambda: nodes.leader(group) != 0)
    leader = nodes.leader(group)
    return nodes, group, leader, nodes.others(leader)[0]


def test_a_sole_replica_moves_and_is_led_all_the_time() -> None:
    """The newcomer votes before the only other one goes, and gets the leadership from it.

    It was left behind as the only voter, and nobody ticks one of these: so it never led.
    """
    nodes, group, here, there = _sole()
    answers = nodes.put(here, group, "j")
    nodes.world.run_until(lambda: bool(answers))
    placement = nodes.engines[here].meta.placement(*group)
    move = Move(*group, placement.version, (there,), placement.replicas)
    nodes.ask_meta(lambda now_ms: m.Place(now_ms=now_ms, moves=[move]))
    unled = 0
    while nodes.engines[here].meta.placement(*group).removing:
        nodes.world.run_for(10)
        unled += not nodes.leader(group)
        assert nodes.world.now_ms < 100_000
    assert unled * 10 < 500
    vnode = nodes.vnode(there, group)
    assert (there, True) == (nodes.leader(group), vnode.sole)
    assert 1 == sum(job_machine(vnode).state.counts)
    nodes.world.run_for(1_000)
    assert vnode not in nodes.consensus(there).sleeping.awake


def test_a_sole_replica_goes_elsewhere_when_the_node_it_was_going_to_is_lost() -> None:
    """Named regression: what it had could not be moved any more, and no plan removed the node."""
    nodes, group, here, _ = _sole()
    elsewhere, lost = nodes.others(here)
    answers = nodes.put(here, group, "j")
    nodes.world.run_until(lambda: bool(answers))
    nodes.stop(lost)
    nodes.world.run_until(lambda: nodes.leader((0, 0)) not in (0, lost))
    move = Move(*group, 1, (lost,), (replica_id(here),))
    nodes.ask_meta(lambda now_ms: m.Place(now_ms=now_ms, moves=[move]))
    nodes.world.run_for(2_000)
    assert here == nodes.leader(group)
    meta = nodes.engines[here].meta
    moves = drain([meta.placement(*group)], meta.nodes.values(), {lost}, {lost})
    assert [(elsewhere,)] == [each.add for each in moves]
    nodes.ask_meta(lambda now_ms: m.Place(now_ms=now_ms, moves=moves))
    nodes.world.run_until(lambda: not meta.placement(*group).removing)
    assert elsewhere == nodes.leader(group)
    store, keys = nodes.stores[elsewhere], nodes.vnode(elsewhere, group).keys
    assert store.get(keys.job + b"j") is not None


def test_who_became_the_only_voter_without_leading_leads_soon() -> None:
    """However that came: it is ticked until it does."""
    nodes, group, here, there = _sole()
    for engine in nodes.engines.values():
        engine.memberships.look_at = lambda group: None  # type: ignore[method-assign]
    placement = nodes.engines[here].meta.placement(*group)
    move = Move(*group, placement.version, (there,))
    nodes.ask_meta(lambda now_ms: m.Place(now_ms=now_ms, moves=[move]))
    new = nodes.engines[here].meta.placement(*group).replicas[1]
    leader = nodes.vnode(here, group)
    for changes in (
        [(ConfChangeType.ADD_LEARNER, new)],
        [(ConfChangeType.ADD_NODE, new), (ConfChangeType.REMOVE_NODE, leader.id)],
    ):
        steps = tuple(ConfChangeSingle(*each) for each in changes)
        leader.change_members(ConfChangeV2(ConfChangeTransition.AUTO, steps))
        nodes.engines[here].runtime.stepped(leader)
        nodes.world.run_for(300)
    vnode = nodes.vnode(there, group)
    assert (True, False) == (vnode.sole, vnode.is_leader())
    nodes.world.run_for(5_000)
    assert there == nodes.leader(group)
    assert vnode not in nodes.consensus(there).sleeping.awake


def test_what_became_of_sends_is_told_by_a_node_whose_replica_has_moved_away() -> None:
    """It knows who has replicas of the vnode; whoever of them leads takes it."""
    nodes = ThreeNodes()
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(
            now_ms=now_ms, db="default", name="jobs", num_vnodes=1, replicas=2
        )
    )
    assert result.collection is not None
    group = (result.collection.uid, 0)
    nodes.world.run_until(lambda: nodes.leader(group) != 0)
    (other,) = [each for each in MEMBERS if group not in nodes.engines[each].runtime.vnodes]
    forwarding = nodes.consensus(other).forwarding
    item = c.SettleItem("gone", b"u" * 16, 1, 1, 1, 0, b"")
    nodes.engines[other]._late(group, [item])
    assert 1 == forwarding.waiting
    nodes.world.run_for(500)
    assert (0, 0) == (forwarding.waiting, forwarding.dropped)


def test_a_node_that_is_about_to_be_removed_still_reaches_the_meta_group() -> None:
    """Named regression: it is no member by then, and nobody tells it who leads.

    It was started anew with something else to say of itself, and its removal waits for that.
    """
    nodes = ThreeNodes()
    machine = nodes.engines[nodes.leader((0, 0))].meta
    plan = Plan(
        id="p",
        kind=PlanKind.REMOVE,
        basis=m.basis_of(machine),
        created_ms=0,
        expires_ms=2**62,
        nodes=(3,),
    )
    moves = m.PlanMoves("p", (), ())
    nodes.ask_meta(lambda now_ms: m.PutPlan(now_ms=now_ms, plan=plan, moves=moves))
    nodes.ask_meta(lambda now_ms: m.ConfirmPlan(now_ms=now_ms, id="p"))
    nodes.ask_meta(lambda now_ms: m.SteerPlan(now_ms=now_ms, id="p", state=PlanState.PAUSED))

    def is_out() -> bool:
        members = nodes.vnode(nodes.leader((0, 0)), (0, 0)).members
        return 3 not in (*members.voters, *members.voters_outgoing, *members.learners)

    nodes.world.run_until(is_out)
    nodes.stop(3)
    nodes.world.run_for(5_000)
    nodes.restart(3)
    nodes.world.run_for(5_000)
    engine = nodes.engines[3]
    engine.say_node(replace(engine.meta.nodes["n3"], zone="elsewhere"))
    nodes.world.run_for(5_000)
    leader = nodes.engines[nodes.leader((0, 0))]
    assert "elsewhere" == leader.meta.nodes["n3"].zone
    assert 0 == engine.consensus.forwarding.waiting
