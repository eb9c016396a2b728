"""The request that a recipient gets: body, headers, signature."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from node.secrets import RouteSecrets, open_route, signing_key_id
from timemachine import __version__
from timemachine.identifiers import batch_id, webhook_id
from timemachine.model import JobRecord, Route
from timemachine.outbound import Request, Target, TlsOptions, parse_target
from timemachine.sealing import MasterKey
from timemachine.signing import Signer

EVENT_TYPE: Final = b"timemachine.job"
"""The `type` of the CloudEvents that jobs are sent as."""

_json = msgspec.json.encode
_JSON_TYPE: Final = b"Content-Type: application/json\r\n"
_EVENTS_TYPE: Final = b"Content-Type: application/cloudevents-batch+json\r\n"
_ITEM_BYTES: Final = 320
"""More than an item of either format has beside its meta, its id and names."""

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
"""Ids that percent-encoding leaves as they are, which most do."""


class Prepared:
    """What does not change from one request of a route's version to the next, for a time."""

    __slots__ = (
        "_body_ends",
        "_expires_ms",
        "_version",
        "key_ids",
        "signer",
        "static_head",
        "target",
    )

    def __init__(self, route: Route, target: Target, secrets: RouteSecrets) -> None:
        self.target = target
        self._version = route.version
        self._expires_ms = secrets.expires_ms
        self._body_ends: dict[tuple[str, str, str], bytes] = {}
        self.signer = Signer(secrets.signing_keys)
        self.key_ids = tuple(signing_key_id(key) for key in secrets.signing_keys)
        lines = [
            b"POST " + target.path_and_query + b" HTTP/1.1",
            b"Host: " + target.host_header,
            b"Content-Type: application/json",
            b"User-Agent: TimeMachine/" + __version__.encode(),
            b"Accept: */*",
            b"Accept-Encoding: identity",
        ]
        names = {name.lower() for name in secrets.headers}
        if secrets.authorization is not None and "authorization" not in names:
            lines.append(b"Authorization: " + secrets.authorization.encode())
        for name, value in secrets.headers.items():
            lines.append(name.encode() + b": " + value.encode("latin-1", "replace"))
        self.static_head = b"\r\n".join(lines) + b"\r\n"

    def holds(self, route: Route, now_ms: int) -> bool:
        """Whether it may still be used for requests of its route, as that is now."""
        return self._version == route.version and (
            self._expires_ms is None or now_ms < self._expires_ms
        )

    def body_end(self, route: str, db: str, collection: str) -> bytes:
        """How the body of a job goes on after its meta, up to the version."""
        names = route, db, collection
        end = self._body_ends.get(names)
        if end is None:
            end = b',"route":%b,"db":%b,"collection":%b,"version":' % tuple(map(_json, names))
            self._body_ends[names] = end
        return end


def prepare(keys: Sequence[MasterKey], route: Route, now_ms: int) -> Prepared:
    """Open the secrets of a route for its next requests. Raises SealError."""
    secrets = open_route(keys, route, now_ms)
    tls = TlsOptions(
        ca_pem=route.ca_pem,
        client_cert_pem=route.client_cert_pem,
        client_key_pem=secrets.client_key_pem,
        skip_verify=route.dangerous_skip_tls_verify,
    )
    target, _ = parse_target(route.webhook_url, tls)
    return Prepared(route, target, secrets)


class Member(NamedTuple):
    """One job of a batch."""

    job_id: str
    record: JobRecord
    meta: bytes


def _job_body(
    prepared: Prepared,
    record: JobRecord,
    job_id: str,
    meta: bytes,
    db: str,
    collection: str,
    *,
    identity: bytes = b"",
) -> bytes:
    """The stable part of the job as JSON, with the meta's own bytes inside."""
    end = prepared.body_end(record.route, db, collection)
    return b'{%b"id":%b,"trigger_time":%d,"meta":%b%b%d}' % (
        identity,
        _json(job_id),
        record.trigger_ms,
        meta,
        end,
        record.version,
    )


