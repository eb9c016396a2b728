"""From the body of a route to the route that is stored: merged, checked, its secrets sealed."""

import re
from typing import Any
from urllib.parse import unquote

import msgspec

from node.api.problems import invalid, step
from node.api.route_bodies import BatchBody, BreakerBody, RateBody, RetryBody, RouteBody
from node.api.route_checks import (
    check_header_name,
    check_header_value,
    check_ranges,
    check_tls,
    refuse_unsupported,
)
from node.api.route_seals import V1, Seals, check_secret
from node.api.route_views import MASK
from node.engine import Engine
from timemachine import limits
from timemachine.model import Batching, Breaker, Rate, Retry, Route, SealedKey
from timemachine.outbound import Target, parse_target

_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_AS_GIVEN = (
    "https_only",
    "body",
    "timeout_ms",
    "delivery",
    "max_in_flight",
    "disable_after_ms",
    "smear_ms",
    "alert_route",
    "non_retryable_status",
    "ca_pem",
    "client_cert_pem",
    "dangerous_skip_tls_verify",
)


def _given(body: RetryBody | BreakerBody | BatchBody) -> dict[str, Any]:
    """The members that are given."""
    members = {key: getattr(body, key) for key in body.__struct_fields__}
    return {key: value for key, value in members.items() if value is not _UNSET}


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
        self._seals = Seals(engine, db, name)
        self._kept = base if patch else None

    def run(self) -> tuple[Route, Target]:
        """The route that is asked for, and its target. Raises what is wrong with it."""
        body, base, kept = self._body, self._base, self._kept
        refuse_unsupported(body)
        fields: dict[str, Any] = {}
        if kept is not None:
            fields = {key: getattr(kept, key) for key in Route.__struct_fields__}
        for key in _AS_GIVEN:
            value = getattr(body, key)
            if value is not _UNSET:
                fields[key] = value
        if isinstance(body.retry, RetryBody):
            retry = Retry() if kept is None else kept.retry
            fields["retry"] = msgspec.structs.replace(retry, **_given(body.retry))
        if isinstance(body.breaker, BreakerBody):
            breaker = None if kept is None else kept.breaker
            changes = _given(body.breaker)
            fields["breaker"] = msgspec.structs.replace(breaker or Breaker(), **changes)
        elif body.breaker is None:
            fields["breaker"] = None
        if isinstance(body.batch, BatchBody):
            batch = Batching() if kept is None else kept.batch
            fields["batch"] = msgspec.structs.replace(batch, **_given(body.batch))
        elif body.batch is None:
            fields["batch"] = Batching()
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
        check_ranges(route)
        self._check_alert_route(route)
        check_tls(route, self._seals.open, self._engine.now_ms())
        if route.https_only and target.scheme != "https":
            raise invalid("/webhook_url", "https_only is set, and this URL is not https.")
        return route, target

    def _check_alert_route(self, route: Route) -> None:
        """Refuse one that is not there, unless it was named before: it may have been deleted."""
        alert, base = route.alert_route, self._base
        if alert is None or (base is not None and alert == base.alert_route):
            return
        if (self._db, alert) not in self._engine.meta.routes:
            raise invalid("/alert_route", "This database has no route of that name.")

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
            pointer = f"/headers{step(name)}"
            lower = name.lower()
            check_header_name(name, pointer)
            if lower in seen:
                raise invalid(pointer, "This header is given twice.")
            seen.add(lower)
            if value == MASK:
                if lower not in stored:
                    raise invalid(pointer, f"{MASK} stands for a stored value; there is none.")
                headers[name] = stored[lower]
                continue
            check_header_value(value, pointer)
            headers[name] = self._seals.seal_again(value, stored.get(lower))
        return headers

    def _secrets(self) -> tuple[SealedKey, ...]:
        kept = () if self._base is None else self._base.secrets
        given = self._body.secret
        if isinstance(given, _Maybe) or given is None:
            return kept or (SealedKey(sealed=self._seals.seal(self._seals.made_secret(V1))),)
        check_secret(given)
        stored = kept[0].sealed if kept else None
        sealed = self._seals.seal_again(given, stored)
        return kept if sealed == stored else (SealedKey(sealed=sealed),)

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
        return self._seals.seal_again(given, stored)

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
            fields["basic_auth"] = self._seals.seal_again(unquote(userinfo), stored)
        return target
