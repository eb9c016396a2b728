"""The nodes of a simulated cluster: production's engine in each, started and crashed at will."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from node.engine import Engine
from node.env import Network
from node.members import Cluster, Rhythm
from tests.checks.invariants import Invariants
from tests.checks.watching import NodeWatch, leaves
from tests.sim.cluster.clockwork import START_MS, Clockwork, Owner
from tests.sim.cluster.disk import FaultyDisk
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.nemesis import Group
from tests.sim.cluster.network import Port, SimNetwork, Weather
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.recipients import NodeSender, SimRecipients
from timemachine import limits
from timemachine.errors import StoreError, StoreFailed, TimeMachineError
from timemachine.model import Node, Settings
from timemachine.ring import vnode_of
from timemachine.sealing import MasterKey
from timemachine.storage.memory import MemoryStore
from timemachine.vnode import Vnode

KEY: Final = MasterKey(b"k" * 32)
META_GROUP: Final = (0, 0)

TICKS: Final = frozenset({"Consensus._tick"})
PUMPS: Final = frozenset(
    {
        "Alarm._ring_timer",
        "Expiry._round",
        "Forwarding._again",
        "Learning._step",
        "Replicas._erase",
    }
)
"""Timers that ring whether there is work or not: only what they find to do counts."""


class Member:
    """One node over all its lives. `engine` is that of its process, None while it is down."""

    def __init__(
        self, cluster: "Members", world: NodeWorld, disk: FaultyDisk, port: Port, sender: NodeSender
    ) -> None:
        self._cluster = cluster
        self.number = world.number
        self.world = world
        self.disk = disk
        self.port = port
        self.sender = sender
        self.engine: Engine | None = None
        self.ready = False
        self._watch: NodeWatch | None = None
        world.crash_listeners.append(self._crashed)

    def start(self, *, rebooted: bool = False) -> bool:
        """Start a process; False when the disk cannot be used."""
        knobs = self._cluster.knobs
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
                    id=f"n{self.number}",
                    name=f"n{self.number}",
                    http="",
                    rpc="",
                    zone="",
                    version="0",
                ),
                master_keys=[KEY],
                on_failure=self._failed,
                cluster=_cluster_of(knobs, self.number, watch.network(self.port)),
            )
            watch.engine(engine)
            self.port.receive = engine.receive
            self._hear_moves(engine)
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

    def _hear_moves(self, engine: Engine) -> None:
        """Hear of every vnode that this node begins or ceases to serve."""
        runtime = engine.runtime
        moved = runtime._on_moved

        def heard(vnode: Vnode) -> None:
            moved(vnode)
            self._cluster.on_moved(self, vnode)

        runtime._on_moved = heard

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


def _to_nobody(_: bytes) -> None:
    """A node that is down takes no frames."""


def _cluster_of(knobs: Knobs, number: int, network: Network) -> Cluster:
    return Cluster(
        number=number,
        members=tuple(range(1, knobs.nodes + 1)),
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

    invariants  S1 to S11, judged in every step of every node
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
        self.recipients.on_leave = lambda sending: leaves(self.invariants.firing, sending.request)
        self.numbers: Sequence[int] = range(1, knobs.nodes + 1)
        self.on_moved: Callable[[Member, Vnode], None] = lambda *_: None
        self.on_crashed: Callable[[Member], None] = lambda _: None
        self.on_paused: Callable[[Member, float], None] = lambda *_: None
        self.handed_ms: dict[Group, float] = {}
        self.members = {number: self._make(number) for number in self.numbers}

    def true_ms(self) -> float:
        """The true wall clock."""
        return START_MS + self.clock.now_ms

    def _make(self, number: int) -> Member:
        knobs, dice = self.knobs, self.clock.child(f"clocks {number}")
        world = NodeWorld(self.clock, number, drift=knobs.drift_max * dice.choice([-1.0, 0.0, 1.0]))
        world.set_wall(
            knobs.wall_offset_ms_max * dice.uniform(-1.0, 1.0),
            knobs.wall_drift_max * dice.uniform(-1.0, 1.0),
        )
        world.slack_ms = knobs.timer_slack_ms
        world.ticks, world.pumps = TICKS, PUMPS
        disk = FaultyDisk(world)
        disk.sync_ms = (0.1, max(0.2, knobs.sync_ms_max))
        disk.keep_rate = knobs.keep_rate
        port = self.network.attach(world)
        return Member(self, world, disk, port, self.recipients.sender(world))

    @property
    def collection_uid(self) -> int:
        """The uid of the one collection; 0 before it is there."""
        return max((group[0] for group in self.groups()), default=0)

    def place_of(self, job: str) -> int:
        """The index of a job's vnode."""
        return vnode_of(job, self.knobs.num_vnodes)

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
        """See ClusterControl: those of the node that knows most."""
        return max((list(vnodes) for vnodes in self._vnodes()), key=len, default=[META_GROUP])

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
    }
    before = {name: getattr(limits, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(limits, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)
