"""Was this webhook here before? The effect of a webhook happens once, however often it comes.

A store keeps one mark for each `webhook-id`. The life of a mark:

    (none) --begin--> in progress --commit--> done --ttl--> (none)
                       |       ^
                       `-------'  begin, after release or when the lease has run out

**Short effects** in the database of the marks: `once`. It claims, does the effect and marks it done
in one transaction. A crash anywhere in it leaves nothing; two workers at once wait for each other.

**Long effects**, or effects elsewhere: `begin`, then work, then `commit`. The claim is visible at
once, so other workers hear InProgress. A worker that dies leaves its claim behind; when the lease
has run out, the next `begin` takes it over. The worker may not be dead but slow: then two work on
one webhook. Therefore a mark has a token, drawn anew with every change, and `commit` succeeds only
while the mark still has the token of the claim. Of all who claimed, one commits; the others get
WebhookClaimLost, and what they did in the transaction around `commit` is rolled back with it. What
they did elsewhere is not, so give it the `webhook-id` as its own idempotency key.

**Effects that no transaction can hold** together with the mark: the store is not `transactional`,
as that of Redis. There is `begin`, work, `commit`, and no `once`: who dies between its effect and
its `commit` is followed by one who does the effect again.

**For how long.** A mark is forgotten when its webhook was not seen for `ttl_s`. Senders repeat for
days, and people redrive later still. The five minutes that a signature is good for have nothing to
do with it: every attempt is signed anew.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from timemachine import limits
from timemachine.errors import (
    WebhookBusy,
    WebhookClaimLost,
    WebhookError,
    WebhookInProgress,
    WebhookReused,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is remembered of one webhook.

    webhook_id      as it came in the header
    fingerprint     of its body
    token           drawn at random for every change of the mark
    lease_until_ms  when its claim may be taken over; None once the webhook is done
    result          what `commit` was given
    expires_ms      when the mark may be forgotten
    """

    webhook_id: str
    fingerprint: str
    token: int
    lease_until_ms: int | None
    result: str | None
    expires_ms: int


class Store(Protocol):
    """Where marks are kept. SQLite, PostgreSQL and Redis are there; others need only this.

    Methods raise WebhookBusy when another worker is in the way for too long.
    """

    @property
    def transactional(self) -> bool:
        """Can an effect be in one transaction with its mark?

        Where it cannot, each `replace` holds at once, and `transaction` and `in_transaction` mean
        nothing.
        """
        ...

    @property
    def in_transaction(self) -> bool:
        """Will what is done now be committed or rolled back together with what comes next?"""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """What is done inside happens as a whole, or not at all when an error leaves the block.

        Inside a transaction that is open already, it is part of that one.
        """
        ...

    def load(self, webhook_id: str) -> Mark | None:
        """The mark with this id, whether expired or not."""
        ...

    def replace(self, old: Mark | None, new: Mark) -> bool:
        """Compare and set: write `new` if the mark is still `old`, or there still is none.

        A mark is the same when id and token are. False when another worker was faster.
        """
        ...

    def purge(self, now_ms: int, rows_max: int) -> int:
        """Forget marks that have expired, at most `rows_max`; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class New:
    """The webhook is yours: do the effect, then `commit` this claim.

    With `taken_over` an earlier worker claimed it and did not commit. It died, gave up or is slow;
    what it did outside the database may have happened.
    """

    mark: Mark
    taken_over: bool


@dataclass(frozen=True, slots=True)
class InProgress:
    """Another worker is at it: answer 409, so that the sender tries again later.

    `lease_until_ms` is when its claim may be taken over, in Unix time.
    """

    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """The effect has happened: answer 2xx.

    `result` is what it returned. `repeated` is False only from `once` when it happened just now.
    """

    result: str | None
    repeated: bool = True


def fingerprint(body: bytes) -> str:
    """What a body is recognised by: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


