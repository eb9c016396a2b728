"""Vnodes that this node begins to fire for, ceases to fire for, and gives away.

Whenever it ceases, whatever for, all of the vnode is let go at once: what is queued is dropped,
what is claimed and not sent is taken back (or left to the next leader, where this node leads no
more), requests under way go on. When it begins again all is read anew from the committed offset,
and requests that are still under way are taken up, so that no attempt is sent twice.
"""

from collections.abc import Callable
from typing import Any

from node.delivery.routes import RouteChanges
from node.delivery.scanning import Scanner
from node.delivery.sending import Sends
from node.delivery.settling import Settles
from node.env import World
from node.runtime import Runtime
from timemachine import limits
from timemachine.delivery.item import CLAIMED, QUEUED, SENDING
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.model import Collection
from timemachine.replica.commands import ClaimItem, Handover
from timemachine.replica.machine import JobMachine
from timemachine.replica.meta import MetaMachine
from timemachine.replica.records import read_state
from timemachine.storage.api import Store
from timemachine.vnode import Vnode


class Leading:
    """Which vnodes are led, and of those the few that are not fired for at the moment.

    `suspended` lead and may not fire: for want of a lease, or because this node does not know yet
    what its meta group says about routes, as a leader before did. They are fired for when both end.
    """

    def __init__(
        self,
        window: Window,
        scanner: Scanner,
        routes: RouteChanges,
        sends: Sends,
        settles: Settles,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
    ) -> None:
        self._window = window
        self._scanner = scanner
        self._routes = routes
        self._sends = sends
        self._settles = settles
        self._world = world
        self._store = store
        self._runtime = runtime
        self._meta = meta
        self._led: dict[Vnode, Collection] = {}
        self._leaving: set[Vnode] = set()
        self.suspended: dict[Vnode, None] = {}

    # --- begin and cease -------------------------------------------------------------------

    def lead(self, vnode: Vnode, collection: Collection) -> None:
        """Fire for a vnode that serves, from its committed offset on."""
        self.leave(vnode)
        self._led[vnode] = collection
        self._begin(vnode)

    def leave(self, vnode: Vnode) -> None:
        """Another node may lead this vnode. Sends that are open go on."""
        self._led.pop(vnode, None)
        self._leaving.discard(vnode)
        self.suspended.pop(vnode, None)
        self._cease(vnode)

    def forget(self, vnode: Vnode) -> None:
        """The vnode is gone, for good: nobody asks what becomes of its sends."""
        head = self._window.heads.get(vnode)
        if head is not None:
            self._settles.forget(head)
        self._window.forget_vnode(vnode)
        self.leave(vnode)

    def _begin(self, vnode: Vnode) -> None:
        if self._is_behind(vnode):
            self.suspended[vnode] = None
            self._window.wake()
            return
        # What is applied may be ahead of what the store has, and of the effects that were told.
        row = self._store.get(vnode.keys.state)
        seen_index = 0 if row is None else read_state(row).applied_index
        head = VnodeHead(vnode, self._led[vnode], seen_index)
        head.since_ms = self._world.wall_ms()
        self._window.heads[vnode] = head
        for item in self._window.left.pop(vnode.group, []):
            if item.stage == SENDING:
                head.take_over(item)
        self._scanner.look_at(head, 0)
        self._routes.take_up(head)
        self._window.wake()

    def _cease(self, vnode: Vnode) -> None:
        window = self._window
        head = window.take_out(vnode)
        if head is None:
            return
        for item in head.sending():
            item.take_unsent()  # it may have waited for a connection: nothing is under way then
        window.leave_open(vnode.group, head.sending())
        for item in [*head.known.values(), *head.overtaken]:
            if item.stage == QUEUED:
                window.forget(item)
            elif item.stage == CLAIMED:
                self._sends.withdraw(item)
            # A claim that was asked for is withdrawn when it is answered.

    # --- suspended -------------------------------------------------------------------

    def suspend(self, vnode: Vnode) -> None:
        """It leads, as far as it knows, and may not fire."""
        self._cease(vnode)
        self.suspended[vnode] = None

    def suspend_all(self) -> None:
        """Something went wrong in the middle of what is done for all: each begins anew."""
        for vnode in self._led:
            if vnode not in self._leaving:
                self.suspend(vnode)

    def end_suspensions(self) -> None:
        """Fire again for those that have a lease by now."""
        mono_ms = self._world.mono_ms()
        for vnode in [each for each in self.suspended if each.may_fire(mono_ms)]:
            if not self._is_behind(vnode):
                del self.suspended[vnode]
                self._begin(vnode)

    def _is_behind(self, vnode: Vnode) -> bool:
        """Whether the vnode is sealed, and a route may have been closed that is open here.

        Asked when firing begins. While it goes on, only this node seals the vnode, and it knows.
        """
        machine = vnode.machine
        assert isinstance(machine, JobMachine)
        return machine.state.sealed > self._meta.applied_index

    # --- handing over ----------------------------------------------------------------------

    def hand_over(self, vnode: Vnode, done: Callable[[], None]) -> None:
        """Prepare that another node leads this vnode; `done` when what it must know is committed.

        `done` is called too when that fails because this node leads no more.
        """
        if vnode not in self._led:
            self._world.call_soon(done)
            return
        self._settles.flush()  # they come before the claims that they close are handed over
        self.suspended.pop(vnode, None)
        self._cease(vnode)
        self._leaving.add(vnode)
        open_sends = [
            ClaimItem(
                item.job_id,
                item.uid,
                item.version,
                item.attempts + 1,
                item.started_ms + item.queue.route.timeout_ms,
            )
            for item in self._window.left.get(vnode.group, [])
            if item.stage == SENDING
        ]
        now_ms = self._world.wall_ms()
        most = limits.CLAIMS_PER_COMMAND_MAX
        while len(open_sends) > most:
            self._runtime.propose(vnode, Handover(now_ms=now_ms, items=open_sends[:most]))
            del open_sends[:most]

        def told(_: Any) -> None:
            # Claims that were asked for before are answered by now, and on their way back.
            self._runtime.propose(vnode, Handover(now_ms=now_ms, items=[]), lambda _: done())

        self._runtime.propose(vnode, Handover(now_ms=now_ms, items=open_sends), told)

    def resume(self, vnode: Vnode) -> None:
        """Nobody took the vnode over: fire for it again."""
        if vnode in self._leaving:
            self._leaving.discard(vnode)
            self._begin(vnode)
