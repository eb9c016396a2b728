"""What webhooks do at their recipient, counted: once each, or as often as they come."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from time import time
from typing import Final

from timemachine.errors import WebhookInProgress, WebhookReused
from timemachine.receiver import Dedupe, fingerprint
from timemachine.receiver.sqlite import SQLiteStore

_EFFECTS: Final = "CREATE TABLE effects (webhook_id TEXT NOT NULL)"


class Effects:
    """A recipient's application, for any thread. With `dedupe` it uses our own helper.

    The effect of a webhook is a row in the database in which the helper keeps its marks.
    `now` is the clock of the marks, in seconds.
    """

    def __init__(self, *, dedupe: bool, now: Callable[[], float] = time) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[str, set[bytes]] = {}
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._database.execute(_EFFECTS)
        self._dedupe: Dedupe | None = None
        if dedupe:
            store = SQLiteStore(self._database)
            store.create_table()
            self._dedupe = Dedupe(store, now=now)

    def take(self, webhook_id: str, body: bytes) -> int:
        """A webhook has come: the status that it is answered with."""
        with self._lock:
            self._bodies.setdefault(webhook_id, set()).add(body)
            if self._dedupe is None:
                self._do(webhook_id)
                return 200
            try:
                self._dedupe.once(webhook_id, fingerprint(body), lambda: self._do(webhook_id))
            except WebhookInProgress:
                return 409
            except WebhookReused:
                return 422
            return 200

    def _do(self, webhook_id: str) -> None:
        self._database.execute("INSERT INTO effects VALUES (?)", (webhook_id,))

    def counts(self) -> Counter[str]:
        """How many effects each webhook-id had."""
        with self._lock:
            rows = self._database.execute("SELECT webhook_id, COUNT(*) FROM effects GROUP BY 1")
            return Counter(dict(rows.fetchall()))

    def wrong(self) -> list[str]:
        """What no sender may cause, in sentences: one id with two bodies, or with two effects.

        Two effects are wrong with `dedupe` only.
        """
        found = [f"{each} came with two bodies" for each, of in self._bodies.items() if len(of) > 1]
        if self._dedupe is not None:
            found += [f"{each} had {n} effects" for each, n in self.counts().items() if n > 1]
        return found

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._database.close()
