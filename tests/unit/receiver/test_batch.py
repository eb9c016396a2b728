"""Webhooks that are arrays: verified once, and each item done once."""

import json
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from node.webhook import Member, Prepared, batch_item_bytes, build_batch_request, build_request
from timemachine.identifiers import batch_id, webhook_id
from timemachine.model import JobRecord, JobState, Queue, Route
from timemachine.outbound import Request, parse_target
from timemachine.receiver import (
    Dedupe,
    Item,
    Store,
    Webhook,
    WebhookPayloadError,
    WebhookVerificationError,
    fingerprint,
    verify_items,
)

SECRET = "whsec_" + "c2VjcmV0" * 5
KEY = b"secret" * 5
NOW_MS = 1_763_700_000_000
METAS = (b'{"a": [1, "]\\"},{", {"data":2}]}', b"null", '"ä\\ud800"'.encode(), b"[]", b"1.50")


def _route(**fields: Any) -> Route:
    return Route(
        uid=1,
        db="d",
        name='a"ä',
        version=1,
        webhook_url="http://r.test/",
        created_ms=0,
        updated_ms=0,
        secrets=(),
        **fields,
    )


def _members() -> list[Member]:
    return [
        Member(
            f'job"{number}ü',
            JobRecord(
                uid=bytes((number,)) * 16,
                version=3,
                state=int(JobState.FIRING),
                trigger_ms=NOW_MS + number,
                delay_ms=None,
                route='a"ä',
                route_uid=1,
                tags=(),
                created_ms=0,
                updated_ms=0,
                due_ms=0,
                queue=int(Queue.DUE),
            ),
            meta,
        )
        for number, meta in enumerate(METAS)
    ]


def _prepared(route: Route) -> Prepared:
    secrets: Any = SimpleNamespace(
        signing_keys=[KEY], headers={}, authorization=None, expires_ms=None
    )
    return Prepared(route, parse_target(route.webhook_url)[0], secrets)


def _batch(format: str = "jobs", body: str = "job", count: int = len(METAS)) -> Request:
    route = _route(body=body)
    return build_batch_request(
        _prepared(route),
        route,
        _members()[:count],
        batch=b"b" * 16,
        format=format,
        body=body,
        db="d ä",
        collection="c",
        attempt=1,
        fence="1.1",
        now_ms=NOW_MS,
    )


def _alone(member: Member, body: str) -> Request:
    route = _route(body=body)
    return build_request(
        _prepared(route),
        route,
        member.record,
        job_id=member.job_id,
        meta=member.meta,
        db="d ä",
        collection="c",
        attempt=1,
        fence="1.1",
        now_ms=NOW_MS,
    )


def _headers(request: Request) -> dict[str, str]:
    lines = request.head.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


def _received(request: Request) -> list[Item]:
    webhook = Webhook(SECRET, now=lambda: NOW_MS / 1000)
    return verify_items(webhook, request.body, _headers(request))


@pytest.mark.parametrize(("format", "body"), [
    ("jobs", "job"), ("cloudevents", "job"), ("cloudevents", "meta"),
])  # fmt: skip
def test_an_item_has_the_same_id_and_fingerprint_alone_and_in_every_batch(
    format: str, body: str
) -> None:
    """So a mark that was made for one is found for the other."""
    request = _batch(format, body)
    assert batch_id(b"b" * 16) == _headers(request)["webhook-id"]
    items = _received(request)
    for member, item in zip(_members(), items, strict=True):
        record = member.record
        assert webhook_id(record.uid, record.version, 0) == item.webhook_id
        if body == "meta" and member.meta == b"[]":
            continue  # alone it would be taken for a batch
        (alone,) = _received(_alone(member, body))
        assert (item.webhook_id, item.fingerprint) == (alone.webhook_id, alone.fingerprint)
        data = item.event if format == "jobs" else item.event["data"]
        meta = data if body == "meta" else data["meta"]
        assert json.loads(member.meta) == meta


def test_each_item_is_done_once(transactional: Store) -> None:
    """Also when the batch comes again, and when one of its items fails in the middle."""
    dedupe = Dedupe(transactional)
    done: list[str] = []

    def effect(item: Item) -> None:
        if item.event["version"] == 3 and len(done) == 2 and not failed:
            failed.append(item)
            raise ConnectionError
        done.append(item.webhook_id)

    failed: list[Item] = []
    for attempt in range(3):
        try:
            for item in _received(_batch()):
                dedupe.once(item.webhook_id, item.fingerprint, partial(effect, item))
        except ConnectionError:
            assert attempt == 0
    assert len(METAS) == len(done) == len(set(done))


def test_what_is_no_batch_of_items_with_ids() -> None:
    """Genuine or not: an error of ours, and never another one."""
    webhook = Webhook(SECRET, now=lambda: NOW_MS / 1000)
    for body in ("[1]", "[{}]", '[{"webhook_id": 5}]', '[{"specversion": "1.0"}]', "["):
        headers = _headers(_batch())
        headers["webhook-signature"] = _signature(webhook, headers, body)
        with pytest.raises(WebhookPayloadError):
            verify_items(webhook, body, headers)
    with pytest.raises(WebhookVerificationError):
        verify_items(webhook, _batch().body + b" ", _headers(_batch()))


def _signature(webhook: Webhook, headers: dict[str, str], body: str) -> str:
    at = datetime.fromtimestamp(NOW_MS // 1000, UTC)
    return webhook.sign(headers["webhook-id"], at, body)


def test_arrays_of_others_may_be_written_otherwise() -> None:
    """With spaces, and members in another order."""
    webhook = Webhook(SECRET, now=lambda: NOW_MS / 1000)
    headers = _headers(_batch())
    body = ' [ {"x": [1, 2], "webhook_id": "i1"} ,\n{"webhook_id":"i2"} ] '
    headers["webhook-signature"] = _signature(webhook, headers, body)
    items = verify_items(webhook, body, headers)
    assert ["i1", "i2"] == [item.webhook_id for item in items]
    assert fingerprint(b'{"x": [1, 2], "webhook_id": "i1"}') == items[0].fingerprint
    headers["webhook-signature"] = _signature(webhook, headers, "[]")
    assert [] == verify_items(webhook, "[]", headers)


@pytest.mark.parametrize(("format", "body"), [("jobs", "job"), ("cloudevents", "job")])
def test_a_bound_for_the_bytes_of_an_item(format: str, body: str) -> None:
    """What a batch is cut by is never less than what is sent."""
    members = _members()
    most = batch_item_bytes([each.job_id for each in members], 'a"ä', "d ä", "c")
    sent = len(_batch(format, body).body)
    assert sent <= 2 + sum(most + len(each.meta) for each in members)
