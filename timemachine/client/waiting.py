"""How the end of a task is waited for. No I/O."""

from collections.abc import Generator

from timemachine import limits
from timemachine.client.answers import Bulk, Task
from timemachine.client.config import Config
from timemachine.client.conversation import Result, Step, Wait, converse
from timemachine.client.operations.bulk import get_task, task_id
from timemachine.errors import TaskFailed, TaskUnfinished


def converse_task(
    task: Bulk | str, timeout_ms: int | None, config: Config, first_server: int
) -> Generator[Step, Result, Task]:
    """Ask how far a task is, again and again, ever less often, until it has ended."""
    name = task_id(task)
    now_ms = config.sources.monotonic_ms
    deadline_ms = None if timeout_ms is None else now_ms() + timeout_ms
    poll_ms = float(limits.CLIENT_POLL_MS_MIN)
    while True:
        found = yield from converse(get_task(name), config, first_server)
        if found.state == "failed":
            raise TaskFailed(found.error, task=name)
        if not found.running:
            return found
        wait_ms = poll_ms * (1 + config.sources.random()) / 2
        if deadline_ms is not None and now_ms() + wait_ms > deadline_ms:
            raise TaskUnfinished(task=name)
        yield Wait(wait_ms)
        poll_ms = min(poll_ms * 1.5, limits.CLIENT_POLL_MS_MAX)
