"""One task on the node leader: it orders who leads the vnodes to go on, and hears how far they are.

An order holds for `TASK_ORDER_MS` where it arrived. So a task that is to be stopped has stopped
after that time at the latest, also where the order to stop does not arrive.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from node.env import Timer, World
from node.gathering import Asking, Gathering
from node.gathering.questions import Group, TaskOrder, TaskPart
from timemachine import limits
from timemachine.errors import NotLeader, TimeMachineError
from timemachine.model import Task, TaskKind, TaskState
from timemachine.replica.meta import EndTask, MetaMachine

_POLL_MS = 250.0
_BUSY_MS = 10.0
_PATIENCE_MS = 1_000.0
_RETRY_MS = 1_000.0


class Office(Protocol):
    """What conductors need of their node."""

    world: World
    meta: MetaMachine
    gathering: Gathering

    def groups_of(self, task: Task) -> Sequence[Group]:
        """The vnodes that a task walks through, as far as their collections are there."""

    def propose_end(self, command: EndTask, done: Callable[[object], None]) -> None:
        """Have a task end; `done` gets a MetaResult or an error."""


class Conductor:
    """A running task. `term` is that of the node leader.

    `counts` are jobs by what became of them, as far as was heard; `vnodes` how many it walks
    through.
    """

    def __init__(self, office: Office, task: Task, term: int) -> None:
        self._office = office
        self._task = task
        self._term = term
        self._timer: Timer | None = None
        self._asking: Asking | None = None
        self._hurried = False
        self._ordered_ms = 0.0
        self._ending: tuple[TaskState, str | None] | None = None
        self._cancelled: list[Callable[[object], None]] = []
        self._proposed = False
        self._over = False
        self.counts: dict[str, int] = {}
        self.vnodes = 0

    def begin(self) -> None:
        """Give the first orders."""
        self._again(0.0)

    def hurry(self) -> None:
        """A node has nothing left to do, or is to stop: ask now."""
        if self._asking is not None:
            self._hurried = True
        elif not (self._over or self._proposed):
            self._again(0.0)

    def cancel(self, done: Callable[[object], None]) -> None:
        """End it when no step is under way any more; `done` gets a MetaResult or an error."""
        self._cancelled.append(done)
        if self._ending is None:
            self._ending = TaskState.CANCELLED, None
        self.hurry()

    def leave(self, leader: int) -> None:
        """Another node is the node leader now."""
        self.close()
        cancelled, self._cancelled = self._cancelled, []
        for done in cancelled:
            done(NotLeader(leader))

    def close(self) -> None:
        """Give no further orders."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _again(self, delay_ms: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._office.world.call_later(delay_ms, self._order)

    def _order(self) -> None:
        self._timer = None
        office, task = self._office, self._task
        if self._over:
            return
        of_route = task.kind in (TaskKind.REDRIVE, TaskKind.REPLAY_MISSING)
        if of_route and not self._ending and task.route_uid not in office.meta.routes_by_uid:
            self._ending = TaskState.FAILED, "The route was deleted."
        groups = office.groups_of(task)
        self.vnodes = len(groups)
        stop = self._ending is not None
        if not stop:
            self._ordered_ms = office.world.mono_ms()
        question = TaskOrder(task, self._term, stop)
        self._hurried = False
        asking = office.gathering.ask(
            question,
            groups,
            partial(self._heard, stop),
            partly=True,
            patience_ms=_PATIENCE_MS,
        )
        if not asking.over:
            self._asking = asking

    def _heard(self, stopped: bool, part: TaskPart | TimeMachineError) -> None:  # noqa: FBT001
        self._asking = None
        if self._over:
            return
        if isinstance(part, TimeMachineError):
            self._again(_RETRY_MS)
            return
        complete = part.vnodes >= self.vnodes
        if complete or sum(part.counts.values()) > sum(self.counts.values()):
            self.counts = part.counts
        if stopped:
            self._stop(part, complete=complete)
        elif self._ending is not None:
            self._again(0.0)
        elif complete and part.finished >= self.vnodes and not part.busy:
            self._end(TaskState.DONE, None)
        else:
            self._again(0.0 if self._hurried else _POLL_MS)

    def _stop(self, part: TaskPart, *, complete: bool) -> None:
        assert self._ending is not None
        # What was ordered last has run out everywhere by then, whoever could not be asked.
        run_out = self._office.world.mono_ms() - self._ordered_ms > 1.5 * limits.TASK_ORDER_MS
        if (complete and not part.busy) or run_out:
            self._end(*self._ending)
        else:
            self._again(_BUSY_MS)

    def _end(self, state: TaskState, error: str | None) -> None:
        self._proposed = True
        office = self._office
        command = EndTask(
            now_ms=office.world.wall_ms(),
            id=self._task.id,
            state=state,
            counts=self.counts,
            error=error,
        )

        def answered(result: object) -> None:
            cancelled, self._cancelled = self._cancelled, []
            for done in cancelled:
                done(result)
            if isinstance(result, TimeMachineError) and not self._over:
                self._proposed = False
                self._again(_RETRY_MS)

        office.propose_end(command, answered)
