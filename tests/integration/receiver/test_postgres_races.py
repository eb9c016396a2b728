"""Workers that meet in PostgreSQL, at every level of isolation: who waits, who wins, who gives up.

No test is decided by how long something takes: who has to wait is seen to wait, in the server's own
view of it, before the other one goes on.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Barrier
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.cluster.process import wait_until
from timemachine.receiver import (
    Dedupe,
    Done,
    InProgress,
    New,
    WebhookBusy,
    WebhookClaimLost,
    WebhookInProgress,
    fingerprint,
)
from timemachine.receiver.dedupe import Mark
from timemachine.receiver.postgres import PostgresStore

ID = "msg_1"
PRINT = fingerprint(b"{}")
PATIENCE_MS = 60_000
LEASE_S = 120
NOW_S = 1_700_000_000

Connection = psycopg.Connection[Any]

STATEMENTS = [IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED]
"""Each statement sees what was committed before it."""
SNAPSHOTS = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
"""Each transaction sees what was committed before its first statement."""


class Worker:
    """A worker with a connection of its own. A call is begun in a thread, and waited for."""

    def __init__(self, connection: Connection, pool: ThreadPoolExecutor) -> None:
        self.connection = connection
        self._pool = pool
        self.pid = connection.info.backend_pid

    def dedupe(self, *, ahead_s: int = 0, lock_timeout_ms: int = PATIENCE_MS) -> Dedupe:
        """With a clock that is ahead of the others', so that leases end without waiting."""
        store = PostgresStore(self.connection, lock_timeout_ms=lock_timeout_ms)
        return Dedupe(store, now=lambda: NOW_S + ahead_s)

    def pay(self) -> None:
        """An effect."""
        self.connection.execute("INSERT INTO effects VALUES ('paid')")

    def calls(self, call: Callable[[], object]) -> "Future[object]":
        """Begin a call, which may have to wait."""
        return self._pool.submit(call)

    def is_idle(self) -> bool:
        """Is no transaction open?"""
        return self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


class Workers:
    """Makes workers of one database, and looks at them from outside."""

    def __init__(self, place: str, connection: Connection) -> None:
        self.place = place
        self._connection = connection
        self._opened: list[Connection] = []
        self._pool = ThreadPoolExecutor(4)

    def one(self, level: IsolationLevel = IsolationLevel.READ_COMMITTED) -> Worker:
        """A new one."""
        made: Connection = psycopg.connect(self.place, autocommit=True)
        made.isolation_level = level
        self._opened.append(made)
        return Worker(made, self._pool)

    def until_it_waits(self, worker: Worker) -> None:
        """Until the server says that this one waits for a lock."""

        def waits() -> bool:
            row = self._connection.execute(
                "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", (worker.pid,)
            ).fetchone()
            return row is not None and row[0] > 0

        wait_until(waits, "it does not wait")

    def count(self) -> int:
        """How many effects were committed."""
        row = self._connection.execute("SELECT count(*) FROM effects").fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Leave nothing open; who still waits hears that its connection is gone."""
        for each in self._opened:
            self._connection.execute("SELECT pg_terminate_backend(%s)", (each.info.backend_pid,))
        self._pool.shutdown()
        for each in self._opened:
            each.close()


@pytest.fixture
def workers(schema: str) -> Iterator[Workers]:
    """A database with the tables of marks and effects."""
    with closing(psycopg.connect(schema, autocommit=True)) as connection:
        PostgresStore(connection).create_table()
        made = Workers(schema, connection)
        try:
            yield made
        finally:
            made.close()


class Cancelled(Exception):
    """The first one has given up."""


@contextmanager
def holding(worker: Worker, *, commits: bool) -> Iterator[None]:
    """Inside, this worker has done the effect and the mark, and has not committed yet."""
    try:
        with worker.dedupe().transaction():
            assert not worker.dedupe().once(ID, PRINT, worker.pay).repeated
            yield
            if not commits:
                raise Cancelled
    except Cancelled:
        pass


# --- two at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", STATEMENTS)
def test_the_second_waits_and_finds_it_done(workers: Workers, level: IsolationLevel) -> None:
    """Two get a new webhook at once: the second waits for the first, and sees what it has done."""
    first, second = workers.one(level), workers.one(level)
    with holding(first, commits=True):
        seen = second.calls(lambda: second.dedupe().once(ID, PRINT, second.pay))
        workers.until_it_waits(second)
    assert Done(None, repeated=True) == seen.result()
    assert 1 == workers.count()


@pytest.mark.parametrize("level", SNAPSHOTS)
def test_the_second_cannot_see_it_and_is_busy(workers: Workers, level: IsolationLevel) -> None:
    """Its transaction began before the first one's was committed: it must not go on."""
    first, second = workers.one(), workers.one(level)
    with holding(first, commits=True):
        seen = second.calls(lambda: second.dedupe().once(ID, PRINT, second.pay))
        workers.until_it_waits(second)
    with pytest.raises(WebhookBusy):
        seen.result()
    assert second.is_idle()
    assert 1 == workers.count()
    assert second.dedupe().once(ID, PRINT, second.pay).repeated


