"""Routes: where jobs are sent. Secrets are sealed before they leave this module."""

import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from node.api.conventions import (
    Answer,
    Call,
    ask,
    ask_meta,
    checked_name,
    encode_json,
    idempotency_key,
    if_match,
    if_none_match,
    json_answer,
    request_of,
)
from node.api.databases import find_database, page
from node.api.problems import from_validation, invalid, refusal
from node.api.views import MASK, route_view
from node.engine import Engine
from node.secrets import open_value, seal_value
from node.sender.pool import make_context
from timemachine import limits
from timemachine.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed
from timemachine.model import Rate, Retry, Route, SealedKey
from timemachine.outbound import Target, TlsOptions, parse_target
from timemachine.replica import meta as m
from timemachine.signing import format_secret, parse_secret

CheckTarget = Callable[[Target], Awaitable[None]]
"""Judges where a route would send to. Raises InvalidRequest."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED = frozenset(
    "host content-length content-type content-encoding transfer-encoding te trailer trailers"
    " upgrade connection keep-alive user-agent accept-encoding idempotency-key expect".split()
)
_RESERVED_PREFIXES = ("webhook-", "timemachine-", "proxy-")
_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_ATTEMPTS_TO_MERGE = 10
_DISABLE_AFTER_DEFAULT_MS = 432_000_000


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """`retry` of a route; absent members keep (PATCH) or take their default (PUT)."""

    schedule_ms: tuple[int, ...] | _Maybe = _UNSET
    max_attempts: int | _Maybe = _UNSET
    max_age_ms: int | _Maybe = _UNSET
    jitter: float | _Maybe = _UNSET


class RateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`rate` of a route."""

    count: int | None = None
    period_ms: int = 1000


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """`batch` of a route: only its default has a meaning yet."""

    max_jobs: int = 1
    max_bytes: int = 262_144
    max_wait_ms: int = 0


class RouteBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A route as sent. What GET shows beside it is ignored."""

    webhook_url: str | _Maybe = _UNSET
    type: str = "webhook"
    https_only: bool | _Maybe = _UNSET
    headers: dict[str, str] | _Maybe = _UNSET
    body: str | _Maybe = _UNSET
    secret: str | _Maybe | None = _UNSET
    timeout_ms: int | _Maybe = _UNSET
    delivery: str | _Maybe = _UNSET
    retry: RetryBody | _Maybe = _UNSET
    non_retryable_status: tuple[int, ...] | _Maybe = _UNSET
    smear_ms: int = 0
    max_in_flight: int | _Maybe = _UNSET
    rate: RateBody | _Maybe = _UNSET
    breaker: dict[str, msgspec.Raw] | None = None
    disable_after_ms: int = 0
    batch: BatchBody | None = None
    ca_pem: str | _Maybe | None = _UNSET
    client_cert_pem: str | _Maybe | None = _UNSET
    client_key_pem: str | _Maybe | None = _UNSET
    dangerous_skip_tls_verify: bool | _Maybe = _UNSET
    enabled: bool | _Maybe = _UNSET
    db: msgspec.Raw | None = None
    name: msgspec.Raw | None = None
    id: msgspec.Raw | None = None
    version: msgspec.Raw | None = None
    paused: msgspec.Raw | None = None
    disabled: msgspec.Raw | None = None
    state: msgspec.Raw | None = None
    created_time: msgspec.Raw | None = None
    updated_time: msgspec.Raw | None = None


_decode_route = msgspec.json.Decoder(RouteBody).decode


def _in_range(pointer: str, value: Any, low: Any, high: Any) -> None:
    if not low <= value <= high:
        raise invalid(pointer, f"This is {low} to {high}.")


class RouteHandlers:
    """Operations on routes."""

    def __init__(self, engine: Engine, check_target: CheckTarget) -> None:
        self._engine = engine
        self._check_target = check_target

    # --- merging ---------------------------------------------------------------------------

    def _seal(self, text: str, db: str, name: str) -> bytes:
        engine = self._engine
        return seal_value(
            engine.master_keys[0], text, nonce=engine.random_bytes(12), db=db, name=name
        )

    def _merge(
        self, body: RouteBody, base: Route | None, db: str, name: str, *, patch: bool
    ) -> tuple[Route, Target]:
        """The route that a body asks for, and its target. Raises what is wrong with it.

        `base` is what is stored: PATCH keeps what is absent; PUT takes defaults, but keeps the
        secret when it is absent, and whatever is sent back masked.
        """
        self._refuse_unsupported(body)
        fields: dict[str, Any] = {}
        if patch and base is not None:
            fields = {key: getattr(base, key) for key in Route.__struct_fields__}
        for key in ("https_only", "body", "timeout_ms", "delivery", "max_in_flight", "ca_pem"):
            _take(fields, body, key)
        for key in ("non_retryable_status", "client_cert_pem", "dangerous_skip_tls_verify"):
            _take(fields, body, key)
        _take(fields, body, "enabled")
        if isinstance(body.retry, RetryBody):
            kept = base.retry if patch and base is not None else Retry()
            changes = {
                key: value
                for key in RetryBody.__struct_fields__
                if (value := getattr(body.retry, key)) is not _UNSET
            }
            fields["retry"] = msgspec.structs.replace(kept, **changes)
        if isinstance(body.rate, RateBody):
            fields["rate"] = Rate(count=body.rate.count, period_ms=body.rate.period_ms)
        if isinstance(body.headers, dict):
            fields["headers"] = self._headers(body.headers, base, db, name)
        self._take_secret(fields, body, base, db, name)
        self._take_client_key(fields, body, base, db, name)
        target = self._take_url(fields, body, base, db, name)
        if body.enabled is True:
            fields["disabled"] = None
        elif base is not None:
            fields["disabled"] = base.disabled
        fields["paused"] = base.paused if base is not None else False
        fields |= {
            "uid": 0,
            "db": db,
            "name": name,
            "version": 0,
            "created_ms": 0,
            "updated_ms": 0,
        }
        route = Route(**fields)
        self._check_ranges(route)
        if route.https_only and target.scheme != "https":
            raise invalid("/webhook_url", "https_only is set, and this URL is not https.")
        return route, target

    @staticmethod
    def _refuse_unsupported(body: RouteBody) -> None:
        if body.type not in ("webhook", "REST"):
            raise invalid("/type", "This is `webhook` (or `REST`, which means the same).")
        if body.smear_ms != 0:
            raise invalid("/smear_ms", "Smearing is not supported yet; send 0.")
        if body.breaker:
            raise invalid("/breaker", "The circuit breaker is not supported yet; send null.")
        if body.disable_after_ms not in (0, _DISABLE_AFTER_DEFAULT_MS):
            raise invalid("/disable_after_ms", "Disabling by time is not supported yet; send 0.")
        if body.batch is not None and body.batch != BatchBody():
            raise invalid("/batch", "Batches are not supported yet; send max_jobs 1.")

    def _headers(
        self, given: dict[str, str], base: Route | None, db: str, name: str
    ) -> dict[str, bytes]:
        if len(given) > limits.ROUTE_HEADERS_COUNT_MAX:
            raise invalid("/headers", f"A route has at most {limits.ROUTE_HEADERS_COUNT_MAX}.")
        headers: dict[str, bytes] = {}
        for key, value in given.items():
            pointer = f"/headers/{key}"
            lower = key.lower()
            if _TOKEN.fullmatch(key) is None or len(key) > limits.HEADER_NAME_BYTES_MAX:
                raise invalid(pointer, "This is no name of a header.")
            if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
                raise invalid(pointer, "This header is set by TimeMachine.")
            if any(lower == other.lower() for other in headers):
                raise invalid(pointer, "This header is given twice.")
            if value == MASK and base is not None and key in base.headers:
                headers[key] = base.headers[key]
                continue
            try:
                size = len(value.encode("latin-1"))
            except UnicodeEncodeError:
                raise invalid(pointer, "A header's value has Latin-1 characters only.") from None
            if size > limits.HEADER_VALUE_BYTES_MAX or re.search(r"[\r\n\0]", value):
                raise invalid(
                    pointer,
                    f"A value has at most {limits.HEADER_VALUE_BYTES_MAX} bytes, no CR, LF, NUL.",
                )
            headers[key] = self._same_or_sealed(value, base, key, db, name)
        return headers

    def _same_or_sealed(
        self, value: str, base: Route | None, key: str, db: str, name: str
    ) -> bytes:
        """Keep the stored seal of an equal value, so that an equal PUT changes nothing."""
        stored = None if base is None else base.headers.get(key)
        if stored is not None:
            opened = open_value(self._engine.master_keys, stored, db=db, name=name)
            if opened == value:
                return stored
        return self._seal(value, db, name)

    def _take_secret(
        self, fields: dict[str, Any], body: RouteBody, base: Route | None, db: str, name: str
    ) -> None:
        kept = base.secrets if base is not None else ()
        if body.secret is None or isinstance(body.secret, _Maybe) or body.secret == MASK:
            if not kept:
                key = self._engine.random_bytes(limits.SECRET_BYTES_GENERATED)
                kept = (SealedKey(sealed=self._seal(format_secret(key), db, name)),)
            fields["secrets"] = kept
            return
        try:
            parse_secret(body.secret)
        except (ValueError, InvalidRequest) as error:
            raise invalid("/secret", str(error)) from None
        if kept:
            current = open_value(self._engine.master_keys, kept[0].sealed, db=db, name=name)
            if current == body.secret:
                fields["secrets"] = kept
                return
        fields["secrets"] = (SealedKey(sealed=self._seal(body.secret, db, name)),)

    def _take_client_key(
        self, fields: dict[str, Any], body: RouteBody, base: Route | None, db: str, name: str
    ) -> None:
        given = body.client_key_pem
        if isinstance(given, _Maybe):
            pass
        elif given == MASK and base is not None:
            fields["client_key_pem"] = base.client_key_pem
        elif given is None:
            fields["client_key_pem"] = None
        else:
            fields["client_key_pem"] = self._seal(given, db, name)
        certificate = fields.get("client_cert_pem")
        key = fields.get("client_key_pem")
        if (certificate is None) != (key is None):
            raise invalid("/client_key_pem", "A client certificate and its key come together.")
        opened = None
        if key is not None:
            opened = open_value(self._engine.master_keys, key, db=db, name=name)
        for member in ("ca_pem", "client_cert_pem"):
            if len(fields.get(member) or "") > limits.PEM_BYTES_MAX:
                raise invalid(f"/{member}", f"PEM has at most {limits.PEM_BYTES_MAX} bytes.")
        if fields.get("ca_pem") is None and certificate is None:
            return
        options = TlsOptions(fields.get("ca_pem"), certificate, opened, False)
        try:
            make_context(options)
        except (ssl.SSLError, ValueError, OSError):
            pointer = "/ca_pem" if certificate is None else "/client_cert_pem"
            raise invalid(pointer, "This PEM cannot be used.") from None

    def _take_url(
        self, fields: dict[str, Any], body: RouteBody, base: Route | None, db: str, name: str
    ) -> Target:
        given = body.webhook_url
        if isinstance(given, _Maybe):
            if base is None:
                raise invalid("/webhook_url", "This member is required.")
            if "webhook_url" not in fields:
                raise invalid("/webhook_url", "This member is required.")
            target, _ = parse_target(base.webhook_url)
            return target
        target, userinfo = parse_target(given)
        if userinfo is None:
            fields["webhook_url"], fields["basic_auth"] = given, None
            return target
        scheme, _, rest = given.partition("://")
        authority, slash, path = rest.partition("/")
        fields["webhook_url"] = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
        if userinfo == MASK and base is not None:
            fields["basic_auth"] = base.basic_auth
        else:
            stored = None if base is None else base.basic_auth
            keys = self._engine.master_keys
            if stored is not None and open_value(keys, stored, db=db, name=name) == userinfo:
                fields["basic_auth"] = stored
            else:
                fields["basic_auth"] = self._seal(userinfo, db, name)
        return target

    @staticmethod
    def _check_ranges(route: Route) -> None:
        _in_range(
            "/timeout_ms",
            route.timeout_ms,
            limits.ROUTE_TIMEOUT_MS_MIN,
            limits.ROUTE_TIMEOUT_MS_MAX,
        )
        _in_range("/max_in_flight", route.max_in_flight, 1, limits.ROUTE_IN_FLIGHT_MAX)
        if route.body not in ("job", "meta"):
            raise invalid("/body", "This is `job` or `meta`.")
        if route.delivery not in ("at_least_once", "at_most_once"):
            raise invalid("/delivery", "This is `at_least_once` or `at_most_once`.")
        retry = route.retry
        if len(retry.schedule_ms) > limits.RETRY_SCHEDULE_COUNT_MAX:
            raise invalid(
                "/retry/schedule_ms", f"There are 0 to {limits.RETRY_SCHEDULE_COUNT_MAX} entries."
            )
        for number, delay_ms in enumerate(retry.schedule_ms):
            _in_range(f"/retry/schedule_ms/{number}", delay_ms, 0, limits.RETRY_DELAY_MS_MAX)
        _in_range("/retry/max_attempts", retry.max_attempts, 1, limits.RETRY_ATTEMPTS_MAX)
        _in_range("/retry/max_age_ms", retry.max_age_ms, 0, limits.RETRY_AGE_MS_MAX)
        _in_range("/retry/jitter", retry.jitter, 0.0, 1.0)
        if route.rate.count is not None:
            _in_range("/rate/count", route.rate.count, 1, limits.ROUTE_RATE_COUNT_MAX)
        _in_range("/rate/period_ms", route.rate.period_ms, 1, limits.ROUTE_RATE_PERIOD_MS_MAX)
        for number, status in enumerate(route.non_retryable_status):
            _in_range(f"/non_retryable_status/{number}", status, 300, 599)

    # --- operations ------------------------------------------------------------------------

    def _find(self, call: Call) -> Route:
        db, name = call.names
        route = self._engine.meta.routes.get((db, name))
        if route is None:
            find_database(self._engine, db)
            raise NotFound("There is no route of this name.", code="route_not_found")
        return route

    @staticmethod
    def _answer(route: Route, status: int = 200, *, replayed: bool = False) -> Answer:
        headers = {"ETag": f'"{route.version}"'}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return Answer(status=status, body=encode_json(route_view(route)), headers=headers)

    async def put_route(self, call: Call) -> Answer:
        """PUT .../routes/{route}."""
        return await self._write(call, patch=False)

    async def patch_route(self, call: Call) -> Answer:
        """PATCH .../routes/{route}."""
        self._find(call)
        return await self._write(call, patch=True)

    async def _write(self, call: Call, *, patch: bool) -> Answer:
        call.only()
        db, name = call.names
        find_database(self._engine, db)
        checked_name(name, "route")
        try:
            body = _decode_route(call.body or b"{}")
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise from_validation(error) from None

        def merge(base: Route | None) -> tuple[Route, Target]:
            return self._merge(body, base, db, name, patch=patch)

        return await self._store(call, merge)

    async def _store(
        self, call: Call, merge: Callable[[Route | None], tuple[Route, Target | None]]
    ) -> Answer:
        """Merge with what is stored, check, propose; again when it changed meanwhile."""
        db, name = call.names
        condition, absent = if_match(call), if_none_match(call)
        request = request_of(
            idempotency_key(call), f"route/{db}/{name}", call.operation.encode() + call.body
        )
        for _ in range(_ATTEMPTS_TO_MERGE):
            base = self._engine.meta.routes.get((db, name))
            version = base.version if base is not None else 0
            if absent and base is not None:
                raise PreconditionFailed("The route exists.")
            if condition is not None and (base is None or condition not in (0, version)):
                raise PreconditionFailed("The version is another one by now.")
            route, target = merge(base)
            if target is not None:
                await self._check_target(target)
            command = m.PutRoute(
                now_ms=self._engine.now_ms(),
                route=route,
                expected_version=version,
                request=request,
            )
            result = await self._propose(command)
            if result.code == "version_moved":
                continue
            if result.kind == "refused":
                raise refusal(result.code)
            status = 201 if result.kind == "created" else 200
            return self._answer(result.route, status, replayed=result.replayed)
        raise Conflict("The route is being changed by others all the time.", code="conflict")

    async def _propose(self, command: m.PutRoute) -> Any:
        return await ask(lambda done: self._engine.propose_meta(command, done))

    async def get_route(self, call: Call) -> Answer:
        """GET .../routes/{route}."""
        call.only("consistency")
        return self._answer(self._find(call))

    async def list_routes(self, call: Call) -> Answer:
        """GET .../routes."""
        call.only("limit", "cursor")
        db = call.names[0]
        find_database(self._engine, db)
        rows = [row for pair, row in self._engine.meta.routes.items() if pair[0] == db]
        return page(call, rows, f"{db}/routes", "name", route_view)

    async def delete_route(self, call: Call) -> Answer:
        """DELETE .../routes/{route}."""
        call.only("force")
        route = self._find(call)
        condition = if_match(call)
        if condition not in (None, 0, route.version):
            raise PreconditionFailed("The version is another one by now.")
        if self._engine.pending_of_route(route.uid) and not call.flag("force"):
            raise Conflict(
                "Jobs are scheduled for this route; delete it with ?force=true and they end as"
                " dead, reason route_deleted.",
                code="route_in_use",
            )
        command = m.DeleteRoute(
            now_ms=self._engine.now_ms(),
            db=route.db,
            name=route.name,
            expected_version=condition or None,
            request=request_of(idempotency_key(call), f"route/{route.db}/{route.name}", b"delete"),
        )
        result = await ask_meta(self._engine, command)
        return self._answer(result.route)

    async def get_secret(self, call: Call) -> Answer:
        """GET .../routes/{route}/secret."""
        call.only()
        route = self._find(call)

        def opened(sealed: SealedKey) -> str:
            keys = self._engine.master_keys
            return open_value(keys, sealed.sealed, db=route.db, name=route.name)

        current, *older = route.secrets
        previous = [
            {"secret": opened(secret), "expires_time": secret.expires_ms} for secret in older
        ]
        return json_answer({"secret": opened(current), "previous": previous})

    async def pause(self, call: Call) -> Answer:
        """POST .../routes/{route}/pause."""
        return await self._set_paused(call, paused=True)

    async def resume(self, call: Call) -> Answer:
        """POST .../routes/{route}/resume."""
        return await self._set_paused(call, paused=False)

    async def _set_paused(self, call: Call, *, paused: bool) -> Answer:
        call.only()
        self._find(call)

        def merge(base: Route | None) -> tuple[Route, None]:
            if base is None:
                raise NotFound("There is no route of this name.", code="route_not_found")
            if paused:
                return msgspec.structs.replace(base, paused=True), None
            return msgspec.structs.replace(base, paused=False, disabled=None), None

        return await self._store(call, merge)

    async def send_example(self, call: Call) -> Answer:
        """POST .../routes/{route}/send-example."""
        call.only()
        route = self._find(call)
        outcome = await ask(lambda done: self._engine.send_example(route, done))
        return json_answer(outcome)


def _take(fields: dict[str, Any], body: RouteBody, key: str) -> None:
    value = getattr(body, key)
    if value is not _UNSET:
        fields[key] = value
