"""The nodes of a simulated cluster: production's engine in each, started and crashed at will."""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Final

from node.compacting.reports import CompactionReport
from node.engine import Engine
from node.env import Network
from node.members import Cluster, Rhythm
from tests.checks.history import NEVER, Membership
from tests.checks.invariants import Invariants
from tests.checks.watching import NodeWatch, leaves
from tests.sim.cluster.clockwork import START_MS, Clockwork, Owner
from tests.sim.cluster.compactions import WatchedCompaction
from tests.sim.cluster.disk import DamageableStore, FaultyDisk
from tests.sim.cluster.flight import Flight
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.nemesis import Group
from tests.sim.cluster.network import Port, SimNetwork, Weather
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.pace import Pace
from tests.sim.cluster.recipients import (
    ALERTS,
    ALERTS_HOST,
    NodeSender,
    Sending,
    SimRecipients,
)
from timemachine import limits
from timemachine.delivery.credits import Kind
from timemachine.delivery.ratelimit import RateLimit
from timemachine.errors import StoreError, StoreFailed, TimeMachineError
from timemachine.events import EVENTS_COLLECTION
from timemachine.group import META_GROUP, node_of, replica_id
from timemachine.model import Node, NodeState, Settings
from timemachine.placement import Move, present
from timemachine.placement import members as takers
from timemachine.raft import ConfChangeType, ConfState, EntryType, read_conf_change
from timemachine.replica.meta import MetaMachine
from timemachine.ring import vnode_of
from timemachine.sealing import MasterKey
from timemachine.storage.memory import MemoryStore
from timemachine.vnode import Vnode

KEY: Final = MasterKey(b"k" * 32)

_TO_COME: Final = 1 << 15
"""A generation that no replica reaches."""

_ALL_BYTES: Final = 1 << 40

TICKS: Final = frozenset({"Consensus._tick"})
PUMPS: Final = frozenset(
    {
        "Alarm._ring_timer",
        "Expiry._round",
        "Forwarding._again",
        "Learning._step",
        "Replicas._erase",
        "Traffic._look",
    }
)
"""Timers that ring whether there is work or not: only what they find to do counts."""


@dataclass(slots=True)
class Planned:
    """What a plan may do: moves, and nodes that it removes, or empties and perhaps removes."""

    moves: list[Move] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)
    emptied: set[int] = field(default_factory=set)


