"""A store of marks in a dict: what a store has to do, and no more; and claims of one webhook."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from timemachine.receiver import Dedupe, Mark, New, fingerprint

ID = "msg_1"
PRINT = fingerprint(b'{"a":1}')
DAY_MS = 86_400_000
LEASE_MS = 120_000


def claimed(dedupe: Dedupe, webhook_id: str = ID) -> New:
    """A claim, which must be free."""
    seen = dedupe.begin(webhook_id, PRINT)
    assert isinstance(seen, New)
    return seen


def finish(dedupe: Dedupe, claim: New, result: str | None = None) -> None:
    """Commit a claim, in a transaction of its own if there are any."""
    try:
        transaction = dedupe.transaction()
    except RuntimeError:
        dedupe.commit(claim, result)
        return
    with transaction:
        dedupe.commit(claim, result)


def fail() -> None:
    """An effect that does not succeed."""
    raise ConnectionError


class DictStore:
    """One worker at a time, as nothing in a test of one thread happens at once."""

    def __init__(self, *, transactional: bool = True) -> None:
        self.transactional = transactional
        self.marks: dict[str, Mark] = {}
        self.in_transaction = False
        self.losses = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        outer, before = self.in_transaction, copy.copy(self.marks)
        self.in_transaction = True
        try:
            yield
        except BaseException:
            self.marks = before
            raise
        finally:
            self.in_transaction = outer

    def load(self, webhook_id: str) -> Mark | None:
        return self.marks.get(webhook_id)

    def replace(self, old: Mark | None, new: Mark) -> bool:
        if self.losses > 0:
            self.losses -= 1
            return False
        found = self.marks.get(new.webhook_id)
        if (found and found.token) != (old and old.token):
            return False
        self.marks[new.webhook_id] = new
        return True

    def purge(self, now_ms: int, rows_max: int) -> int:
        gone = [each.webhook_id for each in self.marks.values() if each.expires_ms <= now_ms]
        for webhook_id in gone[:rows_max]:
            del self.marks[webhook_id]
        return len(gone[:rows_max])
