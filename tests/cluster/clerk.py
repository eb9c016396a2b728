"""A client that writes down what it asks and what it is told, as `tests/checks` judges it."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from tests.checks.history import NEVER, History
from tests.checks.jobmodel import (
    Absent,
    Answered,
    Asked,
    Delete,
    Deleted,
    Found,
    Get,
    Patch,
    Put,
    Refused,
    Written,
)
from tests.cluster.recorder import wall_ms
from timemachine.client import SyncClient
from timemachine.errors import (
    ApiConflict,
    ApiNotFound,
    ApiOverloaded,
    ApiPreconditionFailed,
    ClientError,
    NoAnswer,
)

_DB: Final = "default"
_NAME: Final = "jobs"
_PENDING: Final = frozenset({"scheduled", "retrying", "held"})
"""States in which an attempt may still begin."""


class Notes:
    """What all clerks of a test have written down. Safe for threads.

    wrong   answers that nobody should get
    failed  calls that got no answer, or were told to come again until patience was over
    """

    def __init__(self) -> None:
        self.history = History()
        self.wrong: list[str] = []
        self.failed: list[str] = []
        self.lock = threading.Lock()
        self._contents = 0

    def answered(self) -> int:
        """How many calls have been answered."""
        with self.lock:
            return sum(call.returned_ms != NEVER for call in self.history.calls)

    def content(self) -> int:
        """A meta that no other write has."""
        with self.lock:
            self._contents += 1
            return self._contents


class Clerk:
    """One client; `node` is the one that it is bound to, 0 for any. Closes its client."""

    def __init__(self, client: SyncClient, notes: Notes, *, node: int = 0) -> None:
        self._client = client
        self._notes = notes
        self._node = node

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client."""
        self._client.close()

    def put(self, job: str, due_ms: int, *, create_only: bool = False, route: str = "hook") -> Any:
        """PUT, or POST with `create_only`."""
        content = self._notes.content()
        given: dict[str, Any] = {"route": route, "trigger_time": due_ms, "meta": content}
        asked = Put(content, due_ms, create_only)
        if create_only:
            return self._call(
                job,
                asked,
                lambda: self._client.create_job(_DB, _NAME, id=job, **given),
                _written,
            )
        return self._call(
            job, asked, lambda: self._client.put_job(_DB, _NAME, job, **given), _written
        )

    def patch(self, job: str, due_ms: int) -> Any:
        """PATCH of content and trigger time."""
        content = self._notes.content()
        return self._call(
            job,
            Patch(content, due_ms),
            lambda: self._client.patch_job(_DB, _NAME, job, trigger_time=due_ms, meta=content),
            _written,
        )

    def delete(self, job: str) -> Any:
        """DELETE."""
        return self._call(
            job,
            Delete(),
            lambda: self._client.delete_job(_DB, _NAME, job),
            lambda found: Deleted(found.version, found.outcome),
        )

    def get(self, job: str) -> Any:
        """A linearizable GET."""
        return self._call(job, Get(), lambda: self._client.get_job(_DB, _NAME, job), _found)

    def _call(
        self,
        job: str,
        asked: Asked,
        ask: Callable[[], Any],
        answer_of: Callable[[Any], Answered],
    ) -> Any:
        """One call with all its tries; returns the answer, None if there is no job in it."""
        notes = self._notes
        with notes.lock:
            call = notes.history.call(job, wall_ms(), asked, self._node)
        found = None
        answered: Answered
        try:
            found = ask()
            answered = answer_of(found)
        except ApiNotFound:
            answered = Absent()
        except (ApiConflict, ApiPreconditionFailed) as error:
            answered = Refused(error.specific_code)
        except (NoAnswer, ApiOverloaded) as error:
            # What became of it nobody knows.
            notes.failed.append(f"{asked} {job}: {error!r}")
            return None
        except ClientError as error:
            notes.wrong.append(f"{asked} {job}: {error!r}")
            return None
        with notes.lock:
            call.answer(wall_ms(), answered)
        return found


def _written(found: Any) -> Written:
    previous = found.previous
    return Written(
        found.version,
        None if previous is None else (previous.version, previous.outcome),
        found.trigger_time,
    )


def _found(found: Any) -> Found:
    return Found(found.version, found.meta, found.trigger_time, found.state in _PENDING)
