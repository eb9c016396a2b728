"""All tasks, as the engine has them: those that this node conducts, and those that it runs."""

from collections.abc import Callable, Iterator, Sequence

from node.env import World
from node.gathering import Gathering
from node.gathering.questions import Group, RunningTasks, TaskOrder, TaskPart
from node.runtime import Runtime
from node.tasks.conducting import Conductor
from node.tasks.running import Crew, Run
from timemachine import limits
from timemachine.errors import NotLeader, TimeMachineError
from timemachine.model import Task, TaskState
from timemachine.replica import commands as c
from timemachine.replica.meta import EndTask, ForgetTasks, MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import after_prefix
from timemachine.vnode import Vnode


class Tasks:
    """Conducts tasks where this node is the node leader, and runs those that it was ordered to.

    `revoke` takes a claimed send back, if that is still possible; `space_low` is whether the disk
    is nearly full. `gathering` is given after it was made.
    """

    gathering: Gathering

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta_vnode: Vnode,
        meta: MetaMachine,
        *,
        revoke: Callable[[Vnode, str], c.Revoked | None],
        queued: Callable[[int], int],
        space_low: Callable[[], bool],
        propose_meta: Callable[[EndTask | ForgetTasks, Callable[[object], None]], None],
    ) -> None:
        self.world = world
        self.meta = meta
        self._store = store
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._propose_meta = propose_meta
        self._crew = Crew(
            world,
            store,
            runtime,
            meta,
            revoke=revoke,
            queued=queued,
            space_low=space_low,
            stopping=lambda: self.stopping,
            idle=self._idle,
        )
        self._runs: dict[str, Run] = {}
        self._conductors: dict[str, Conductor] = {}
        self._stopping = False

    # --- what meta says --------------------------------------------------------------------

    def reconcile(self) -> None:
        """Conduct what runs, and let go of what has ended; called whenever meta changed."""
        if self._stopping:
            return
        tasks = self.meta.tasks
        for name in [name for name in self._runs if _ended(tasks.get(name))]:
            for vnode in self._runs.pop(name).vnodes:
                self._forget(vnode, [name])
        for name in [name for name in self._conductors if _ended(tasks.get(name))]:
            self._conductors.pop(name).close()
        if not self._meta_vnode.serving:
            return
        for name, task in tasks.items():
            if task.state is TaskState.RUNNING:
                conductor = self._conductors.get(name)
                if conductor is None:
                    conductor = Conductor(self, task, self._meta_vnode.term)
                    self._conductors[name] = conductor
                    conductor.begin()

    def meta_moved(self) -> None:
        """This node became or ceased to be the node leader, or is it in another term."""
        conductors, self._conductors = self._conductors, {}
        for conductor in conductors.values():
            conductor.leave(self._meta_vnode.leader)
        self.reconcile()

    def moved(self, vnode: Vnode) -> None:
        """This node began or ceased to lead a vnode, or does so in another term."""
        for run in self._runs.values():
            run.leave(vnode)
        if vnode.serving:
            self.tidy(vnode)

    # --- progress of tasks that are over ---------------------------------------------------

    def tidy(self, vnode: Vnode) -> bool:
        """Forget the progress in one vnode of tasks that have ended. Whether there was none at all.

        Then there is none until the meta group has changed: a task that runs has yet to end.
        """
        start = vnode.keys.task
        rows = self._store.scan(start, after_prefix(start), limits.TASKS_KEPT_MAX)
        names = [key[len(start) :].decode() for key, _ in rows]
        tasks = self.meta.tasks
        self._forget(vnode, [each for each in names if each in tasks and _ended(tasks[each])])
        unknown = [each for each in names if each not in tasks]
        if not unknown:
            return not names

        # The meta group here may be behind. Whoever leads it knows every task that has steps.
        def heard(running: object) -> None:
            if isinstance(running, list):
                self._forget(vnode, [each for each in unknown if each not in running])

        self.gathering.ask(RunningTasks(), [self._meta_vnode.group], heard)
        return False

    def _forget(self, vnode: Vnode, names: Sequence[str]) -> None:
        if not vnode.serving:
            return
        for name in names:
            if self._store.get(vnode.keys.task + name.encode()) is not None:
                command = c.BulkForget(now_ms=self.world.wall_ms(), task=name)
                self._runtime.propose(vnode, command)

    def expire(self) -> None:
        """Forget tasks that ended long ago."""
        before_ms = self.world.wall_ms() - limits.TASKS_KEPT_MS
        old = [
            task.id
            for task in self.meta.tasks.values()
            if task.finished_ms is not None and task.finished_ms < before_ms
        ]
        if old and self._meta_vnode.serving:
            command = ForgetTasks(now_ms=self.world.wall_ms(), ids=old)
            self._propose_meta(command, lambda _: None)

    # --- running ---------------------------------------------------------------------------

    def order(self, order: TaskOrder, vnodes: Sequence[Vnode]) -> Iterator[TaskPart | None]:
        """The node leader orders this node to go on with a task, or to stop, in these vnodes."""
        task = order.task
        if _ended(self.meta.tasks.get(task.id)):
            # It came late: the task is over.
            yield TaskPart(0, False, {})
            return
        run = self._runs.get(task.id)
        if run is None:
            run = self._runs[task.id] = Run(self._crew, task)
        yield from run.order(order, vnodes)

    def running(self) -> list[str]:
        """The tasks that have not ended."""
        return [task.id for task in self.meta.tasks.values() if not _ended(task)]

    def _idle(self, name: str) -> None:
        conductor = self._conductors.get(name)
        if conductor is not None:
            conductor.hurry()

    def stop(self) -> None:
        """Begin no further step; the next start goes on."""
        self._stopping = True
        for conductor in self._conductors.values():
            conductor.close()

    @property
    def stopping(self) -> bool:
        """Whether no further step may begin."""
        return self._stopping or not self._runtime.working

    # --- what others see and want ----------------------------------------------------------

    def counts(self, name: str) -> dict[str, int]:
        """Jobs by what a running task has done with them so far, as far as is known here."""
        conductor, run = self._conductors.get(name), self._runs.get(name)
        if run is not None and (conductor is None or len(run.vnodes) >= conductor.vnodes):
            return run.counts()
        return {} if conductor is None else conductor.counts

    def cancel(self, name: str, done: Callable[[object], None]) -> None:
        """End a running task when no step is under way any more; `done` gets a MetaResult."""
        if not self._meta_vnode.serving:
            done(NotLeader(self._meta_vnode.leader))
            return
        self.reconcile()
        conductor = self._conductors.get(name)
        if conductor is None:
            command = EndTask(
                now_ms=self.world.wall_ms(), id=name, state=TaskState.CANCELLED, counts={}
            )
            self._propose_meta(command, done)
        else:
            conductor.cancel(done)

    def groups_of(self, task: Task) -> Sequence[Group]:
        """See Office."""
        collections = {each.uid: each for each in self.meta.collections.values()}
        return [
            (uid, index)
            for uid in task.collections
            if uid in collections
            for index in range(collections[uid].num_vnodes)
        ]

    def propose_end(self, command: EndTask, done: Callable[[object], None]) -> None:
        """See Office."""

        def answered(result: object) -> None:
            done(result)
            if not isinstance(result, TimeMachineError):
                self.reconcile()

        self._propose_meta(command, answered)


def _ended(task: Task | None) -> bool:
    return task is not None and task.state is not TaskState.RUNNING
