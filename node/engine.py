"""One node's state and firing, put together: meta group, vnodes, delivery. No sockets, no clock.

This is what the HTTP side talks to and what the simulator runs. Answers come through callbacks,
after the batch that they depend on is durable.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from node.attempts import RoutePage, RoutePosition, old_attempt_rows, route_attempts
from node.delivery import Delivery
from node.env import Disk, World
from node.forecast import forecast
from node.learning import Learning
from node.listing import Page, Position, count_jobs, list_jobs
from node.runtime import Runtime
from node.selection import Selection
from node.tasks import Tasks
from node.webhook import Prepared, build_request, prepare
from timemachine import limits
from timemachine.errors import DiskFull, TimeMachineError, Unavailable
from timemachine.identifiers import webhook_id
from timemachine.model import (
    AttemptRecord,
    Collection,
    JobRecord,
    JobState,
    Node,
    Queue,
    Route,
    Settings,
)
from timemachine.outbound import Outcome, Sender
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.machine import JobMachine
from timemachine.replica.records import read_attempt, read_job
from timemachine.ring import vnode_of
from timemachine.sealing import MasterKey
from timemachine.storage.api import Store
from timemachine.storage.keys import (
    ERASE_START,
    ERASE_STOP,
    GROUPS_START,
    GROUPS_STOP,
    INCARNATION_KEY,
    ReplicaKeys,
    erase_key,
    group_key,
    group_of_key,
    u32,
    u64,
)
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Done, Vnode

META_GROUP = (0, 0)
_HOUSEKEEPING_MS = 1_000.0
_EXPIRED_VNODES = 32
_ERASE_ROWS = 2_000
_ROWS_MAX = 1_000_000


class Engine:
    """The node without its shell. `start` loads what the store holds; then it can be used."""

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
    ) -> None:
        self._world = world
        self._store = store
        self._sender = sender
        self.cluster_id = cluster_id
        self.node_id = node.id
        self._node = node
        self.master_keys = master_keys
        self._on_settings = on_settings
        self.space_low = False
        self.started_ms = world.wall_ms()
        self._overlay = Overlay(store)
        self.runtime = Runtime(
            world,
            store,
            disk,
            self._overlay,
            on_effects=self._effects,
            on_failure=on_failure,
        )
        self._next_incarnation = 1
        self._incarnations: dict[tuple[int, int], int] = {}
        self._collections: dict[int, Collection] = {}
        self._vnodes: dict[int, list[Vnode]] = {}
        self._known_routes: dict[int, int] = {}
        self._known_settings: Settings | None = None
        self._purge_at = 0
        self._attempts_at: dict[tuple[int, int], bytes] = {}
        self._learning = Learning(world, store, self._overlay, self.runtime)
        self._bootstrapped = False
        self._load_groups()
        self._meta_vnode = self._load_meta()
        self.meta: m.MetaMachine = self._meta_vnode.machine  # type: ignore[assignment]
        self.delivery = Delivery(
            world,
            store,
            self.runtime,
            self.meta,
            sender,
            node_id=node.id,
            prepare=self._prepare_route,
            disable_route=lambda command: self.propose_meta(command, lambda _: None),
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

    # --- start and stop --------------------------------------------------------------------

    def start(self, settings: Settings, started: Callable[[], None]) -> None:
        """Take up all vnodes, and call `started` when the meta group answers.

        `settings` hold for a cluster that is born here; a cluster that exists keeps its own.
        """
        self.runtime.add(self._meta_vnode)
        command: Any
        if not self.meta.databases and not self.meta.nodes:
            command = m.Bootstrap(now_ms=self.now_ms(), node=self._node, settings=settings)
        else:
            command = m.PutNode(now_ms=self.now_ms(), node=self._node)

        def answered(result: Any) -> None:
            if isinstance(result, m.MetaResult):
                self._bootstrapped = True
                self._reconcile()
                self._world.call_later(_HOUSEKEEPING_MS, self._housekeeping)
                self._erase_next()
                self.runtime.when_idle(started)

        self.runtime.propose(self._meta_vnode, command, answered)

    def stop(self, stopped: Callable[[], None]) -> None:
        """Finish or take back open sends, settle, and call `stopped` when all is on the disk."""
        self.tasks.stop()

        def drained() -> None:
            self.runtime.when_idle(stopped)

        timer = self._world.call_later(limits.SHUTDOWN_GRACE_MS, self.delivery.abort_open_sends)

        def done() -> None:
            timer.cancel()
            # Settles collected in this turn of the loop still have to become a command.
            self._world.call_soon(drained)

        self.delivery.stop(done)

    def _load_groups(self) -> None:
        row = self._store.get(INCARNATION_KEY)
        if row is not None:
            self._next_incarnation = int.from_bytes(row, "big")
        for key, value in self._store.scan(GROUPS_START, GROUPS_STOP, _ROWS_MAX):
            self._incarnations[group_of_key(key)] = int.from_bytes(value, "big")

    def _keys_for(self, group: tuple[int, int]) -> ReplicaKeys:
        """The keys of this node's replica of a group; a new replica gets a new incarnation."""
        incarnation = self._incarnations.get(group)
        if incarnation is None:
            incarnation = self._next_incarnation
            self._next_incarnation = incarnation + 1
            self._incarnations[group] = incarnation
            self._overlay.put(group_key(*group), u32(incarnation))
            self._overlay.put(INCARNATION_KEY, u32(self._next_incarnation))
        return ReplicaKeys(incarnation)

    def _load_meta(self) -> Vnode:
        keys = self._keys_for(META_GROUP)
        machine = m.MetaMachine(keys, self._overlay)
        rows = self._store.scan(keys.record, keys.prefix + b"d", _ROWS_MAX)
        machine.load(self._store.get(keys.state), rows)
        return Vnode(META_GROUP, keys, self._overlay, machine, self._store)

    def _load_vnode(self, group: tuple[int, int]) -> Vnode:
        keys = self._keys_for(group)
        machine = JobMachine(keys, self._overlay)
        rows = self._store.scan(keys.route_counters, keys.prefix + b"o", _ROWS_MAX)
        machine.load(self._store.get(keys.state), rows)
        vnode = Vnode(group, keys, self._overlay, machine, self._store)
        if not machine.ids.complete:
            self._learning.add(vnode)
        return vnode

    def _reconcile(self) -> None:
        """Bring vnodes, delivery and settings in step with what meta says now."""
        self.tasks.reconcile()
        wanted = {collection.uid: collection for collection in self.meta.collections.values()}
        for uid in [uid for uid in self._collections if uid not in wanted]:
            self._drop_collection(uid)
        for uid, collection in wanted.items():
            self._collections[uid] = collection
            if uid not in self._vnodes:
                self._vnodes[uid] = []
                for index in range(collection.num_vnodes):
                    vnode = self._load_vnode((uid, index))
                    self._vnodes[uid].append(vnode)
                    self.runtime.add(vnode)
                    self.delivery.lead(vnode, collection)
                    self.tasks.tidy(vnode)
        for group in [g for g in self._incarnations if g[0] and g[0] not in wanted]:
            self._retire(group)
        self._reconcile_routes()
        if self.meta.settings != self._known_settings:
            self._known_settings = self.meta.settings
            self._on_settings(self.meta.settings)

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

    def _drop_collection(self, uid: int) -> None:
        del self._collections[uid]
        for vnode in self._vnodes.pop(uid, []):
            self.delivery.leave(vnode)
            self.runtime.remove(vnode)
            self._attempts_at.pop(vnode.group, None)
            self._retire(vnode.group)

    def _retire(self, group: tuple[int, int]) -> None:
        """Forget a replica: its range is erased in the background, also after a crash."""
        incarnation = self._incarnations.pop(group)
        self._overlay.delete(group_key(*group))
        self._overlay.put(erase_key(incarnation), b"")
        self.runtime.write_soon()
        self._world.call_later(50.0, self._erase_next)

    def _erase_next(self) -> None:
        rows = self._store.scan(ERASE_START, ERASE_STOP, 1)
        if not rows or self.runtime.failure is not None:
            return
        keys = ReplicaKeys(int.from_bytes(rows[0][0][-4:], "big"))
        doomed = self._store.scan(keys.prefix, keys.stop, _ERASE_ROWS)
        for key, _ in doomed:
            self._overlay.delete(key)
        if not doomed:
            self._overlay.delete(rows[0][0])
        self.runtime.write_soon()
        self._world.call_later(20.0, self._erase_next)

    def _effects(self, vnode: Vnode, effects: list[Any], applied_index: int) -> None:
        if vnode is not self._meta_vnode:
            self.delivery.on_effects(vnode, effects, applied_index)

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

        self.runtime.submit(self._meta_vnode, command, answered, 1024)

    def propose_job(self, collection: Collection, job_id: str, command: Any, done: Done) -> None:
        """Put a creator's command through the log of the job's vnode."""
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            done(Unavailable("The collection is being created or deleted."))
            return
        vnode = vnodes[vnode_of(job_id, collection.num_vnodes)]
        if self.space_low and not isinstance(command, c.DeleteJob):
            self._give_back(vnode, job_id, command)
            done(DiskFull(retry_after_s=10))
            return
        revoked = getattr(command, "revoked", None)
        size = 256 + len(getattr(command, "meta", None) or b"")
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
        size = sum([256 + len(command.meta) for _, command in creates])
        proposals = [(vnodes[place], command) for place, command in creates]
        self.runtime.submit_many(proposals, done, size)

    def _give_back(self, vnode: Vnode, job_id: str, command: Any) -> None:
        revoked = getattr(command, "revoked", None)
        if revoked is not None:
            item = c.ClaimItem(job_id, revoked.uid, revoked.version, revoked.attempt, 0)
            self.runtime.propose(vnode, c.Unclaim(now_ms=self.now_ms(), items=[item]))

    def revoke(self, collection: Collection, job_id: str) -> c.Revoked | None:
        """Remove a claimed, unsent attempt; the next command for the job must carry the answer."""
        vnode = self._vnode(collection, job_id)
        return None if vnode is None else self.delivery.revoke(vnode, job_id)

    # --- reading ---------------------------------------------------------------------------

    def vnode_of(self, collection: Collection, job_id: str) -> int:
        """Index of the vnode that a job id belongs to."""
        return vnode_of(job_id, collection.num_vnodes)

    def _vnode(self, collection: Collection, job_id: str) -> Vnode | None:
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            return None
        return vnodes[vnode_of(job_id, collection.num_vnodes)]

    def read_job(self, collection: Collection, job_id: str) -> tuple[JobRecord, bytes] | None:
        """The durable job and its meta bytes."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return None
        raw_id = job_id.encode()
        data = self._store.get(vnode.keys.job + raw_id)
        if data is None:
            return None
        return read_job(data), self._store.get(vnode.keys.meta + raw_id) or b"null"

    def read_meta(self, collection: Collection, job_id: str) -> bytes:
        """The meta bytes of a job."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return b"null"
        return self._store.get(vnode.keys.meta + job_id.encode()) or b"null"

    def read_attempts(
        self, collection: Collection, job_id: str, record: JobRecord
    ) -> list[AttemptRecord]:
        """The settled attempts of a job, oldest first."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return []
        start, stop = vnode.keys.attempts_range(job_id.encode())
        rows = self._store.scan(start, stop, max(1, record.serial))
        return [read_attempt(value) for _, value in rows]

    def list_jobs(
        self, collection: Collection, selection: Selection, after: Position | None, limit: int
    ) -> Iterator[Page | None]:
        """Jobs in trigger order over all vnodes; see `node.listing.list_jobs`."""
        vnodes = self._vnodes.get(collection.uid, [])
        keys = [vnode.keys for vnode in vnodes]
        return list_jobs(self._store, keys, selection, after, limit)

    def count_jobs(
        self, collection: Collection, selection: Selection, *, unattempted: bool, sample: int
    ) -> Iterator[tuple[int, list[tuple[str, JobRecord]]] | None]:
        """What a task would find; see `node.listing.count_jobs`."""
        keys = [vnode.keys for vnode in self._vnodes.get(collection.uid, [])]
        return count_jobs(self._store, keys, selection, unattempted=unattempted, sample=sample)

    def forecast(
        self, collection: Collection, from_ms: int, to_ms: int, bucket_ms: int
    ) -> Iterator[list[tuple[int, int, int]] | None]:
        """Jobs due by time; see `node.forecast`."""
        vnodes = []
        for vnode in self._vnodes.get(collection.uid, []):
            machine = vnode.machine
            assert isinstance(machine, JobMachine)
            vnodes.append((vnode.keys, machine.due_counts))
        return forecast(self._store, vnodes, from_ms, to_ms, bucket_ms)

    def route_attempts(
        self, db: str, route_uid: int, before: RoutePosition | None, limit: int
    ) -> Iterator[RoutePage | None]:
        """Attempts of a route, the newest first; see `node.attempts`."""
        vnodes = [
            (collection, index, vnode.keys)
            for uid, collection in sorted(self._collections.items())
            if collection.db == db
            for index, vnode in enumerate(self._vnodes.get(uid, []))
        ]
        return route_attempts(self._store, vnodes, route_uid, before, limit)

    def counts(self, collection: Collection) -> dict[str, int]:
        """Jobs by state."""
        totals = [0] * len(JobState)
        for vnode in self._vnodes.get(collection.uid, []):
            machine = vnode.machine
            assert isinstance(machine, JobMachine)
            totals = [a + b for a, b in zip(totals, machine.state.counts, strict=True)]
        return {state.text: totals[state] for state in JobState}

    def jobs_of_route(self, route_uid: int) -> tuple[int, int]:
        """Pending jobs bound to a route, in all collections, and those of them that wait for it."""
        pending = waiting = 0
        for vnodes in self._vnodes.values():
            for vnode in vnodes:
                counts = vnode.machine.routes.get(route_uid)  # type: ignore[attr-defined]
                if counts is not None:
                    pending += counts.pending
                    waiting += counts.waiting
        return pending, waiting

    def vnodes(self) -> list[dict[str, Any]]:
        """The rows of /v1/cluster/vnodes."""
        rows = []
        for uid, vnodes in self._vnodes.items():
            collection = self._collections[uid]
            for vnode in vnodes:
                machine = vnode.machine
                assert isinstance(machine, JobMachine)
                state = machine.state
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

    def _prepare_route(self, route: Route) -> Prepared:
        return prepare(self.master_keys, route, self.now_ms())

    def send_example(self, route: Route, done: Callable[[dict[str, Any]], None]) -> None:
        """Send one signed request with an example job; nothing is stored."""
        now_ms = self.now_ms()
        record = JobRecord(
            uid=self.random_bytes(16),
            version=1,
            state=int(JobState.FIRING),
            trigger_ms=now_ms,
            delay_ms=None,
            route=route.name,
            route_uid=route.uid,
            tags=(),
            created_ms=now_ms,
            updated_ms=now_ms,
            due_ms=now_ms,
            queue=int(Queue.NONE),
            retry_reason="example",
        )
        request = build_request(
            self._prepare_route(route),
            route,
            record,
            job_id="example",
            meta=b'{"example":true}',
            db=route.db,
            collection="example",
            attempt=1,
            fence="0.0",
            now_ms=now_ms,
        )
        identity = webhook_id(record.uid, 1, 0)

        def answered(outcome: Outcome) -> None:
            good = outcome.status is not None and 200 <= outcome.status <= 299
            done(
                {
                    "status": "succeeded" if good else "failed",
                    "response_status": outcome.status,
                    "error_code": outcome.error_code,
                    "error_message": outcome.error_message,
                    "webhook_id": identity,
                    "duration_ms": round(outcome.total_ms, 3),
                }
            )

        self._sender.send(request, answered)

    # --- housekeeping ----------------------------------------------------------------------

    def _housekeeping(self) -> None:
        """Once a second: expire what is kept only for a time, some vnodes at a time."""
        if self.runtime.failure is not None:
            return
        self._world.call_later(_HOUSEKEEPING_MS, self._housekeeping)
        requests = self._old_requests(self._meta_vnode, self.meta.state.requests)
        if requests:
            command = m.ForgetRequests(now_ms=self.now_ms(), requests=requests)
            self.runtime.propose(self._meta_vnode, command)
        self.tasks.expire()
        vnodes = [vnode for group in self._vnodes.values() for vnode in group]
        if not vnodes:
            return
        for step in range(min(_EXPIRED_VNODES, len(vnodes))):
            vnode = vnodes[(self._purge_at + step) % len(vnodes)]
            # One after the other: all in one cycle would hold up what fires beside it.
            delay_ms = step * _HOUSEKEEPING_MS / _EXPIRED_VNODES
            self._world.call_later(delay_ms, partial(self._expire, vnode))
        self._purge_at = (self._purge_at + _EXPIRED_VNODES) % len(vnodes)

    def _expire(self, vnode: Vnode) -> None:
        if self.runtime.failure is not None or vnode.group not in self.runtime.vnodes:
            return
        now_ms = self.now_ms()
        keys = vnode.keys
        collection = self._collections[vnode.group[0]]
        before_ms = max(0, now_ms - collection.history_retention_ms)
        finished = self._store.scan(keys.finished, keys.finished + u64(before_ms), 500)
        attempts, cursor = old_attempt_rows(
            self._store, keys, before_ms, self._attempts_at.get(vnode.group, b"")
        )
        self._attempts_at[vnode.group] = cursor
        if finished or attempts:
            at = len(keys.finished) + 8
            job_ids = [key[at:].decode() for key, _ in finished]
            command = c.Purge(
                now_ms=now_ms, before_ms=before_ms, job_ids=job_ids, attempt_rows=attempts
            )
            self.runtime.propose(vnode, command)
        machine = vnode.machine
        assert isinstance(machine, JobMachine)
        requests = self._old_requests(vnode, machine.state.requests)
        if requests:
            self.runtime.propose(vnode, c.Forget(now_ms=now_ms, requests=requests))

    def _old_requests(self, vnode: Vnode, count: int) -> list[tuple[int, bytes]]:
        """Stored answers of a vnode that are to be forgotten, the oldest first."""
        if not count:
            return []
        keys = vnode.keys
        # Beyond the bound in number, the oldest answers go before their time.
        crowded = count > limits.REQUESTS_PER_VNODE_MAX
        stop = keys.prefix + b"y" if crowded else keys.request_age + u64(self.now_ms())
        at = len(keys.request_age)
        rows = self._store.scan(keys.request_age, stop, 1_000)
        return [(int.from_bytes(key[at : at + 8], "big"), key[at + 8 :]) for key, _ in rows]
