"""Bulk tasks, as far as meta remembers them: that they run, and how they ended."""

import msgspec

from timemachine import limits
from timemachine.model import TaskState
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables


def put_task(tables: Tables, command: c.PutTask) -> MetaResult:
    """Begin a task; the oldest that ended makes room."""
    ended = [task for task in tables.tasks.values() if task.finished_ms is not None]
    if len(tables.tasks) - len(ended) >= limits.TASKS_RUNNING_MAX:
        return refused("too_many_tasks")
    if len(tables.tasks) >= limits.TASKS_KEPT_MAX:
        oldest = min(ended, key=lambda task: (task.finished_ms or 0, task.id))
        forget_tasks(tables, c.ForgetTasks(now_ms=command.now_ms, ids=[oldest.id]))
    tables.keep(command.task)
    return MetaResult(kind="created", task=command.task)


def end_task(tables: Tables, command: c.EndTask) -> MetaResult:
    """A task has ended, unless it had."""
    task = tables.tasks.get(command.id)
    if task is None:
        return refused("not_found")
    if task.state is not TaskState.RUNNING:
        return MetaResult(kind="unchanged", task=task)
    ended = msgspec.structs.replace(
        task,
        state=command.state,
        counts=command.counts,
        error=command.error,
        finished_ms=command.now_ms,
    )
    tables.keep(ended)
    return MetaResult(kind="replaced", task=ended)


def forget_tasks(tables: Tables, command: c.ForgetTasks) -> MetaResult:
    """Forget tasks that ended."""
    for name in command.ids:
        task = tables.tasks.get(name)
        if task is not None and task.state is not TaskState.RUNNING:
            tables.drop(task)
    return MetaResult(kind="deleted")
