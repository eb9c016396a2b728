"""One node's state and firing, put together: meta group, vnodes, delivery. No sockets, no clock.

This is what the HTTP side talks to and what the simulator runs. Answers come through callbacks,
after the batch that they depend on is durable.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from node.aliases import Aliases
from node.backups import BackupViews
from node.balancing import Balancing
from node.calls import Calls
from node.clocks import Clocks
from node.compacting.leading import CompactionLead
from node.compacting.reports import CompactionReport
from node.compacting.working import Compacting
from node.consensus import Consensus
from node.delivery import Delivery
from node.delivery.credits import Neighbours
from node.env import Aside, Disk, InTurn, World
from node.events import Events
from node.example import send_example
from node.expiry import Expiry
from node.finalising import Finalising
from node.gathering import Asking, Gathering
from node.gathering.questions import Group, Here, LogsHeld
from node.healing import Healing
from node.images import Images
from node.keys import MasterKeys
from node.learning import Learning
from node.leaving import Leaving
from node.members import Cluster
from node.membership import Memberships
from node.moving import Moving, placement_of
from node.quarantine import Quarantine
from node.reading import Reader
from node.replicas import Replicas, job_machine
from node.router import Router, refuse_full
from node.runtime import Runtime
from node.seals import Sealing, Seals
from node.tasks import Tasks
from node.traffic import Traffic
from node.webhook import Prepared, prepare
from timemachine import limits
from timemachine.errors import (
    DiskFull,
    NotLeader,
    SealError,
    StoreDamaged,
    TimeMachineError,
    Unavailable,
)
from timemachine.group import node_of
from timemachine.membership import is_taken_in, wanted_in_meta
from timemachine.model import Collection, Node, Placement, Route, Settings
from timemachine.outbound import Sender
from timemachine.placement import first_leader, present, weight_of
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.results import JobResult
from timemachine.ring import OrderedId, home_of, vnode_of
from timemachine.sealing import MasterKey
from timemachine.storage.api import Store
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Done, Vnode

_COMMAND_BYTES = limits.COMMAND_OVERHEAD_BYTES
_META_COMMAND_BYTES = 1024
"""About what a command takes while it waits: of a job beside its meta, of the meta group."""


def _born(number: int) -> Node:
    """A node that a cluster is born with, until it says of itself who it is."""
    return Node(id=f"n{number}", name="", http="", rpc="", zone="", version="", number=number)


class Engine(Reader):
    """The node without its shell. `start` loads what the store holds; then it can be used.

    What may be asked without changing anything is the reader's. `space_low` is set from outside:
    whether the disk is nearly full.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        disk: Disk,
        sender: Sender,
        *,
        cluster_id: str,
        node: Node,
        master_keys: list[MasterKey],
        key_check: bytes | None = None,
        on_failure: Callable[[TimeMachineError], None],
        on_settings: Callable[[Settings], None] = lambda _: None,
        on_nodes: Callable[[list[Node]], None] = lambda _: None,
        on_quarantine: Callable[[Group, StoreDamaged], None] = lambda _group, _error: None,
        on_newer_format: Callable[[int, int], None] = lambda _newest, _finalised: None,
        on_compacted: Callable[[CompactionReport], None] = lambda _: None,
        cluster: Cluster,
        aside: Aside | None = None,
    ) -> None:
        super().__init__(store)
        self._world = world
        self._sender = sender
        self.cluster_id = cluster_id
        self.node_id = node.id
        self._on_settings = on_settings
        self._on_nodes = on_nodes
        self.space_low = False
        self.started_ms = world.wall_ms()
        overlay = Overlay(store)
        peers = cluster.peers(store, overlay)
        self.runtime = Runtime(
            world,
            store,
            disk,
            overlay,
            on_effects=self._effects,
            on_moved=self._moved,
            on_failure=on_failure,
            peers=peers,
        )
        config = cluster.group_config(world)
        self._members = config.voters
        self.number = node_of(config.id)
        self._node = msgspec.structs.replace(node, number=self.number)
        self.calls = Calls(world, peers, number=config.id)
        self._started: Callable[[], None] | None = None
        self._first_settings = Settings()
        self._known_routes: dict[int, int] = {}
        self._known_settings: Settings | None = None
        self._bootstrapped = False
        self._meta_changes = self._placed = -1
        self._known_nodes: dict[str, Node] = {}
        self._known_placements: dict[Group, Placement] = {}
        self._going: frozenset[int] = frozenset()
        self._said: Node | None = None
        self._replicas = Replicas(world, store, overlay, self.runtime, config)
        self._learning = Learning(world, store, overlay, self.runtime)
        self._replicas.on_switched = self._switched
        self._meta_vnode, self.meta = self._replicas.load_meta()
        self.keys = MasterKeys(master_keys, key_check, self.meta)
        self._node = msgspec.structs.replace(self._node, keys=self.keys.ids)
        self.finalising = Finalising(
            self.meta,
            self._meta_vnode,
            node.formats,
            stop=self.runtime.fail,
            ready=on_newer_format,
        )
        self.delivery = Delivery(
            world,
            store,
            self.runtime,
            self.meta,
            sender,
            node_id=node.id,
            number=self.number,
            prepare=self._prepare,
            tell_meta=self._tell_meta,
            late=self._late,
            stepped=self._clock_stepped,
            neighbours=Neighbours(self.calls, overlay, peers.epoch, self.alive),
        )
        self._images = Images(
            world,
            store,
            overlay,
            self.runtime,
            peers,
            self._replicas,
            chunk_bytes=cluster.snapshot_chunk_bytes,
            bytes_per_s=cluster.snapshot_bytes_per_s,
        )
        self.consensus = Consensus(
            world, self.runtime, peers, self._images, self.delivery, self.calls, cluster.rhythm
        )
        self.memberships = Memberships(
            world,
            self.runtime,
            self.meta,
            self.consensus.forwarding,
            hand_over=self.hand_over,
        )
        self.consensus.on_reformed = self.memberships.look_at
        self.consensus.nodes_of = self._nodes_of
        self._clocks = Clocks(
            world,
            self.runtime,
            self.calls,
            others=self.others,
            judged=self._clock_judged,
            space_low=lambda: self.space_low,
            crowded=self._crowded,
        )
        self._leaving = Leaving(world, self.runtime, self.consensus, self._clocks.is_right)
        self.quarantine = Quarantine(
            world,
            self.runtime,
            self._replicas,
            self.meta,
            self.consensus.forwarding,
            drop=self._lose,
            told=on_quarantine,
        )
        self.runtime.broken = self.quarantine.stop
        store.on_damage = self.quarantine.found
        self._healing = Healing(world, self.runtime, self._meta_vnode, self.meta)
        self.router = Router(
            world,
            self.runtime,
            self.calls,
            peers,
            self._meta_vnode,
            space_low=lambda: self.space_low,
            exists=lambda group: not group[0] or group[0] in self._collections,
            placed=self._nodes_of,
            bound=self._bound,
        )
        self.tasks = Tasks(
            world,
            store,
            self.runtime,
            self._meta_vnode,
            self.meta,
            revoke=self.delivery.revoke,
            queued=self.delivery.queued,
            space_low=lambda: self.space_low,
            propose_meta=self.propose_meta,
        )
        self._seals = Seals(
            world,
            self.runtime,
            self._meta_vnode,
            self.meta,
            reconciled=lambda: self.meta.changes == self._meta_changes,
        )
        self._compacting = Compacting(
            world,
            store,
            overlay,
            self.runtime,
            self.meta,
            self._replicas,
            aside or InTurn(world),
            number=self.number,
            space_low=lambda: self.space_low,
            ask_held=self._ask_held,
            told=on_compacted,
        )
        self.gathering = Gathering(
            world,
            self.runtime,
            self.calls,
            Here(
                store,
                self.delivery,
                self.tasks,
                self._seals,
                self._compacting,
                self.started_ms,
                number=self.number,
                rates=lambda: self._traffic.rates,
                unsettled=lambda: self.delivery.in_flight + self.consensus.forwarding.waiting,
            ),
            number=self.number,
            nodes_of=self._nodes_of,
            exists=lambda uid: uid == 0 or uid in self._collections,
            alive=self.alive,
        )
        self.tasks.gathering = self.gathering
        self._traffic = Traffic(
            world,
            writes=lambda: self.runtime.submitted,
            fires=lambda: sum(self.delivery.lateness.counts),
        )
        self.backups = BackupViews(world, self.runtime, self.view)
        self._moving = Moving(
            world,
            self.runtime,
            self._meta_vnode,
            self.meta,
            self.gathering,
            alive=self.answers,
        )
        self._compaction_lead = CompactionLead(
            world,
            self.runtime,
            self._meta_vnode,
            self.meta,
            self.gathering,
            alive=self.answers,
        )
        self._balancing = Balancing(
            world,
            self.runtime,
            self._meta_vnode,
            self.calls,
            self.gathering,
            others=self.others,
            hand_over=self.hand_over,
            wanted=self._wanted_replicas,
            fit=self._may_lead_more,
            weights=self._weights,
        )
        self.events = Events(
            world,
            store,
            self.runtime,
            self._meta_vnode,
            self.meta,
            self._collections,
            propose_meta=self.propose_meta,
            propose_creates=self.propose_creates,
        )
        self._expiry = Expiry(
            world,
            store,
            self.runtime,
            self._meta_vnode,
            self.meta,
            self._collections,
            self._vnodes,
            self.tasks,
            self.events,
            alone=lambda: self.router.alone,
            aliases=Aliases(world, store, self.runtime, self.gathering, self._collections),
        )

    # --- start and stop --------------------------------------------------------------------

    def start(self, settings: Settings, started: Callable[[], None]) -> None:
        """Take up all vnodes, and call `started` when the meta group answers.

        `settings` hold for a cluster that is born here; a cluster that exists keeps its own.
        """
        self._first_settings = settings
        self._started = started
        self.runtime.add(self._meta_vnode)
        self.consensus.added(self._meta_vnode, first=False)
        self.runtime.when_written(self.consensus.start)
        self._meta_changed()

    def _bootstrap_seen(self) -> None:
        """The meta group is known here: what depends on it may begin."""
        if self._bootstrapped or self._started is None:
            return
        self._bootstrapped = True
        self._expiry.start()
        self._balancing.start()
        self._traffic.start()
        self._clocks.start()
        self._replicas.erase()
        self.runtime.when_idle(self._started)

    def stop(self, stopped: Callable[[], None]) -> None:
        """Finish or take back open sends, settle, and call `stopped` when all is on the disk."""
        self.tasks.stop()
        self._clocks.stop()

        def idle() -> None:
            self.runtime.close()
            self.consensus.close()
            stopped()

        def told() -> None:
            self.runtime.when_idle(idle)

        def drained() -> None:
            self._leaving.tell(told)

        timer = self._world.call_later(limits.SHUTDOWN_GRACE_MS, self.delivery.abort_open_sends)

        def done() -> None:
            timer.cancel()
            # Settles collected in this turn of the loop still have to become a command.
            self._world.call_soon(drained)

        self._leaving.hand_over(lambda: self.delivery.stop(done))

    # --- what meta says --------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Bring vnodes, delivery and settings in step with what meta says now."""
        self._meta_changes = self.meta.changes
        try:
            self.keys.reconcile()
        except SealError as error:
            self.runtime.fail(error)
            return
        wanted = {collection.uid: collection for collection in self.meta.collections.values()}
        for uid in [uid for uid in self._collections if uid not in wanted]:
            self._drop_collection(uid)
        self._collections.update(wanted)
        self._reconcile_nodes()
        self.finalising.reconcile()
        self._reconcile_vnodes()
        going = m.going(self.meta)
        if going != self._going:
            self._going = going
            self.memberships.look_at(self._meta_vnode.group)
        self._moving.look_soon()
        self._compaction_lead.look_soon()
        self._compacting.reconcile()
        self._reconcile_routes()
        if self.meta.settings != self._known_settings:
            self._known_settings = self.meta.settings
            self._on_settings(self.meta.settings)
        self.tasks.reconcile()

    def _reconcile_nodes(self) -> None:
        """Know the other nodes, and have them know this one."""
        nodes = self.meta.nodes
        if nodes == self._known_nodes:
            return
        self._known_nodes = dict(nodes)
        self._healing.look_soon()
        there = present(nodes.values())
        newest = max([node.number for node in nodes.values()])
        self.consensus.set_nodes(there - {self.number}, newest)
        self.delivery.set_members(self.number, there)
        self._on_nodes(list(nodes.values()))
        self.memberships.look_at(self._meta_vnode.group)
        unsaid = self._unsaid()
        if unsaid is not None and unsaid != self._said:
            self._said = unsaid
            self.say_node(unsaid)

    def _unsaid(self) -> Node | None:
        """What this node says of itself; None where meta knows that, or does not know the node."""
        own = self.meta.nodes.get(self._node.id)
        if own is None or not own.present:
            return None
        said = msgspec.structs.replace(self._node, number=own.number, state=own.state)
        return None if said == own else said

    def say_node(self, node: Node) -> None:
        """Have the cluster know what this node says of itself; its keys are known here."""
        self._node = msgspec.structs.replace(node, number=self.number, keys=self.keys.ids)
        said = msgspec.structs.replace(node, keys=self.keys.ids)
        command = m.PutNode(now_ms=self.now_ms(), node=said)
        self.consensus.forwarding.add(self._meta_vnode.group, command, self._say_again)

    def _say_again(self) -> None:
        unsaid = self._unsaid()
        if unsaid is not None:
            self.say_node(unsaid)

    def _reconcile_vnodes(self) -> None:
        """Have just the replicas that meta wants this node to have."""
        if self._placed == self.meta.placed:
            return
        self._placed = self.meta.placed
        self._healing.look_soon()
        kept = set()
        placements: dict[Group, Placement] = {}
        for collection in self.meta.collections.values():
            vnodes = self._vnodes.setdefault(collection.uid, {})
            for placement in self.meta.placements_of(collection):
                group, vnode = (placement.uid, placement.index), vnodes.get(placement.index)
                own = self._own_replica(placement)
                if vnode is not None and vnode.id != own:
                    self._lose(vnode)
                    vnode = None
                if own:
                    kept.add(group)
                    if vnode is None:
                        vnode = self._take_up(placement, own)
                        if vnode is not None:
                            vnodes[placement.index] = vnode
                placements[group] = placement
                if self._known_placements.get(group) != placement:
                    self.memberships.look_at(group)
        self._known_placements = placements
        self._replicas.retire_others(kept)
        self.quarantine.reconcile()

    def _own_replica(self, placement: Placement) -> int:
        """The id of the replica that this node is to have, or still has to; 0 for none."""
        group = placement.uid, placement.index
        for each in placement.replicas:
            if node_of(each) == self.number:
                if not self.quarantine.holds(group, each):
                    return each
                if placement.replicas == (each,):
                    # Given up when the store was written anew, and nobody can rebuild it.
                    sentence = f"Vnode {group} is damaged, and there is no other replica."
                    self.runtime.fail(StoreDamaged(sentence))
                return 0
        for each in placement.removing:
            if node_of(each) == self.number and self._replicas.has(group, each):
                return each
        return 0

    def _take_up(self, placement: Placement, id: int) -> Vnode | None:
        group = placement.uid, placement.index
        try:
            vnode = self._replicas.load(group, id, placement.born)
        except StoreDamaged as error:
            if not self.quarantine.give_up(group, id, error):
                self.runtime.fail(error)
            return None
        if not job_machine(vnode).ids.complete:
            self._learning.add(vnode)
        self.runtime.add(vnode)
        self.consensus.added(vnode, first=first_leader(placement) == self.number)
        return vnode

    def _lose(self, vnode: Vnode) -> None:
        """A replica is damaged, or not wanted here any more: it does nothing from now on.

        What became of what it has sent, others want to hear.
        """
        vnode.resign()
        self._vnodes[vnode.group[0]].pop(vnode.group[1])
        self.delivery.leave(vnode)
        self.tasks.moved(vnode)
        self._remove(vnode)

    def _remove(self, vnode: Vnode) -> None:
        self.runtime.remove(vnode)
        self.consensus.removed(vnode)
        self._expiry.forget_vnode(vnode.group)
        self._seals.forget(vnode.group)
        self.events.forget(vnode)

    def _drop_collection(self, uid: int) -> None:
        del self._collections[uid]
        self.gathering.leaders.forget(uid)
        for vnode in self._vnodes.pop(uid, {}).values():
            self.delivery.forget(vnode)
            self._remove(vnode)

    def _reconcile_routes(self) -> None:
        routes = {uid: route.version for uid, route in self.meta.routes_by_uid.items()}
        if routes == self._known_routes:
            return
        before, self._known_routes = self._known_routes, routes
        for uid in before.keys() - routes.keys():
            self.delivery.route_changed(uid)
        for uid, version in routes.items():
            if before.get(uid) != version:
                self.delivery.route_changed(uid)

    # --- what the log tells ----------------------------------------------------------------

    def _effects(self, vnode: Vnode, effects: list[Any], applied_index: int) -> None:
        if vnode is not self._meta_vnode:
            self.delivery.on_effects(vnode, effects, applied_index)
            self.events.look(vnode)
        else:
            if self.meta.changes != self._meta_changes:
                self._meta_changed()
                self.events.look_at_meta()
            self.router.applied(applied_index)

    def _meta_changed(self) -> None:
        """What another node proposed to the meta group holds here as well."""
        if self.meta.databases:
            self._reconcile()
            self._bootstrap_seen()

    def _moved(self, vnode: Vnode) -> None:
        """This node began or ceased to serve a vnode, or does so in another term."""
        self.consensus.moved(vnode)
        if vnode.serving:
            self.memberships.look_at(vnode.group)
        if vnode is self._meta_vnode:
            self._healing.look_soon()
            self._moving.look_soon()
            self._compaction_lead.look_soon()
            if vnode.serving and not self.meta.databases:
                command = m.Bootstrap(
                    now_ms=self.now_ms(),
                    node=self._node,
                    settings=self._first_settings,
                    nodes=[_born(number) for number in self._members if number != self.number],
                )
                self.runtime.propose(vnode, command)
            self.tasks.meta_moved()
            return
        self.delivery.leave(vnode)
        collection = self._collections.get(vnode.group[0])
        if collection is not None and vnode.serving:
            self.delivery.lead(vnode, collection)
        self.tasks.moved(vnode)

    def _switched(self, vnode: Vnode) -> None:
        """A replica goes on from a snapshot: what was learned of it is to be learned again."""
        if vnode is self._meta_vnode:
            self._meta_changes = self._placed = -1
        else:
            self._learning.add(vnode)

    def receive(self, frame: bytes, sender: int = 0) -> None:
        """Take what another node has sent: that of the number `sender`, where that is known."""
        self.consensus.receive(frame, sender)

    # --- time and chance -------------------------------------------------------------------

    def now_ms(self) -> int:
        """The wall clock."""
        return self._world.wall_ms()

    def random_bytes(self, count: int) -> bytes:
        """Unpredictable bytes."""
        return self._world.random_bytes(count)

    # --- writing ---------------------------------------------------------------------------

    def propose_meta(self, command: m.AnyMetaCommand, done: Done) -> None:
        """Change what the whole cluster agrees on; `done` gets a MetaResult or an error."""
        refused = self.finalising.refusal(command)
        if refused is not None:
            done(refused)
            return

        def answered(result: Any) -> None:
            if isinstance(result, m.MetaResult) and result.kind in (
                "created",
                "replaced",
                "deleted",
            ):
                self._reconcile()
                self.runtime.when_written(lambda: done(result))
            else:
                done(result)

        if self._meta_vnode.sole:
            self.runtime.submit(self._meta_vnode, command, answered, _META_COMMAND_BYTES)
        else:
            self.router.propose(self._meta_vnode.group, command, answered, _META_COMMAND_BYTES)

    def _late(self, group: tuple[int, int], settles: list[c.SettleItem]) -> None:
        """What became of sends of a vnode that this node has ceased to lead."""
        self.consensus.forwarding.add(group, c.Settle(now_ms=self.now_ms(), items=settles))

    def _tell_meta(self, command: m.DisableRoute | m.RouteFailed | m.RouteSucceeded) -> None:
        self.consensus.forwarding.add(self._meta_vnode.group, command)

    def propose_job(self, collection: Collection, job_id: str, command: Any, done: Done) -> None:
        """Put a creator's command through the log of the job's vnode."""
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            done(Unavailable("The collection is being created or deleted."))
            return
        if type(job_id) is OrderedId:
            command = msgspec.structs.replace(command, job_id=str(job_id))
        index = vnode_of(home_of(job_id), collection.num_vnodes)
        vnode = vnodes.get(index)
        size = _COMMAND_BYTES + len(getattr(command, "meta", None) or b"")
        if vnode is None or not vnode.sole:
            self.router.propose((collection.uid, index), command, done, size)
            return
        if self.space_low and not isinstance(command, c.DeleteJob):
            refuse_full(self.runtime, vnode, command, self.now_ms())
            done(DiskFull(retry_after_s=10))
            return
        self.runtime.submit(vnode, command, done, size)

    def place_job(self, collection: Collection, job_id: str, ordering_key: str, done: Done) -> None:
        """Have a job found by its id that lives, or will live, in the vnode of its ordering key."""
        command = c.PlaceJob(now_ms=self.now_ms(), job_id=str(job_id), ordering_key=ordering_key)
        self.propose_job(collection, str(job_id), command, done)

    def propose_ordered(
        self, collection: Collection, job_id: str, command: c.PutJob, done: Done
    ) -> None:
        """Put the create of a job with an ordering key through the logs: of its id, of its key."""
        key = command.ordering_key
        assert key is not None
        assert command.create_only, "no send was revoked for it"

        def placed(result: Any) -> None:
            if not isinstance(result, JobResult):
                done(result)
            elif result.kind == "refused":
                done(msgspec.structs.replace(result, code="job_exists"))
            else:
                self.propose_job(collection, OrderedId(job_id, key), command, done)

        self.place_job(collection, job_id, key, placed)

    def _bound(self, group: Group, command: Any) -> Any:
        """A command of another node, bound to the route that has the name now.

        That node may not have heard yet that the one that it knows was deleted, and made anew.
        """
        route_uid, name = getattr(command, "route_uid", 0), getattr(command, "route", None)
        meta = self.meta
        if not route_uid or route_uid in meta.routes_by_uid or meta.may_come(route_uid):
            return command
        collection = self._collections.get(group[0])
        route = None if collection is None else meta.routes.get((collection.db, name or ""))
        return command if route is None else msgspec.structs.replace(command, route_uid=route.uid)

    def propose_creates(
        self,
        collection: Collection,
        creates: list[tuple[int, c.PutJob]],
        done: Callable[[list[Any]], None],
    ) -> None:
        """Put many creates, each with the index of its job's vnode, through the logs at once.

        They are of `create_only`, so that no send was revoked for one. The ids of those with an
        ordering key are placed.
        """
        size = sum([_COMMAND_BYTES + len(command.meta) for _, command in creates])
        self._propose_all(collection, creates, size, done)

    def place_jobs(
        self, collection: Collection, creates: list[c.PutJob], done: Callable[[list[Any]], None]
    ) -> None:
        """Place the ids of creates with an ordering key, as `place_job` does."""
        now_ms = self.now_ms()
        places = [
            (
                vnode_of(each.job_id, collection.num_vnodes),
                c.PlaceJob(now_ms=now_ms, job_id=each.job_id, ordering_key=each.ordering_key or ""),
            )
            for each in creates
        ]
        self._propose_all(collection, places, _COMMAND_BYTES * len(places), done)

    def _propose_all(
        self,
        collection: Collection,
        creates: Sequence[tuple[int, c.PutJob | c.PlaceJob]],
        size: int,
        done: Callable[[list[Any]], None],
    ) -> None:
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            done([Unavailable("The collection is being created or deleted.")] * len(creates))
            return
        if not self.router.alone:
            uid = collection.uid
            self.router.propose_many([((uid, place), each) for place, each in creates], done, size)
            return
        if self.space_low:
            done([DiskFull(retry_after_s=10)] * len(creates))
            return
        proposals = [(vnodes[place], command) for place, command in creates]
        self.runtime.submit_many(proposals, done, size)

    def read_latest(self, collection: Collection, job_id: str, done: Callable[[Any], None]) -> None:
        """Read a job, no older than this call: `done` gets what `read_job` gives, or an error."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            done(Unavailable("The collection is being created or deleted."))
            return
        self._read_after(vnode, partial(self.read_job, collection, job_id), done)

    def read_held(
        self, vnode: Vnode, after: bytes, rows_max: int, done: Callable[[Any], None]
    ) -> None:
        """The same of what `held_by_restore` gives: who was told that all is there misses none."""
        self._read_after(vnode, partial(self.held_by_restore, vnode, after, rows_max), done)

    def _read_after(
        self, vnode: Vnode, read: Callable[[], Any], done: Callable[[Any], None]
    ) -> None:
        def answered(result: Any) -> None:
            if result is None and not self.runtime.holds(vnode):
                result = NotLeader()  # what has taken its place here may be empty yet
            done(read() if result is None else result)

        self.runtime.barrier(vnode, answered)

    def hand_over(self, vnode: Vnode, to: int, done: Callable[[bool], None]) -> None:
        """Have another node lead a vnode; `done` hears whether this one has ceased to.

        What is under way is known to the next leader, so nothing is sent twice for it.
        """
        self.consensus.handovers.start(vnode, to, done)

    def seal(self, db: str, done: Callable[[list[Group]], None]) -> None:
        """Have no vnode of a database fire by routes that are older than this call.

        `done` gets the vnodes of which that is not certain after `SEAL_WAIT_MS`.
        """

        def known(error: TimeMachineError | None) -> None:
            collections = [each for each in self.meta.collections.values() if each.db == db]
            groups = [(each.uid, index) for each in collections for index in range(each.num_vnodes)]
            index = self.meta.applied_index
            if error is None:
                Sealing(self._world, self.gathering, groups, index, done)
            else:
                done(groups)

        self.router.read_meta(known)

    def revoke(self, collection: Collection, job_id: str) -> c.Revoked | None:
        """Remove a claimed, unsent attempt; the next command for the job must carry the answer."""
        vnode = self._vnode(collection, job_id)
        return None if vnode is None else self.delivery.revoke(vnode, job_id)

    def _clock_judged(self, wrong: bool) -> None:  # noqa: FBT001 - a callback
        """Fire nothing by a clock that is wrong, and have others lead meanwhile."""
        self.consensus.gate.open = not wrong
        if wrong:
            self._leaving.hand_over(lambda: None)
        else:
            self._leaving.stay()

    def _crowded(self) -> None:
        """The disk is nearly full: others take creators' jobs, where they have room."""
        self._leaving.relieve(self.has_room)

    def has_room(self, node: int) -> bool:
        """Whether the disk of a node has room, as far as is known here."""
        if node == self.number:
            return not self.space_low
        return self._clocks.has_room(node)

    def _ask_held(self, groups: Sequence[Group], done: Callable[[Any], None]) -> Asking:
        """Ask up to where all members of vnodes have their logs; who does not answer is missing."""
        return self.gathering.ask(
            LogsHeld(), groups, done, partly=True, patience_ms=limits.GATHER_TIMEOUT_MS
        )

    def _clock_stepped(self) -> None:
        """The wall clock has jumped: whether anything may fire by it is judged at once."""
        if self._clocks.jumped():
            self.consensus.gate.open = False

    def _may_lead_more(self, node: int) -> bool:
        """Whether a node that leads more would keep it: it has room, and may go by its clock."""
        return self.has_room(node) and self._clocks.is_right(node)

    def _wanted_replicas(self, group: Group) -> tuple[int, ...]:
        placement = placement_of(self.meta, group)
        return () if placement is None else placement.replicas

    def _weights(self) -> dict[int, int]:
        """How much each node is to lead beside the others; who leaves leads nothing."""
        return {node.number: weight_of(node) for node in self.meta.nodes.values()}

    def clock_offset_ms(self, node: int) -> int:
        """By how much another node's wall clock is ahead of this one's, as far as is known."""
        offset_ms = self._clocks.offset_ms(node)
        return 0 if offset_ms is None else round(offset_ms)

    # --- about others ----------------------------------------------------------------------

    def _nodes_of(self, group: Group) -> Sequence[int]:
        """The nodes that have a replica of a vnode."""
        if group == self._meta_vnode.group:
            return [self.number, *self.others()]
        return [node_of(each) for each in self.meta.placement(*group).replicas]

    def others(self) -> list[int]:
        """The numbers of the other nodes of the cluster."""
        there = self.meta.nodes.values()
        return [node.number for node in there if node.present and node.number != self.number]

    def heard(self) -> set[int]:
        """The numbers of the nodes that answer; this one among them."""
        return {self.number, *(each for each in self.others() if self.alive(each))}

    def answers(self, node: int) -> bool:
        """Whether a node answers, as far as is known; this one does."""
        return node == self.number or self.alive(node)

    def alive(self, node: int) -> bool:
        """Whether another node answers, as far as is known."""
        return self.consensus.sleeping.alive(node)

    # --- about the node --------------------------------------------------------------------

    @property
    def master_keys(self) -> list[MasterKey]:
        """The keys that open secrets; the first one seals."""
        return self.keys.ordered

    def replace_keys(self, in_file: Sequence[MasterKey]) -> None:
        """Go on with other master keys. Raises SealError where one is needed that is not there."""
        self.keys.replace(in_file)
        self.say_node(self._node)

    def node_leader(self) -> int:
        """The number of the node that leads the meta group, as far as this one knows, or 0."""
        return self._meta_vnode.leader

    @property
    def epoch(self) -> int:
        """Counts the lives of this node."""
        return self.consensus.epoch

    def ready(self) -> tuple[bool, str]:
        """Whether the node can serve, and if not, why."""
        if self.runtime.failure is not None:
            return False, "the store failed"
        if not self._bootstrapped:
            return False, "meta is not known yet"
        if self.space_low:
            return False, "the disk is nearly full"
        return True, "ready"

    @property
    def is_member(self) -> bool:
        """Whether this node is in the meta group as meta wants it.

        Until then the others cannot count on it: if one of two is lost, who came third and does
        not vote yet is no majority with the other.
        """
        vnode = self._meta_vnode
        return is_taken_in(vnode.id, wanted_in_meta(self.meta.nodes.values()), vnode.members)

    @property
    def meta_voters(self) -> int:
        """How many nodes vote in the meta group, as far as this one knows."""
        return len(self._meta_vnode.members.voters)

    def statistics(self) -> dict[str, Any]:
        """Plain numbers for the metrics page."""
        delivery = self.delivery
        return {
            "cycles": self.runtime.cycles,
            "commands": self.runtime.commands,
            "rows": self.runtime.rows,
            "fired": sum(delivery.lateness.counts),
            "sends": delivery.sends,
            "in_flight": delivery.in_flight,
            "routes_waiting": delivery.routes_waiting,
            "breakers": delivery.breakers,
            "breaker_trips": delivery.breaker_trips,
            "credits_lent": delivery.credits_lent,
            "credits_borrowed": delivery.credits_borrowed,
            "outcomes": dict(delivery.outcomes),
            "events": dict(self.events.told),
            "events_suppressed": self.events.suppressed,
            "events_waiting": self.events.waiting,
            "lateness_buckets": list(delivery.lateness.counts),
            "lateness_sum_ms": delivery.lateness.sum_ms,
            "vnodes": len(self.runtime.vnodes),
            "clock_offset_max_s": self._clocks.largest_ms() / 1000,
            "snapshots_sent_bytes": self._images.outgoing.sent_bytes,
            "quarantined": len(self._replicas.quarantined),
            "level0_files": self._store.pressure(),
            "compaction_steps": self._compacting.steps_done,
            "compacted_bytes": self._store.compacted_bytes(),
            "disk_bytes": self._store.disk_bytes(),
        }

    # --- sending without a job -------------------------------------------------------------

    def _prepare(self, route: Route) -> Prepared:
        return prepare(self.master_keys, route, self.now_ms())

    def send_example(self, route: Route, done: Callable[[dict[str, Any]], None]) -> None:
        """Send one signed request with an example job; nothing is stored."""
        send_example(self._world, self._sender, route, self._prepare(route), done)