class Dedupe:
    """Remembers which webhooks were here, in `store`.

    It is cheap: make one wherever there is a connection. Like a connection it is for one thread
    at a time.

    `ttl_s` is for how long a webhook is remembered after it was last seen; at least a day. It has
    to be longer than the longest pause between two attempts and than jobs can be redriven.

    `lease_s` is for how long a claim holds against other workers. Choose it longer than the work
    between `begin` and `commit` takes; the effect in the transaction happens once in any case.

    `now` returns the seconds since the Unix epoch. ValueError for durations out of bounds.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl_s: int = limits.DEDUPE_TTL_S,
        lease_s: int = limits.DEDUPE_LEASE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not limits.DEDUPE_TTL_S_MIN <= ttl_s <= limits.DEDUPE_TTL_S_MAX:
            raise ValueError(
                f"ttl_s must be {limits.DEDUPE_TTL_S_MIN} to {limits.DEDUPE_TTL_S_MAX}: webhooks "
                "are repeated for days, whatever the tolerance of their signature is"
            )
        if not 1 <= lease_s <= ttl_s:
            raise ValueError("lease_s must be at least 1 and at most ttl_s")
        self._store = store
        self._ttl_ms = ttl_s * 1000
        self._lease_ms = lease_s * 1000
        self._now = now

    def once(self, webhook_id: str, fingerprint: str, effect: Callable[[], str | None]) -> Done:
        """Call `effect` if this webhook was not here before, as one transaction with its mark.

        The effect writes through the store's connection, and neither commits nor rolls back. What
        it returns is the `result` that repeats get. What it raises is raised here, after all of
        it was rolled back, and the next repeat tries again.

        Inside a transaction that is open already, the effect is part of that one: it has happened
        when that is committed. Raises WebhookInProgress while another worker holds a claim from
        `begin`, WebhookReused, WebhookBusy. RuntimeError when the store is not transactional.
        """
        self._check_transactional("once()")
        with self._store.transaction():
            seen = self.begin(webhook_id, fingerprint)
            if isinstance(seen, InProgress):
                raise WebhookInProgress
            if isinstance(seen, Done):
                return seen
            result = effect()
            self._settle(seen, result)
        return Done(result, repeated=False)

    def begin(self, webhook_id: str, fingerprint: str) -> New | InProgress | Done:
        """Claim a webhook, unless it is done or another worker is at it.

        The claim is on disk and seen by all when this returns, unless a transaction was open
        already: then when that is committed. Raises WebhookReused when the id was here with
        another fingerprint, WebhookBusy, and WebhookError for an id that no sender has.
        """
        _check_bytes("webhook-id", webhook_id, limits.DEDUPE_ID_BYTES_MAX)
        _check_bytes("fingerprint", fingerprint, limits.DEDUPE_FINGERPRINT_BYTES_MAX)
        now_ms = self._now_ms()
        with self._store.transaction():
            self._store.purge(now_ms, limits.DEDUPE_PURGED_ROWS_MAX)
            for _ in range(limits.DEDUPE_TRIES_MAX):
                old = self._store.load(webhook_id)
                seen, new = self._judge(old, webhook_id, fingerprint, now_ms)
                if new is None or self._store.replace(old, new):
                    return seen
        raise WebhookBusy

    def commit(self, claim: New, result: str | None = None) -> None:
        """Mark a webhook done, in the transaction that is open.

            with dedupe.transaction():
                connection.execute(...)  # the effect
                dedupe.commit(claim)

        It does not end the transaction, and holds when that is committed. Raises WebhookClaimLost
        when another worker has taken the claim over: let it leave the block, so that the effect is
        rolled back. RuntimeError when no transaction is open, since effect and mark could part.

        A store that is not transactional has none to open: call it when the effect has happened.
        """
        if result is not None:
            if not isinstance(result, str):
                raise TypeError(f"the result must be text or None, not {type(result).__name__}")
            if len(result.encode()) > limits.DEDUPE_RESULT_BYTES_MAX:
                raise ValueError(f"the result has over {limits.DEDUPE_RESULT_BYTES_MAX} bytes")
        if self._store.transactional and not self._store.in_transaction:
            raise RuntimeError("commit() needs the open transaction in which the effect is")
        done = replace(
            claim.mark,
            token=_token(),
            lease_until_ms=None,
            result=result,
            expires_ms=self._now_ms() + self._ttl_ms,
        )
        if not self._store.replace(claim.mark, done):
            raise WebhookClaimLost

    def release(self, claim: New) -> None:
        """Give a claim back, so that the next repeat need not wait for the end of the lease.

        For effects that failed. Does nothing when the claim was taken over or committed.
        """
        now_ms = self._now_ms()
        with self._store.transaction():
            free = replace(claim.mark, token=_token(), lease_until_ms=now_ms)
            self._store.replace(claim.mark, free)

    def transaction(self) -> AbstractContextManager[None]:
        """A transaction of the store, for an effect and its `commit`.

        RuntimeError when the store is not transactional.
        """
        self._check_transactional("transaction()")
        return self._store.transaction()

    def purge(self, rows_max: int = 1_000) -> int:
        """Forget marks that have expired, at most `rows_max`; returns how many.

        Every `begin` and `once` forgets some too. This is for a job that wants the rest gone.
        """
        with self._store.transaction():
            return self._store.purge(self._now_ms(), rows_max)

    def _check_transactional(self, call: str) -> None:
        if not self._store.transactional:
            raise RuntimeError(
                f"{call} needs a store whose transactions hold the effect, too. With this one use"
                " begin(), commit() and release()."
            )

    def _settle(self, claim: New, result: str | None) -> None:
        """Commit a claim that nobody else can have seen, unless its effect ended the transaction.

        An effect that committed is done, and marked so before its programmer hears of it.
        """
        try:
            if self._store.in_transaction:
                self.commit(claim, result)
                return
            with self._store.transaction():
                self.commit(claim, result)
        except WebhookClaimLost:
            pass  # the effect rolled back, the claim with it
        raise RuntimeError("The effect must neither commit nor roll back: `once` does.")

    def _judge(
        self, old: Mark | None, webhook_id: str, fingerprint: str, now_ms: int
    ) -> tuple[New | InProgress | Done, Mark | None]:
        """What to answer, and the mark to write before that."""
        claimed = Mark(
            webhook_id=webhook_id,
            fingerprint=fingerprint,
            token=_token(),
            lease_until_ms=now_ms + self._lease_ms,
            result=None,
            expires_ms=now_ms + self._ttl_ms,
        )
        if old is None or old.expires_ms <= now_ms:
            return New(claimed, taken_over=False), claimed
        if old.fingerprint != fingerprint:
            raise WebhookReused
        if old.lease_until_ms is None:
            # Who still repeats it may do so again: the time begins anew.
            seen = replace(old, token=_token(), expires_ms=now_ms + self._ttl_ms)
            return Done(old.result), seen
        if old.lease_until_ms > now_ms:
            return InProgress(old.lease_until_ms), None
        return New(claimed, taken_over=True), claimed

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _token() -> int:
    # Not a counter: that would begin anew where a mark was forgotten or its claim rolled back, and
    # an old claim would pass for a new one. 63 bits are what SQL databases hold.
    return secrets.randbits(63)


def _check_bytes(name: str, text: str, bytes_max: int) -> None:
    try:
        fits = 1 <= len(text.encode()) <= bytes_max
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise WebhookError(f"The {name} must have 1 to {bytes_max} bytes of UTF-8.")
