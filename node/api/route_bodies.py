"""From the body of a route to the route that is stored: merged, checked, its secrets sealed."""

import re
import ssl
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import unquote

import msgspec
from cryptography import x509
from msgspec import Meta

from node.api.conventions import Ignored
from node.api.problems import invalid
from node.api.route_views import MASK, RouteBatch
from node.api.schemas import between
from node.engine import Engine
from node.secrets import open_value, seal_value
from node.sender.tls import make_context
from timemachine import limits
from timemachine.errors import InvalidSecret
from timemachine.model import Rate, Retry, Route, SealedKey
from timemachine.outbound import Target, TlsOptions, parse_target
from timemachine.signing import format_secret, parse_secret

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$")
_RESERVED = frozenset(
    "host content-length content-type content-encoding transfer-encoding te trailer trailers"
    " upgrade connection keep-alive user-agent accept accept-encoding idempotency-key"
    " expect".split()
)
_RESERVED_PREFIXES = ("webhook-", "timemachine-", "proxy-")
_STATUSES_MAX = 300
_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_DISABLE_AFTER_DEFAULT_MS = 432_000_000
_AS_GIVEN = (
    "https_only",
    "body",
    "timeout_ms",
    "delivery",
    "max_in_flight",
    "non_retryable_status",
    "ca_pem",
    "client_cert_pem",
    "dangerous_skip_tls_verify",
)


_STORED = {field.name: field.default for field in msgspec.structs.fields(Route)}


def _about(description: str, stored: str = "", /, **schema: Any) -> Meta:
    """Says what a member may be; `Merge` checks it.

    `stored` is the field of a route whose default it takes.
    """
    if stored:
        schema["default"] = msgspec.to_builtins(_STORED[stored])
    return Meta(description=description, extra_json_schema=schema)


SECRET_SCHEMA: Final[dict[str, Any]] = {"format": "webhook-secret", "pattern": "^whsec_"}
"""A signing secret as it is given (Standard Webhooks)."""

_HEADER_NAME = Meta(
    extra_json_schema={
        "pattern": f"^{_TOKEN.pattern}$",
        "maxLength": limits.HEADER_NAME_BYTES_MAX,
    }
)
_HEADER_VALUE = Meta(
    extra_json_schema={
        "pattern": r"^(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?$",
        "maxLength": limits.HEADER_VALUE_BYTES_MAX,
    }
)
_URL = _about(
    "Where webhooks go, by POST; a user and a password in it become basic authentication.",
    format="uri",
    maxLength=limits.URL_BYTES_MAX,
)


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """When and how often a failed delivery is tried again."""

    schedule_ms: Annotated[
        tuple[Annotated[int, between(0, limits.RETRY_DELAY_MS_MAX)], ...] | _Maybe,
        _about(
            "Pauses before the second attempt, the third and so on; the last one repeats.",
            default=list(Retry().schedule_ms),
            maxItems=limits.RETRY_SCHEDULE_COUNT_MAX,
        ),
    ] = _UNSET
    max_attempts: Annotated[
        Annotated[int, between(1, limits.RETRY_ATTEMPTS_MAX)] | _Maybe,
        _about("The first one counts.", default=Retry().max_attempts),
    ] = _UNSET
    max_age_ms: Annotated[
        Annotated[int, between(0, limits.RETRY_AGE_MS_MAX)] | _Maybe,
        _about("No attempt begins so long after the first one.", default=Retry().max_age_ms),
    ] = _UNSET
    jitter: Annotated[
        Annotated[float, between(0, 1)] | _Maybe,
        _about("By how much of itself a pause varies.", default=Retry().jitter),
    ] = _UNSET


class RateBody(msgspec.Struct, forbid_unknown_fields=True):
    """At most `count` attempts begin in each `period_ms`; null: no limit."""

    count: Annotated[int, between(1, limits.ROUTE_RATE_COUNT_MAX)] | None = None
    period_ms: Annotated[int, between(1, limits.ROUTE_RATE_PERIOD_MS_MAX)] = 1000


class RouteBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of a route that PATCH replaces. What GET shows beside them is ignored."""

    KEEPS_ABSENT: ClassVar = True

    webhook_url: Annotated[str | _Maybe, _URL] = _UNSET
    type: Annotated[str, _about("`REST` means the same.", enum=["webhook", "REST"])] = "webhook"
    https_only: Annotated[
        bool | _Maybe, _about("Refuse a `webhook_url` that is not https.", "https_only")
    ] = _UNSET
    headers: Annotated[
        dict[
            Annotated[str, _HEADER_NAME],
            Annotated[str, _HEADER_VALUE],
        ]
        | _Maybe,
        _about(
            "Sent with every webhook; values are masked on reads.",
            maxProperties=limits.ROUTE_HEADERS_COUNT_MAX,
        ),
    ] = _UNSET
    body: Annotated[
        str | _Maybe,
        _about(
            "`job`: the job's stable part; `meta`: its meta alone.", "body", enum=["job", "meta"]
        ),
    ] = _UNSET
    secret: Annotated[
        str | _Maybe | None,
        _about(
            "Signs the webhooks: `whsec_` and base64. Absent: made at first, then kept.",
            **SECRET_SCHEMA,
        ),
    ] = _UNSET
    timeout_ms: Annotated[
        Annotated[int, between(limits.ROUTE_TIMEOUT_MS_MIN, limits.ROUTE_TIMEOUT_MS_MAX)] | _Maybe,
        _about("How long one attempt may take.", "timeout_ms"),
    ] = _UNSET
    delivery: Annotated[
        str | _Maybe,
        _about(
            "`at_most_once` never sends what may have been sent.",
            "delivery",
            enum=["at_least_once", "at_most_once"],
        ),
    ] = _UNSET
    retry: RetryBody | _Maybe = _UNSET
    non_retryable_status: Annotated[
        tuple[Annotated[int, between(300, 599)], ...] | _Maybe,
        _about(
            "Answers after which no further attempt is made.",
            "non_retryable_status",
            maxItems=_STATUSES_MAX,
        ),
    ] = _UNSET
    smear_ms: Annotated[int, _about("Not supported yet; send 0.", enum=[0])] = 0
    max_in_flight: Annotated[
        Annotated[int, between(1, limits.ROUTE_IN_FLIGHT_MAX)] | _Maybe,
        _about("How many sends may be under way at once.", "max_in_flight"),
    ] = _UNSET
    rate: RateBody | _Maybe = _UNSET
    breaker: Annotated[
        dict[str, msgspec.Raw] | None, _about("Not supported yet; send null.", maxProperties=0)
    ] = None
    disable_after_ms: Annotated[
        int, _about("Not supported yet; send 0.", enum=[0, _DISABLE_AFTER_DEFAULT_MS])
    ] = 0
    batch: RouteBatch | None = None
    ca_pem: Annotated[
        str | _Maybe | None, _about("Authorities that the recipient's certificate may come from.")
    ] = _UNSET
    client_cert_pem: Annotated[
        str | _Maybe | None, _about("What the node shows of itself; with `client_key_pem`.")
    ] = _UNSET
    client_key_pem: Annotated[str | _Maybe | None, _about("Sealed, and masked on reads.")] = _UNSET
    dangerous_skip_tls_verify: Annotated[
        bool | _Maybe,
        _about("Send to whoever answers there.", "dangerous_skip_tls_verify"),
    ] = _UNSET
    enabled: Annotated[bool | _Maybe, _about("Whether attempts may start.", "enabled")] = _UNSET
    db: Ignored = _UNSET
    name: Ignored = _UNSET
    version: Ignored = _UNSET
    paused: Ignored = _UNSET
    disabled: Ignored = _UNSET
    state: Ignored = _UNSET
    created_time: Ignored = _UNSET
    updated_time: Ignored = _UNSET


class RoutePutBody(RouteBody, forbid_unknown_fields=True, kw_only=True):
    """A route as sent, to be created or replaced. What GET shows beside it is ignored."""

    KEEPS_ABSENT: ClassVar = False

    webhook_url: Annotated[str, _URL]


decode_route = msgspec.json.Decoder(RoutePutBody).decode
decode_patched_route = msgspec.json.Decoder(RouteBody).decode


class Merge:
    """One body on top of what is stored under its name, `base`, if anything is.

    PATCH keeps what is absent. PUT takes defaults, but keeps the secret when it is absent, and
    whatever is sent back masked. Values that are equal keep their stored seal, so that an equal
    PUT changes nothing.
    """

    def __init__(
        self,
        engine: Engine,
        body: RouteBody,
        base: Route | None,
        db: str,
        name: str,
        *,
        patch: bool,
    ) -> None:
        self._engine = engine
        self._body = body
        self._base = base
        self._db = db
        self._name = name
        self._kept = base if patch else None

    def run(self) -> tuple[Route, Target]:
        """The route that is asked for, and its target. Raises what is wrong with it."""
        body, base, kept = self._body, self._base, self._kept
        _refuse_unsupported(body)
        fields: dict[str, Any] = {}
        if kept is not None:
            fields = {key: getattr(kept, key) for key in Route.__struct_fields__}
        for key in _AS_GIVEN:
            value = getattr(body, key)
            if value is not _UNSET:
                fields[key] = value
        if isinstance(body.retry, RetryBody):
            changes = {
                key: value
                for key in RetryBody.__struct_fields__
                if (value := getattr(body.retry, key)) is not _UNSET
            }
            before = Retry() if kept is None else kept.retry
            fields["retry"] = msgspec.structs.replace(before, **changes)
        if isinstance(body.rate, RateBody):
            fields["rate"] = Rate(count=body.rate.count, period_ms=body.rate.period_ms)
        if isinstance(body.headers, dict):
            fields["headers"] = self._headers(body.headers)
        fields["secrets"] = self._secrets()
        if not isinstance(body.client_key_pem, _Maybe):
            fields["client_key_pem"] = self._client_key(body.client_key_pem)
        target = self._take_url(fields)
        self._take_switches(fields)
        fields |= {
            "uid": 0,
            "db": self._db,
            "name": self._name,
            "version": 0,
            "created_ms": 0,
            "updated_ms": 0,
            "paused": base is not None and base.paused,
        }
        route = Route(**fields)
        _check_ranges(route)
        self._check_tls(route)
        if route.https_only and target.scheme != "https":
            raise invalid("/webhook_url", "https_only is set, and this URL is not https.")
        return route, target

    def _take_switches(self, fields: dict[str, Any]) -> None:
        """`enabled` as GET shows it: false also where the system stopped the route."""
        base, wanted = self._base, self._body.enabled
        if wanted is _UNSET:
            fields["enabled"] = True if self._kept is None else self._kept.enabled
            fields["disabled"] = None if base is None else base.disabled
        elif wanted:
            fields["enabled"], fields["disabled"] = True, None
        elif base is not None and base.disabled is not None:
            fields["enabled"], fields["disabled"] = base.enabled, base.disabled
        else:
            fields["enabled"] = False

    # --- secrets ---------------------------------------------------------------------------

    def _seal(self, text: str) -> bytes:
        engine = self._engine
        return seal_value(
            engine.master_keys[0],
            text,
            nonce=engine.random_bytes(limits.SEAL_NONCE_BYTES),
            db=self._db,
            name=self._name,
        )

    def _sealed_again(self, text: str, stored: bytes | None) -> bytes:
        """`stored` where it seals this text, else a new seal."""
        if stored is not None:
            keys = self._engine.master_keys
            if open_value(keys, stored, db=self._db, name=self._name) == text:
                return stored
        return self._seal(text)

    def _headers(self, given: dict[str, str]) -> dict[str, bytes]:
        if len(given) > limits.ROUTE_HEADERS_COUNT_MAX:
            raise invalid(
                "/headers", f"A route has at most {limits.ROUTE_HEADERS_COUNT_MAX} headers."
            )
        base = {} if self._base is None else self._base.headers
        stored = {name.lower(): sealed for name, sealed in base.items()}
        headers: dict[str, bytes] = {}
        seen = set()
        for name, value in given.items():
            pointer = "/headers/" + name.replace("~", "~0").replace("/", "~1")
            lower = name.lower()
            if _TOKEN.fullmatch(name) is None or len(name) > limits.HEADER_NAME_BYTES_MAX:
                raise invalid(pointer, "This cannot be the name of a header.")
            if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
                raise invalid(pointer, "This header is set by TimeMachine alone.")
            if lower in seen:
                raise invalid(pointer, "This header is given twice.")
            seen.add(lower)
            if value == MASK:
                if lower not in stored:
                    raise invalid(pointer, f"{MASK} stands for a stored value; there is none.")
                headers[name] = stored[lower]
                continue
            try:
                size = len(value.encode("latin-1"))
            except UnicodeEncodeError:
                raise invalid(pointer, "A header's value has Latin-1 characters only.") from None
            if size > limits.HEADER_VALUE_BYTES_MAX or _NO_VALUE.search(value):
                raise invalid(
                    pointer,
                    f"A value has at most {limits.HEADER_VALUE_BYTES_MAX} bytes, no control"
                    " characters, and no space at its ends.",
                )
            headers[name] = self._sealed_again(value, stored.get(lower))
        return headers

    def _secrets(self) -> tuple[SealedKey, ...]:
        kept = () if self._base is None else self._base.secrets
        given = self._body.secret
        if isinstance(given, _Maybe) or given is None:
            if kept:
                return kept
            return (SealedKey(sealed=seal_secret(self._engine, self._db, self._name, None)),)
        _check_secret(given)
        if kept:
            sealed = self._sealed_again(given, kept[0].sealed)
            if sealed == kept[0].sealed:
                return kept
            return (SealedKey(sealed=sealed),)
        return (SealedKey(sealed=seal_secret(self._engine, self._db, self._name, given)),)

    def _client_key(self, given: str | None) -> bytes | None:
        stored = None if self._base is None else self._base.client_key_pem
        if given is None:
            return None
        if given == MASK:
            if stored is None:
                raise invalid("/client_key_pem", f"{MASK} stands for a stored key; there is none.")
            return stored
        if len(given) > limits.PEM_BYTES_MAX:
            raise invalid("/client_key_pem", f"PEM has at most {limits.PEM_BYTES_MAX} bytes.")
        if "ENCRYPTED" in given:
            raise invalid(
                "/client_key_pem", "Send the key without a passphrase; it is sealed here."
            )
        return self._sealed_again(given, stored)

    def _check_tls(self, route: Route) -> None:
        """What is given as PEM can be used: R87 of the delivery requirements."""
        certificate = route.client_cert_pem
        if (certificate is None) != (route.client_key_pem is None):
            missing = "/client_cert_pem" if certificate is None else "/client_key_pem"
            raise invalid(missing, "A client certificate and its key come together.")
        for member, pem in (("ca_pem", route.ca_pem), ("client_cert_pem", certificate)):
            if pem is not None and len(pem) > limits.PEM_BYTES_MAX:
                raise invalid(f"/{member}", f"PEM has at most {limits.PEM_BYTES_MAX} bytes.")
        if route.ca_pem is not None:
            _try_tls(TlsOptions(ca_pem=route.ca_pem), "/ca_pem")
        if certificate is None or route.client_key_pem is None:
            return
        try:
            leaf = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError:
            raise invalid("/client_cert_pem", "This is no certificate in PEM.") from None
        if leaf.not_valid_after_utc.timestamp() * 1000 < self._engine.now_ms():
            raise invalid("/client_cert_pem", "This certificate has expired.")
        keys = self._engine.master_keys
        key = open_value(keys, route.client_key_pem, db=self._db, name=self._name)
        options = TlsOptions(client_cert_pem=certificate, client_key_pem=key)
        _try_tls(options, "/client_key_pem")

    # --- the URL ---------------------------------------------------------------------------

    def _take_url(self, fields: dict[str, Any]) -> Target:
        """Take the URL without its user and password, which are sealed beside it."""
        given = self._body.webhook_url
        if isinstance(given, _Maybe):
            if self._kept is None:
                raise invalid("/webhook_url", "This member is required.")
            return parse_target(self._kept.webhook_url)[0]
        target, userinfo = parse_target(given)
        if userinfo is None:
            fields["webhook_url"], fields["basic_auth"] = given, None
            return target
        scheme, _, rest = given.partition("://")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        host = authority.rpartition("@")[2]
        fields["webhook_url"] = f"{scheme}://{host}{rest[len(authority) :]}"
        stored = None if self._base is None else self._base.basic_auth
        if userinfo == MASK:
            if stored is None:
                raise invalid("/webhook_url", f"{MASK} stands for stored credentials; none are.")
            fields["basic_auth"] = stored
        else:
            fields["basic_auth"] = self._sealed_again(unquote(userinfo), stored)
        return target


def _check_secret(given: str) -> None:
    try:
        parse_secret(given)
    except InvalidSecret as error:
        raise invalid("/secret", error.detail) from None


def seal_secret(engine: Engine, db: str, name: str, given: str | None) -> bytes:
    """A signing secret of a route, sealed: the one that is given, or a new one."""
    if given is None:
        given = format_secret(engine.random_bytes(limits.SECRET_BYTES_GENERATED))
    _check_secret(given)
    nonce = engine.random_bytes(limits.SEAL_NONCE_BYTES)
    return seal_value(engine.master_keys[0], given, nonce=nonce, db=db, name=name)


def unexpired(route: Route, now_ms: int) -> list[SealedKey]:
    """The current secret of a route, and then those of before that still sign."""
    return [each for each in route.secrets if each.expires_ms is None or each.expires_ms > now_ms]


def _try_tls(options: TlsOptions, pointer: str) -> None:
    try:
        make_context(options)
    except (ssl.SSLError, ValueError, OSError):
        raise invalid(pointer, "This PEM cannot be used, or does not fit its pair.") from None


def _refuse_unsupported(body: RouteBody) -> None:
    if body.type not in ("webhook", "REST"):
        raise invalid("/type", "This is `webhook` (or `REST`, which means the same).")
    if body.smear_ms != 0:
        raise invalid("/smear_ms", "Smearing is not supported yet; send 0.")
    if body.breaker:
        raise invalid("/breaker", "The circuit breaker is not supported yet; send null.")
    if body.disable_after_ms not in (0, _DISABLE_AFTER_DEFAULT_MS):
        raise invalid("/disable_after_ms", "Disabling by time is not supported yet; send 0.")
    if body.batch is not None and body.batch != RouteBatch():
        raise invalid("/batch", "Batches are not supported yet; send max_jobs 1.")


def _in_range(pointer: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise invalid(pointer, f"This is {low} to {high}.")


def _check_ranges(route: Route) -> None:
    _in_range(
        "/timeout_ms", route.timeout_ms, limits.ROUTE_TIMEOUT_MS_MIN, limits.ROUTE_TIMEOUT_MS_MAX
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
    if len(route.non_retryable_status) > _STATUSES_MAX:
        raise invalid("/non_retryable_status", f"There are at most {_STATUSES_MAX} entries.")
    for number, status in enumerate(route.non_retryable_status):
        _in_range(f"/non_retryable_status/{number}", status, 300, 599)
