"""One task in the vnodes that this node leads, one step at a time."""

from collections.abc import Callable, Iterator, Sequence

from node.env import World
from node.gathering.questions import TaskOrder, TaskPart
from node.runtime import Runtime
from node.tasks.walking import Walk, selection_of
from timemachine import limits
from timemachine.errors import DiskFull, NotLeader, StoreDamaged, TimeMachineError, TooManyRequests
from timemachine.model import Task, TaskKind
from timemachine.replica import commands as c
from timemachine.replica.meta import MetaMachine
from timemachine.replica.results import BulkProgress
from timemachine.storage.api import Store
from timemachine.vnode import Vnode

_LOOK_PAUSE_MS = 1.0
_RETRY_MS = 200.0
_BACKLOG_PAUSE_MS = 50.0
_QUEUED_MS = 10.0
_COMMAND_BYTES = 64
_VNODES_BETWEEN_YIELDS = 64
_OF_ROUTES = (TaskKind.REDRIVE, TaskKind.REPLAY_MISSING)


class Crew:
    """What runs need of their node.

    `revoke` takes a claimed send back, if that is still possible; `queued` is how many due jobs of
    a route wait on this node; `space_low` is whether the disk is nearly full; `stopping` whether no
    further step may begin; `idle` hears of a run that has nothing left to do.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        *,
        revoke: Callable[[Vnode, str], c.Revoked | None],
        queued: Callable[[int], int],
        space_low: Callable[[], bool],
        stopping: Callable[[], bool],
        idle: Callable[[str], None],
    ) -> None:
        self.world = world
        self.store = store
        self.runtime = runtime
        self.meta = meta
        self.revoke = revoke
        self.queued = queued
        self.space_low = space_low
        self.stopping = stopping
        self.idle = idle


class Run:
    """One task on its way through the vnodes that this node was ordered to walk through."""

    def __init__(self, crew: Crew, task: Task) -> None:
        self._crew = crew
        self._task = task
        self._selection = selection_of(task)
        self._walks: dict[tuple[int, int], Walk] = {}
        self._left: dict[tuple[int, int], None] = {}
        self._under_way: Walk | None = None
        self._scheduled = False
        self._proposed_ms = 0.0
        self._term = 0
        self._stopped = False
        self._until_ms = 0.0

    # --- orders ----------------------------------------------------------------------------

    def order(self, order: TaskOrder, vnodes: Sequence[Vnode]) -> Iterator[TaskPart | None]:
        """Go on in these vnodes, which are led here, or stop; how far the task is there."""
        if order.term >= self._term:
            self._stopped = order.stop or (self._stopped and order.term == self._term)
            self._term = order.term
            self._until_ms = self._crew.world.mono_ms() + limits.TASK_ORDER_MS
        finished = 0
        busy = False
        totals: dict[str, int] = {}
        for number, vnode in enumerate(vnodes, 1):
            at = self._under_way
            walk = self._walks.get(vnode.group)
            if walk is None or walk.vnode is not vnode:
                walk = Walk(self._crew.store, vnode, self._task, self._selection)
                self._walks[vnode.group] = walk
                if not walk.finished:
                    self._left[vnode.group] = None
            finished += walk.finished
            busy = busy or (at is not None and at.vnode is vnode)
            for outcome, count in walk.counts.items():
                totals[outcome] = totals.get(outcome, 0) + count
            if number % _VNODES_BETWEEN_YIELDS == 0:
                yield None
        self._soon()
        yield TaskPart(finished, busy, totals)

    def leave(self, vnode: Vnode) -> None:
        """Another node may lead this vnode."""
        self._walks.pop(vnode.group, None)
        self._left.pop(vnode.group, None)

    @property
    def vnodes(self) -> list[Vnode]:
        """Those that it was ordered to."""
        return [walk.vnode for walk in self._walks.values()]

    def counts(self) -> dict[str, int]:
        """Jobs by what became of them, in the vnodes that are led here."""
        totals: dict[str, int] = {}
        for walk in self._walks.values():
            for outcome, count in walk.counts.items():
                totals[outcome] = totals.get(outcome, 0) + count
        return totals

    # --- steps -----------------------------------------------------------------------------

    def _soon(self) -> None:
        if not self._scheduled and self._under_way is None:
            self._scheduled = True
            self._crew.world.call_soon(self._step)

    def _again(self, delay_ms: float) -> None:
        self._scheduled = True
        self._crew.world.call_later(delay_ms, self._step)

    def _may_go_on(self) -> bool:
        crew, task = self._crew, self._task
        return not (
            self._stopped
            or crew.stopping()
            or crew.world.mono_ms() > self._until_ms
            or (task.kind in _OF_ROUTES and task.route_uid not in crew.meta.routes_by_uid)
        )

    def _step(self) -> None:
        """Look at some rows, and propose what is to be done with the jobs among them."""
        self._scheduled = False
        if self._under_way is not None or not self._left or not self._may_go_on():
            return
        task = self._task
        if (
            task.kind in _OF_ROUTES
            and self._crew.queued(task.route_uid) >= limits.REDRIVE_BACKLOG_JOBS
        ):
            # Else they would fill what is held of their route, and keep new jobs out of it.
            self._again(_BACKLOG_PAUSE_MS)
            return
        walk = self._walks[next(iter(self._left))]
        vnode = walk.vnode
        if not self._crew.runtime.holds(vnode) or not vnode.serving:
            self.leave(vnode)
            self._again(_LOOK_PAUSE_MS)
            return
        try:
            items = walk.look()
        except StoreDamaged as error:
            self._crew.runtime.damaged(error)
            self.leave(vnode)
            self._again(_LOOK_PAUSE_MS)
            return
        if items:
            self._propose(walk, items)
        elif items is not None:
            self._again(_LOOK_PAUSE_MS)
        elif walk.begun:
            self._propose(walk, [], finished=True)
        else:
            # Nothing was done here: whoever leads it next finds that out as fast.
            walk.finished = True
            self._finished(walk)

    def _finished(self, walk: Walk) -> None:
        self._left.pop(walk.vnode.group, None)
        if self._left:
            self._again(_LOOK_PAUSE_MS)
        else:
            self._crew.idle(self._task.id)

    def _propose(self, walk: Walk, items: list[c.BulkItem], *, finished: bool = False) -> None:
        crew, task, vnode = self._crew, self._task, walk.vnode
        self._proposed_ms = crew.world.mono_ms()
        if crew.space_low() and items and task.kind is not TaskKind.CANCEL:
            self._refused(walk, DiskFull())
            return
        if task.kind in (TaskKind.CANCEL, TaskKind.RESCHEDULE):
            items = [
                c.BulkItem(item.job_id, item.uid, item.version, crew.revoke(vnode, item.job_id))
                for item in items
            ]
        command = walk.command(crew.world.wall_ms(), items, finished=finished)
        self._under_way = walk

        def answered(result: object) -> None:
            self._under_way = None
            if isinstance(result, TimeMachineError):
                self._refused(walk, result)
            else:
                assert isinstance(result, BulkProgress)
                self._answered(walk, result)

        if any(item.revoked is not None for item in items):
            # Sends are removed already, so the command that says so must reach the log.
            crew.runtime.propose(vnode, command, answered)
        else:
            crew.runtime.submit(vnode, command, answered, _COMMAND_BYTES * (1 + len(items)))

    def _answered(self, walk: Walk, progress: BulkProgress) -> None:
        if self._walks.get(walk.vnode.group) is not walk:
            # It has moved, and perhaps come back: then it is walked through by another walk.
            self._again(_LOOK_PAUSE_MS)
            return
        walk.got_to(progress)
        if progress.finished:
            self._finished(walk)
        else:
            # Half of the time is for others, and more of it when the disk is slow. And it takes a
            # moment until what is due is queued.
            took_ms = self._crew.world.mono_ms() - self._proposed_ms
            least_ms = _QUEUED_MS if self._task.kind in _OF_ROUTES else 0.0
            self._again(max(took_ms, least_ms))

    def _refused(self, walk: Walk, error: TimeMachineError) -> None:
        """Look at the same rows again, after a while."""
        walk.back()
        if isinstance(error, NotLeader) and self._walks.get(walk.vnode.group) is walk:
            self.leave(walk.vnode)
        self._again(_RETRY_MS if isinstance(error, TooManyRequests) else 5 * _RETRY_MS)
