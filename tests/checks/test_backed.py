"""What a backup must hold, and must not."""

from typing import Any

import pytest

from tests.checks.history import (
    BackedJob,
    BackedUp,
    Ending,
    History,
    Restoration,
    RestoredJob,
    Webhook,
)
from tests.checks.jobmodel import Asked, Delete, Deleted, Put, Written
from tests.checks.promises import CHECKS, Rules

_JOB = BackedJob("a", 1, "scheduled", b"1", 50)


def _history(*calls: tuple[float, float, Asked, Any]) -> History:
    history = History()
    for called_ms, returned_ms, asked, answered in calls:
        history.call("a", called_ms, asked).answer(returned_ms, answered)
    return history


def _found(history: History, *jobs: BackedJob, counted: int | None = None) -> list[str]:
    """What is said of a backup asked for at 10 and shown by 20."""
    count = len(jobs) if counted is None else counted
    history.backups = [BackedUp("b", (2, 0), 1, 10.0, 20.0, list(jobs), count)]
    return list(CHECKS["C13"](history, Rules()))


_WRITTEN = (1.0, 2.0, Put(b"1", 50), Written(1, None, 50))


def test_what_was_acknowledged_before_is_in_it() -> None:
    """In the version that was known, or in a later one."""
    assert [] == _found(_history(_WRITTEN), _JOB)
    assert ["it has a not at all; version 1 was known before"] == [
        each.partition(": ")[2] for each in _found(_history(_WRITTEN))
    ]
    second = (3.0, 4.0, Put(b"2", 50), Written(2, (1, "cancelled"), 50))
    assert 1 == len(_found(_history(_WRITTEN, second), _JOB))
    during = (3.0, 14.0, Put(b"2", 50), Written(2, (1, "cancelled"), 50))
    assert [] == _found(_history(_WRITTEN, during), _JOB)
    assert [] == _found(_history(_WRITTEN, during), _JOB._replace(version=2, content=b"2"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2},
        {"content": b"2"},
        {"due_ms": 51},
        {"state": "cancelled"},
        {"state": "delivered"},
        {"job": "b"},
    ],
)
def test_what_never_was_is_not_in_it(wrong: dict[str, Any]) -> None:
    """No version, content, time, state or job that nothing has led to."""
    assert _found(_history(_WRITTEN), _JOB._replace(**wrong))


def test_what_came_later_is_not_in_it() -> None:
    """Asked for after it was shown."""
    late = (21.0, 22.0, Put(b"1", 50), Written(1, None, 50))
    assert _found(_history(late), _JOB)


def test_states_are_those_that_were_told() -> None:
    """Cancelled, and delivered where a recipient has it."""
    cancelled = _history(_WRITTEN, (3.0, 4.0, Delete(), Deleted(1, "cancelled")))
    assert 1 == len(_found(cancelled, _JOB))
    assert [] == _found(cancelled, _JOB._replace(state="cancelled"))
    sent = _history(_WRITTEN)
    sent.webhooks.append(Webhook(15.0, "w", "a", 1, 1, 0, 50))
    assert [] == _found(sent, _JOB._replace(state="delivered"))


def test_its_pages_are_of_one_moment() -> None:
    """As many jobs as there were, in their order."""
    assert _found(_history(_WRITTEN), _JOB, counted=2)
    assert _found(_history(_WRITTEN), _JOB, _JOB)
    probed = History(probed={"a"})
    assert [] == _found(probed, _JOB)


@pytest.mark.parametrize(
    ("sent", "ending", "webhooks", "told"),
    [
        (True, Ending(1, "delivered"), ["w"], ""),
        (False, Ending(1, "delivered"), [], ""),
        (False, Ending(1, "delivered"), ["w"], "and had ended"),
        (True, Ending(1, "scheduled"), [], "was never sent"),
        (True, None, ["w"], "is None in the end"),
        (True, Ending(1, "delivered"), ["x"], "not as w"),
    ],
)
def test_what_is_restored(
    sent: bool,
    ending: Ending | None,
    webhooks: list[str],
    told: str,
) -> None:
    """All is there; what was open is sent under its id, and nothing else is."""
    history = History(restoration=Restoration(0.0, [RestoredJob("a", 1, "w", sent)]))
    history.endings["a"] = ending
    history.webhooks = [Webhook(15.0, each, "a", 1, 1, 0, 50) for each in webhooks]
    found = list(CHECKS["C14"](history, Rules()))
    assert (1 if told else 0) == len(found)
    assert all(told in sentence for sentence in found)
