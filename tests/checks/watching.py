"""Tells `invariants` what real replicas do. Test-only: production code knows nothing of it.

`NodeWatch` stands beside one life of a node. It is given the ports that the engine gets (its
network, its sender) and the engine before it starts, and looks in where they are used: at every
input of a vnode and every cycle, at what machines apply, at frames that leave and at sends. What is
durable it reads from the disk's image, not from what the node believes.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from node.engine import Engine
from node.env import Network, World
from node.quarantine import Quarantine
from node.runtime import Runtime
from tests.checks.firing import Firing
from tests.checks.invariants import Durable, Group, Invariants
from timemachine import codec, limits
from timemachine.errors import StoreDamaged, TimeMachineError
from timemachine.frames import read_frame
from timemachine.group import node_of
from timemachine.identifiers import webhook_id
from timemachine.logrows import LoggedEntry, LogState
from timemachine.model import Collection
from timemachine.outbound import Handle, Outcome, Request, Sender
from timemachine.raft import ConfState, Entry, HardState, Message, RawNode, Role, Snapshot
from timemachine.raft.core import Raft
from timemachine.receiver.batch import Item, read_items
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine, read_commands
from timemachine.storage.keys import ReplicaKeys, group_key, u64
from timemachine.storage.memory import MemoryStore
from timemachine.vnode import Outcome as CycleOutcome
from timemachine.vnode import Vnode

_read_log_state = codec.decoder(LogState)
_read_entry = codec.decoder(LoggedEntry)
_LEADER: Final = Role.LEADER

# --- one core ------------------------------------------------------------------------------------


class CoreWatch:
    """Looks at one Raft core after each of its inputs, and tells what has changed."""

    def __init__(
        self,
        invariants: Invariants,
        node: int,
        group: Group,
        core: Raft,
        durable: Durable,
    ) -> None:
        """The core was just made, from what is durable."""
        self._invariants = invariants
        self._node = self.replica = node
        self._group = group
        self._core = core
        self._term = core.term
        self._commit = core.log.committed
        self._match = 0
        self._led_term = 0
        log = core.log
        entries = log.entries_from(log.first_index(), 1 << 62)
        invariants.started(node, group, durable, entries, log.applied)

    def look(self) -> bool:
        """The core has taken an input; whether it leads."""
        core = self._core
        term = core.term
        leads = core.role is _LEADER
        if term != self._term:
            self._term = term
            self._invariants.knows_term(self._node, self._group, term)
        if leads:
            if self._led_term != term:
                self._led_term = term
                self._match = 0
                self._invariants.became_leader(self._node, self._group, term)
            own = core.own
            if own is not None and own.match != self._match:
                self._match = own.match
                self._invariants.counts(self._node, self._group, own.match)
        commit = core.log.committed
        if commit != self._commit:
            self._commit = commit
            self._invariants.committed(self._node, self._group, commit, self._members())
        return leads

    def _members(self) -> ConfState:
        return self._core.tracker.conf_state()

    def handed_out(self, snapshot: Snapshot | None, entries: Sequence[Entry]) -> None:
        """The core wants these to be written."""
        if snapshot is not None:
            metadata = snapshot.metadata
            self._invariants.installed(self._node, self._group, metadata.index, metadata.term)
        if entries:
            self._invariants.appended(self._node, self._group, entries)


class DurableRows:
    """A replica as the durable rows of its node have it. See Durable.

    `get` reads the image itself, damaged rows too: what was durable once has been said with right.
    Where the node has another replica of the group by now, nothing is left of the one with `id`.
    """

    def __init__(
        self, get: Callable[[bytes], bytes | None], group: tuple[int, int], id: int = 1
    ) -> None:
        self._get = get
        self._id = id
        self._group_key = group_key(*group)
        self._row: bytes | None = None
        self._keys: ReplicaKeys | None = None

    def _current(self) -> ReplicaKeys | None:
        """The keys of the incarnation that a start would take up."""
        row = self._get(self._group_key)
        if row != self._row:
            self._row = row
            self._keys = None
            if (
                row is not None
                and (int.from_bytes(row[4:], "big") or node_of(self._id)) == self._id
            ):
                self._keys = ReplicaKeys(int.from_bytes(row[:4], "big"))
        return self._keys

    def _state(self) -> LogState:
        keys = self._current()
        row = None if keys is None else self._get(keys.hard_state)
        state: LogState = LogState() if row is None else _read_log_state(row)
        return state

    def hard_state(self) -> HardState:
        """See Durable."""
        state = self._state()
        return HardState(state.term, state.vote, state.commit)

    def base(self) -> tuple[int, int]:
        """See Durable."""
        state = self._state()
        return state.base_index, state.base_term

    def has(self, index: int, term: int) -> bool:
        """See Durable."""
        keys = self._current()
        row = None if keys is None else self._get(keys.log + u64(index))
        if row is not None:
            entry: LoggedEntry = _read_entry(row)
            return entry.term == term
        return index <= self.base()[0]


# --- one node ------------------------------------------------------------------------------------


class Applied(NamedTuple):
    """An entry that was applied: its commands, and what became of them."""

    at: int
    term: int
    commands: Sequence[Any]
    results: Sequence[Any]


class NodeWatch:
    """One life of the node `number`.

    `durable_get` reads a row of its disk's durable image; `true_ms` is the true wall clock.
    """

    def __init__(
        self,
        invariants: Invariants,
        number: int,
        world: World,
        durable_get: Callable[[bytes], bytes | None],
        true_ms: Callable[[], float],
    ) -> None:
        self.invariants = invariants
        self.number = number
        self.world = world
        self._durable_get = durable_get
        self._true_ms = true_ms
        self._cores: dict[tuple[int, int], CoreWatch] = {}
        self._classes: dict[type, type] = {}
        self._engine: Engine | None = None
        self._alive = True

    # --- ports -----------------------------------------------------------------------------

    def network(self, network: Network) -> "WatchedNetwork":
        """The port for the engine, in place of `network`."""
        return WatchedNetwork(self, network)

    def sender(self, sender: Sender) -> "WatchedSender":
        """The port for the engine, in place of `sender`."""
        return WatchedSender(self, sender)

    def engine(self, engine: Engine) -> None:
        """Watch an engine, which is not started yet."""
        self._engine = engine
        self.runtime(engine.runtime)
        self._reads(engine)
        self._quarantine(engine.quarantine)

    def _quarantine(self, quarantine: Quarantine) -> None:
        """Watch which replicas are given up, also of those that were never taken up."""
        give_up = quarantine.give_up

        def watched(group: tuple[int, int], id: int, error: StoreDamaged) -> bool:
            given_up = give_up(group, id, error)
            if given_up:
                # What it has said was true, though its rows are erased from now on.
                self.invariants.lost(id, group)
            return given_up

        quarantine.give_up = watched  # type: ignore[method-assign]

    def _reads(self, engine: Engine) -> None:
        """Watch what clients read."""
        read_latest = engine.read_latest

        def watched_read(collection: Collection, job_id: str, done: Callable[[Any], None]) -> None:
            vnode = engine._vnode(collection, job_id)
            if vnode is None or vnode.group not in self._cores:
                read_latest(collection, job_id, done)
                return
            group, replica = vnode.group, vnode.id
            answered = self.invariants.answered_index(group)

            def read(result: Any) -> None:
                if not isinstance(result, TimeMachineError):
                    self.invariants.read(replica, group, answered)
                done(result)

            read_latest(collection, job_id, read)

        engine.read_latest = watched_read  # type: ignore[method-assign]

    def runtime(self, runtime: Runtime) -> None:
        """Watch all vnodes that a runtime drives from now on."""
        add, remove = runtime.add, runtime.remove

        def watched_add(vnode: Vnode) -> None:
            self._vnode(vnode)
            add(vnode)

        def watched_remove(vnode: Vnode) -> None:
            remove(vnode)
            if self._cores.pop(vnode.group, None) is not None:
                self.invariants.lost(vnode.id, vnode.group)
            self.invariants.firing.gone_from(self.number, vnode.group)

        runtime.add = watched_add  # type: ignore[method-assign]
        runtime.remove = watched_remove  # type: ignore[method-assign]

    def ended(self) -> None:
        """The process is dead: it holds no lease any more."""
        self._alive = False
        self.invariants.firing.gone(self.number)

    # --- vnodes ----------------------------------------------------------------------------

    def _vnode(self, vnode: Vnode) -> None:
        kind = type(vnode)
        watched = self._classes.get(kind)
        if watched is None:
            # A class of this life, so that each vnode knows who watches it.
            fields = {"__slots__": (), "watch": self}
            watched = self._classes[kind] = type("Watched", (WatchedVnode, kind), fields)
        vnode.__class__ = watched
        self._judge_durable(vnode)
        self._machine(vnode)
        if not vnode.sole:
            self._core(vnode)

    def _core(self, vnode: Vnode) -> None:
        """Watch a replica that others belong with."""
        group = vnode.group
        durable = DurableRows(self._durable_get, group, vnode.id)
        core = core_of(vnode.core)
        self._cores[group] = CoreWatch(self.invariants, vnode.id, group, core, durable)
        self.invariants.firing.replica(self.number, group, lambda: self._may_fire(vnode))

    def _may_fire(self, vnode: Vnode) -> bool:
        return self._alive and vnode.may_fire(self.world.mono_ms())

    def looked(self, vnode: Vnode) -> None:
        """A vnode has taken an input."""
        group = vnode.group
        core = self._cores.get(group)
        if core is None or not core.look():
            return
        # Once a term: from then on its sends are judged, and the next leader asks this one.
        firing, term = self.invariants.firing, vnode.term
        if (
            firing.newest_term(group) != term or firing.has_given_up(self.number, group, term)
        ) and vnode.may_fire(self.world.mono_ms()):
            firing.may_fire(self.number, group, term)

    def handed_out(self, vnode: Vnode, snapshot: Snapshot | None, entries: Sequence[Entry]) -> None:
        """A vnode has been given these to write."""
        core = self._cores.get(vnode.group)
        if core is not None:
            core.handed_out(snapshot, entries)

    def persisted(self, vnode: Vnode, outcome: CycleOutcome | None) -> None:
        """A vnode believes that its batch is durable, and lets this be seen."""
        group = vnode.group
        self._judge_durable(vnode)
        if vnode.sole:
            self._cores.pop(group, None)
            return
        if group not in self._cores:
            self._core(vnode)
            self.invariants.grown(vnode.id, group, vnode.core.commit)
        self.looked(vnode)
        if outcome is None:
            return
        # Not `applied_index` of the machine: what is being gathered may be further.
        self.invariants.synced(vnode.id, group, outcome.applied_index)
        if any(not isinstance(result, TimeMachineError) for _, result in outcome.answers):
            self.invariants.answers(vnode.id, group, outcome.applied_index)

    # --- machines --------------------------------------------------------------------------

    def _machine(self, vnode: Vnode) -> None:
        machine = vnode.machine
        apply = machine.apply
        is_job_machine = isinstance(machine, JobMachine)

        def watched_apply(index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]:
            if batch is None and is_job_machine:
                batch = read_commands(data) if data else []
            if vnode.group in self._cores:
                self.invariants.applied(vnode.id, vnode.group, index, term, data)
            results = apply(index, term, data, batch)
            if is_job_machine:
                assert batch is not None
                applied = Applied(index, term, batch, results)
                if vnode.group in self._cores:
                    self._judge(vnode, [applied])
                else:
                    # Whoever is alone applies before it is durable, and may yet forget it all.
                    unsaid = self.invariants.unsaid.setdefault((vnode.id, vnode.group), [])
                    unsaid.append(applied)
            return results

        machine.apply = watched_apply  # type: ignore[method-assign]

    def _judge_durable(self, vnode: Vnode) -> None:
        """What a replica that is alone has applied and not lost."""
        unsaid = self.invariants.unsaid.pop((vnode.id, vnode.group), None)
        if unsaid:
            last = vnode.machine.applied_index
            self._judge(vnode, [each for each in unsaid if each.at <= last])

    def _judge(self, vnode: Vnode, applied: "Sequence[Applied]") -> None:
        """What was applied, of which the machine now shows the effects."""
        firing, machine = self.invariants.firing, vnode.machine
        settled: list[Any] = []
        for index, term, batch, results in applied:
            if firing.judges(vnode.group, index):
                judge_commands(firing, vnode.group, index, term, batch, results, self._lead_ms)
                settled += batch
        if settled:
            assert isinstance(machine, JobMachine)
            self._check_offset(vnode, machine)
            self._check_claims(vnode, machine, settled)

    def _check_claims(self, vnode: Vnode, machine: JobMachine, batch: Sequence[Any]) -> None:
        """What is settled closes its own claims and no others."""
        firing = self.invariants.firing
        for command in batch:
            if command.__class__ is not c.Settle:
                continue
            for item in command.items:
                index = firing.open_claim(vnode.group, item.job_id)
                record = machine.read(item.job_id) if index else None
                if record is not None and (record.claim is None or record.claim.index != index):
                    firing.closed(vnode.group, item.job_id, index)

    def _check_offset(self, vnode: Vnode, machine: JobMachine) -> None:
        """What is applied leaves no row of the due index where no leader looks for it."""
        keys, state = machine.keys, machine.state
        offset = keys.due + u64(state.offset_due_ms) + state.offset_job_id.encode()
        rows = machine.overlay.pending(keys.due, offset)
        store = vnode._store
        assert isinstance(store, MemoryStore)
        # Damaged rows too: what a check looks at is not served.
        rows |= {
            key: machine.overlay.get(key)
            for key, _ in MemoryStore.scan(store, keys.due, offset, len(rows) + 1)
        }
        for key, row in rows.items():
            if row is not None:
                job = key[len(keys.due) + 8 :].decode()
                self.invariants.stands_behind(self.number, vnode.group, job)

    def _lead_ms(self, route_uid: int) -> int:
        """How long before its time a job of a route may be claimed."""
        route = None
        if self._engine is not None:
            route = self._engine.meta.routes_by_uid.get(route_uid)
        once = route is not None and route.delivery == "at_most_once"
        return 0 if once else limits.CLAIM_LEAD_MS

    # --- what leaves -----------------------------------------------------------------------

    def frame_leaves(self, frame: bytes) -> None:
        """A frame goes onto the wire."""
        for each in read_frame(frame).messages:
            group = (each.uid, each.index)
            core = self._cores.get(group)
            if core is not None and core.replica == each.message.from_:
                self.invariants.says(core.replica, group, each.message)

    def send_begins(self, request: Request) -> None:
        """The engine wants a request to be sent."""
        for identity, number, index in _named(request):
            self.invariants.firing.sent(
                self.number,
                identity,
                number,
                index=index,
                wall_ms=self.world.wall_ms(),
                true_ms=self._true_ms(),
            )

    def send_is_withdrawn(self, request: Request) -> None:
        """Before its first byte."""
        for identity, number, _ in _named(request):
            self.invariants.firing.unsent(identity, number)


def leaves(firing: Firing, request: Request) -> None:
    """The first byte of a request of any node goes onto the wire."""
    for identity, number, _ in _named(request):
        firing.left(identity, number)


_NAMES: Final = (b"\r\nwebhook-id: ", b"\r\nTimeMachine-Attempt: ", b"\r\nTimeMachine-Fence: ")


def _named(request: Request) -> list[tuple[str, int, int]]:
    """(webhook-id, attempt, log index of the claim) of each job; not of an example."""
    found = []
    for name in _NAMES:
        start = request.head.find(name)
        if start < 0:
            return []
        start += len(name)
        found.append(request.head[start : request.head.index(b"\r\n", start)])
    identity, number, fence = found
    claim = int(number), int(fence.rpartition(b".")[2])
    if not claim[0]:
        return []
    if not is_batch(request):
        return [(identity.decode(), *claim)]
    return [(item.webhook_id, *claim) for item in items_of(request)]


def is_batch(request: Request) -> bool:
    """Whether a request is an array of jobs."""
    return b"\r\nTimeMachine-Batch-Size: " in request.head


def items_of(request: Request) -> list[Item]:
    """The jobs of a batch, as its recipient reads them."""
    return read_items(request.body)


def core_of(node: RawNode) -> Raft:
    """The core behind its handle."""
    return node._raft


class WatchedVnode(Vnode):
    """A vnode whose watcher looks after each input. Vnodes become one when they are watched."""

    __slots__ = ()

    watch: ClassVar[NodeWatch]

    def step(self, message: Message, mono_ms: float) -> None:
        """See Vnode."""
        try:
            super().step(message, mono_ms)
        finally:
            self.watch.looked(self)

    def tick(self, mono_ms: float) -> None:
        """See Vnode."""
        super().tick(mono_ms)
        self.watch.looked(self)

    def campaign(self) -> None:
        """See Vnode."""
        super().campaign()
        self.watch.looked(self)

    def transfer(self, to: int) -> None:
        """See Vnode."""
        super().transfer(to)
        self.watch.looked(self)

    def resign(self) -> None:
        """See Vnode."""
        super().resign()
        self.watch.looked(self)

    def install(self, message: Message, keys: ReplicaKeys) -> bool:
        """See Vnode."""
        taken = super().install(message, keys)
        self.watch.looked(self)
        return taken

    def _switch(self, snapshot: Snapshot) -> None:
        self.watch.handed_out(self, snapshot, ())
        super()._switch(snapshot)

    def gather(self, mono_ms: float = 0.0) -> None:
        """See Vnode."""
        super().gather(mono_ms)
        if self._ready is not None:
            self.watch.handed_out(self, None, self._ready.entries)
        self.watch.looked(self)

    def persisted(self) -> CycleOutcome | None:
        """See Vnode."""
        outcome = super().persisted()
        self.watch.persisted(self, outcome)
        return outcome


class WatchedNetwork:
    """See Network."""

    def __init__(self, watch: NodeWatch, network: Network) -> None:
        self._watch = watch
        self._network = network

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        """See Network."""
        self._watch.frame_leaves(frame)
        self._network.send(node, frame, bulk=bulk)


class WatchedSender:
    """See Sender."""

    def __init__(self, watch: NodeWatch, sender: Sender) -> None:
        self._watch = watch
        self._sender = sender

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> "WatchedHandle":
        """See Sender."""
        self._watch.send_begins(request)
        handle = self._sender.send(request, done, may_leave)
        return WatchedHandle(self._watch, request, handle)


class WatchedHandle:
    """See Handle."""

    __slots__ = ("_handle", "_request", "_watch")

    def __init__(self, watch: NodeWatch, request: Request, handle: Handle) -> None:
        self._watch = watch
        self._request = request
        self._handle = handle

    def abort_if_unsent(self) -> bool:
        """See Handle."""
        withdrawn = self._handle.abort_if_unsent()
        if withdrawn:
            self._watch.send_is_withdrawn(self._request)
        return withdrawn

    def abort(self) -> None:
        """See Handle."""
        self._handle.abort()


# --- what the log says ---------------------------------------------------------------------------


def judge_commands(
    firing: Firing,
    group: Group,
    index: int,
    term: int,
    commands: Sequence[Any],
    results: Sequence[Any],
    lead_ms: Callable[[int], int],
) -> None:
    """Tell what the commands of the entry at `index`, of `term`, have done."""
    for command, result in zip(commands, results, strict=True):
        match command:
            case c.Claim() | c.ClaimBatch():
                for item, claim in zip(command.items, result, strict=True):
                    if not claim.holds:
                        continue
                    record = claim.record
                    firing.claimed(
                        group,
                        item.job_id,
                        (item.uid, item.version, item.attempt),
                        webhook_id=webhook_id(record.uid, record.version, record.occurrence),
                        index=index,
                        term=command.term,
                        entry_term=term,
                        now_ms=command.now_ms,
                        due_ms=record.due_ms,
                        lead_ms=lead_ms(record.route_uid),
                    )
            case c.Settle():
                for settle in command.items:
                    firing.settled((settle.uid, settle.version, settle.attempt))
            case c.Unclaim():
                for item in command.items:
                    firing.taken_back(group, (item.uid, item.version, item.attempt), command.term)
            case c.PutJob() | c.PatchJob() | c.DeleteJob():
                _take_back(firing, group, command.revoked)
                if command.__class__ is c.DeleteJob:
                    if command.purge:
                        firing.unknown(group, command.job_id)
                elif result.kind in ("created", "replaced", "changed") and not result.replayed:
                    record = result.record
                    # A create that is repeated is told what it once did.
                    if result.kind != "created" or record.born_index == index:
                        firing.written(group, command.job_id, record.uid, record.version)
            case c.Bulk():
                for bulk in command.items:
                    _take_back(firing, group, bulk.revoked)
                    firing.unknown(group, bulk.job_id)
            case c.Purge():
                for job_id in command.job_ids:
                    firing.unknown(group, job_id)


def _take_back(firing: Firing, group: Group, revoked: c.Revoked | None) -> None:
    if revoked is not None:
        attempt = (revoked.uid, revoked.version, revoked.attempt)
        firing.taken_back(group, attempt, revoked.term)
