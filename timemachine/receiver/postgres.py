"""Marks of webhooks in a PostgreSQL database, beside the tables of the application.

Needs PostgreSQL 13 or newer and psycopg 3: `pip install 'timemachine[postgres]'`. The connection
is the application's: any psycopg.Connection, autocommit or not, with any factories of rows and
cursors.

**Why an effect happens once.** A mark is only ever written by a statement that compares, and two
such statements wait for each other: an INSERT for another one of the same id, an UPDATE for who
has changed the row. When the other has committed, PostgreSQL looks again. Under READ COMMITTED the
INSERT then does nothing and the UPDATE finds another token, so the mark is read anew, and is done.
Under REPEATABLE READ and SERIALIZABLE the transaction cannot see what was committed since it began;
PostgreSQL refuses to go on, and that is WebhookBusy.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, LiteralString, NoReturn

import psycopg
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from timemachine import limits
from timemachine.errors import WebhookBusy
from timemachine.receiver.dedupe import Mark

SCHEMA: Final[tuple[LiteralString, ...]] = (
    # Text is kept as its bytes in UTF-8: whatever the encoding of the database is, and with NUL.
    """CREATE TABLE IF NOT EXISTS timemachine_webhooks (
    id BYTEA NOT NULL PRIMARY KEY,
    fingerprint BYTEA NOT NULL,
    token BIGINT NOT NULL,
    lease_until_ms BIGINT,
    result BYTEA,
    expires_ms BIGINT NOT NULL
)""",
    """CREATE INDEX IF NOT EXISTS timemachine_webhooks_expires
