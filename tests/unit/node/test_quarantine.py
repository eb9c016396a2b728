"""Damaged replicas of three real nodes: given up, remembered, rebuilt under new ids."""

import pytest

from tests.unit.node.three import ThreeNodes
from timemachine.errors import StoreDamaged
from timemachine.group import node_of, replica_id
from timemachine.replica import meta as m
from timemachine.storage.keys import (
    DAMAGED_START,
    DAMAGED_STOP,
    QUARANTINE_START,
    QUARANTINE_STOP,
    ReplicaKeys,
    group_key,
    quarantine_key,
    u64,
)
from timemachine.vnode import Vnode

Group = tuple[int, int]


def _with_jobs(jobs: int = 5) -> tuple[ThreeNodes, Group, int]:
    """Three nodes, a vnode with jobs on all of them, and who leads it."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    for number in range(jobs):
        answers = nodes.put(leader, group, f"job{number}")
        nodes.world.run_until(lambda answers=answers: bool(answers))  # type: ignore[misc]
    nodes.world.run_for(1_000)
    return nodes, group, leader


def _damage(nodes: ThreeNodes, number: int, group: Group, job: str = "job1") -> Vnode:
    vnode = nodes.vnode(number, group)
    nodes.stores[number].damage(vnode.keys.job + job.encode())
    return vnode


def _read(nodes: ThreeNodes, number: int, group: Group, job: str = "job1") -> None:
    """Read a job on one node, whoever leads."""
    engine = nodes.engines[number]
    (collection,) = [each for each in engine.meta.collections.values() if each.uid == group[0]]
    with pytest.raises(StoreDamaged):
        engine.read_job(collection, job)


def _rebuilt(nodes: ThreeNodes, number: int, group: Group, generation: int = 1) -> bool:
    """Whether the node has the replica of that generation, as a voter, and nobody has the old."""
    replica = replica_id(number, generation)
    vnode = nodes.engines[number].runtime.vnodes.get(group)
    leader = nodes.leader(group)
    if vnode is None or vnode.id != replica or not leader:
        return False
    members = nodes.vnode(leader, group).members
    placement = nodes.engines[leader].meta.placement(*group)
    return (
        sorted(node_of(each) for each in members.voters) == [1, 2, 3]
        and replica in members.voters
        and not members.learners
        and not placement.removing
        and vnode.machine.applied_index == nodes.vnode(leader, group).machine.applied_index
    )


def _job_ids(nodes: ThreeNodes, number: int, group: Group) -> list[str]:
    keys = nodes.vnode(number, group).keys
    rows = nodes.stores[number].scan(keys.job, keys.prefix + b"k")
    return [key[len(keys.job) :].decode() for key, _ in rows]


def _is_applied(keys: ReplicaKeys, key: bytes) -> bool:
    return key.startswith(keys.prefix) and not key.startswith((keys.log, keys.hard_state))


def test_a_damaged_follower_is_rebuilt_under_a_new_id() -> None:
    """The group goes on meanwhile, and the new replica has all that the old one had."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    before = _damage(nodes, victim, group)
    _read(nodes, victim, group)
    nodes.world.run_until(lambda: _rebuilt(nodes, victim, group), 1_000_000)
    assert [] == nodes.failures
    assert [(victim, group)] == nodes.given_up
    after = nodes.vnode(victim, group)
    assert after is not before
    assert after.keys.incarnation != before.keys.incarnation
    assert [f"job{number}" for number in range(5)] == _job_ids(nodes, victim, group)
    assert leader == nodes.leader(group)


def test_a_second_damaged_replica_waits_for_the_successor_of_the_first() -> None:
    """With one of three nothing is decided; what is left of the second is not given away."""
    nodes, group, leader = _with_jobs()
    first, second = nodes.others(leader)
    for number in (first, second):
        _damage(nodes, number, group)
        _read(nodes, number, group)
    nodes.world.run_for(120_000)
    assert sorted([(first, group), (second, group)]) == sorted(nodes.given_up)
    assert [] == nodes.failures
    for engine in nodes.engines.values():
        placement = engine.meta.placement(*group)
        assert 1 == len(placement.removing)
    (gone,) = placement.removing
    kept = ({first, second} - {gone}).pop()
    assert kept in placement.replicas
    assert nodes.stores[kept].scan(QUARANTINE_START, QUARANTINE_STOP)
    assert nodes.stores[kept].scan(DAMAGED_START, DAMAGED_STOP)
    assert 0 == nodes.leader(group)


