"""A node's own part of a plan that compacts: its store, step by step, with rests in between.

The part begins when meta says so, and rests while the plan is paused. Nothing of it is kept: a node
that was started anew begins it again, and what was compacted before costs little then.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from node.compacting.reports import CompactionReport, CompactionSize, Phase
from node.env import Aside, Timer, World
from node.gathering.asking import Asking
from node.moving import running
from node.replicas import Replicas, job_machine
from node.runtime import Runtime
from timemachine import limits
from timemachine.errors import StoreDamaged, StoreError, TimeMachineError
from timemachine.model import Compaction, Plan, PlanState
from timemachine.replica.meta import MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.compacting import Span, rest_ms, spans, steps
from timemachine.storage.keys import DAMAGED_START, DAMAGED_STOP
from timemachine.storage.overlay import Overlay
from timemachine.storage.pacing import pause_ms
from timemachine.vnode import Vnode

Group = tuple[int, int]
"""(collection uid, vnode index)."""
Held = Sequence[tuple[Group, int]]
"""Up to which index all members of vnodes have the log."""
AskHeld = Callable[[Sequence[Group], Callable[[Any], None]], Asking | None]

_LOOK_AGAIN_MS: Final = 500.0
_CROWDED_MS: Final = 200.0
_SETTLE_MS: Final = 500.0
"""Until what LevelDB has deleted is free; see `timemachine.storage.smoothing`."""
_DAMAGED: Final = (
    "It has damaged tables, and to compact one of them would end it. Start it anew: then they are"
    " written anew."
)


class Compacting:
    """Compacts this node's store for the plan that runs, if it has a part in it that has begun.

    `ask_held` asks the leaders of vnodes up to where all members have their logs. `told` hears of
    each part that has come to its end.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        overlay: Overlay,
        runtime: Runtime,
        meta: MetaMachine,
        replicas: Replicas,
        aside: Aside,
        *,
        number: int,
        space_low: Callable[[], bool],
        ask_held: AskHeld,
        told: Callable[[CompactionReport], None],
    ) -> None:
        self.world = world
        self.store = store
        self.overlay = overlay
        self.runtime = runtime
        self.replicas = replicas
        self.aside = aside
        self.number = number
        self.space_low = space_low
        self.ask_held = ask_held
        self.told = told
        self.steps_done = 0
        self._meta = meta
        self._part: _Part | None = None

    def reconcile(self) -> None:
        """Plans have changed, perhaps."""
        plan = running(self._meta)
        own = None if plan is None else self._own(plan)
        if self._part is not None and (plan is None or own is None or self._part.id != plan.id):
            self._part.stop()
            self._part = None
        if plan is None or own is None:
            return
        if self._part is None:
            self._part = _Part(self, plan.id, own)
        self._part.steer(paused=plan.state is PlanState.PAUSED)

    def _own(self, plan: Plan) -> Compaction | None:
        """What it is to compact here, while this node's part is begun and has not ended."""
        compaction = plan.compaction
        if compaction is None:
            return None
        for part in compaction.parts:
            if part.node == self.number and part.at_work:
                return compaction
        return None

    def report(self, plan_id: str) -> CompactionReport | None:
        """How far this node's part of a plan is; None if it is not at work for it."""
        part = self._part
        return None if part is None or part.id != plan_id else part.report()

    def size(self, uid: int, indexes: Sequence[int]) -> CompactionSize | None:
        """How much there is to compact of these vnodes; None if there is nothing of them here."""
        disk_bytes = self.store.disk_bytes()
        if not uid:
            return CompactionSize(self.number, disk_bytes, disk_bytes)
        vnodes = self.vnodes(uid, indexes)
        size = sum(map(self._size, vnodes))
        return CompactionSize(self.number, size, disk_bytes) if vnodes else None

    def vnodes(self, uid: int, indexes: Sequence[int]) -> list[Vnode]:
        """The replicas here of a collection, or of all; of these indexes, or of all."""
        return [
            vnode
            for (collection, index), vnode in self.runtime.vnodes.items()
            if (collection == uid or not uid) and (index in indexes or not indexes)
        ]

    def _size(self, vnode: Vnode) -> int:
        """What is not in tables yet, by its jobs."""
        jobs = sum(job_machine(vnode).state.counts)
        size = self.store.approximate_bytes(vnode.keys.prefix, vnode.keys.stop)
        return max(size, jobs * limits.PLAN_JOB_BYTES)