class Member:
    """One node over all its lives. `engine` is that of its process, None while it is down.

    `others` are those that it was told of when it joined, None for one that the cluster was born
    with. `lost` says that its disk is gone.
    """

    def __init__(
        self,
        cluster: "Members",
        world: NodeWorld,
        disk: FaultyDisk,
        port: Port,
        sender: NodeSender,
        id: str,
        others: tuple[int, ...] | None,
    ) -> None:
        self._cluster = cluster
        self.id = id
        self.others = others
        self.lost = False
        self.number = world.number
        self.world = world
        self.disk = disk
        self.port = port
        self.sender = sender
        self.engine: Engine | None = None
        self.ready = False
        self._watch: NodeWatch | None = None
        self._compacting: WatchedCompaction | None = None
        world.crash_listeners.append(self._crashed)

    def start(self, *, rebooted: bool = False) -> bool:
        """Start a process; False when the disk cannot be used."""
        knobs = self._cluster.knobs
        if self.lost:
            return False
        try:
            store = self.disk.open(verify=knobs.verify_at_start)
        except StoreError:
            return False
        world = self.world
        world.start(rebooted=rebooted)
        watch = self._watch = NodeWatch(
            self._cluster.invariants,
            self.number,
            world,
            # What a check looks at is not served: damage is no matter.
            partial(MemoryStore.get, store),
            self._cluster.true_ms,
        )
        try:
            self.engine = engine = Engine(
                world,
                store,
                self.disk,  # type: ignore[arg-type]
                watch.sender(self.sender),
                cluster_id="cluster",
                node=Node(
                    id=self.id,
                    name=self.id,
                    http="",
                    rpc="" if self.others is None else f"{self.id}:1",
                    zone="",
                    version="0",
                ),
                master_keys=[KEY],
                on_failure=self._failed,
                on_compacted=self._compacted,
                aside=self.disk,
                cluster=_cluster_of(knobs, self.number, self.others, watch.network(self.port)),
            )
            watch.engine(engine)
            self._hear_handovers(engine)
            self.port.receive = engine.receive
            self._hear_moves(engine)
            self._hear_shares(engine)
            self._compacting = WatchedCompaction(engine, self.disk.store)
            engine.start(Settings(), self._started)
        except StoreError as error:
            self.check_reason(error)
            world.crash()
            return False
        return world.up

    def check_reason(self, error: TimeMachineError) -> None:
        """A node ends itself for what its disk does to it, and for nothing else."""
        if isinstance(error, StoreFailed) or self.disk.store.damaged:
            return
        told = f"{type(error).__name__}: {error}"
        raise AssertionError(f"node {self.number} ends itself, and its disk is whole: {told}")

    def _started(self) -> None:
        self.ready = True

    def _compacted(self, report: CompactionReport) -> None:
        """This node is done with its part of a plan that compacts, or says why it is not."""
        assert self._compacting is not None
        plan_id = self._compacting.ended(report)
        if report.error is None:
            self._cluster.compacted.add((plan_id, self.number))

    def _hear_shares(self, engine: Engine) -> None:
        """Hear of every change of what this node owns of the routes' limits, however short."""
        delivery, cluster = engine.delivery, self._cluster
        set_members, route_changed = delivery.set_members, delivery.route_changed

        def look() -> None:
            now_ms = cluster.clock.now_ms
            cluster.flight.look(now_ms)
            cluster.pace.look(now_ms)

        def watched_members(number: int, members: AbstractSet[int]) -> None:
            set_members(number, members)
            look()

        def watched_route(uid: int) -> None:
            route_changed(uid)
            look()

        delivery.set_members = watched_members  # type: ignore[method-assign]
        delivery.route_changed = watched_route  # type: ignore[method-assign]

    def _hear_moves(self, engine: Engine) -> None:
        """Hear of every vnode that this node begins or ceases to serve."""
        runtime = engine.runtime
        moved, remove = runtime._on_moved, runtime.remove

        def heard(vnode: Vnode) -> None:
            moved(vnode)
            self._cluster.on_moved(self, vnode)

        def removed(vnode: Vnode) -> None:
            if vnode._served_term:
                # It is given up while it serves; who moves away has handed over before.
                self._cluster.on_moved(self, vnode)
            remove(vnode)

        runtime._on_moved = heard
        runtime.remove = removed  # type: ignore[method-assign]

    def _hear_handovers(self, engine: Engine) -> None:
        """Hear of every vnode that is to be led by somebody else, whoever wants that."""
        handovers = engine.consensus.handovers
        start = handovers.start

        def heard(vnode: Vnode, to: int, done: Callable[[bool], None]) -> None:
            cluster = self._cluster
            if cluster.knobs.moves:
                until_ms = cluster.clock.now_ms + 2.0 * cluster.knobs.election_ms
                cluster.handed_ms[vnode.group] = until_ms
            start(vnode, to, done)

        handovers.start = heard  # type: ignore[method-assign]

    def _failed(self, error: TimeMachineError) -> None:
        """The node ends itself: production leaves with the code of the error."""
        self._cluster.clock.say(f"node {self.number} stops: {type(error).__name__}: {error}")
        self.check_reason(error)
        self.world.crash()

    def _crashed(self) -> None:
        self.engine = None
        self.ready = False
        self.port.receive = _to_nobody
        if self._watch is not None:
            self._watch.ended()
        self._cluster.on_crashed(self)

    def vnode(self, group: Group) -> Vnode | None:
        """The replica of a group, if the node runs and has one."""
        return None if self.engine is None else self.engine.runtime.vnodes.get(group)


