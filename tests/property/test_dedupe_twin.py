"""Two workers on one database, whatever they do in turns, against a twin that is easy to trust."""

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from timemachine.receiver import (
    Dedupe,
    Done,
    InProgress,
    New,
    WebhookBusy,
    WebhookClaimLost,
    WebhookInProgress,
    WebhookReused,
)
from timemachine.receiver.sqlite import SQLiteStore, connect
from timemachine.testing import ManualClock

TTL_MS, LEASE_MS = 8 * 86_400_000, 120_000
WORKERS = st.integers(0, 1)
IDS = st.sampled_from(["a", "b", "c"])
PRINTS = st.sampled_from(["one", "one", "one", "two"])
RESULTS = st.sampled_from([None, "", "paid"])
PAUSES_MS = st.sampled_from([1, 1_000, LEASE_MS - 1, LEASE_MS, TTL_MS - LEASE_MS, TTL_MS])


@dataclass
class Known:
    """What the twin knows of a webhook. `holder` is the claim that may commit."""

    print_: str
    expires_ms: int
    lease_until_ms: int = 0
    holder: object = None
    done: bool = False
    result: str | None = None


class Twins(RuleBasedStateMachine):
    """Each worker has a connection, and claims that it may commit, give back or forget.

    A worker may have a transaction open; then the other one is told that the database is busy.
    """

    @initialize()
    def begin(self) -> None:
        """A new database."""
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "app.db")
        self.clock = ManualClock()
        self.connections = [connect(path, busy_timeout_ms=0) for _ in range(2)]
        self.workers = [Dedupe(SQLiteStore(each), now=self.clock) for each in self.connections]
        SQLiteStore(self.connections[0]).create_table()
        self.connections[0].execute("CREATE TABLE effects (life TEXT)")
        self.claims: list[list[tuple[New, object]]] = [[], []]
        self.known: dict[str, Known] = {}
        self.effects: list[str] = []
        # What holds again when the open transaction is rolled back.
        self.open: tuple[int, dict[str, Known], list[str]] | None = None

    # --- transactions ---

    @precondition(lambda self: self.open is None)
    @rule(worker=WORKERS)
    def open_transaction(self, worker: int) -> None:
        """A framework opens one, and takes the lock."""
        self.connections[worker].execute("BEGIN IMMEDIATE")
        copies = {key: Known(**vars(each)) for key, each in self.known.items()}
        self.open = (worker, copies, list(self.effects))

    @precondition(lambda self: self.open is not None)
    @rule(commits=st.booleans())
    def close_transaction(self, *, commits: bool) -> None:
        """It ends, or its worker dies."""
        assert self.open is not None
        worker, known, effects = self.open
        self.connections[worker].execute("COMMIT" if commits else "ROLLBACK")
        if not commits:
            self.known, self.effects = known, effects
        self.open = None

    def busy(self, worker: int) -> bool:
        """Does the other worker hold the lock?"""
        return self.open is not None and self.open[0] != worker

    # --- webhooks ---

    def alive(self, webhook_id: str) -> Known | None:
        """What is not forgotten yet."""
        known = self.known.get(webhook_id)
        return known if known and known.expires_ms > self.clock.now_ms else None

    @rule(worker=WORKERS, webhook_id=IDS, print_=PRINTS)
    def claim(self, worker: int, webhook_id: str, print_: str) -> None:
        """`begin` says what the twin says."""
        dedupe, known, now_ms = self.workers[worker], self.alive(webhook_id), self.clock.now_ms
        if self.busy(worker):
            with pytest.raises(WebhookBusy):
                dedupe.begin(webhook_id, print_)
        elif known and known.print_ != print_:
            with pytest.raises(WebhookReused):
                dedupe.begin(webhook_id, print_)
        elif known and known.done:
            assert Done(known.result) == dedupe.begin(webhook_id, print_)
            known.expires_ms = now_ms + TTL_MS
        elif known and known.lease_until_ms > now_ms:
            assert InProgress(known.lease_until_ms) == dedupe.begin(webhook_id, print_)
        else:
            claim = dedupe.begin(webhook_id, print_)
            assert isinstance(claim, New)
            assert claim.taken_over == (known is not None)
            holder = object()
            self.known[webhook_id] = Known(print_, now_ms + TTL_MS, now_ms + LEASE_MS, holder)
            self.claims[worker].append((claim, holder))

    @rule(worker=WORKERS, webhook_id=IDS, print_=PRINTS, result=RESULTS, fails=st.booleans())
    def once(
        self, worker: int, webhook_id: str, print_: str, result: str | None, *, fails: bool
    ) -> None:
        """`once` has an effect exactly when the twin has."""
        dedupe, known, now_ms = self.workers[worker], self.alive(webhook_id), self.clock.now_ms

        def effect() -> str | None:
            self.connections[worker].execute("INSERT INTO effects VALUES (?)", (webhook_id,))
            if fails:
                raise ConnectionError
            return result

        error: type[Exception] | None = None
        if self.busy(worker):
            error = WebhookBusy
        elif known and known.print_ != print_:
            error = WebhookReused
        elif known and not known.done and known.lease_until_ms > now_ms:
            error = WebhookInProgress
        elif not (known and known.done) and fails:
            error = ConnectionError
        if error is not None:
            with pytest.raises(error):
                dedupe.once(webhook_id, print_, effect)
            return
        if known and known.done:
            assert Done(known.result) == dedupe.once(webhook_id, print_, effect)
            known.expires_ms = now_ms + TTL_MS
            return
        assert Done(result, repeated=False) == dedupe.once(webhook_id, print_, effect)
        self.known[webhook_id] = Known(print_, now_ms + TTL_MS, done=True, result=result)
        self.effects.append(webhook_id)

    @rule(worker=WORKERS, number=st.integers(0, 5), result=RESULTS)
    def commit(self, worker: int, number: int, result: str | None) -> None:
        """A claim of any age is committed with its effect, or neither is."""
        if not self.claims[worker]:
            return
        claim, holder = self.claims[worker][number % len(self.claims[worker])]
        webhook_id = claim.mark.webhook_id

        def work() -> None:
            with self.workers[worker].transaction():
                self.connections[worker].execute("INSERT INTO effects VALUES (?)", (webhook_id,))
                self.workers[worker].commit(claim, result)

        known = self.known.get(webhook_id)
        if self.busy(worker):
            with pytest.raises(WebhookBusy):
                work()
        elif known is None or known.holder is not holder or known.done:
            with pytest.raises(WebhookClaimLost):
                work()
        elif known.expires_ms <= self.clock.now_ms:
            # Forgotten or about to be: whichever, effect and mark agree.
            try:
                work()
            except WebhookClaimLost:
                del self.known[webhook_id]
            else:
                self.settle(known, webhook_id, result)
        else:
            work()
            self.settle(known, webhook_id, result)

    def settle(self, known: Known, webhook_id: str, result: str | None) -> None:
        """The twin's commit."""
        known.done, known.result = True, result
        known.expires_ms = self.clock.now_ms + TTL_MS
        self.effects.append(webhook_id)

    @rule(worker=WORKERS, number=st.integers(0, 5))
    def release(self, worker: int, number: int) -> None:
        """A claim of any age is given back; that frees the webhook only if it still holds it."""
        if not self.claims[worker]:
            return
        claim, holder = self.claims[worker][number % len(self.claims[worker])]
        if self.busy(worker):
            with pytest.raises(WebhookBusy):
                self.workers[worker].release(claim)
            return
        self.workers[worker].release(claim)
        known = self.known.get(claim.mark.webhook_id)
        if known and known.holder is holder and not known.done:
            known.lease_until_ms, known.holder = self.clock.now_ms, None

    @rule(duration_ms=PAUSES_MS)
    def wait(self, duration_ms: int) -> None:
        """Time passes."""
        self.clock.advance(duration_ms)

    # --- what holds ---

    @invariant()
    def effects_are_those_of_the_twin(self) -> None:
        """Nothing happens twice, nothing is lost, nothing is seen before it is committed."""
        for worker, connection in enumerate(self.connections):
            expected = self.open[2] if self.open and self.open[0] != worker else self.effects
            assert sorted(expected) == sorted(_effects(connection))

    @invariant()
    def transactions_are_left_as_they_were(self) -> None:
        """No call leaves one open or ends one that is not its own."""
        for worker, connection in enumerate(self.connections):
            assert (self.open is not None and self.open[0] == worker) == connection.in_transaction

    def teardown(self) -> None:
        """Close what is open."""
        for connection in self.connections:
            connection.close()
        self.folder.cleanup()


def _effects(connection: sqlite3.Connection) -> list[str]:
    with closing(connection.execute("SELECT life FROM effects")) as cursor:
        return [life for (life,) in cursor]


TestTwins = Twins.TestCase
TestTwins.settings = settings(stateful_step_count=40)


def test_a_claim_that_was_rolled_back_is_no_claim() -> None:
    """Found by the twins: it had the number of the next worker's claim, and could commit it."""
    state = Twins()
    state.begin()
    try:
        state.open_transaction(0)
        state.claim(0, "a", "one")
        state.close_transaction(commits=False)
        state.claim(1, "a", "one")
        state.commit(0, 0, None)
        state.effects_are_those_of_the_twin()
    finally:
        state.teardown()
