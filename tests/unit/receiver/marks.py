"""A store of marks in a dict: what a store has to do, and no more."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from timemachine.receiver import Mark


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