def test_it_stops_in_the_same_turn_and_says_nothing_more() -> None:
    """Neither a vote nor an acknowledgement comes from it any more."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    vnode = _damage(nodes, victim, group)
    _read(nodes, victim, group)
    nodes.world.run_for(0.0)
    assert group not in nodes.engines[victim].runtime.vnodes
    nodes.sent.clear()
    answers = nodes.put(leader, group, "more")
    nodes.world.run_until(lambda: bool(answers))
    said = [each for frame in nodes.frames(victim) for each in frame.messages]
    assert vnode.id not in [each.message.from_ for each in said if (each.uid, each.index) == group]


def test_a_leader_that_is_damaged_is_followed_by_another_one() -> None:
    """It fires nothing from then on, and others elect one of them."""
    nodes, group, leader = _with_jobs()
    vnode = _damage(nodes, leader, group)
    _read(nodes, leader, group)
    nodes.world.run_for(0.0)
    assert not vnode.serving
    assert not vnode.may_fire(nodes.world.mono_ms())
    nodes.world.run_until(lambda: nodes.leader(group) not in (0, leader), 1_000_000)
    nodes.world.run_until(lambda: _rebuilt(nodes, leader, group), 1_000_000)
    assert [] == nodes.failures


def test_damage_that_applying_meets_takes_back_what_it_was_about_to_write() -> None:
    """Half of what a command does is never durable."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    vnode = _damage(nodes, victim, group)
    rows_before = nodes.stores[victim].image()
    answers = nodes.put(leader, group, "job1")  # it is there already, so all look it up
    nodes.world.run_until(lambda: bool(answers))
    nodes.world.run_until(lambda: _rebuilt(nodes, victim, group), 1_000_000)
    assert [] == nodes.failures
    assert [(victim, group)] == nodes.given_up
    keys = vnode.keys
    rows = nodes.stores[victim].image()
    # Not a row of the batch that met it, and nothing erased. The entry was there before.
    assert {key: row for key, row in rows_before.items() if _is_applied(keys, key)} == {
        key: row for key, row in rows.items() if _is_applied(keys, key)
    }


def test_a_restart_does_not_bring_it_back_before_meta_has_heard_of_it() -> None:
    """That it was given up is a row of the node."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    vnode = _damage(nodes, victim, group)
    nodes.cut.add(victim)  # it can tell nobody
    _read(nodes, victim, group)
    nodes.world.run_for(500)
    nodes.stop(victim)
    store = nodes.stores[victim]
    assert 1 == len(store.scan(QUARANTINE_START, QUARANTINE_STOP))
    assert 1 == len(store.scan(DAMAGED_START, DAMAGED_STOP))
    nodes.restart(victim)
    assert group not in nodes.engines[victim].runtime.vnodes
    nodes.world.run_until(lambda: _rebuilt(nodes, victim, group), 1_000_000)
    nodes.world.run_for(1_000)
    assert nodes.vnode(victim, group).id != vnode.id
    assert [] == store.scan(QUARANTINE_START, QUARANTINE_STOP)
    assert [] == nodes.failures


def test_damage_that_loading_meets_gives_up_the_replica_and_not_the_node() -> None:
    """The others of the node are taken up."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    vnode = nodes.vnode(victim, group)
    nodes.stop(victim)
    nodes.world.run_for(100)
    nodes.stores[victim].damage(vnode.keys.state)
    nodes.restart(victim)
    assert [(victim, group)] == nodes.given_up
    nodes.world.run_until(lambda: _rebuilt(nodes, victim, group), 1_000_000)
    assert [] == nodes.failures


