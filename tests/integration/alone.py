"""What a service does that installed the SDK and nothing else. Run as a program, not imported.

    python -I alone.py ROOT URL

It refuses every import that is neither the standard library nor msgspec nor the library itself,
and what the library keeps for nodes, also those imports that happen late, while calls are made.
"""

import sys
from collections.abc import Sequence
from types import ModuleType

ALLOWED = sys.stdlib_module_names | {"msgspec", "timemachine"}


class Guard:
    """Stands before all finders of modules."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Refuse what is not installed where only the SDK is."""
        if name.partition(".")[0] not in ALLOWED:
            self.refused.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


guard = Guard()
sys.meta_path.insert(0, guard)
sys.path.insert(0, sys.argv[1])

import asyncio  # noqa: E402

from timemachine.client import Client, NewJob, SyncClient  # noqa: E402
from timemachine.receiver import Webhook, WebhookVerificationError  # noqa: E402

HERE = ("default", "jobs")
FAR_MS = 4_102_444_800_000


def jobs(name: str) -> list[NewJob]:
    """Some jobs."""
    return [NewJob(id=f"{name}{n}", route="hook", trigger_time=FAR_MS) for n in range(5)]


def synchronous(url: str) -> None:
    """A service without an event loop."""
    with SyncClient(url) as tm:
        tm.create_job(*HERE, route="hook", trigger_time=FAR_MS, id="sync")
        assert all(result.created for result in tm.create_many(*HERE, jobs("a"), max_jobs=2))
        with tm.batcher(*HERE) as batch:
            batch.add(route="hook", trigger_time=FAR_MS)
        assert 7 == len(list(tm.list_jobs(*HERE, page_size=3)))


async def asynchronous(url: str) -> None:
    """A service with one."""
    async with Client(url) as tm:
        await tm.delete_job(*HERE, "sync")
        assert all([each.created async for each in tm.create_many(*HERE, jobs("b"), max_jobs=2)])
        async with tm.batcher(*HERE) as batch:
            await batch.add(route="hook", trigger_time=FAR_MS)
        assert 13 == len([job async for job in tm.list_jobs(*HERE)])
        secret = await tm.get_route_secret("default", "hook")
    webhook = Webhook(secret.secret)
    try:
        webhook.verify(b"{}", {"webhook-id": "a"})
    except WebhookVerificationError:
        return
    raise AssertionError("it verified nothing")


synchronous(sys.argv[2])
asyncio.run(asynchronous(sys.argv[2]))
# msgspec takes typing_extensions where it happens to be installed; the standard library's copy and
# pickle look whether they run on Jython.
print(sorted(set(guard.refused) - {"typing_extensions", "org"}))