class _Part:
    """One part, from its beginning on, by one process. What it does next is `_next`."""

    def __init__(self, node: Compacting, id: str, compaction: Compaction) -> None:
        self.id = id
        self._node = node
        self._compaction = compaction
        self._phase = Phase.TRIMMING
        self._paused = False
        self._stopped = False
        self._timer: Timer | None = None
        self._next: Callable[[], None] | None = None
        self._asking: Asking | None = None
        self._steps: list[Span] = []
        self._done = 0
        self._compacted_bytes = node.store.compacted_bytes()
        self._report: CompactionReport | None = None
        self._after(0.0, self._trim)

    # --- steering --------------------------------------------------------------------------

    def steer(self, *, paused: bool) -> None:
        """Rest before the next step, or go on."""
        self._paused = paused
        if not paused and self._next is not None and self._timer is None:
            self._after(0.0, self._next)

    def stop(self) -> None:
        """Begin no further step: the plan has ended, or meta knows that this part has."""
        self._stopped = True
        self._next = None
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def report(self) -> CompactionReport:
        """How far it is."""
        if self._report is not None:
            return self._report
        node = self._node
        waits = self._paused and self._next is not None
        return CompactionReport(
            node.number,
            Phase.PAUSED if waits else self._phase,
            len(self._steps),
            self._done,
            node.store.compacted_bytes() - self._compacted_bytes,
            node.store.disk_bytes(),
        )

    def _after(self, pause_ms: float, action: Callable[[], None]) -> None:
        self._next = action
        self._timer = self._node.world.call_later(pause_ms, self._go)

    def _go(self) -> None:
        self._timer = None
        if self._stopped or self._paused or not self._node.runtime.working:
            return
        action, self._next = self._next, None
        assert action is not None
        action()

    def _aside(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have the store do something beside the loop."""

        def finished(result: Any) -> None:
            if self._stopped or not self._node.runtime.working:
                return
            if isinstance(result, StoreError):
                self._fail(result.detail)
            else:
                done(result)

        self._node.aside.do(work, finished)

    def _fail(self, reason: str) -> None:
        self._end(Phase.FAILED, reason)

    def _end(self, phase: Phase, error: str | None = None) -> None:
        self._phase = phase
        report = self.report()
        self._report = CompactionReport(
            report.node,
            phase,
            report.steps,
            report.steps_done,
            report.compacted_bytes,
            report.disk_bytes,
            error,
        )
        self._node.told(self._report)

    # --- what is dropped before ------------------------------------------------------------

    def _trim(self) -> None:
        """Ask how much of the logs all members have."""
        node, compaction = self._node, self._compaction
        if node.store.scan(DAMAGED_START, DAMAGED_STOP, 1):
            self._fail(_DAMAGED)
            return
        vnodes = node.vnodes(compaction.uid, compaction.indexes)
        groups = [vnode.group for vnode in vnodes if not vnode.sole]
        if groups:
            self._asking = node.ask_held(groups, self._drop_logs)
        else:
            self._wait_for_erasing()

    def _drop_logs(self, found: Held | TimeMachineError) -> None:
        """Logs up to what all members have are needed by nobody."""
        self._asking = None
        if self._stopped:
            return
        runtime = self._node.runtime
        if runtime.working and not isinstance(found, TimeMachineError):
            # Those that nobody has answered for keep theirs.
            for group, held_index in found:
                vnode = runtime.vnodes.get(group)
                if vnode is not None and vnode.drop_log(held_index):
                    runtime.write_soon()
        self._after(0.0, self._wait_for_erasing)

    def _wait_for_erasing(self) -> None:
        """What replicas had that are gone is deleted first, row by row."""
        node = self._node
        if node.replicas.erasing:
            self._after(_LOOK_AGAIN_MS, self._wait_for_erasing)
            return
        # How much there is shows only in tables.
        self._aside(node.store.flush, lambda _: self._after(0.0, self._cut))

    def _cut(self) -> None:
        node, compaction = self._node, self._compaction
        incarnations: Iterable[int] = range(node.replicas.next_incarnation)
        if compaction.uid:
            vnodes = node.vnodes(compaction.uid, compaction.indexes)
            incarnations = [vnode.keys.incarnation for vnode in vnodes]
        work = partial(
            steps, spans(incarnations), node.store.approximate_bytes, limits.COMPACT_STEP_BYTES
        )
        self._aside(work, self._begin)

    def _begin(self, found: list[Span]) -> None:
        self._steps = found
        self._phase = Phase.COMPACTING
        self._after(0.0, self._step)

    # --- step by step ----------------------------------------------------------------------

    def _step(self) -> None:
        node = self._node
        if self._done == len(self._steps):
            self._after(_SETTLE_MS, partial(self._end, Phase.DONE))
            return
        self._phase = Phase.LOW_SPACE if node.space_low() else Phase.COMPACTING
        if self._phase is Phase.LOW_SPACE:
            self._after(_LOOK_AGAIN_MS, self._step)
            return
        if pause_ms(node.store.pressure(), user=True) > 0:
            # LevelDB has enough to do, and writers wait for it.
            self._after(_CROWDED_MS, self._step)
            return
        step = self._steps[self._done]
        try:
            self._touch(step)
        except StoreDamaged as error:
            node.runtime.damaged(error)
            self._fail(_DAMAGED)
            return
        node.runtime.when_written(partial(self._compact, step))

    def _touch(self, step: Span) -> None:
        """Write the bounds of a step again, as they are: see `timemachine.storage.compacting`."""
        overlay = self._node.overlay
        rows = {key: overlay.get(key) for key in step}
        overlay.put_all(rows)

    def _compact(self, step: Span) -> None:
        if self._stopped or not self._node.runtime.working:
            return
        store, world = self._node.store, self._node.world
        begun_ms, before = world.mono_ms(), store.compacted_bytes()
        self._aside(
            partial(store.compact, step.start, step.stop),
            lambda _: self._compacted(begun_ms, before),
        )

    def _compacted(self, begun_ms: float, before: int) -> None:
        node = self._node
        self._done += 1
        node.steps_done += 1
        compacted = node.store.compacted_bytes() - before
        took_ms = node.world.mono_ms() - begun_ms
        self._after(rest_ms(compacted, took_ms, self._compaction.bytes_per_s), self._step)