ON timemachine_webhooks (expires_ms)""",
)
"""The statements that make the table, for applications with migrations of their own."""

_CREATING: Final = int.from_bytes(b"timemach")
"""The advisory lock of who makes the table."""

# Another worker was in the way, or the statement was ended because it waited for too long.
_BUSY: Final = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.SerializationFailure,
)


class PostgresStore:
    """Keeps marks in the table `timemachine_webhooks` of a database.

    `connection` is used, and never closed. As a transaction belongs to a connection, it is for one
    thread at a time. It must not be in pipeline mode: RuntimeError.

    `lock_timeout_ms` is for how long a statement in a transaction of the store waits for a lock,
    unless the connection has a `lock_timeout` already.

    `joins` says that whoever turned autocommit off has begun a transaction with that, and ends it,
    though PostgreSQL hears of it with the first statement only. So is Django's `atomic()`. Then
    what the store does is a part of that transaction, be it the first statement in it or not.
    """

    transactional: Final = True

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        *,
        lock_timeout_ms: int = limits.POSTGRES_LOCK_TIMEOUT_MS,
        joins: bool = False,
    ) -> None:
        if lock_timeout_ms < 1:
            raise ValueError("lock_timeout_ms must be at least 1: for PostgreSQL 0 is for ever")
        self._connection = connection
        self._lock_timeout = f"{lock_timeout_ms}ms"
        self._joins = joins

    def create_table(self) -> None:
        """Make the table if it is not there. Once, when the application starts."""
        with self.transaction():
            # Even IF NOT EXISTS takes a lock that waits for all who write to the table.
            made = self._execute("SELECT to_regclass('timemachine_webhooks_expires')").fetchone()
            if made == (None,):
                # Two who make one table at once would both find that it does not exist.
                self._execute("SELECT pg_advisory_xact_lock(%s)", (_CREATING,))
                for statement in SCHEMA:
                    self._execute(statement)

    @property
    def in_transaction(self) -> bool:
        """Is a transaction open on the connection?"""
        status = self._connection.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of its own, or a part of the one that is open, by a savepoint.

        As with psycopg's own `connection.transaction()`, a connection that is not in autocommit
        has one open from its first statement on, unless the store joins; and inside the block its
        commit() and rollback() are refused.

        RuntimeError when a statement inside has ended the transaction nevertheless. What it did
        since then is committed: its first half is already.
        """
        thrown: BaseException | None = None
        whole = True
        try:
            if self._joins and not self._connection.autocommit and not self.in_transaction:
                self._execute("SELECT 1")  # begins what is to be joined
            own = not self.in_transaction
            with self._begun() as block:
                transaction_id, bounded = self._enter()
                try:
                    yield
                except BaseException as error:
                    thrown = error
                    raise
                whole = self._is_in(transaction_id)
                if whole and bounded and not own:
                    self._execute("SELECT set_config('lock_timeout', '0', true)")
                if not (whole or own):
                    self._make_savepoint(block)
        except _BUSY as error:
            if error is thrown:
                raise
            raise WebhookBusy from error
        if thrown is not None:
            raise thrown  # a psycopg.Rollback, with which psycopg ends its innermost block
        if not whole:
            _raise_ended()

    def load(self, webhook_id: str) -> Mark | None:
        """The mark with this id, whether expired or not."""
        row = self._execute(
            "SELECT fingerprint, token, lease_until_ms, result, expires_ms"
            " FROM timemachine_webhooks WHERE id = %s",
            (webhook_id.encode(),),
        ).fetchone()
        if row is None:
            return None
        fingerprint, token, lease_until_ms, result, expires_ms = row
        return Mark(
            webhook_id=webhook_id,
            fingerprint=bytes(fingerprint).decode(),
            token=token,
            lease_until_ms=lease_until_ms,
            result=None if result is None else bytes(result).decode(),
            expires_ms=expires_ms,
        )

    def replace(self, old: Mark | None, new: Mark) -> bool:
        """Compare and set: write `new` if the mark is still `old`, or there still is none."""
        values = (
            new.fingerprint.encode(),
            new.token,
            new.lease_until_ms,
            None if new.result is None else new.result.encode(),
            new.expires_ms,
            new.webhook_id.encode(),
        )
        if old is None:
            cursor = self._execute(
                "INSERT INTO timemachine_webhooks"
                " (fingerprint, token, lease_until_ms, result, expires_ms, id)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
                values,
            )
        else:
            cursor = self._execute(
                "UPDATE timemachine_webhooks SET fingerprint = %s, token = %s,"
                " lease_until_ms = %s, result = %s, expires_ms = %s"
                " WHERE id = %s AND token = %s",
                (*values, old.token),
            )
        return cursor.rowcount == 1

    def purge(self, now_ms: int, rows_max: int) -> int:
        """Forget marks that have expired, the oldest first; not those that others work on.

        Two who purge at once take different ones, and nobody waits.
        """
        # An ARRAY is made once, so that no plan can look for the oldest again and again.
        return self._execute(
            "DELETE FROM timemachine_webhooks WHERE id = ANY (ARRAY ("
            "SELECT id FROM timemachine_webhooks WHERE expires_ms <= %s"
            " ORDER BY expires_ms LIMIT %s FOR UPDATE SKIP LOCKED))",
            (now_ms, rows_max),
        ).rowcount

    def _begun(self) -> AbstractContextManager[psycopg.Transaction | None]:
        """A transaction by psycopg, where it would not refuse to begin one."""
        if self._connection.info.transaction_status == TransactionStatus.IDLE:
            try:
                self._connection.commit()  # commits nothing, but is refused inside a block
            except psycopg.ProgrammingError:
                return self._begun_by_hand()
        return self._connection.transaction()

    @contextmanager
    def _begun_by_hand(self) -> Iterator[None]:
        """A transaction inside a block of psycopg whose own one a statement has ended."""
        if self._connection.autocommit:
            self._execute("BEGIN")
        try:
            yield
        except BaseException:
            self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def _make_savepoint(self, block: psycopg.Transaction | None) -> None:
        """The savepoint that psycopg is about to release, which went with its transaction."""
        if block is None or block.savepoint_name is None or not self.in_transaction:
            _raise_ended()
        self._execute(sql.SQL("SAVEPOINT {}").format(sql.Identifier(block.savepoint_name)))

    def _enter(self) -> tuple[str, bool]:
        """The transaction's id, and whether waiting for locks was bounded just now."""
        row = self._execute(
            "SELECT pg_current_xact_id()::text, CASE current_setting('lock_timeout')"
            " WHEN '0' THEN set_config('lock_timeout', %s, true) END",
            (self._lock_timeout,),
        ).fetchone()
        assert row is not None
        transaction_id, timeout = row
        return transaction_id, timeout is not None

    def _is_in(self, transaction_id: str) -> bool:
        """Is this still the transaction that is open?"""
        if not self.in_transaction:
            return False
        return self._execute("SELECT pg_current_xact_id()::text").fetchone() == (transaction_id,)

    def _execute(
        self, statement: LiteralString | sql.Composed, values: Sequence[object] = ()
    ) -> psycopg.Cursor[TupleRow]:
        if self._connection.info.pipeline_status != PipelineStatus.OFF:
            raise RuntimeError("PostgresStore needs each answer at once: leave the pipeline mode.")
        # Neither the rows nor the placeholders depend on the factories of the application.
        cursor = psycopg.Cursor(self._connection, row_factory=tuple_row)
        try:
            return cursor.execute(statement, values)
        except _BUSY as error:
            raise WebhookBusy from error


def _raise_ended() -> NoReturn:
    raise RuntimeError(
        "The transaction was ended inside its block: nothing there may execute COMMIT or ROLLBACK."
    )