def _event(prepared: Prepared, member: Member, body: str, db: str, collection: str) -> bytes:
    """The job as a CloudEvent (1.0, JSON format); its data is the job, or its meta alone."""
    job_id, record, meta = member
    data = meta if body == "meta" else _job_body(prepared, record, job_id, meta, db, collection)
    seconds, thousandths = divmod(record.trigger_ms, 1000)
    at = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    source = f"/v1/dbs/{quote(db, safe='')}/collections/{quote(collection, safe='')}"
    return b'{"specversion":"1.0","id":"%b","source":%b,"type":"%b","time":"%b","data":%b}' % (
        webhook_id(record.uid, record.version, record.occurrence).encode(),
        _json(source),
        EVENT_TYPE,
        f"{at}.{thousandths:03}Z".encode(),
        data,
    )


def batch_item_bytes(job_ids: Sequence[str], route: str, db: str, collection: str) -> int:
    """So many bytes at most each of these jobs has in the body of a batch, beside its meta."""
    longest = max([len(_json(job_id)) for job_id in job_ids])
    return _ITEM_BYTES + longest + sum([4 * len(_json(name)) for name in (route, db, collection)])


def build_batch_request(
    prepared: Prepared,
    route: Route,
    members: Sequence[Member],
    *,
    batch: bytes,
    format: str,
    body: str,
    db: str,
    collection: str,
    attempt: int,
    fence: str,
    now_ms: int,
) -> Request:
    """The request of one attempt for several jobs, signed for this second.

    Its body follows from what is stored alone: `format` and `body` are those of the batch.
    """
    items = []
    static_head = prepared.static_head
    if format == "cloudevents":
        static_head = static_head.replace(_JSON_TYPE, _EVENTS_TYPE, 1)
        items = [_event(prepared, member, body, db, collection) for member in members]
    else:
        for job_id, record, meta in members:
            name = webhook_id(record.uid, record.version, record.occurrence).encode()
            shown = b'"webhook_id":"%b",' % name
            items.append(_job_body(prepared, record, job_id, meta, db, collection, identity=shown))
    content = b"[" + b",".join(items) + b"]"
    about = f"TimeMachine-Batch-Size: {len(members)}\r\n"
    reason = members[0].record.retry_reason
    identity = batch_id(batch)
    return _signed(
        prepared, route, static_head, content, identity, attempt, about, fence, reason, now_ms
    )


def build_request(
    prepared: Prepared,
    route: Route,
    record: JobRecord,
    *,
    job_id: str,
    meta: bytes,
    db: str,
    collection: str,
    attempt: int,
    fence: str,
    now_ms: int,
) -> Request:
    """One attempt's request, signed for this second."""
    if route.body == "meta":
        body = meta
    else:
        body = _job_body(prepared, record, job_id, meta, db, collection)
    shown_id = job_id if _PLAIN(job_id) else quote(job_id, safe="")
    about = f"TimeMachine-Trigger-Time: {record.trigger_ms}\r\nTimeMachine-Job-Id: {shown_id}\r\n"
    identity = webhook_id(record.uid, record.version, record.occurrence)
    reason = record.retry_reason
    # By position: this is on the way of every webhook.
    return _signed(
        prepared,
        route,
        prepared.static_head,
        body,
        identity,
        attempt,
        about,
        fence,
        reason,
        now_ms,
    )


def _signed(
    prepared: Prepared,
    route: Route,
    static_head: bytes,
    body: bytes,
    identity: str,
    attempt: int,
    about: str,
    fence: str,
    reason: str | None,
    now_ms: int,
) -> Request:
    """The request with this body; `about` are the headers that only one of its kind has."""
    timestamp_s = now_ms // 1000
    signature = prepared.signer.header(identity, timestamp_s, body)
    head = (
        f"webhook-id: {identity}\r\n"
        f"webhook-timestamp: {timestamp_s}\r\n"
        f"webhook-signature: {signature}\r\n"
        f'Idempotency-Key: "{identity}"\r\n'
        f"TimeMachine-Attempt: {attempt}\r\n"
        f"{about}"
        f"TimeMachine-Fence: {fence}\r\n"
        + (f"TimeMachine-Retry-Reason: {reason}\r\n" if reason else "")
        + f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(
        target=prepared.target,
        head=static_head + head.encode("ascii"),
        body=body,
        timeout_ms=route.timeout_ms,
    )