def _changed(vnode: Vnode) -> Iterator[tuple[int, ...]]:
    """The voters by each change of members that a log has and that is not applied yet.

    It may be committed, or be so soon: what is on its way to others arrives although it goes.
    """
    log = vnode.core._raft.log
    voters = set(vnode.members.voters)
    for entry in log.entries_from(max(log.applied + 1, log.first_index()), _ALL_BYTES):
        if entry.type is not EntryType.NORMAL:
            for change in read_conf_change(entry).as_v2().changes:
                if change.type is ConfChangeType.ADD_NODE:
                    voters.add(change.node_id)
                else:
                    voters.discard(change.node_id)
            yield tuple(sorted(voters))


def _log_end(vnode: Vnode) -> tuple[int, int]:
    log = vnode.core._raft.log
    return log.last_term(), log.last_index()


def _to_nobody(_: bytes) -> None:
    """A node that is down takes no frames."""


def _cluster_of(
    knobs: Knobs, number: int, others: tuple[int, ...] | None, network: Network
) -> Cluster:
    return Cluster(
        number=number,
        members=tuple(range(1, knobs.born_nodes + 1)) if others is None else (),
        others=others or (),
        network=network,
        rhythm=Rhythm(
            tick_ms=knobs.tick_ms,
            election_tick=knobs.election_tick,
            heartbeat_tick=knobs.heartbeat_tick,
            drift=knobs.drift_bound,
            idle_ticks=3 if knobs.sleeps else 1_000_000_000,
        ),
        log_entries_max=knobs.log_entries_max,
        log_bytes_max=knobs.log_bytes_max,
        message_bytes_max=knobs.message_bytes_max,
        inflight_messages_max=knobs.inflight_messages_max,
        inflight_bytes_max=knobs.inflight_bytes_max,
        uncommitted_size_max=knobs.uncommitted_size_max,
        committed_size_per_ready_max=knobs.committed_size_per_ready_max,
        snapshot_chunk_bytes=knobs.snapshot_chunk_bytes,
    )


