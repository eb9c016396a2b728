"""One node's state and firing, put together: meta group, vnodes, delivery. No sockets, no clock.

This is what the HTTP side talks to and what the simulator runs. Answers come through callbacks,
after the batch that they depend on is durable.
"""

from collections.abc import Callable
from typing import Any

from node.consensus import Consensus
from node.delivery import Delivery
from node.env import Disk, World
from node.example import send_example
from node.expiry import Expiry
from node.images import Images
from node.learning import Learning
from node.members import Cluster
from node.reading import Reader
from node.replicas import Replicas, job_machine
from node.runtime import Runtime
from node.tasks import Tasks
from node.webhook import Prepared, prepare
from timemachine import limits
from timemachine.errors import DiskFull, TimeMachineError, Unavailable
from timemachine.group import SOLE
from timemachine.model import Collection, Node, Route, Settings
from timemachine.outbound import Sender
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.ring import vnode_of
from timemachine.sealing import MasterKey
from timemachine.storage.api import Store
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Done, Vnode

_COMMAND_BYTES = limits.COMMAND_OVERHEAD_BYTES
_META_COMMAND_BYTES = 1024
"""About what a command takes while it waits: of a job beside its meta, of the meta group."""


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
        on_failure: Callable[[TimeMachineError], None],
        on_settings: Callable[[Settings], None] = lambda _: None,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(store)
        self._world = world
        self._sender = sender
        self.cluster_id = cluster_id
        self.node_id = node.id
        self._node = node
        self.master_keys = master_keys
        self._on_settings = on_settings
        self.space_low = False
        self.started_ms = world.wall_ms()
        overlay = Overlay(store)
        peers = None if cluster is None else cluster.peers(store, overlay)
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
        config = SOLE if cluster is None else cluster.group_config(world)
        self._members = config.voters
        self.number = config.id
        self.consensus: Consensus | None = None
        self._started: Callable[[], None] | None = None
        self._first_settings = Settings()
        self._known_routes: dict[int, int] = {}
        self._known_settings: Settings | None = None
        self._bootstrapped = False
        self._meta_changes = -1
        self._replicas = Replicas(world, store, overlay, self.runtime, config)
        self._learning = Learning(world, store, overlay, self.runtime)
        self._replicas.on_switched = self._switched
        self._meta_vnode, self.meta = self._replicas.load_meta()
        self.delivery = Delivery(
            world,
            store,
            self.runtime,
            self.meta,
            sender,
            node_id=node.id,
            prepare=self._prepare,
            disable_route=self._disable_route,
            late=self._late,
        )
        if cluster is not None and peers is not None:
            images = Images(
                world,
                store,
                overlay,
                self.runtime,
                peers,
                self._replicas,
                chunk_bytes=cluster.snapshot_chunk_bytes,
            )
            self.consensus = Consensus(
                world, self.runtime, peers, images, self.delivery, cluster.rhythm
            )
        self.tasks = Tasks(
            world,
            store,
            self.runtime,
            self.meta,
            vnodes_of=lambda uid: self._vnodes.get(uid, []),
            revoke=self.delivery.revoke,
            space_low=lambda: self.space_low,
            propose_meta=self.propose_meta,
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
        )

    # --- start and stop --------------------------------------------------------------------

    def start(self, settings: Settings, started: Callable[[], None]) -> None:
        """Take up all vnodes, and call `started` when the meta group answers.

        `settings` hold for a cluster that is born here; a cluster that exists keeps its own.
        """
        self._first_settings = settings
        self._started = started
        self.runtime.add(self._meta_vnode)
        if self.consensus is not None:
            self.consensus.added(self._meta_vnode, first=0)
            self.runtime.when_written(self.consensus.start)
            self._meta_changed()
            return
        command: Any
        if not self.meta.databases and not self.meta.nodes:
            command = m.Bootstrap(now_ms=self.now_ms(), node=self._node, settings=settings)
        else:
            command = m.PutNode(now_ms=self.now_ms(), node=self._node)

        def answered(result: Any) -> None:
            if isinstance(result, m.MetaResult):
                self._reconcile()
                self._bootstrap_seen()

        self.runtime.propose(self._meta_vnode, command, answered)

    def _bootstrap_seen(self) -> None:
        """The meta group is known here: what depends on it may begin."""
        if self._bootstrapped or self._started is None:
            return
        self._bootstrapped = True
        self._expiry.start()
        self._replicas.erase()
        self.runtime.when_idle(self._started)

    def stop(self, stopped: Callable[[], None]) -> None:
        """Finish or take back open sends, settle, and call `stopped` when all is on the disk."""
        self.tasks.stop()

        def idle() -> None:
            self.runtime.close()
            if self.consensus is not None:
                self.consensus.close()
            stopped()

        def drained() -> None:
            self.runtime.when_idle(idle)

        timer = self._world.call_later(limits.SHUTDOWN_GRACE_MS, self.delivery.abort_open_sends)

        def done() -> None:
            timer.cancel()
            # Settles collected in this turn of the loop still have to become a command.
            self._world.call_soon(drained)

        self.delivery.stop(done)

    # --- what meta says --------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Bring vnodes, delivery and settings in step with what meta says now."""
        self._meta_changes = self.meta.changes
        if self.consensus is None:
            self.tasks.reconcile()
        wanted = {collection.uid: collection for collection in self.meta.collections.values()}
        for uid in [uid for uid in self._collections if uid not in wanted]:
            self._drop_collection(uid)
        for uid, collection in wanted.items():
            self._collections[uid] = collection
            if uid not in self._vnodes:
                self._take_up_collection(collection)
        self._replicas.retire_others(wanted.keys())
        self._reconcile_routes()
        if self.meta.settings != self._known_settings:
            self._known_settings = self.meta.settings
            self._on_settings(self.meta.settings)

    def _take_up_collection(self, collection: Collection) -> None:
        vnodes = self._vnodes[collection.uid] = []
        for index in range(collection.num_vnodes):
            vnode = self._replicas.load((collection.uid, index))
            if not job_machine(vnode).ids.complete:
                self._learning.add(vnode)
            vnodes.append(vnode)
            self.runtime.add(vnode)
            if self.consensus is not None:
                self.consensus.added(vnode, first=self._members[index % len(self._members)])

    def _drop_collection(self, uid: int) -> None:
        del self._collections[uid]
        for vnode in self._vnodes.pop(uid, []):
            self.delivery.forget(vnode)
            self.runtime.remove(vnode)
            if self.consensus is not None:
                self.consensus.removed(vnode)
            self._expiry.forget_vnode(vnode.group)

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
        elif self.consensus is not None and self.meta.changes != self._meta_changes:
            self._meta_changed()

    def _meta_changed(self) -> None:
        """What another node proposed to the meta group holds here as well."""
        if self.meta.databases:
            self._reconcile()
            self._bootstrap_seen()

    def _moved(self, vnode: Vnode) -> None:
        """This node began or ceased to serve a vnode, or does so in another term."""
        if self.consensus is not None:
            self.consensus.moved(vnode)
        if vnode is self._meta_vnode:
            if self.consensus is not None and vnode.serving and not self.meta.databases:
                command = m.Bootstrap(
                    now_ms=self.now_ms(), node=self._node, settings=self._first_settings
                )
                self.runtime.propose(vnode, command)
            return
        self.delivery.leave(vnode)
        collection = self._collections.get(vnode.group[0])
        if collection is not None and vnode.serving:
            self.delivery.lead(vnode, collection)
            self.tasks.tidy(vnode)

    def _switched(self, vnode: Vnode) -> None:
        """A replica goes on from a snapshot: what was learned of it is to be learned again."""
        if vnode is self._meta_vnode:
            self._meta_changes = -1
        else:
            self._learning.add(vnode)

    def receive(self, frame: bytes) -> None:
        """Take what another node has sent."""
        if self.consensus is not None:
            self.consensus.receive(frame)

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

        self.runtime.submit(self._meta_vnode, command, answered, _META_COMMAND_BYTES)

    def _late(self, group: tuple[int, int], settles: list[c.SettleItem]) -> None:
        """What became of sends of a vnode that this node has ceased to lead."""
        if self.consensus is not None:
            self.consensus.forwarding.add(group, c.Settle(now_ms=self.now_ms(), items=settles))

    def _disable_route(self, command: m.DisableRoute) -> None:
        if self.consensus is None:
            self.propose_meta(command, lambda _: None)
        else:
            self.consensus.forwarding.add(self._meta_vnode.group, command)

    def propose_job(self, collection: Collection, job_id: str, command: Any, done: Done) -> None:
        """Put a creator's command through the log of the job's vnode."""
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            done(Unavailable("The collection is being created or deleted."))
            return
        vnode = vnodes[vnode_of(job_id, collection.num_vnodes)]
        revoked = getattr(command, "revoked", None)
        if self.space_low and not isinstance(command, c.DeleteJob):
            if revoked is not None:
                item = c.ClaimItem(job_id, revoked.uid, revoked.version, revoked.attempt, 0)
                unclaim = c.Unclaim(now_ms=self.now_ms(), items=[item], term=revoked.term)
                self.runtime.propose(vnode, unclaim)
            done(DiskFull(retry_after_s=10))
            return
        size = _COMMAND_BYTES + len(getattr(command, "meta", None) or b"")
        if revoked is None:
            self.runtime.submit(vnode, command, done, size)
        else:
            # The send is removed already, so the command that says so must reach the log.
            self.runtime.propose(vnode, command, done)

    def propose_creates(
        self,
        collection: Collection,
        creates: list[tuple[int, c.PutJob]],
        done: Callable[[list[Any]], None],
    ) -> None:
        """Put many creates, each with the index of its job's vnode, through the logs at once.

        They are of `create_only`, so that no send was revoked for one.
        """
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            done([Unavailable("The collection is being created or deleted.")] * len(creates))
            return
        if self.space_low:
            done([DiskFull(retry_after_s=10)] * len(creates))
            return
        size = sum([_COMMAND_BYTES + len(command.meta) for _, command in creates])
        proposals = [(vnodes[place], command) for place, command in creates]
        self.runtime.submit_many(proposals, done, size)

    def read_latest(self, collection: Collection, job_id: str, done: Callable[[Any], None]) -> None:
        """Read a job, no older than this call: `done` gets what `read_job` gives, or an error.

        A leader that holds the lease knows that nobody else has acknowledged a write; otherwise a
        majority is asked (ReadIndex; dissertation 6.4).
        """
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            done(Unavailable("The collection is being created or deleted."))
            return
        if self.runtime.working and vnode.may_fire(self._world.mono_ms()):
            done(self.read_job(collection, job_id))
            return

        def answered(result: Any) -> None:
            done(self.read_job(collection, job_id) if result is None else result)

        self.runtime.read(vnode, answered)

    def hand_over(self, vnode: Vnode, to: int, done: Callable[[bool], None]) -> None:
        """Have another node lead a vnode; `done` hears whether this one has ceased to.

        What is under way is known to the next leader, so nothing is sent twice for it.
        """
        assert self.consensus is not None
        self.consensus.handovers.start(vnode, to, done)

    def revoke(self, collection: Collection, job_id: str) -> c.Revoked | None:
        """Remove a claimed, unsent attempt; the next command for the job must carry the answer."""
        vnode = self._vnode(collection, job_id)
        return None if vnode is None else self.delivery.revoke(vnode, job_id)

    # --- about the node --------------------------------------------------------------------

    def vnodes(self) -> list[dict[str, Any]]:
        """The rows of /v1/cluster/vnodes."""
        rows = []
        for uid, vnodes in self._vnodes.items():
            collection = self._collections[uid]
            for vnode in vnodes:
                state = job_machine(vnode).state
                rows.append(
                    {
                        "db": collection.db,
                        "collection": collection.name,
                        "index": vnode.group[1],
                        "leader": self.node_id if vnode.is_leader() else None,
                        "term": vnode.term,
                        "replicas": [{"node": self.node_id, "role": "voter", "lag": 0}],
                        "offset": {
                            "time": state.offset_due_ms,
                            "job_id": state.offset_job_id,
                        },
                        "due_backlog": self.delivery.backlog(vnode),
                    }
                )
        return rows

    def ready(self) -> tuple[bool, str]:
        """Whether the node can serve, and if not, why."""
        if self.runtime.failure is not None:
            return False, "the store failed"
        if not self._bootstrapped:
            return False, "meta is not known yet"
        if self.space_low:
            return False, "the disk is nearly full"
        return True, "ready"

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
            "outcomes": dict(delivery.outcomes),
            "lateness_buckets": list(delivery.lateness.counts),
            "lateness_sum_ms": delivery.lateness.sum_ms,
            "vnodes": len(self.runtime.vnodes),
            "level0_files": self._store.pressure(),
        }

    # --- sending without a job -------------------------------------------------------------

    def _prepare(self, route: Route) -> Prepared:
        return prepare(self.master_keys, route, self.now_ms())

    def send_example(self, route: Route, done: Callable[[dict[str, Any]], None]) -> None:
        """Send one signed request with an example job; nothing is stored."""
        send_example(self._world, self._sender, route, self._prepare(route), done)
