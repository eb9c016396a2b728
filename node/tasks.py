"""Bulk tasks: what is done to many jobs, step by step, and resumed after a crash.

A task is a record of the meta group. Whoever runs it walks through the vnodes of its collections,
reads some hundred rows of the index that leads to its jobs, and proposes one `Bulk` command for
those that it means. That command also says how far the task got in that vnode, and is void if it
had got further already: so a step that was proposed again after a crash changes nothing twice.

Jobs that are moved to a later time would come up again if the walk went on in that direction.
Therefore it goes backwards then. Rows are read, and commands applied, in small portions: firing
goes on beside them.
"""

from collections.abc import Callable, Iterator

from node.env import World
from node.runtime import Runtime
from node.selection import Selection, walk_ranges
from timemachine import limits
from timemachine.errors import DiskFull, TimeMachineError, TooManyRequests
from timemachine.model import JobRecord, JobState, Task, TaskKind, TaskState
from timemachine.replica import commands as c
from timemachine.replica.meta import EndTask, ForgetTasks, MetaMachine
from timemachine.replica.records import read_job, read_progress
from timemachine.replica.results import BulkProgress
from timemachine.storage.api import Store
from timemachine.storage.keys import after_prefix, u64
from timemachine.vnode import Vnode

_LOOK_PAUSE_MS = 1.0
_RETRY_MS = 200.0
_COMMAND_BYTES = 64
_KINDS = {
    TaskKind.CANCEL: c.BULK_CANCEL,
    TaskKind.RESCHEDULE: c.BULK_RESCHEDULE,
    TaskKind.REDRIVE: c.BULK_REDRIVE,
    TaskKind.REPLAY_MISSING: c.BULK_REDRIVE,
}


def selection_of(task: Task) -> Selection:
    """Which jobs a task means, but for those that had attempts where it wants none."""
    return Selection(
        states=frozenset(map(JobState, task.states)),
        route=task.route,
        route_uid=task.route_uid,
        tag=task.tag,
        from_ms=task.from_ms,
        to_ms=task.to_ms,
    )


class Tasks:
    """Runs the tasks that meta says are running. Everything happens in callbacks.

    `vnodes_of` gives the vnodes of a collection by its uid, none when it is gone; `revoke` takes
    a claimed send back, if that is still possible; `space_low` is whether the disk is nearly full.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        *,
        vnodes_of: Callable[[int], list[Vnode]],
        revoke: Callable[[Vnode, str], c.Revoked | None],
        space_low: Callable[[], bool],
        propose_meta: Callable[[EndTask | ForgetTasks, Callable[[object], None]], None],
    ) -> None:
        self.world = world
        self.store = store
        self.runtime = runtime
        self.meta = meta
        self.vnodes_of = vnodes_of
        self.revoke = revoke
        self.space_low = space_low
        self.propose_meta = propose_meta
        self._runs: dict[str, _Run] = {}
        self._stopping = False

    def reconcile(self) -> None:
        """Start what meta has begun; called whenever meta changed."""
        if self._stopping:
            return
        for name, task in self.meta.tasks.items():
            if task.state is TaskState.RUNNING and name not in self._runs:
                run = self._runs[name] = _Run(self, task)
                self.world.call_soon(run.step)

    def tidy(self, vnode: Vnode) -> None:
        """Forget the progress in one vnode of tasks that have ended."""
        start = vnode.keys.task
        for key, _ in self.store.scan(start, after_prefix(start), limits.TASKS_KEPT_MAX):
            name = key[len(start) :].decode()
            if name not in self._runs:
                command = c.BulkForget(now_ms=self.world.wall_ms(), task=name)
                self.runtime.propose(vnode, command)

    def expire(self) -> None:
        """Forget tasks that ended long ago."""
        before_ms = self.world.wall_ms() - limits.TASKS_KEPT_MS
        old = [
            task.id
            for task in self.meta.tasks.values()
            if task.finished_ms is not None and task.finished_ms < before_ms
        ]
        if old:
            command = ForgetTasks(now_ms=self.world.wall_ms(), ids=old)
            self.propose_meta(command, lambda _: None)

    def stop(self) -> None:
        """Begin no further step; the next start goes on."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether no further step may begin."""
        return self._stopping or not self.runtime.working

    def counts(self, name: str) -> dict[str, int]:
        """Jobs by what a running task has done with them so far."""
        run = self._runs.get(name)
        return {} if run is None else run.counts()

    def cancel(self, name: str, done: Callable[[object], None]) -> None:
        """End a running task after the step that is under way; `done` gets a MetaResult."""
        run = self._runs.get(name)
        if run is None:
            command = EndTask(
                now_ms=self.world.wall_ms(), id=name, state=TaskState.CANCELLED, counts={}
            )
            self.propose_meta(command, done)
        else:
            run.cancel(done)

    def ended(self, name: str) -> None:
        """A run is over, and meta knows it."""
        self._runs.pop(name, None)


