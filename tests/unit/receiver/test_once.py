"""Each webhook has its effect once: what a store promises whose transactions hold the effect."""

import pytest

from tests.unit.receiver.marks import DAY_MS, ID, LEASE_MS, PRINT, claimed, fail, finish
from timemachine import limits
from timemachine.receiver import (
    Dedupe,
    Done,
    InProgress,
    Store,
    WebhookClaimLost,
    WebhookInProgress,
    WebhookReused,
    fingerprint,
)
from timemachine.testing import ManualClock


@pytest.fixture
def dedupe(transactional: Store, clock: ManualClock) -> Dedupe:
    """With the durations that users get."""
    return Dedupe(transactional, now=clock)


def nothing() -> None:
    """No effect."""


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


def test_once_refuses_another_body(dedupe: Dedupe) -> None:
    """While the id is in progress, and when it is done."""
    other = fingerprint(b'{"a":2}')
    claim = claimed(dedupe)
    with pytest.raises(WebhookReused):
        dedupe.once(ID, other, nothing)
    finish(dedupe, claim)
    with pytest.raises(WebhookReused):
        dedupe.once(ID, other, nothing)
    assert Done(None) == dedupe.begin(ID, PRINT)


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


def test_commit_needs_the_transaction_of_the_effect(dedupe: Dedupe) -> None:
    """Outside a transaction effect and mark could part, so that is refused."""
    claim = claimed(dedupe)
    with pytest.raises(RuntimeError, match="transaction"):
        dedupe.commit(claim)
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)


# --- forgetting ----------------------------------------------------------------------------------


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


# --- what is put in ------------------------------------------------------------------------------


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