@pytest.mark.parametrize("level", IsolationLevel)
def test_the_second_does_it_when_the_first_gives_up(
    workers: Workers, level: IsolationLevel
) -> None:
    """What was rolled back has not been."""
    first, second = workers.one(level), workers.one(level)
    with holding(first, commits=False):
        seen = second.calls(lambda: second.dedupe().once(ID, PRINT, second.pay))
        workers.until_it_waits(second)
    assert Done(None, repeated=False) == seen.result()
    assert 1 == workers.count()


@pytest.mark.parametrize("level", IsolationLevel)
def test_the_second_waits_no_longer_than_it_may(workers: Workers, level: IsolationLevel) -> None:
    """Then it is busy, has nothing open, and does it when it is asked again."""
    first, second = workers.one(level), workers.one(level)
    with holding(first, commits=False):
        dedupe = second.dedupe(lock_timeout_ms=1)
        calls: list[Callable[[], object]] = [
            lambda: dedupe.once(ID, PRINT, second.pay),
            lambda: dedupe.begin(ID, PRINT),
        ]
        for call in calls:
            with pytest.raises(WebhookBusy):
                call()
            assert second.is_idle()
        second.connection.execute("BEGIN")
        second.pay()
        with pytest.raises(WebhookBusy):
            dedupe.once(ID, PRINT, second.pay)
        second.connection.execute("COMMIT")  # what it did before is whole
    assert 1 == workers.count()
    assert not second.dedupe().once(ID, PRINT, second.pay).repeated


def test_a_statement_timeout_is_busy_too(workers: Workers) -> None:
    """Where the application bounds each statement, that may come first."""
    first, second = workers.one(), workers.one()
    second.connection.execute("SET statement_timeout = '10ms'")
    with holding(first, commits=True), pytest.raises(WebhookBusy):
        second.dedupe().begin(ID, PRINT)
    assert second.is_idle()


@pytest.mark.parametrize("level", IsolationLevel)
def test_a_claim_is_one_workers(workers: Workers, level: IsolationLevel) -> None:
    """Two claim at once: one gets it, the other hears so, or that it has to ask again."""
    first, second = workers.one(level), workers.one(level)
    with first.dedupe().transaction():
        claim = first.dedupe().begin(ID, PRINT)
        seen = second.calls(lambda: second.dedupe().begin(ID, PRINT))
        workers.until_it_waits(second)
    assert isinstance(claim, New)
    if level in SNAPSHOTS:
        with pytest.raises(WebhookBusy):
            seen.result()
    else:
        assert isinstance(seen.result(), InProgress)
    assert isinstance(second.dedupe().begin(ID, PRINT), InProgress)


@pytest.mark.parametrize("level", IsolationLevel)
def test_a_dead_workers_claim_is_taken_over_once(workers: Workers, level: IsolationLevel) -> None:
    """Both see that its lease has run out; one takes it over."""
    first, second = workers.one(level), workers.one(level)
    workers.one().dedupe().begin(ID, PRINT)
    with first.dedupe().transaction():
        claim = first.dedupe(ahead_s=LEASE_S).begin(ID, PRINT)
        seen = second.calls(lambda: second.dedupe(ahead_s=LEASE_S).begin(ID, PRINT))
        workers.until_it_waits(second)
    assert isinstance(claim, New)
    assert claim.taken_over
    if level in SNAPSHOTS:
        with pytest.raises(WebhookBusy):
            seen.result()
    else:
        assert isinstance(seen.result(), InProgress)


@pytest.mark.parametrize("level", IsolationLevel)
def test_a_slow_worker_loses_its_claim_while_it_commits(
    workers: Workers, level: IsolationLevel
) -> None:
    """It waits for who takes over, and then cannot commit: its effect is rolled back."""
    slow, quick = workers.one(level), workers.one()
    claim = slow.dedupe().begin(ID, PRINT)
    assert isinstance(claim, New)

    def commit() -> None:
        with slow.dedupe().transaction():
            slow.pay()
            slow.dedupe().commit(claim)

    with quick.dedupe().transaction():
        taken = quick.dedupe(ahead_s=LEASE_S).begin(ID, PRINT)
        committing = slow.calls(commit)
        workers.until_it_waits(slow)
    with pytest.raises(WebhookBusy if level in SNAPSHOTS else WebhookClaimLost):
        committing.result()
    assert slow.is_idle()
    assert 0 == workers.count()
    assert isinstance(taken, New)
    with quick.dedupe().transaction():
        quick.pay()
        quick.dedupe().commit(taken)
    assert 1 == workers.count()