def test_a_replica_may_be_rebuilt_again() -> None:
    """Each time in another generation."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    for generation in (1, 2):
        _damage(nodes, victim, group)
        _read(nodes, victim, group)
        nodes.world.run_until(
            lambda generation=generation: _rebuilt(nodes, victim, group, generation),  # type: ignore[misc]
            1_000_000,
        )
    assert [] == nodes.failures


def test_damage_of_the_meta_group_or_of_the_nodes_own_rows_ends_the_node() -> None:
    """There is no placement by which these could be rebuilt."""
    for key in (None, b"\0\0\0\0g"):
        nodes, _, leader = _with_jobs(1)
        victim = nodes.others(leader)[0]
        meta = nodes.vnode(victim, (0, 0))
        error = StoreDamaged(key=key or meta.keys.record)
        nodes.engines[victim].quarantine.found(error)
        nodes.world.run_for(1.0)
        assert [error] == nodes.failures
        assert [] == nodes.given_up


@pytest.mark.parametrize("restarted", [False, True])
def test_the_only_voter_is_not_given_up_for_those_that_are_to_come(*, restarted: bool) -> None:
    """Nobody has what it has yet, so the node ends, and an operator can still save what is left."""
    nodes = ThreeNodes()

    def put(replicas: int) -> m.MetaResult:
        return nodes.ask_meta(
            lambda now_ms: m.PutCollection(
                now_ms=now_ms, db="default", name="jobs", num_vnodes=1, replicas=replicas
            )
        )

    collection = put(1).collection
    assert collection is not None
    group = (collection.uid, 0)
    nodes.world.run_until(lambda: nodes.leader(group) != 0)
    leader = nodes.leader(group)
    answers = nodes.put(leader, group, "job1")
    nodes.world.run_until(lambda: bool(answers))
    put(3)
    meta = nodes.engines[leader].meta
    nodes.world.run_until(lambda: len(meta.placement(*group).replicas) == 3)
    vnode = nodes.vnode(leader, group)
    assert (vnode.id,) == vnode.members.voters
    if restarted:
        nodes.stop(leader)
        nodes.world.run_for(100)
        nodes.stores[leader].damage(vnode.keys.state)
        nodes.restart(leader)
    else:
        _damage(nodes, leader, group)
        _read(nodes, leader, group)
    nodes.world.run_for(100)
    assert [] == nodes.given_up
    assert nodes.failures
    assert [] == nodes.stores[leader].scan(QUARANTINE_START, QUARANTINE_STOP)


def test_rows_that_contradict_each_other_end_the_node() -> None:
    """Writes are lost, and nobody can tell of which groups: no vote of this node counts."""
    nodes, group, leader = _with_jobs(1)
    victim = nodes.others(leader)[0]
    error = StoreDamaged("The log ends before what was acknowledged.")
    nodes.engines[victim].runtime.broken(nodes.vnode(victim, group), error)
    assert [error] == nodes.failures


def test_what_was_given_up_already_is_not_given_up_again() -> None:
    """Several reads may meet the same damage."""
    nodes, group, leader = _with_jobs()
    victim = nodes.others(leader)[0]
    vnode = _damage(nodes, victim, group)
    error = StoreDamaged(key=vnode.keys.state)
    quarantine = nodes.engines[victim].quarantine
    quarantine.found(error)
    quarantine.found(error)
    nodes.world.run_for(1.0)
    quarantine.found(error)
    nodes.world.run_for(1.0)
    assert [(victim, group)] == nodes.given_up
    assert [] == nodes.failures


def test_the_only_replica_ends_the_node() -> None:
    """Nobody has what it has: it is neither served nor thrown away."""
    nodes = ThreeNodes()
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(
            now_ms=now_ms, db="default", name="one", num_vnodes=1, replicas=1
        )
    )
    assert result.collection is not None
    group = (result.collection.uid, 0)
    nodes.world.run_until(lambda: nodes.leader(group) != 0)
    leader = nodes.leader(group)
    answers = nodes.put(leader, group, "job1")
    nodes.world.run_until(lambda: bool(answers))
    _damage(nodes, leader, group)
    _read(nodes, leader, group)
    nodes.world.run_for(1.0)
    assert [StoreDamaged] == [type(error) for error in nodes.failures]
    assert [] == nodes.stores[leader].scan(QUARANTINE_START, QUARANTINE_STOP)


def test_damage_that_firing_meets_stops_one_vnode_and_the_others_fire_on() -> None:
    """All that a node leads is read anew, for firing has lost its place."""
    nodes = ThreeNodes()
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(now_ms=now_ms, db="default", name="jobs", num_vnodes=6)
    )
    assert result.collection is not None
    uid = result.collection.uid
    groups = [(uid, index) for index in range(6)]
    nodes.world.run_until(lambda: all(nodes.leader(group) for group in groups), 1_000_000)
    victim = nodes.leader(groups[0])
    led = [group for group in groups if nodes.leader(group) == victim]
    assert len(led) > 1
    vnode = nodes.vnode(victim, led[0])
    nodes.stores[victim].damage(vnode.keys.due + u64(nodes.engines[victim].now_ms() + 2_000))
    nodes.world.run_until(lambda: _rebuilt(nodes, victim, led[0]), 1_000_000)
    assert [(victim, led[0])] == nodes.given_up
    assert [] == nodes.failures
    delivery = nodes.engines[victim].delivery
    assert set(led[1:]) <= {vnode.group for vnode in delivery._window.heads}


def test_what_was_given_up_and_nobody_else_has_ends_the_node() -> None:
    """The store may have been written anew without it; to go on without a word hides the loss."""
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
    replica = nodes.vnode(leader, group).id
    nodes.stop(leader)
    nodes.world.run_for(100)
    store = nodes.stores[leader]
    store.write(store.prepare({group_key(*group): None, quarantine_key(*group): u64(replica)}))
    nodes.restart(leader)
    nodes.world.run_for(100)
    assert [StoreDamaged] == [type(each) for each in nodes.failures]