class Members:
    """All nodes, in one virtual world. See `ClusterControl`.

    invariants  S1 to S12, judged in every step of every node; S13 is judged by `flight`,
                S14 by `pace`
    numbers     the nodes that are to run, by their numbers: those that have joined, and not those
                whose disk is lost, or taken for lost
    retired     replicas that were replaced on their own node: (group, id)
    planned     what plans may do that were made and have not ended, by their ids
    compacted   nodes that have done their part of a plan that compacts: (plan's id, number)
    handed_ms   until when a group may be moving because somebody planned it
    on_moved    called when a node begins or ceases to serve a vnode
    on_crashed  called when a process has died
    on_paused   called when one stands still, with how long it will
    """

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.clock = Clockwork(knobs.seed)
        self.clock.on_error = self._raised
        weather = Weather(knobs.net_base_ms, knobs.net_jitter_ms, ordered=knobs.net_ordered)
        self.network = SimNetwork(self.clock, weather)
        self.recipients = SimRecipients(self.clock)
        self.invariants = Invariants(clock_bound_ms=knobs.early_ms)
        self.flight = Flight(partial(self._shares, Kind.FLIGHT), self._generations)
        self.pace = Pace(partial(self._shares, Kind.RATE), self._generations, knobs.drift_max)
        self._owned: dict[Kind, dict[int, int]] = {kind: {} for kind in Kind}
        self.recipients.on_leave = self._leaves
        self.numbers: list[int] = list(range(1, knobs.born_nodes + 1))
        self.retired: set[tuple[Group, int]] = set()
        self._abandoned: list[int] = []
        self._replaced: set[int] = set()
        self.planned: dict[str, Planned] = {}
        self.compacted: set[tuple[str, int]] = set()
        self.on_moved: Callable[[Member, Vnode], None] = lambda *_: None
        self.on_crashed: Callable[[Member], None] = lambda _: None
        self.on_paused: Callable[[Member, float], None] = lambda *_: None
        self.handed_ms: dict[Group, float] = {}
        self.members = {number: self._make(number, f"n{number}") for number in self.numbers}

    def true_ms(self) -> float:
        """The true wall clock."""
        return START_MS + self.clock.now_ms

    def _leaves(self, sending: Sending) -> None:
        leaves(self.invariants.firing, sending.request)
        if sending.request.target.host != ALERTS_HOST:
            self.flight.leaves(sending, self.clock.now_ms)

    def begins(self, limit: RateLimit, count: int) -> None:
        """Attempts begin that count for a limit of some node.

        When the route has no rate any more, who knows that gives back what it borrowed of it, also
        to nodes that have not heard yet.
        """
        if self._is_unlimited():
            return
        for number, member in self.members.items():
            engine = member.engine
            if engine is not None:
                queues = engine.delivery._window.queues.values()
                if any(queue.rate is limit for queue in queues):
                    self.pace.begins(number, count, limit.period_ms, self.clock.now_ms)

    def _is_unlimited(self) -> bool:
        meta = self.meta()
        return meta is not None and any(
            route.rate.count is None for route in meta.routes.values() if route.name != ALERTS
        )

    def _shares(self, kind: Kind) -> dict[int, int]:
        """What each node owns of the route, by what it knows; of one that is down what it knew."""
        owned = self._owned[kind]
        for number, member in self.members.items():
            engine = member.engine
            if engine is not None:
                for route in engine.meta.routes.values():
                    if route.name == ALERTS:
                        continue
                    most = route.max_in_flight if kind == Kind.FLIGHT else route.rate.count
                    if most is not None:
                        owned[number] = engine.delivery._window.share.of(most)
        return owned

    def _generations(self) -> dict[int, int]:
        return {
            number: member.world.generation
            for number, member in self.members.items()
            if member.engine is not None
        }

    def _make(self, number: int, id: str, others: tuple[int, ...] | None = None) -> Member:
        knobs, dice = self.knobs, self.clock.child(f"clocks {number}")
        world = NodeWorld(self.clock, number, drift=knobs.drift_max * dice.choice([-1.0, 0.0, 1.0]))
        world.set_wall(
            knobs.wall_offset_ms_max * dice.uniform(-1.0, 1.0),
            knobs.wall_drift_max * dice.uniform(-1.0, 1.0),
        )
        world.slack_ms = knobs.timer_slack_ms
        world.ticks, world.pumps = TICKS, PUMPS
        disk = FaultyDisk(world)
        # What is not found at the start is met while the node works: it gives up what is damaged.
        disk.store = DamageableStore(tells=not knobs.verify_at_start)
        disk.sync_ms = (0.1, max(0.2, knobs.sync_ms_max))
        disk.keep_rate = knobs.keep_rate
        port = self.network.attach(world)
        return Member(self, world, disk, port, self.recipients.sender(world), id, others)

    # --- who belongs to it -----------------------------------------------------------------

    def join(self, number: int, id: str, others: tuple[int, ...]) -> None:
        """A node that meta has given a number; it is down, and has an empty disk."""
        self.members[number] = self._make(number, id, others)
        self.members[number].disk.stall_rate = self.members[others[0]].disk.stall_rate
        self.numbers.append(number)

    def lose(self, number: int) -> None:
        """A node's disk is gone, with all that it held."""
        member = self.members[number]
        member.lost = True
        if number in self.numbers:
            self.numbers.remove(number)
        member.world.crash()
        for replica, group in self.invariants.replicas_of(number):
            self.invariants.lost(replica, group)
        member.disk.lose()

    def abandon(self, number: int) -> None:
        """A node is taken for lost, and is not: it runs on, and nobody looks after it."""
        self.numbers.remove(number)
        self._abandoned.append(number)
        # Nobody hears what it has sent from now on, as if it stood still for ever.
        self.on_paused(self.members[number], NEVER)

    def take_back(self) -> None:
        """Those are looked after again that were taken for lost and have become needed."""
        for number in list(self._abandoned):
            self.is_given_up(number)

    def stop_abandoned(self) -> None:
        """Somebody finds those, and ends them, unless they are needed."""
        for number in list(self._abandoned):
            if self.is_given_up(number):
                self.stop(number)

    def stop(self, number: int) -> None:
        """Somebody ends one of them, if nobody has."""
        if number in self._abandoned:
            self._abandoned.remove(number)
            self.lose(number)

    def is_given_up(self, number: int) -> bool:
        """Whether nobody needs what a node has that is lost, or is taken for that.

        Since it was, it may have become one of two that vote: then it is looked after again.
        """
        if number not in self._abandoned:
            return self.members[number].lost
        if number in self._replaced:
            return True
        meta = self.meta()
        there = () if meta is None else present(meta.nodes.values())
        if number not in there or self.can_lose(number):
            return True
        self._abandoned.remove(number)
        self.numbers.append(number)
        self.numbers.sort()
        return False

    def is_replaced(self, number: int) -> None:
        """Another node is asked to take its place, or it was removed: nobody takes that back."""
        self._replaced.add(number)

    def plan(
        self,
        id: str,
        moves: Sequence[Move],
        removed: Sequence[int],
        emptied: Sequence[int] = (),
    ) -> None:
        """A plan is made, perhaps once more: it may move so, and remove or empty these nodes."""
        planned = self.planned.setdefault(id, Planned())
        planned.moves.extend(moves)
        planned.removed.update(removed)
        planned.emptied.update(removed, emptied)

    def can_carry(self, id: str) -> bool:
        """Whether every group has a majority while a plan is carried out, and afterwards."""
        planned = self.planned[id]
        groups = {(move.uid, move.index) for move in planned.moves}
        if planned.removed:
            groups.add(META_GROUP)
        return self._leaves_room() and all(
            self._can_lose(group, lambda _: False, more=False) for group in sorted(groups)
        )

    def _is_gone(self, group: Group, replica: int) -> bool:
        return self._is_out(node_of(replica)) or (group, replica) in self.retired

    def _is_out(self, number: int) -> bool:
        member = self.members.get(number)
        return member is None or number not in self.numbers or member.disk.store.damaged

    def can_lose(self, number: int) -> bool:
        """Whether every group has a majority without what this node has, and will have one."""
        return self._leaves_room(number) and all(
            self._can_lose(group, lambda each: node_of(each) == number) for group in self._known()
        )

    def _leaves_room(self, lost: int = 0) -> bool:
        """Whether groups that are to come will have a majority if this one is lost as well.

        A collection of events is made with the first of them, perhaps after the faults: on any of
        the nodes that meta takes for members. It does not know which are gone for good.
        """
        meta = self.meta()
        if meta is None or not self.knobs.alerts:
            return True
        if any(name == EVENTS_COLLECTION for _, name in meta.collections):
            return True  # its groups are known as all others are
        there = takers(meta.nodes.values())
        for emptied in (set[int](), *[each.emptied for each in self.planned.values()]):
            left = there - emptied
            gone = [each for each in left if each == lost or self._is_out(each)]
            if gone and 2 * len(gone) >= min(len(left), limits.REPLICAS_DEFAULT):
                return False
        return True

    def can_spare(self, group: Group, replica: int) -> bool:
        """Whether a group has a majority without one of its replicas."""
        return not self._is_gone(group, replica) and self._can_lose(
            group, lambda each: each == replica
        )

    def _can_lose(self, group: Group, goes: Callable[[int], bool], *, more: bool = True) -> bool:
        vnodes = [vnodes[group] for vnodes in self._vnodes() if group in vnodes]
        if not vnodes:
            return False
        views = [max(vnodes, key=lambda vnode: vnode.machine.applied_index)]
        staying = [
            each for each in vnodes if not goes(each.id) and not self._is_gone(group, each.id)
        ]
        if staying:
            # This one leads next, and counts by what it has applied: the end of a change may be in
            # its log, and only those who go know that it is committed.
            views.append(max(staying, key=_log_end))
        members = [each.members for each in views]
        coming = [*self._planned(group), *chain.from_iterable(map(_changed, vnodes))]
        members += [ConfState(voters=each) for each in coming]
        return all(self._has_majority(group, each, goes, more=more) for each in members)

    def _planned(self, group: Group) -> Iterator[tuple[int, ...]]:
        """The voters that a group is given, or may be given by plans."""
        meta = self.meta()
        if meta is None:
            return
        if group != META_GROUP:
            # Also by the part of a plan that has begun before it was cancelled.
            yield meta.placement(*group).replicas
        for planned in self.planned.values():
            if group == META_GROUP:
                there = present(meta.nodes.values()) - planned.removed
                if planned.removed:
                    yield tuple(sorted(there)[: limits.META_VOTERS_MAX])
                continue
            for move in planned.moves:
                if (move.uid, move.index) == group:
                    stay = set(meta.placement(*group).replicas).difference(move.remove)
                    # Ids that nobody has had yet, unless the move has begun.
                    coming = set(move.add).difference(map(node_of, stay))
                    yield (*stay, *[replica_id(each, _TO_COME) for each in sorted(coming)])

    def _has_majority(
        self, group: Group, members: ConfState, goes: Callable[[int], bool], *, more: bool
    ) -> bool:
        """Whether it has one without those who go; `more` if anybody goes who was there."""
        for half in (members.voters, members.voters_outgoing):
            # Those who are to come may be voters by the next entry, and count although they go.
            coming = [
                each
                for each in (*members.learners, *self._wanted(group))
                if more and each not in half
            ]
            gone = [each for each in {*half, *coming} if goes(each) or self._is_gone(group, each)]
            size = len(half) + len([each for each in gone if each not in half])
            if half and (size - len(gone)) * 2 <= size:
                return False
        return bool(members.voters)

    def _wanted(self, group: Group) -> Sequence[int]:
        """The replicas that a group is to have, or may get, by the node that knows most."""
        meta = self.meta()
        if meta is None:
            return ()
        there = present(meta.nodes.values())
        if group == META_GROUP:
            return sorted(there)
        placement = meta.placement(*group)
        has = {node_of(each) for each in placement.replicas}
        free = sorted(there - has)
        if len(has & there) < min(meta.collections_by_uid[group[0]].replicas, len(there)):
            # Any of these may get one as soon as somebody looks.
            return [*placement.replicas, *[replica_id(each, placement.generation) for each in free]]
        return placement.replicas

    def meta(self) -> MetaMachine | None:
        """What the node knows that knows most; None while all are down."""
        metas = [
            member.engine.meta for member in self.members.values() if member.engine is not None
        ]
        return max(metas, key=lambda meta: meta.applied_index, default=None)

    def _known(self) -> list[Group]:
        """All groups that there are, also those that no node has now."""
        meta = self.meta()
        if meta is None:
            return [META_GROUP]
        placements = meta.all_placements()
        return [META_GROUP, *[(each.uid, each.index) for each in placements]]

    def placed(self) -> list[tuple[Group, int]]:
        """The replicas of vnodes that the leader of the meta group knows of."""
        leader = self.leader_of(META_GROUP)
        engine = self.members[leader].engine if leader else None
        if engine is None:
            return []
        return [
            ((each.uid, each.index), replica)
            for each in engine.meta.all_placements()
            for replica in each.replicas
        ]

    def memberships(self) -> list[Membership]:
        """Who belongs to each group, and who should, by the leaders."""
        leader = self.leader_of(META_GROUP)
        engine = self.members[leader].engine if leader else None
        if engine is None:
            return []
        nodes = engine.meta.nodes.values()
        there = len([node for node in nodes if node.state is NodeState.MEMBER])
        first = sorted(node.number for node in nodes if node.state is not NodeState.REMOVED)
        voting, learning = first[: limits.META_VOTERS_MAX], first[limits.META_VOTERS_MAX :]
        # A node that met damage and stays down is for an operator to replace, who has not come.
        broken = [number for number in first if self._is_broken(number)]
        found = [] if broken else [self._membership(META_GROUP, voting, learning)]
        for each in engine.meta.all_placements():
            if any(node_of(replica) in broken for replica in (*each.replicas, *each.removing)):
                continue
            wanted = engine.meta.collections_by_uid[each.uid].replicas
            found.append(
                self._membership(
                    (each.uid, each.index),
                    each.replicas,
                    missing=max(0, min(wanted, there) - len(each.replicas)),
                    leaving=each.removing,
                )
            )
        return found

    def _membership(
        self,
        group: Group,
        wanted: Sequence[int],
        learners: Sequence[int] = (),
        *,
        missing: int = 0,
        leaving: tuple[int, ...] = (),
    ) -> Membership:
        leader = self.leader_of(group)
        vnode = self.members[leader].vnode(group) if leader else None
        members = ConfState() if vnode is None else vnode.members
        here = [vnodes[group].id for vnodes in self._vnodes() if group in vnodes]
        return Membership(
            group,
            frozenset(wanted),
            frozenset(learners),
            frozenset({*members.voters, *members.voters_outgoing}),
            frozenset({*members.learners, *members.learners_next}),
            frozenset(here),
            missing,
            leaving,
        )

    def _is_broken(self, number: int) -> bool:
        """Whether a node has met damage, and stays down."""
        member = self.members.get(number)
        return member is not None and member.engine is None and member.disk.store.damaged

    @property
    def collection_uid(self) -> int:
        """The uid of the first collection, before that of events; 0 before it is there."""
        return min((group[0] for group in self.groups() if group[0]), default=0)

    def place_of(self, job: str) -> int:
        """The index of a job's vnode."""
        return vnode_of(self.knobs.ordering_key(job) or job, self.knobs.num_vnodes)

    def _raised(self, owner: Owner, error: Exception) -> bool:
        """Damage that a node meets while it runs ends its process."""
        if not isinstance(error, StoreError):
            return False
        self.clock.say(f"node {owner.number} stops: {type(error).__name__}")
        self.members[owner.number].check_reason(error)
        self.members[owner.number].world.crash()
        return True

    # --- ClusterControl --------------------------------------------------------------------

    def world(self, node: int) -> NodeWorld:
        """See ClusterControl."""
        return self.members[node].world

    def disk(self, node: int) -> FaultyDisk:
        """See ClusterControl."""
        return self.members[node].disk

    def crash(self, node: int) -> None:
        """See ClusterControl."""
        self.members[node].world.crash()

    def start(self, node: int, *, rebooted: bool = False) -> bool:
        """See ClusterControl."""
        return self.members[node].start(rebooted=rebooted)

    def pause(self, node: int, duration_ms: float) -> None:
        """See ClusterControl."""
        member = self.members[node]
        member.world.pause(duration_ms)
        self.on_paused(member, duration_ms)

    def groups(self) -> Sequence[Group]:
        """See ClusterControl: those that any node has."""
        return sorted({META_GROUP}.union(*self._vnodes()))

    def _vnodes(self) -> Iterator[dict[Group, Vnode]]:
        for member in self.members.values():
            if member.engine is not None:
                yield member.engine.runtime.vnodes

    def leader_of(self, group: Group) -> int:
        """See ClusterControl."""
        leader, highest = 0, 0
        for member in self.members.values():
            vnode = member.vnode(group)
            if vnode is not None and vnode.is_leader() and vnode.term > highest:
                leader, highest = member.number, vnode.term
        return leader

    def transfer(self, group: Group, to: int) -> None:
        """See ClusterControl."""
        leader = self.leader_of(group)
        vnode = self.members[leader].vnode(group) if leader else None
        if vnode is not None and to != leader:
            engine = self.members[leader].engine
            assert engine is not None
            self.handed_ms[group] = self.clock.now_ms + 2.0 * self.knobs.election_ms
            engine.hand_over(vnode, to, lambda _: None)


@contextmanager
def in_limits(knobs: Knobs) -> Iterator[None]:
    """Bounds that production reads from `limits`, as these knobs have them."""
    wanted = {
        "ENTRY_BYTES_TARGET": knobs.entry_bytes_target,
        "CLAIM_LEAD_MS": knobs.claim_lead_ms,
        "COMPACT_STEP_BYTES": knobs.compact_step_bytes,
        "BACKUP_PAGE_JOBS_MAX": knobs.backup_page_jobs,
        "BACKUP_PAGE_BYTES": knobs.backup_page_bytes,
        # As many jobs as a page may have, or a little more.
        "BACKUP_SCAN_BYTES": min(
            limits.BACKUP_SCAN_BYTES, knobs.backup_page_bytes, 150 * knobs.backup_page_jobs
        ),
        "BACKUP_VIEW_MS": knobs.backup_view_ms,
        # So that hours end while there are faults.
        "EVENT_HOUR_MS": 3_000,
        "EVENT_LOOK_MS": 500,
        "EVENTS_PER_HOUR_MAX": 3,
    }
    before = {name: getattr(limits, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(limits, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)
