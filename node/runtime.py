"""The group-commit loop: many vnodes, one synced batch per cycle.

    propose -> (all vnodes with work) gather -> one batch -> one sync -> persisted -> answers
                                           '-> what a leader sends            '-> other messages

A cycle starts as soon as the last sync ended and something is waiting: no timer. While one batch
is being synced, commands collect; the next cycle takes them all.

The order inside a cycle is the caller's contract of the Raft core, whose duties (`Ready`) are done
here, for all groups together:

1. Persist: `_cycle` gathers what every core wants stored into one batch, and has it synced.
2. Send: what a leader sends leaves in `_cycle`, everything else in `_written`.
3. Apply: in `gather` as well, through the overlay, so that the effects are in the same batch. Who
   waits for them is answered in `_written`, last.
4. Advance: `persisted`, the first thing that `_written` does.

A write that fails ends everything: the store's handle is dead, what it holds is decided at the
next start, and until then nobody may be told anything.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from node.env import Disk, Timer, World
from node.gathered import Gathered
from node.peers import Peers
from timemachine import limits
from timemachine.errors import (
    NotLeader,
    StoreDamaged,
    StoreError,
    TimeMachineError,
    TooManyRequests,
    Unavailable,
)
from timemachine.storage.api import Store
from timemachine.storage.overlay import Overlay
from timemachine.storage.pacing import pause_ms
from timemachine.vnode import Done, Vnode

EffectsListener = Callable[[Vnode, list[Any], int], None]

_FAILED = "The node's store failed; it stops."
_STOPPED = "The node has stopped."


class Runtime:
    """Drives all vnodes of a node over one store. Single-threaded; callbacks run on its thread.

    `broken(vnode, error)` is called for a replica that met damage in the middle of a step: it must
    not do another one.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        disk: Disk,
        overlay: Overlay,
        *,
        on_effects: EffectsListener,
        on_failure: Callable[[TimeMachineError], None],
        on_moved: Callable[[Vnode], None] = lambda _: None,
        peers: Peers | None = None,
    ) -> None:
        self._world = world
        self._store = store
        self._disk = disk
        self._overlay = overlay
        self._on_effects = on_effects
        self._on_moved = on_moved
        self._peers = peers
        self._on_failure = on_failure
        self.vnodes: dict[tuple[int, int], Vnode] = {}
        self._active: dict[Vnode, None] = {}
        self._flying: list[Vnode] = []
        self._syncing = False
        self._scheduled = False
        self._asked = False
        self._waiting = 0
        self._waiting_bytes = 0
        self._paced: list[tuple[Vnode, Any, Done | None]] = []
        self._paced_timer: Timer | None = None
        self._idle_waiters: list[Callable[[], None]] = []
        self._row_waiters: list[tuple[int, Callable[[], None]]] = []
        self.failure: TimeMachineError | None = None
        self._closed = False
        self.rouse: Callable[[Vnode], None] = lambda _: None
        self.broken: Callable[[Vnode, StoreDamaged], None] = lambda _, error: self.fail(error)
        self.cycles = 0
        self.commands = 0
        self.submitted = 0
        self.rows = 0

    @property
    def working(self) -> bool:
        """Whether the store may still be read and written: it has not failed, nor is it closed."""
        return self.failure is None and not self._closed

    def close(self) -> None:
        """The node has stopped, and its store is about to be closed."""
        self._closed = True

    def add(self, vnode: Vnode) -> None:
        """Take a vnode into the loop."""
        self.vnodes[vnode.group] = vnode
        self._wake(vnode)

    def remove(self, vnode: Vnode) -> None:
        """Drop a vnode; whoever waits for it hears that it is gone."""
        self.vnodes.pop(vnode.group, None)
        self._active.pop(vnode, None)
        for done, error in vnode.fail(Unavailable("The vnode was removed.")):
            done(error)

    def submit(self, vnode: Vnode, command: Any, done: Done, size: int) -> None:
        """A user's command of about `size` bytes. Sheds load by answering TooManyRequests.

        Not one that a send was revoked for: that is removed already, so the command that says so
        must reach the log.
        """
        if getattr(command, "revoked", None) is not None:
            self.propose(vnode, command, done)
            return
        error = self._enter(1, size)
        if error is not None:
            done(error)
            return

        def answered(result: Any) -> None:
            self._leave(1, size)
            done(result)

        if self._slows_down():
            self._paced.append((vnode, command, answered))
        else:
            self.propose(vnode, command, answered)

    def submit_many(
        self,
        proposals: list[tuple[Vnode, Any]],
        done: Callable[[list[Any]], None],
        size: int,
    ) -> None:
        """Commands of one user's request, `size` bytes together; `done` gets all their results.

        Like as many calls of `submit`, but all are taken or all are refused.
        """
        count = len(proposals)
        error = self._enter(count, size)
        if error is not None or not count:
            done([error] * count)
            return

        def answered(results: list[Any]) -> None:
            self._leave(count, size)
            done(results)

        gathered = Gathered(count, answered)
        slowed = self._slows_down()
        for number, (vnode, command) in enumerate(proposals):
            if slowed:
                self._paced.append((vnode, command, partial(gathered.take, number)))
            else:
                self.propose(vnode, command, partial(gathered.take, number))

    def _enter(self, count: int, size: int) -> TimeMachineError | None:
        """Count users' commands as waiting until `_leave`, or say why they are not taken."""
        if not self.working:
            return self._unavailable()
        if (
            self._waiting + count > limits.PROPOSALS_WAITING_MAX
            or self._waiting_bytes + size > limits.PROPOSAL_BYTES_WAITING_MAX
        ):
            return TooManyRequests("Too many writes are waiting for the disk.")
        self.submitted += count
        self._waiting += count
        self._waiting_bytes += size
        return None

    def _leave(self, count: int, size: int) -> None:
        self._waiting -= count
        self._waiting_bytes -= size

    def _slows_down(self) -> bool:
        """Whether users' commands have to wait in `_paced`, so that compactions keep up."""
        if self._paced_timer is None:
            pause = pause_ms(self._store.pressure(), user=True) if not self._active else 0
            if pause <= 0:
                return False
            self._paced_timer = self._world.call_later(pause, self._release_paced)
        return True

    def _release_paced(self) -> None:
        self._paced_timer = None
        paced, self._paced = self._paced, []
        for vnode, command, done in paced:
            self.propose(vnode, command, done)
        self._tell_idle()

    def propose(self, vnode: Vnode, command: Any, done: Done | None = None) -> None:
        """A command of the node itself: never paced, never refused for load."""
        if not self.working:
            if done is not None:
                done(self._unavailable())
            return
        if not self.holds(vnode):
            # Its rows are being erased: what came later would be left for ever.
            if done is not None:
                done(Unavailable("The vnode was removed."))
            return
        if not vnode.sole and not vnode.takes_proposals():
            if done is not None:
                done(NotLeader(vnode.leader))
            return
        if vnode.resting:
            self.rouse(vnode)
        vnode.propose(command, done)
        self._wake(vnode)

    def read(self, vnode: Vnode, done: Done) -> None:
        """Ask a majority, and call `done` when the store shows all of `vnode` that it knew then.

        It gets None, or a TimeMachineError.
        """
        if not self.working:
            done(self._unavailable())
        elif not self.holds(vnode):
            done(Unavailable("The vnode was removed."))
        elif not vnode.is_leader():
            done(NotLeader(vnode.leader))
        else:
            if vnode.resting:
                self.rouse(vnode)
            vnode.read(done)
            self.stepped(vnode)

    def holds(self, vnode: Vnode) -> bool:
        """Whether it is this node's replica of its group: not removed, nor replaced by another."""
        return self.vnodes.get(vnode.group) is vnode

    def leads_surely(self, vnode: Vnode) -> bool:
        """Whether nobody else has acknowledged a write to `vnode` that its rows here do not show.

        It holds the lease, or is the only voter.
        """
        return self.working and vnode.may_fire(self._world.mono_ms())

    def barrier(self, vnode: Vnode, done: Done) -> None:
        """Call `done` when what the store shows of `vnode` is no older than this call.

        It gets None, NotLeader where this node does not lead it, or another error. Whoever leads
        surely calls at once; otherwise a majority is asked (ReadIndex; dissertation 6.4).
        """
        if self.leads_surely(vnode):
            done(None)
        else:
            self.read(vnode, done)

    def stepped(self, vnode: Vnode) -> None:
        """A vnode has taken a message or a tick: run a cycle if that made work."""
        if vnode.has_work():
            self._wake(vnode)

    def _unavailable(self) -> Unavailable:
        return Unavailable(_STOPPED if self.failure is None else _FAILED)

    def _wake(self, vnode: Vnode) -> None:
        self._active[vnode] = None
        self.write_soon()

    def write_soon(self) -> None:
        """Run a cycle soon: for a vnode with work, or rows that were put into the overlay."""
        self._asked = True
        if not self._syncing and not self._scheduled:
            self._scheduled = True
            self._world.call_soon(self._cycle)

    def _cycle(self) -> None:
        """Gather every vnode with work, and hand one batch to the disk."""
        self._scheduled = False
        if self._syncing or self.failure is not None:
            return
        self._asked = False
        flying = self._flying = list(self._active)
        self._active.clear()
        peers = self._peers
        try:
            # Duties 1 and 3, up to rows in the overlay.
            if peers is None:
                for vnode in flying:
                    vnode.gather()
            else:
                mono_ms = self._world.mono_ms()
                for vnode in list(flying):
                    try:
                        vnode.gather(mono_ms)
                    except StoreDamaged as damage:
                        flying.remove(vnode)
                        self.broken(vnode, damage)
                        if self.failure is not None:
                            return
                        continue
                    if vnode.early:
                        peers.post(vnode.group, vnode.early)
                        vnode.early = []
                # Duty 2, for what promises nothing.
                peers.flush()
            batch = self._overlay.seal()
            prepared = self._store.prepare(batch)
        except TimeMachineError as error:
            self.fail(error)
            return
        self.cycles += 1
        self.rows += len(batch)
        self._syncing = True
        if batch:
            self._disk.write(prepared, self._written)
        else:
            self._world.call_soon(partial(self._written, None))

    def _written(self, error: StoreError | None) -> None:
        """The batch is durable, or the store is dead."""
        self._syncing = False
        if self.failure is not None:
            return  # what failed meanwhile has let go of the batch, and of who waited for it
        if error is not None:
            self.fail(error)
            return
        written = self.cycles
        self._overlay.settled()
        finished = []
        vnodes = self.vnodes
        for vnode in self._flying:
            if vnodes.get(vnode.group) is not vnode:
                continue  # removed meanwhile, and perhaps another one is in its place
            # Duty 4, and then duty 2 for what rests on the batch.
            outcome = vnode.persisted()
            if outcome is not None:
                finished.append((vnode, outcome))
                if outcome.messages:
                    assert self._peers is not None
                    self._peers.post(vnode.group, outcome.messages)
            if vnode.has_work():
                self._active[vnode] = None
        self._flying = []
        if self._peers is not None:
            self._peers.flush()
        if self._active or self._asked:
            # The disk gets its next batch before anybody is answered: it works meanwhile.
            self._cycle()
        for vnode, outcome in finished:
            self.commands += len(outcome.answers)
            for done, result in outcome.answers:
                try:
                    done(result)
                except StoreDamaged as damage:
                    self.damaged(damage)
            try:
                if outcome.moved:
                    self._on_moved(vnode)
                self._on_effects(vnode, outcome.effects, outcome.applied_index)
            except StoreDamaged as damage:
                self.damaged(damage)
        while self._row_waiters and self._row_waiters[0][0] <= written:
            self._row_waiters.pop(0)[1]()
        self._tell_idle()

    @property
    def _idle(self) -> bool:
        return not (self._syncing or self._active or self._asked or self._paced)

    def _tell_idle(self) -> None:
        if self._idle_waiters and self._idle:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter()

    def when_idle(self, function: Callable[[], None]) -> None:
        """Call once everything proposed so far is durable and answered."""
        if self._idle:
            self._world.call_soon(function)
        else:
            self._idle_waiters.append(function)

    def when_written(self, function: Callable[[], None]) -> None:
        """Call once every row put so far is durable, however busy the loop is."""
        if len(self._overlay):
            self.write_soon()
            self._row_waiters.append((self.cycles + 1, function))
        elif self._syncing:
            self._row_waiters.append((self.cycles, function))
        else:
            self._world.call_soon(function)

    def damaged(self, error: StoreDamaged) -> None:
        """A read has failed in the middle of something that goes on without it.

        Whoever is to be stopped for that has been told by the store, if a key says who that is.
        """
        if error.key is None:
            self.fail(error)

    def fail(self, error: TimeMachineError) -> None:
        """The store or a replica is beyond use: nobody is told a result any more."""
        if self.failure is not None:
            return
        self.failure = error
        self._overlay.discard()
        for vnode in self.vnodes.values():
            for done, reason in vnode.fail(Unavailable(_FAILED)):
                done(reason)
        paced, self._paced = self._paced, []
        for _, _, waiting in paced:
            if waiting is not None:
                waiting(Unavailable(_FAILED))
        self._on_failure(error)
