"""What recipients of events get: R14 and R56 of the delivery requirements."""

import json

import pytest

from tests.unit.delivery.made import route
from timemachine.events import (
    EVENTS_COLLECTION,
    TYPES,
    Event,
    EventKind,
    alert_of,
    event_body,
    event_uid,
)
from timemachine.identifiers import webhook_id

DEAD = Event(
    kind=EventKind.DEAD,
    at_ms=1_700_000_000_005,
    route="mail",
    alert_route="ops",
    job_id="a",
    uid=b"u" * 16,
    version=3,
    trigger_ms=1_699_999_999_000,
    attempts=5,
    reason="exhausted",
    error="The recipient answered 500.",
    status=500,
)


def test_an_event_is_an_envelope_with_type_timestamp_and_data() -> None:
    """All that an operator needs to find the job, and to recognise its webhook."""
    expected = {
        "type": "job.dead",
        "timestamp": "2023-11-14T22:13:20.005Z",
        "data": {
            "db": "shop",
            "route": "mail",
            "collection": "carts",
            "job": "a",
            "version": 3,
            "webhook_id": webhook_id(b"u" * 16, 3, 0),
            "trigger_time": 1_699_999_999_000,
            "attempts": 5,
            "reason": "exhausted",
            "last_error": "The recipient answered 500.",
            "response_status": 500,
        },
    }
    assert expected == json.loads(event_body(DEAD, "shop", "carts"))


def test_events_of_routes_and_of_counts_are_about_no_job() -> None:
    """A disabled route says why; a count says of what."""
    disabled = Event(
        kind=EventKind.DISABLED, at_ms=0, route="mail", alert_route="ops", reason="gone"
    )
    expected = {
        "type": "route.disabled",
        "timestamp": "1970-01-01T00:00:00.000Z",
        "data": {"db": "shop", "route": "mail", "reason": "gone"},
    }
    assert expected == json.loads(event_body(disabled, "shop", ""))
    counted = Event(
        kind=EventKind.SUPPRESSED,
        at_ms=0,
        route="mail",
        alert_route="ops",
        count=7,
        of=EventKind.DEAD,
    )
    told = json.loads(event_body(counted, "shop", "carts"))
    assert "events.suppressed" == told["type"]
    assert {
        "db": "shop",
        "route": "mail",
        "collection": "carts",
        "suppressed_type": "job.dead",
        "suppressed": 7,
    } == told["data"]


def test_types_are_dotted_words() -> None:
    """As Standard Webhooks wants them, and each kind has one."""
    assert len(EventKind) == len(set(TYPES))
    assert all(each.replace(".", "").replace("_", "").isalpha() for each in TYPES)


@pytest.mark.parametrize(
    "other",
    [
        event_uid((7, 0), 5, DEAD),
        event_uid((8, 1), 5, DEAD),
        event_uid((7, 1), 6, DEAD),
    ],
)
def test_a_repeat_is_recognised_and_another_event_is_another(other: bytes) -> None:
    """The uid follows from where the event stands, and so does its `webhook-id`."""
    assert event_uid((7, 1), 5, DEAD) == event_uid((7, 1), 5, DEAD) != other


def test_nothing_is_told_of_events() -> None:
    """A failing alert route would otherwise have a story without end, alone or in a ring."""
    alerting = route(alert_route="ops")
    assert "ops" == alert_of(alerting, "carts")
    assert None is alert_of(alerting, EVENTS_COLLECTION)
    assert None is alert_of(route(), "carts")
    assert None is alert_of(None, "carts")
