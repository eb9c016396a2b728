"""The firing side of a node as the engine sees it: built from its steps, told what changed."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from node.delivery.admitting import Admission
from node.delivery.alarm import Alarm
from node.delivery.breakers import Breakers
from node.delivery.claiming import Claims
from node.delivery.credits import Credits, Neighbours
from node.delivery.failures import Failures
from node.delivery.leading import Leading
from node.delivery.offsets import Offsets
from node.delivery.orphans import Orphans
from node.delivery.parking import Parking
from node.delivery.pump import Pump
from node.delivery.refilling import Refill
from node.delivery.routes import RouteChanges
from node.delivery.scanning import Scanner
from node.delivery.sending import Sends
from node.delivery.settling import Late, Settles
from node.delivery.shares import Shares
from node.delivery.sweeping import Sweeps
from node.delivery.waits import Waits
from node.delivery.walltime import WallTime
from node.env import World
from node.runtime import Runtime
from node.webhook import Prepared
from timemachine.delivery.breaker import Phase
from timemachine.delivery.condition import Condition, condition
from timemachine.delivery.credits import Kind
from timemachine.delivery.item import CLAIMING, GONE, QUEUED, SENDING
from timemachine.delivery.lateness import Lateness
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.window import Window
from timemachine.errors import StoreDamaged
from timemachine.model import Collection, Route
from timemachine.outbound import Sender
from timemachine.replica.commands import PendingItem, Revoked
from timemachine.replica.meta import (
    DisableRoute,
    MetaMachine,
    RouteFailed,
    RouteSucceeded,
)
from timemachine.replica.results import BatchDissolved, DueInserted, JobTouched, WaitingFreed
from timemachine.storage.api import Store
from timemachine.storage.keys import read_due_value, u64
from timemachine.vnode import Vnode


class Delivery:
    """All vnodes that this node leads, all routes.

    `node_id` and `number` name this node. `prepare` opens a route for sending; `tell_meta` gets
    what attempts say of whole routes; `late` gets what became of sends of groups that this node
    leads no more; `stepped` is told that the wall clock has jumped, before anything is fired by
    it. `neighbours` are the other nodes, which lend and borrow; without them every share is used
    by its owner.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        sender: Sender,
        *,
        node_id: str,
        number: int = 0,
        prepare: Callable[[Route], Prepared],
        tell_meta: Callable[[DisableRoute | RouteFailed | RouteSucceeded], None],
        late: Late = lambda _group, _settles: None,
        stepped: Callable[[], None] = lambda: None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._alarm = Alarm(world, self._pump_now)
        self._window = window = Window(self._alarm.wake)
        self._shares = Shares(window, world)
        self._credits: Credits | None = None
        if neighbours is not None:
            self._credits = Credits(window, world, store, runtime, meta, neighbours)
        calls = None if neighbours is None else neighbours.calls
        self._waits = Waits(window, world, meta, calls)
        self._breakers = Breakers(window, world, meta, calls, set_aside=self._set_aside)
        failures = Failures(world, meta, tell_meta)
        self._settles = Settles(
            window,
            world,
            runtime,
            node_id=node_id,
            disable_route=failures.refused,
            flushed=self._check_drained,
            late=late,
            waits=self._waits,
            breakers=self._breakers,
            failures=failures,
        )
        orphans = Orphans(self._settles, world, meta)
        self._parking = Parking(window, orphans, world, runtime, meta)
        self._admission = Admission(window, self._parking, world, store, meta)
        self._parking.look_for_turn = self._admission.look_for_turn
        self._scanner = Scanner(window, self._admission, store)
        refill = Refill(window, self._admission, store)
        wall_time = WallTime(world, stepped)
        self._sends = Sends(
            window,
            self._settles,
            world,
            wall_time,
            store,
            runtime,
            meta,
            sender,
            prepare=prepare,
        )
        sweeps = Sweeps(
            window,
            self._admission,
            self._parking,
            orphans,
            world,
            store,
            runtime,
            meta,
            self._waits,
        )
        self._routes = RouteChanges(
            window,
            self._sends,
            self._parking,
            sweeps,
            self._waits,
            self._breakers,
            failures,
            world,
            meta,
        )
        self._leading = Leading(
            window,
            self._scanner,
            self._routes,
            self._sends,
            self._settles,
            world,
            store,
            runtime,
            meta,
        )
        claims = Claims(
            window,
            self._admission,
            self._sends,
            orphans,
            world,
            runtime,
            number=number,
            suspend=self._leading.suspend,
        )
        offsets = Offsets(window, world, runtime)
        self._pump = Pump(
            window,
            self._leading,
            self._scanner,
            refill,
            claims,
            self._sends,
            sweeps,
            offsets,
            self._credits,
            world,
            wall_time,
        )
        self._when_drained: Callable[[], None] | None = None

    # --- vnodes and routes come and go -----------------------------------------------------

    def lead(self, vnode: Vnode, collection: Collection) -> None:
        """Start firing for a vnode that serves, from its committed offset on."""
        self._leading.lead(vnode, collection)

    def leave(self, vnode: Vnode) -> None:
        """Stop firing for a vnode that another node leads, or may lead. Open sends go on."""
        self._leading.leave(vnode)

    def forget(self, vnode: Vnode) -> None:
        """Stop firing for a vnode that is gone for good."""
        self._leading.forget(vnode)

    def hand_over(self, vnode: Vnode, done: Callable[[], None]) -> None:
        """Stop firing for a vnode that is to be led elsewhere: before a transfer.

        Nothing of it is claimed any more, what was not sent is taken back, and the log tells which
        sends are open. Then `done` is called; also if this node has ceased to lead meanwhile.
        """
        self._leading.hand_over(vnode, done)

    def resume(self, vnode: Vnode) -> None:
        """Fire for it again: the transfer that it was handed over for has failed."""
        self._leading.resume(vnode)

    def route_changed(self, uid: int) -> None:
        """A route was created, replaced, paused, resumed, disabled or deleted."""
        self._routes.changed(uid)

    def set_members(self, number: int, members: AbstractSet[int]) -> None:
        """The numbers of this node and of all members: each owns a share of the routes' limits."""
        self._shares.set_members(number, members)
        if self._credits is not None:
            self._credits.set_others(frozenset(members) - {number})
            self._waits.others = self._breakers.others = frozenset(members) - {number}

    def _set_aside(self, queue: RouteQueue) -> None:
        self._routes.set_aside(queue)

    # --- what the log tells ----------------------------------------------------------------

    def on_effects(self, vnode: Vnode, effects: list[Any], applied_index: int) -> None:
        """The durable effects of one cycle of a vnode."""
        head = self._window.heads.get(vnode)
        if head is None:
            return
        cursor = head.cursor
        due_prefix = vnode.keys.due
        for effect in effects:
            if type(effect) is DueInserted:
                if effect.due_ms <= head.scanned_ms:
                    key = due_prefix + u64(effect.due_ms) + effect.job_id.encode()
                    if key < cursor:
                        head.moving.pop(effect.job_id, None)
                        self._admission.admit(head, key, effect.value)
                        self._alarm.wake()
                        continue
                if effect.due_ms < head.next_due_ms:
                    self._scanner.look_at(head, effect.due_ms)
                    self._alarm.wake()
            elif type(effect) is JobTouched:
                head.moving.pop(effect.job_id, None)
                item = head.known.get(effect.job_id)
                if item is not None:
                    if item.stage == GONE:
                        del head.known[effect.job_id]
                    elif item.stage != CLAIMING:
                        head.let_go(item)
            elif type(effect) is WaitingFreed:
                # What held it up was the claim that is taken back.
                head.moving.pop(effect.job_id, None)
                route_uid, version, attempts, uid = read_due_value(effect.value)
                seen = PendingItem(effect.job_id, uid, version, attempts, route_uid)
                self._parking.read_again(head, effect.due_ms, seen)
            elif type(effect) is BatchDissolved:
                # Claimed by a leader of before, they wait here for all of their batch.
                for job_id in effect.job_ids:
                    item = head.known.get(job_id)
                    if item is not None and item.bound == effect.batch:
                        item.queue.dissolve(head, effect.batch)
                        self._alarm.wake()
        head.seen_index = applied_index

    def queued(self, route_uid: int) -> int:
        """How many due jobs of a route are queued here."""
        queue = self._window.queues.get(route_uid)
        return 0 if queue is None else queue.size

    def revoke(self, vnode: Vnode, job_id: str) -> Revoked | None:
        """Remove a claimed send before its first byte, if that is still possible."""
        head = self._window.heads.get(vnode)
        item = head.known.get(job_id) if head is not None else None
        if item is None or item.stage in (QUEUED, GONE):
            return None
        assert head is not None
        if head.is_doubled(item):
            # The attempt that its claim asks for is claimed already, or will be, for the other.
            return None
        if item.stage == CLAIMING and head.machine.firing.get(job_id) is not None:
            # The claim that holds may be of a request that left before this node began to fire
            # again, in the same term, and whose outcome is not committed yet.
            return None
        if item.stage == SENDING and not item.take_unsent():
            return None
        self._window.forget(item)
        if item.batch is not None:
            # Its batch is not sent without it. One whose claim is not answered yet is seen to then.
            for other in item.batch.items:
                self._sends.withdraw(other)
        claim = None if item.record is None else item.record.claim
        term = vnode.term if claim is None else claim.term
        return Revoked(item.uid, item.version, item.attempts + 1, term)

    # --- running and stopping --------------------------------------------------------------

    def _pump_now(self) -> None:
        if not self._runtime.working:
            return
        try:
            self._pump.run()
        except StoreDamaged as error:
            # Whoever it was is stopped. All others have lost their place: they begin anew.
            self._runtime.damaged(error)
            self._leading.suspend_all()
            self._alarm.wake()
            return
        # A claim that was taken back, or did not hold, was the last one open.
        self._check_drained()
        self._alarm.set(self._pump.rest_ms())

    def stop(self, drained: Callable[[], None]) -> None:
        """Claim nothing more, take back what is not sent; `drained` when no send is open."""
        self._window.stopping = True
        self._when_drained = drained
        self._sends.stop()
        self._check_drained()

    def abort_open_sends(self) -> None:
        """The grace is over: cut what is still open. It counts as our own fault."""
        self._sends.abort_open()

    def _check_drained(self) -> None:
        if self._when_drained is None or self._window.in_flight > 0 or not self._settles.idle:
            return
        drained, self._when_drained = self._when_drained, None
        self._world.call_soon(drained)

    # --- what others may see ---------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Attempts claimed or under way."""
        return self._window.in_flight

    @property
    def credits_lent(self) -> dict[Kind, int]:
        """Attempts that other nodes may have by shares of this one."""
        lending = self._credits
        return {kind: 0 if lending is None else lending.lent(kind) for kind in Kind}

    @property
    def credits_borrowed(self) -> dict[Kind, int]:
        """Attempts that this node may have by shares of others."""
        lending = self._credits
        return {kind: 0 if lending is None else lending.borrowed(kind) for kind in Kind}

    @property
    def routes_waiting(self) -> int:
        """Routes of which nothing is begun for a while, because their recipients asked for that."""
        return self._waits.routes

    @property
    def breakers(self) -> dict[Phase, int]:
        """How many circuit breakers of this node are open, and half-open."""
        return self._breakers.counts()

    @property
    def breaker_trips(self) -> int:
        """How often one of them has opened that was closed."""
        return self._breakers.trips

    def condition(self, route: Route) -> Condition:
        """The state of a route, as far as this node knows."""
        waits, breaker = self._waits.seen(route.uid), self._breakers.seen(route.uid)
        return condition(route, waits, breaker)

    @property
    def sends(self) -> int:
        """Requests that were started."""
        return self._sends.started

    @property
    def lateness(self) -> Lateness:
        """How late first attempts started."""
        return self._sends.lateness

    @property
    def outcomes(self) -> dict[str, int]:
        """Attempts by what followed: delivered, or the reason of failure."""
        return self._settles.outcomes

    def queue_of(self, route_uid: int) -> RouteQueue | None:
        """What this node knows of a route since it started; None if it has sent nothing."""
        return self._window.queues.get(route_uid)

    def backlog(self, vnode: Vnode) -> int:
        """Due jobs of a vnode that the window holds."""
        head = self._window.heads.get(vnode)
        return 0 if head is None else len(head.known)