class _Run:
    """One task on its way through the vnodes."""

    def __init__(self, tasks: Tasks, task: Task) -> None:
        self._tasks = tasks
        self._task = task
        self._selection = selection_of(task)
        self._backwards = task.shift_ms > 0
        self._groups = self._walk()
        self._vnode: Vnode | None = None
        self._ranges: list[tuple[bytes, bytes]] = []
        self._range = 0
        self._at = b""
        self._committed = b""
        self._counts: dict[tuple[int, int], dict[str, int]] = {}
        self._cancelled: list[Callable[[object], None]] = []
        self._ending = False
        self._proposed_ms = 0.0

    def counts(self) -> dict[str, int]:
        """The sum over the vnodes."""
        total: dict[str, int] = {}
        for counts in self._counts.values():
            for outcome, number in counts.items():
                total[outcome] = total.get(outcome, 0) + number
        return total

    def cancel(self, done: Callable[[object], None]) -> None:
        """End at the next step."""
        self._cancelled.append(done)

    def _walk(self) -> Iterator[Vnode]:
        for uid in self._task.collections:
            yield from self._tasks.vnodes_of(uid)

    def step(self) -> None:
        """Look at some rows, and propose what is to be done with the jobs among them."""
        tasks = self._tasks
        if self._ending or tasks.stopping:
            return
        if self._cancelled:
            self._end(TaskState.CANCELLED)
            return
        if self._task.kind in (TaskKind.REDRIVE, TaskKind.REPLAY_MISSING) and (
            self._task.route_uid not in tasks.meta.routes_by_uid
        ):
            self._end(TaskState.FAILED, "The route was deleted.")
            return
        vnode = self._vnode
        if vnode is None:
            vnode = next(self._groups, None)
            if vnode is None:
                self._end(TaskState.DONE)
                return
            self._begin(vnode)
        if vnode.group not in tasks.runtime.vnodes:
            self._vnode = None  # its collection was deleted
            self._again(_LOOK_PAUSE_MS)
            return
        items = self._look(vnode)
        if items:
            self._proposed_ms = tasks.world.mono_ms()
            self._propose(vnode, items)
        else:
            self._again(_LOOK_PAUSE_MS)

    def _again(self, delay_ms: float) -> None:
        self._tasks.world.call_later(delay_ms, self.step)

    def _begin(self, vnode: Vnode) -> None:
        """Take up a vnode where the log says that this task was."""
        self._vnode = vnode
        self._ranges = walk_ranges(vnode.keys, self._selection)
        self._range = 0
        self._at = self._committed = b""
        data = self._tasks.store.get(vnode.keys.task + self._task.id.encode())
        if data is not None:
            progress = read_progress(data)
            self._counts[vnode.group] = progress.counts
            self._committed = progress.cursor
            self._range, self._at = progress.cursor[0], progress.cursor[1:]

    def _look(self, vnode: Vnode) -> list[c.BulkItem]:
        """The jobs among the next rows; none at the end of a vnode, which is left then."""
        start, stop = self._ranges[self._range]
        low = start + u64(self._selection.from_ms or 0)
        high = stop if self._selection.to_ms is None else start + u64(self._selection.to_ms)
        if self._at and self._backwards:
            high = start + self._at
        elif self._at:
            low = start + self._at + b"\0"
        store = self._tasks.store
        count = limits.BULK_JOBS_PER_COMMAND_MAX
        rows = store.scan(low, high, count, reverse=self._backwards)
        items = []
        for key, _ in rows:
            raw_id = key[len(start) + 8 :]
            data = store.get(vnode.keys.job + raw_id)
            record = None if data is None else read_job(data)
            if record is not None and self._means(record):
                items.append(c.BulkItem(raw_id.decode(), record.uid, record.version))
        if rows:
            self._at = rows[-1][0][len(start) :]
        if len(rows) < count and not items:
            # With items it is found to be at its end once they are committed.
            self._range += 1
            self._at = b""
            if self._range == len(self._ranges):
                self._vnode = None
        return items

    def _means(self, record: JobRecord) -> bool:
        task = self._task
        if not self._selection.takes(record) or (task.unattempted and record.attempts):
            return False
        if task.kind is not TaskKind.RESCHEDULE:
            return True
        if record.version > 1 and record.updated_ms > task.created_ms:
            # Moved by this task: it has fired since, or waits, and comes up in another range.
            return False
        return record.trigger_ms != task.trigger_ms or record.state != JobState.SCHEDULED

    def _propose(self, vnode: Vnode, items: list[c.BulkItem]) -> None:
        tasks, task = self._tasks, self._task
        if tasks.space_low() and task.kind is not TaskKind.CANCEL:
            self._refused(DiskFull())
            return
        # Later than its beginning, whatever the clock does: `_means` tells by it what was moved.
        now_ms = max(tasks.world.wall_ms(), task.created_ms + 1)
        if task.kind in (TaskKind.CANCEL, TaskKind.RESCHEDULE):
            items = [
                c.BulkItem(item.job_id, item.uid, item.version, tasks.revoke(vnode, item.job_id))
                for item in items
            ]
        command = c.Bulk(
            now_ms=now_ms,
            task=task.id,
            kind=_KINDS[task.kind],
            items=items,
            after=self._committed,
            cursor=bytes((self._range,)) + self._at,
            trigger_ms=task.trigger_ms,
            shift_ms=task.shift_ms,
            route_uid=task.route_uid,
        )
        if any(item.revoked is not None for item in items):
            # Sends are removed already, so the command that says so must reach the log.
            tasks.runtime.propose(vnode, command, self._answered)
        else:
            size = _COMMAND_BYTES * len(items)
            tasks.runtime.submit(vnode, command, self._answered, size)

    def _answered(self, result: object) -> None:
        if isinstance(result, TimeMachineError):
            self._refused(result)
            return
        assert isinstance(result, BulkProgress)
        assert self._vnode is not None
        self._counts[self._vnode.group] = result.counts
        self._committed = result.cursor
        self._range, self._at = result.cursor[0], result.cursor[1:]
        # Half of the time is for others, and more of it when the disk is slow.
        self._again(self._tasks.world.mono_ms() - self._proposed_ms)

    def _refused(self, error: TimeMachineError) -> None:
        """Look at the same rows again, after a while."""
        self._range, self._at = 0, b""
        if self._committed:
            self._range, self._at = self._committed[0], self._committed[1:]
        self._again(_RETRY_MS if isinstance(error, TooManyRequests) else 5 * _RETRY_MS)

    def _end(self, state: TaskState, error: str | None = None) -> None:
        self._ending = True
        tasks = self._tasks
        command = EndTask(
            now_ms=tasks.world.wall_ms(),
            id=self._task.id,
            state=state,
            counts=self.counts(),
            error=error,
        )

        def answered(result: object) -> None:
            for done in self._cancelled:
                done(result)
            self._cancelled = []
            if isinstance(result, TimeMachineError):
                self._ending = False
                self._again(5 * _RETRY_MS)
                return
            tasks.ended(self._task.id)
            for vnode in self._walk():
                if vnode.group in self._counts:
                    tasks.tidy(vnode)

        tasks.propose_meta(command, answered)
