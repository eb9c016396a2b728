"""What became of the jobs that a batcher was given."""

from collections.abc import Callable

from timemachine import limits
from timemachine.client.answers import CreateResult
from timemachine.errors import BatchFailed, ClientError


class Tally:
    """Counts results, tells them to whoever listens, and keeps failures where nobody does.

    `raised` is what the listener raised: then a batcher ends.
    """

    def __init__(self, on_result: Callable[[CreateResult], object] | None) -> None:
        self._on_result = on_result
        self._failures: list[tuple[str, ClientError]] = []
        self.created = 0
        self.unchanged = 0
        self.failed = 0
        self.raised: BaseException | None = None

    def add(self, results: list[CreateResult]) -> None:
        """Results came."""
        for result in results:
            if result.error is not None:
                self.failed += 1
                room = len(self._failures) < limits.CLIENT_FAILURES_KEPT_MAX
                if self._on_result is None and room:
                    self._failures.append((result.id, result.error))
            elif result.created:
                self.created += 1
            else:
                self.unchanged += 1
            if self._on_result is not None and self.raised is None:
                try:
                    self._on_result(result)
                except BaseException as error:  # noqa: BLE001  # raised where the batcher is used
                    self.raised = error

    def end(self, error: BaseException | None) -> None:
        """The block is over, with this error of its own. Raises what it has to hear."""
        if self.raised is not None and self.raised is not error:
            raise self.raised
        if not self._failures:
            return
        job_id, first = self._failures[0]
        total = self.created + self.unchanged + self.failed
        detail = f"{self.failed} of {total} jobs were not created; the first, {job_id}: {first}"
        if error is not None:
            error.add_note(detail)
            return
        raise BatchFailed(detail, failed=self.failed, failures=self._failures) from first
