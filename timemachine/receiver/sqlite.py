"""Marks of webhooks in an SQLite database, beside the tables of the application.

The connection is the application's: any sqlite3.Connection, in any of its transaction modes, from
`connect` here or from a framework. All statements are run by hand, none by the module's own
commit() and rollback(), whose meaning depends on those modes.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from timemachine import limits
from timemachine.errors import WebhookBusy
from timemachine.receiver.dedupe import Mark

if TYPE_CHECKING:
    import os

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS timemachine_webhooks (
    id TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    token INTEGER NOT NULL,
    lease_until_ms INTEGER,
    result TEXT,
    expires_ms INTEGER NOT NULL
)""",
    """CREATE INDEX IF NOT EXISTS timemachine_webhooks_expires
ON timemachine_webhooks (expires_ms)""",
)
"""The statements that make the table, for applications with migrations of their own."""

_COLUMNS: Final = "id, fingerprint, token, lease_until_ms, result, expires_ms"
_SAVEPOINT: Final = "timemachine_webhooks"


def connect(
    path: "str | os.PathLike[str]", *, busy_timeout_ms: int = limits.SQLITE_BUSY_TIMEOUT_MS
) -> sqlite3.Connection:
    """Open a database as a recipient wants it. Close it, e.g. with contextlib.closing.

    * WAL: readers do not wait for the writer, nor the writer for readers.
    * Full synchronisation: what was answered 2xx survives a loss of power. WAL alone does not.
    * A writer waits for others for `busy_timeout_ms`, then WebhookBusy.
    * No transaction begins by itself: `with dedupe.transaction()`.
    """
    connection = sqlite3.connect(path, timeout=busy_timeout_ms / 1000, isolation_level=None)
    try:
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


class SQLiteStore:
    """Keeps marks in the table `timemachine_webhooks` of a database.

    `connection` is used, and never closed. One connection must not be used by two threads at a
    time; sqlite3 refuses it, unless it is told not to look.
    """

    transactional: Final = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def create_table(self) -> None:
        """Make the table if it is not there. Once, when the application starts."""
        with self.transaction():
            for statement in SCHEMA:
                self._execute(statement)

    @property
    def in_transaction(self) -> bool:
        """Is a transaction open on the connection?"""
        return self._connection.in_transaction

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of its own, or a part of the one that is open, by a savepoint.

        One of its own takes the write lock at once, so that workers wait for each other at its
        start, up to the time-out of the connection, and not in its middle. WebhookBusy after that.

        RuntimeError when something inside has ended the transaction, as `with connection:` does.
        What it did since then is committed nevertheless: its first half is already.
        """
        own = not self._connection.in_transaction
        if own:
            self._execute("BEGIN IMMEDIATE")
        try:
            self._execute(f"SAVEPOINT {_SAVEPOINT}")
            yield
            whole = self._release()
            if own and self._connection.in_transaction:
                self._execute("COMMIT")
        except BaseException:
            self._undo(own=own)
            raise
        if not whole:
            raise RuntimeError(
                "The transaction was ended inside its block: nothing there may commit, roll back"
                " or use `with connection:`."
            )

    def load(self, webhook_id: str) -> Mark | None:
        """The mark with this id, whether expired or not."""
        row = self._execute(
            f"SELECT {_COLUMNS} FROM timemachine_webhooks WHERE id = ?",  # noqa: S608 - constants
            (webhook_id,),
        ).fetchone()
        if row is None:
            return None
        webhook_id, fingerprint, token, lease_until_ms, result, expires_ms = row
        return Mark(
            webhook_id=webhook_id,
            fingerprint=fingerprint,
            token=token,
            lease_until_ms=lease_until_ms,
            result=result,
            expires_ms=expires_ms,
        )

    def replace(self, old: Mark | None, new: Mark) -> bool:
        """Compare and set: write `new` if the mark is still `old`, or there still is none."""
        values = (
            new.fingerprint,
            new.token,
            new.lease_until_ms,
            new.result,
            new.expires_ms,
            new.webhook_id,
        )
        if old is None:
            cursor = self._execute(
                "INSERT INTO timemachine_webhooks"
                " (fingerprint, token, lease_until_ms, result, expires_ms, id)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                values,
            )
        else:
            cursor = self._execute(
                "UPDATE timemachine_webhooks SET fingerprint = ?, token = ?,"
                " lease_until_ms = ?, result = ?, expires_ms = ?"
                " WHERE id = ? AND token = ?",
                (*values, old.token),
            )
        return cursor.rowcount == 1

    def purge(self, now_ms: int, rows_max: int) -> int:
        """Forget marks that have expired, the oldest first."""
        return self._execute(
            "DELETE FROM timemachine_webhooks WHERE id IN (SELECT id FROM timemachine_webhooks"
            " WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?)",
            (now_ms, rows_max),
        ).rowcount

    def _release(self) -> bool:
        """End the innermost savepoint; False when its transaction is gone."""
        try:
            self._execute(f"RELEASE {_SAVEPOINT}")
        except sqlite3.OperationalError as error:
            if _is_missing_savepoint(error):
                return False
            raise
        return True

    def _undo(self, *, own: bool) -> None:
        """Leave nothing of the block, as far as the transaction is still there."""
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute(f"ROLLBACK TO {_SAVEPOINT}")
            self._connection.execute(f"RELEASE {_SAVEPOINT}")
        except sqlite3.OperationalError as error:
            # It was released already, or somebody ended its transaction and began another.
            if not _is_missing_savepoint(error):
                raise
        if own and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        cursor = self._connection.cursor()
        cursor.row_factory = None  # rows are tuples, whatever the application makes of its own
        try:
            return cursor.execute(statement, values)
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise WebhookBusy from error
            raise


def _is_busy(error: sqlite3.OperationalError) -> bool:
    # The extended codes have the plain one in their last byte.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_missing_savepoint(error: sqlite3.OperationalError) -> bool:
    # SQLite has no code of its own for it.
    return re.match("no such savepoint", str(error)) is not None


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch a database to WAL, unless it is.

    Where several processes open a new database at once, only one can switch it, and the others
    hear that it is locked without being let to wait. A transaction does wait.
    """
    for _ in range(limits.SQLITE_WAL_TRIES_MAX):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("COMMIT")
            except sqlite3.OperationalError as waited:
                if not _is_busy(waited):
                    raise
        else:
            return
    raise WebhookBusy
