"""Each webhook has its effect once: what recipients are promised, whatever the store."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.unit.receiver.marks import DictStore
from timemachine import limits
from timemachine.receiver import (
    Dedupe,
    Done,
    InProgress,
    New,
    Store,
    WebhookBusy,
    WebhookClaimLost,
    WebhookError,
    WebhookInProgress,
    WebhookReused,
    fingerprint,
)
from timemachine.receiver.sqlite import SQLiteStore
from timemachine.testing import ManualClock

ID = "msg_1"
PRINT = fingerprint(b'{"a":1}')
DAY_MS = 86_400_000
LEASE_MS = 120_000


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only the test moves."""
    return ManualClock()


@pytest.fixture(params=["dict", "sqlite"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each of the stores."""
    if request.param == "dict":
        yield DictStore()
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        store = SQLiteStore(connection)
        store.create_table()
        yield store


@pytest.fixture
def dedupe(store: Store, clock: ManualClock) -> Dedupe:
    """With the durations that users get."""
    return Dedupe(store, now=clock)


def claimed(dedupe: Dedupe, webhook_id: str = ID) -> New:
    """A claim, which must be free."""
    seen = dedupe.begin(webhook_id, PRINT)
    assert isinstance(seen, New)
    return seen


def finish(dedupe: Dedupe, claim: New, result: str | None = None) -> None:
    """Commit a claim in a transaction of its own."""
    with dedupe.transaction():
        dedupe.commit(claim, result)


def nothing() -> None:
    """No effect."""


def fail() -> None:
    """An effect that does not succeed."""
    raise ConnectionError


# --- begin, commit, release --------------------------------------------------------------------


def test_first_is_new_then_in_progress_then_done(dedupe: Dedupe, clock: ManualClock) -> None:
    """The life of a webhook: claimed, held against others, done with its result."""
    claim = claimed(dedupe)
    assert not claim.taken_over
    assert InProgress(clock.now_ms + LEASE_MS) == dedupe.begin(ID, PRINT)
    finish(dedupe, claim, "42")
    assert Done("42", repeated=True) == dedupe.begin(ID, PRINT)


def test_webhooks_do_not_mind_each_other(dedupe: Dedupe) -> None:
    """Another id is another webhook, with the same body too."""
    finish(dedupe, claimed(dedupe))
    assert isinstance(dedupe.begin("msg_2", PRINT), New)


def test_claim_of_a_dead_worker_is_taken_over(dedupe: Dedupe, clock: ManualClock) -> None:
    """When the lease has run out, and not before, the next one may try."""
    claimed(dedupe)
    clock.advance(LEASE_MS - 1)
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)
    clock.advance(1)
    assert claimed(dedupe).taken_over


def test_who_lost_the_claim_cannot_commit(dedupe: Dedupe, clock: ManualClock) -> None:
    """A worker that was slow, not dead, hears that another has its webhook by now."""
    slow = claimed(dedupe)
    clock.advance(LEASE_MS)
    quick = claimed(dedupe)
    with pytest.raises(WebhookClaimLost):
        finish(dedupe, slow, "slow")
    finish(dedupe, quick, "quick")
    with pytest.raises(WebhookClaimLost):
        finish(dedupe, slow, "slow")
    assert Done("quick") == dedupe.begin(ID, PRINT)


def test_late_commit_holds_when_nobody_took_over(dedupe: Dedupe, clock: ManualClock) -> None:
    """The end of a lease alone takes nothing away."""
    claim = claimed(dedupe)
    clock.advance(LEASE_MS * 10)
    finish(dedupe, claim)
    assert Done(None) == dedupe.begin(ID, PRINT)


def test_commit_twice_is_refused(dedupe: Dedupe) -> None:
    """One claim commits once."""
    claim = claimed(dedupe)
    finish(dedupe, claim)
    with pytest.raises(WebhookClaimLost):
        finish(dedupe, claim)


def test_released_claim_is_free_at_once(dedupe: Dedupe) -> None:
    """An effect that failed need not wait for its lease; the next one knows of it."""
    claim = claimed(dedupe)
    dedupe.release(claim)
    again = claimed(dedupe)
    assert again.taken_over
    with pytest.raises(WebhookClaimLost):
        finish(dedupe, claim)
    finish(dedupe, again)


def test_release_never_undoes_what_others_have(dedupe: Dedupe, clock: ManualClock) -> None:
    """Giving back what one has no more changes nothing."""
    slow = claimed(dedupe)
    clock.advance(LEASE_MS)
    quick = claimed(dedupe)
    dedupe.release(slow)
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)
    finish(dedupe, quick)
    dedupe.release(quick)
    assert Done(None) == dedupe.begin(ID, PRINT)


def test_commit_needs_the_transaction_of_the_effect(dedupe: Dedupe) -> None:
    """Outside a transaction effect and mark could part, so that is refused."""
    claim = claimed(dedupe)
    with pytest.raises(RuntimeError, match="transaction"):
        dedupe.commit(claim)
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)


def test_same_id_with_another_body_is_refused(dedupe: Dedupe) -> None:
    """While it is in progress, and when it is done."""
    other = fingerprint(b'{"a":2}')
    claim = claimed(dedupe)
    with pytest.raises(WebhookReused):
        dedupe.begin(ID, other)
    finish(dedupe, claim)
    with pytest.raises(WebhookReused):
        dedupe.begin(ID, other)
    with pytest.raises(WebhookReused):
        dedupe.once(ID, other, nothing)
    assert Done(None) == dedupe.begin(ID, PRINT)


def test_another_worker_may_be_faster(dedupe: Dedupe, store: Store) -> None:
    """A mark that changed between looking and writing is looked at again, but not for ever."""
    if not isinstance(store, DictStore):
        return  # SQLite has locked the mark
    store.losses = limits.DEDUPE_TRIES_MAX - 1
    assert isinstance(dedupe.begin(ID, PRINT), New)
    store.losses = limits.DEDUPE_TRIES_MAX
    with pytest.raises(WebhookBusy):
        dedupe.begin("msg_2", PRINT)


# --- once --------------------------------------------------------------------------------------


def test_once_has_one_effect(dedupe: Dedupe) -> None:
    """However often it comes, the effect is called once; all get what it returned."""
    calls: list[int] = []

    def effect() -> str:
        calls.append(1)
        return "paid"

    assert Done("paid", repeated=False) == dedupe.once(ID, PRINT, effect)
    assert Done("paid", repeated=True) == dedupe.once(ID, PRINT, effect)
    assert Done("paid", repeated=True) == dedupe.begin(ID, PRINT)
    assert [1] == calls


def test_once_that_failed_may_be_repeated_at_once(dedupe: Dedupe) -> None:
    """What the effect raises comes out, and leaves no claim behind."""
    with pytest.raises(ConnectionError):
        dedupe.once(ID, PRINT, fail)
    assert Done(None, repeated=False) == dedupe.once(ID, PRINT, nothing)


def test_once_respects_a_claim(dedupe: Dedupe, clock: ManualClock) -> None:
    """Who uses `once` waits for those who use `begin`, and takes over from the dead."""
    claim = claimed(dedupe)
    with pytest.raises(WebhookInProgress):
        dedupe.once(ID, PRINT, nothing)
    clock.advance(LEASE_MS)
    assert Done(None, repeated=False) == dedupe.once(ID, PRINT, nothing)
    with pytest.raises(WebhookClaimLost):
        finish(dedupe, claim)


def test_one_effect_may_hold_another(dedupe: Dedupe) -> None:
    """The items of one webhook can be recognised one by one; a failure takes only its own back."""

    def batch() -> str:
        assert not dedupe.once("item_1", PRINT, nothing).repeated
        with pytest.raises(ConnectionError):
            dedupe.once("item_2", PRINT, fail)
        return "batch"

    assert Done("batch", repeated=False) == dedupe.once(ID, PRINT, batch)
    assert dedupe.once("item_1", PRINT, nothing).repeated
    assert not dedupe.once("item_2", PRINT, nothing).repeated


# --- forgetting --------------------------------------------------------------------------------


def test_remembered_for_eight_days(dedupe: Dedupe, clock: ManualClock) -> None:
    """A day longer than a delivered job is kept by default, and so can be redriven."""
    finish(dedupe, claimed(dedupe))
    clock.advance(8 * DAY_MS - 1)
    assert isinstance(dedupe.begin(ID, PRINT), Done)


def test_the_time_begins_anew_with_each_repeat(dedupe: Dedupe, clock: ManualClock) -> None:
    """As long as somebody repeats it, it is recognised."""
    finish(dedupe, claimed(dedupe))
    for _ in range(5):
        clock.advance(7 * DAY_MS)
        assert isinstance(dedupe.begin(ID, PRINT), Done)
    clock.advance(8 * DAY_MS)
    assert isinstance(dedupe.begin(ID, PRINT), New)


def test_a_forgotten_id_is_new_with_any_body(dedupe: Dedupe, clock: ManualClock) -> None:
    """After the time to live nothing is left, the fingerprint neither."""
    finish(dedupe, claimed(dedupe))
    clock.advance(8 * DAY_MS)
    assert not dedupe.once(ID, fingerprint(b"other"), nothing).repeated


def test_an_abandoned_claim_is_forgotten(dedupe: Dedupe, clock: ManualClock) -> None:
    """A webhook that nobody finished is not kept for ever; its late worker has lost it."""
    claim = claimed(dedupe)
    clock.advance(8 * DAY_MS)
    assert 1 == dedupe.purge()
    with pytest.raises(WebhookClaimLost):
        finish(dedupe, claim)


def test_purging_is_bounded(dedupe: Dedupe, clock: ManualClock) -> None:
    """One call forgets no more than it is told; each new webhook forgets some."""
    for number in range(250):
        dedupe.once(f"old_{number}", PRINT, nothing)
    clock.advance(8 * DAY_MS)
    assert 10 == dedupe.purge(10)
    dedupe.once("new", PRINT, nothing)
    assert 250 - 10 - limits.DEDUPE_PURGED_ROWS_MAX == dedupe.purge()
    assert isinstance(dedupe.begin("new", PRINT), Done)


@pytest.mark.parametrize("ttl_s", [0, 300, 86_399, 10**10])
def test_too_short_a_memory_is_refused(store: Store, ttl_s: int) -> None:
    """Five minutes are the tolerance of signatures: retries come for days."""
    with pytest.raises(ValueError, match="days"):
        Dedupe(store, ttl_s=ttl_s)


@pytest.mark.parametrize("lease_s", [0, -1, 8 * 86_400 + 1])
def test_a_lease_has_bounds(store: Store, lease_s: int) -> None:
    """A claim holds for a while, and not for longer than its mark."""
    with pytest.raises(ValueError, match="lease_s"):
        Dedupe(store, lease_s=lease_s)


def test_durations_can_be_chosen(store: Store, clock: ManualClock) -> None:
    """Other durations hold in place of the usual ones."""
    dedupe = Dedupe(store, ttl_s=86_400, lease_s=10, now=clock)
    claimed(dedupe)
    clock.advance(10_000)
    finish(dedupe, claimed(dedupe))
    clock.advance(DAY_MS)
    assert not claimed(dedupe).taken_over


def test_the_default_clock_is_the_time_of_day(store: Store) -> None:
    """Without a clock of its own a Dedupe takes the machine's."""
    finish(Dedupe(store), claimed(Dedupe(store)))
    assert isinstance(Dedupe(store).begin(ID, PRINT), Done)


# --- what is put in ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "x" * 256, "é" * 128, "\ud800"])
def test_ids_that_no_sender_has_are_refused(dedupe: Dedupe, text: str) -> None:
    """An id or a fingerprint that cannot be kept is an error to answer 400 to, not a crash."""
    for webhook_id, print_ in ((text, PRINT), (ID, text)):
        with pytest.raises(WebhookError) as caught:
            dedupe.begin(webhook_id, print_)
        assert 400 == caught.value.http_status


@pytest.mark.parametrize("text", ["x" * 255, "é" * 127, "a\0b", "'; --", "%_"])
def test_odd_ids_are_ids(dedupe: Dedupe, text: str) -> None:
    """Whatever text an id is, it is that text and no other."""
    dedupe.once(text, PRINT, nothing)
    assert dedupe.once(text, PRINT, nothing).repeated
    assert not dedupe.once(text[:-1], PRINT, nothing).repeated


@pytest.mark.parametrize("result", ["", "é\0\n", "x" * limits.DEDUPE_RESULT_BYTES_MAX])
def test_results_come_back_as_they_were(dedupe: Dedupe, result: str) -> None:
    """Also an empty one, which is not none at all."""
    dedupe.once(ID, PRINT, lambda: result)
    assert Done(result) == dedupe.begin(ID, PRINT)


@pytest.mark.parametrize("result", [7, b"bytes", object()])
def test_results_that_are_no_text_are_a_mistake(dedupe: Dedupe, result: str) -> None:
    """It is found with the first webhook, and the effect is rolled back."""
    with pytest.raises(TypeError, match=type(result).__name__):
        dedupe.once(ID, PRINT, lambda: result)
    assert not dedupe.once(ID, PRINT, nothing).repeated


def test_results_are_bounded(dedupe: Dedupe) -> None:
    """What is too large to keep is refused before the mark is made."""
    with pytest.raises(ValueError, match=str(limits.DEDUPE_RESULT_BYTES_MAX)):
        dedupe.once(ID, PRINT, lambda: "é" * (limits.DEDUPE_RESULT_BYTES_MAX // 2 + 1))
    assert not dedupe.once(ID, PRINT, nothing).repeated


def test_the_fingerprint_is_a_sha256() -> None:
    """Any service in any language can make the same."""
    assert hashlib.sha256(b"body").hexdigest() == fingerprint(b"body")


def test_errors_say_what_to_answer() -> None:
    """A recipient needs one `except` for all of them."""
    kinds = (WebhookReused, WebhookInProgress, WebhookClaimLost, WebhookBusy)
    assert [422, 409, 409, 503] == [kind.http_status for kind in kinds]
    assert [True] * 4 == [issubclass(kind, WebhookError) for kind in kinds]
