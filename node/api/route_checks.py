"""What the members of a route may be, checked: for sentences and pointers that people can use."""

import re
import ssl
from collections.abc import Callable

from cryptography import x509

from node.api.conventions import NAME
from node.api.problems import check_range, invalid
from node.api.route_bodies import STATUSES_MAX, TOKEN, RouteBody
from node.sender.tls import make_context
from timemachine import limits
from timemachine.model import Breaker, Route
from timemachine.outbound import TlsOptions

_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$")
_RESERVED = frozenset(
    "host content-length content-type content-encoding transfer-encoding te trailer trailers"
    " upgrade connection keep-alive user-agent accept accept-encoding idempotency-key"
    " expect".split()
)
_RESERVED_PREFIXES = ("webhook-", "timemachine-", "proxy-")


def check_header_name(name: str, pointer: str) -> None:
    """Refuse what cannot be the name of a header, or is not for users to set."""
    if TOKEN.fullmatch(name) is None or len(name) > limits.HEADER_NAME_BYTES_MAX:
        raise invalid(pointer, "This cannot be the name of a header.")
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise invalid(pointer, "This header is set by TimeMachine alone.")


def check_header_value(value: str, pointer: str) -> None:
    """Refuse what cannot be sent as the value of a header."""
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


def refuse_unsupported(body: RouteBody) -> None:
    """Refuse what a later release will know: only its absence has a meaning yet."""
    if body.type not in ("webhook", "REST"):
        raise invalid("/type", "This is `webhook` (or `REST`, which means the same).")


def check_ranges(route: Route) -> None:
    """Refuse numbers and words that are none of those that may be."""
    check_range(
        "/timeout_ms", route.timeout_ms, limits.ROUTE_TIMEOUT_MS_MIN, limits.ROUTE_TIMEOUT_MS_MAX
    )
    check_range("/smear_ms", route.smear_ms, 0, limits.ROUTE_SMEAR_MS_MAX)
    check_range("/max_in_flight", route.max_in_flight, 1, limits.ROUTE_IN_FLIGHT_MAX)
    if route.alert_route is not None:
        if NAME.fullmatch(route.alert_route) is None:
            raise invalid("/alert_route", "This is the name of a route, or null.")
        if route.alert_route == route.name:
            raise invalid("/alert_route", "A route that fails cannot tell so; name another one.")
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
        check_range(f"/retry/schedule_ms/{number}", delay_ms, 0, limits.RETRY_DELAY_MS_MAX)
    check_range("/retry/max_attempts", retry.max_attempts, 1, limits.RETRY_ATTEMPTS_MAX)
    check_range("/retry/max_age_ms", retry.max_age_ms, 0, limits.RETRY_AGE_MS_MAX)
    check_range("/retry/jitter", retry.jitter, 0.0, 1.0)
    check_range("/rate/count", route.rate.count, 1, limits.ROUTE_RATE_COUNT_MAX)
    check_range("/rate/period_ms", route.rate.period_ms, 1, limits.ROUTE_RATE_PERIOD_MS_MAX)
    if route.breaker is not None:
        _check_breaker(route.breaker)
    check_range("/disable_after_ms", route.disable_after_ms, 0, limits.DISABLE_AFTER_MS_MAX)
    _check_batch(route)
    if len(route.non_retryable_status) > STATUSES_MAX:
        raise invalid("/non_retryable_status", f"There are at most {STATUSES_MAX} entries.")
    for number, status in enumerate(route.non_retryable_status):
        check_range(f"/non_retryable_status/{number}", status, 300, 599)


def _check_breaker(breaker: Breaker) -> None:
    check_range("/breaker/failure_ratio", breaker.failure_ratio, 0.01, 1.0)
    check_range("/breaker/min_requests", breaker.min_requests, 1, limits.BREAKER_REQUESTS_MAX)
    check_range(
        "/breaker/window_ms",
        breaker.window_ms,
        limits.BREAKER_WINDOW_MS_MIN,
        limits.BREAKER_WINDOW_MS_MAX,
    )
    check_range(
        "/breaker/open_ms", breaker.open_ms, limits.BREAKER_OPEN_MS_MIN, limits.BREAKER_OPEN_MS_MAX
    )
    check_range(
        "/breaker/half_open_requests",
        breaker.half_open_requests,
        1,
        limits.BREAKER_HALF_OPEN_MAX,
    )


def _check_batch(route: Route) -> None:
    batch = route.batch
    check_range("/batch/max_jobs", batch.max_jobs, 1, limits.ROUTE_BATCH_JOBS_MAX)
    check_range(
        "/batch/max_bytes",
        batch.max_bytes,
        limits.ROUTE_BATCH_BYTES_MIN,
        limits.ROUTE_BATCH_BYTES_MAX,
    )
    check_range("/batch/max_wait_ms", batch.max_wait_ms, 0, limits.ROUTE_BATCH_WAIT_MS_MAX)
    if batch.format not in ("jobs", "cloudevents"):
        raise invalid("/batch/format", "This is `jobs` or `cloudevents`.")
    if route.batched and batch.format == "jobs" and route.body == "meta":
        raise invalid(
            "/batch/format",
            "A meta alone does not tell its webhook-id: send body `job`, or format `cloudevents`.",
        )


def check_tls(route: Route, open_key: Callable[[bytes], str], now_ms: int) -> None:
    """Refuse PEM that cannot be used: R87 of the delivery requirements.

    `open_key` opens the sealed key of the client's certificate.
    """
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
    if leaf.not_valid_after_utc.timestamp() * 1000 < now_ms:
        raise invalid("/client_cert_pem", "This certificate has expired.")
    key = open_key(route.client_key_pem)
    options = TlsOptions(client_cert_pem=certificate, client_key_pem=key)
    _try_tls(options, "/client_key_pem")


def _try_tls(options: TlsOptions, pointer: str) -> None:
    try:
        make_context(options)
    except (ssl.SSLError, ValueError, OSError):
        raise invalid(pointer, "This PEM cannot be used, or does not fit its pair.") from None