def test_once_waits_for_a_claim_and_respects_it(workers: Workers) -> None:
    """A claim that is just being made holds against `once`."""
    first, second = workers.one(), workers.one()
    with first.dedupe().transaction():
        first.dedupe().begin(ID, PRINT)
        seen = second.calls(lambda: second.dedupe().once(ID, PRINT, second.pay))
        workers.until_it_waits(second)
    with pytest.raises(WebhookInProgress):
        seen.result()
    assert 0 == workers.count()


def test_who_waits_for_each_other_is_told(workers: Workers) -> None:
    """PostgreSQL ends one of two that would wait for ever, and that one is busy."""
    barrier = Barrier(2)

    def batch(worker: Worker, outer: str, inner: str) -> bool:
        def effect() -> None:
            barrier.wait()
            worker.dedupe().once(inner, PRINT, worker.pay)

        try:
            worker.dedupe().once(outer, PRINT, effect)
        except WebhookBusy:
            return False
        return True

    one, other = workers.one(), workers.one()
    for each in (one, other):
        each.connection.execute("SET deadlock_timeout = '10ms'")
    results = [
        one.calls(lambda: batch(one, "a", "b")),
        other.calls(lambda: batch(other, "b", "a")),
    ]
    assert [False, True] == sorted(bool(each.result()) for each in results)
    assert 1 == workers.count()


def test_what_could_not_have_happened_in_turns_is_busy(workers: Workers) -> None:
    """At SERIALIZABLE, of two effects that each looked for the other's one is rolled back."""
    first, second = (workers.one(IsolationLevel.SERIALIZABLE) for _ in range(2))

    def looks_first(worker: Worker) -> None:
        row = worker.connection.execute("SELECT count(*) FROM effects").fetchone()
        assert row == (0,)
        worker.pay()

    def has_company() -> None:
        looks_first(first)
        second.dedupe().once("msg_2", PRINT, lambda: looks_first(second))

    with pytest.raises(WebhookBusy):
        first.dedupe().once(ID, PRINT, has_company)
    assert first.is_idle()
    assert 1 == workers.count()


# --- forgetting --------------------------------------------------------------------------------


def expired(webhook_id: str, token: int = 1) -> Mark:
    """A mark that may be forgotten."""
    return Mark(
        webhook_id=webhook_id,
        fingerprint=PRINT,
        token=token,
        lease_until_ms=None,
        result=None,
        expires_ms=NOW_S * 1000,
    )


def test_forgetting_waits_for_nobody(workers: Workers) -> None:
    """Two who forget at once take different marks; one that is just seen again is not forgotten."""
    first, second, third = workers.one(), workers.one(), workers.one()
    store = PostgresStore(first.connection)
    with store.transaction():
        for number in range(10):
            assert store.replace(None, expired(f"old_{number}"))
    with first.dedupe().transaction(), third.dedupe().transaction():
        assert 4 == first.dedupe().purge(4)
        # With an older clock it is not expired yet.
        assert isinstance(third.dedupe(ahead_s=-10).begin("old_9", PRINT), Done)
        assert 5 == second.dedupe(lock_timeout_ms=1).purge()
    assert 0 == second.dedupe().purge()
    assert isinstance(second.dedupe().begin("old_9", PRINT), Done)


def test_a_mark_that_is_being_forgotten_is_new(workers: Workers) -> None:
    """Who gets a webhook while its old mark is deleted waits, and then makes a new one."""
    first, second = workers.one(), workers.one()
    store = PostgresStore(first.connection)
    assert store.replace(None, expired(ID))
    with first.dedupe().transaction():
        assert 1 == first.dedupe().purge()
        seen = second.calls(lambda: second.dedupe().once(ID, PRINT, second.pay))
        workers.until_it_waits(second)
    assert Done(None, repeated=False) == seen.result()


# --- the table ---------------------------------------------------------------------------------


def test_making_the_table_again_waits_for_nobody(workers: Workers) -> None:
    """An application that starts does not wait for the effects of those that run."""
    first, second = workers.one(), workers.one()
    with holding(first, commits=True):
        PostgresStore(second.connection, lock_timeout_ms=1).create_table()
    assert 1 == workers.count()


def test_a_locked_table_is_busy(workers: Workers) -> None:
    """Also where it is only read: a change of the table is in the way for a while."""
    first, second = workers.one(), workers.one()
    with first.connection.transaction():
        first.connection.execute("LOCK TABLE timemachine_webhooks")
        with pytest.raises(WebhookBusy):
            second.dedupe(lock_timeout_ms=1).begin(ID, PRINT)
        with pytest.raises(WebhookBusy):
            second.dedupe(lock_timeout_ms=1).purge()
    assert second.is_idle()
    assert isinstance(second.dedupe().begin(ID, PRINT), New)
