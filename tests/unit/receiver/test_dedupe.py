"""Each webhook is recognised: what recipients are promised, whatever the store.

What they are promised where the store's transactions hold the effect is in test_once.py.
`tests/integration/receiver` runs both with stores on real servers.
"""

import hashlib

import pytest

from tests.unit.receiver.marks import DAY_MS, ID, LEASE_MS, PRINT, DictStore, claimed, fail, finish
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
from timemachine.testing import ManualClock


@pytest.fixture
def dedupe(store: Store, clock: ManualClock) -> Dedupe:
    """With the durations that users get."""
    return Dedupe(store, now=clock)


# --- begin, commit, release ----------------------------------------------------------------------


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


def test_same_id_with_another_body_is_refused(dedupe: Dedupe) -> None:
    """While it is in progress, and when it is done."""
    other = fingerprint(b'{"a":2}')
    claim = claimed(dedupe)
    with pytest.raises(WebhookReused):
        dedupe.begin(ID, other)
    finish(dedupe, claim)
    with pytest.raises(WebhookReused):
        dedupe.begin(ID, other)
    assert Done(None) == dedupe.begin(ID, PRINT)


def test_without_transactions_claims_are_all(dedupe: Dedupe, store: Store) -> None:
    """Where the store cannot hold an effect, what would promise that is refused, and says why."""
    if store.transactional:
        return
    with pytest.raises(RuntimeError, match=r"once.*begin"):
        dedupe.once(ID, PRINT, fail)
    with pytest.raises(RuntimeError, match=r"transaction.*begin"):
        dedupe.transaction()
    claim = claimed(dedupe)
    assert not claim.taken_over
    dedupe.commit(claim, "done")
    assert Done("done") == dedupe.begin(ID, PRINT)


def test_another_worker_may_be_faster(dedupe: Dedupe, store: Store) -> None:
    """A mark that changed between looking and writing is looked at again, but not for ever."""
    if not isinstance(store, DictStore):
        return  # SQLite has locked the mark
    store.losses = limits.DEDUPE_TRIES_MAX - 1
    assert isinstance(dedupe.begin(ID, PRINT), New)
    store.losses = limits.DEDUPE_TRIES_MAX
    with pytest.raises(WebhookBusy):
        dedupe.begin("msg_2", PRINT)


# --- forgetting ----------------------------------------------------------------------------------


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
    seen = dedupe.begin(ID, fingerprint(b"other"))
    assert isinstance(seen, New)
    assert not seen.taken_over


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


# --- what is put in ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "x" * 256, "é" * 128, "\ud800"])
def test_ids_that_no_sender_has_are_refused(dedupe: Dedupe, text: str) -> None:
    """An id or a fingerprint that cannot be kept is an error to answer 400 to, not a crash."""
    for webhook_id, print_ in ((text, PRINT), (ID, text)):
        with pytest.raises(WebhookError) as caught:
            dedupe.begin(webhook_id, print_)
        assert 400 == caught.value.http_status


@pytest.mark.parametrize("text", ["x" * 255, "é" * 127, "a\0b", "'; --", "%_", "a\r\nb", "*"])
def test_odd_ids_are_ids(dedupe: Dedupe, text: str) -> None:
    """Whatever text an id is, it is that text and no other."""
    finish(dedupe, claimed(dedupe, text))
    assert isinstance(dedupe.begin(text, PRINT), Done)
    if shorter := text[:-1]:
        assert not claimed(dedupe, shorter).taken_over


@pytest.mark.parametrize("text", ["é" * 127, "a\0b", "'", "1"])
def test_odd_fingerprints_are_fingerprints(dedupe: Dedupe, text: str) -> None:
    """A recipient may have one of its own making."""
    assert isinstance(dedupe.begin(ID, text), New)
    assert isinstance(dedupe.begin(ID, text), InProgress)
    with pytest.raises(WebhookReused):
        dedupe.begin(ID, text + "x")


@pytest.mark.parametrize("result", [None, "", "é\0\n", "1", "x" * limits.DEDUPE_RESULT_BYTES_MAX])
def test_results_come_back_as_they_were(dedupe: Dedupe, result: str | None) -> None:
    """Also an empty one, which is not none at all; also from the second repeat on."""
    finish(dedupe, claimed(dedupe), result)
    assert [Done(result)] * 2 == [dedupe.begin(ID, PRINT) for _ in range(2)]


@pytest.mark.parametrize("result", [7, b"bytes", object()])
def test_results_that_are_no_text_are_a_mistake(dedupe: Dedupe, result: str) -> None:
    """It is found with the first webhook, whose claim is still there."""
    claim = claimed(dedupe)
    with pytest.raises(TypeError, match=type(result).__name__):
        finish(dedupe, claim, result)
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)
    finish(dedupe, claim)


def test_results_are_bounded(dedupe: Dedupe) -> None:
    """What is too large to keep is refused before the mark is changed."""
    claim = claimed(dedupe)
    with pytest.raises(ValueError, match=str(limits.DEDUPE_RESULT_BYTES_MAX)):
        finish(dedupe, claim, "é" * (limits.DEDUPE_RESULT_BYTES_MAX // 2 + 1))
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)


def test_the_fingerprint_is_a_sha256() -> None:
    """Any service in any language can make the same."""
    assert hashlib.sha256(b"body").hexdigest() == fingerprint(b"body")


def test_errors_say_what_to_answer() -> None:
    """A recipient needs one `except` for all of them."""
    kinds = (WebhookReused, WebhookInProgress, WebhookClaimLost, WebhookBusy)
    assert [422, 409, 409, 503] == [kind.http_status for kind in kinds]
    assert [True] * 4 == [issubclass(kind, WebhookError) for kind in kinds]
