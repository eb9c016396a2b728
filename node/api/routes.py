"""Routes: where jobs are sent."""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.conventions import Answer, Call, Nothing, ask, decoded, json_answer, replayed
from node.api.lookups import find_database, find_route_of
from node.api.operations import (
    DATABASE,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    IN_DATABASE,
    ROUTE,
    Example,
    Told,
    flag,
    operation,
)
from node.api.paging import PAGED, Page, page
from node.api.problems import check_range, invalid, refusal
from node.api.route_bodies import SECRET_SCHEMA, RouteBody, RoutePutBody
from node.api.route_closing import closed_answer
from node.api.route_seals import (
    V1,
    V1A,
    Seals,
    check_secret,
    kind_of,
    public_key_of,
    unexpired,
)
from node.api.route_store import RouteStore
from node.api.route_views import ExampleView, PreviousSecret, RouteView, SecretView, route_view
from node.api.schemas import between
from node.engine import Engine
from node.secrets import parse_signing_key, signing_key_id
from timemachine import limits
from timemachine.model import Route, SealedKey
from timemachine.signing import key_id_text

_TAG = "Routes"
_CONDITIONAL = (IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH)
_IN_ROUTE = (*IN_DATABASE, "404 route_not_found")
_STORED = ("ETag", "Idempotent-Replayed")
_CHANGED_BY_OTHERS = "409 conflict"
_PENDING = Told(
    meaning="Done, but some vnodes may still start a send.", body=RouteView, headers=_STORED
)


class RotateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new secret."""

    secret: Annotated[
        str | None,
        Meta(
            description="`whsec_` or `whsk_`, and base64; generated when absent.",
            extra_json_schema=SECRET_SCHEMA,
        ),
    ] = None
    type: Annotated[
        str | None,
        Meta(
            description="Generate one that signs so: `v1` by HMAC, `v1a` by Ed25519. Absent: as the"
            " current one does.",
            extra_json_schema={"enum": [V1, V1A, None]},
        ),
    ] = None
    grace_period_ms: Annotated[
        int,
        Meta(description="How long the old secret signs beside it."),
        between(0, limits.SECRET_GRACE_MS_MAX),
    ] = limits.SECRET_GRACE_MS_DEFAULT


_decode_rotate = msgspec.json.Decoder(RotateBody).decode


class RouteHandlers:
    """Operations on routes."""

    def __init__(self, engine: Engine, store: RouteStore) -> None:
        self._engine = engine
        self._store = store

    def _view(self, route: Route) -> RouteView:
        return route_view(route, self._engine.delivery.condition(route))

    def _shown(self, route: Route) -> Answer:
        """A route as it was found."""
        return json_answer(self._view(route), headers={"ETag": f'"{route.version}"'})

    # --- writing ---------------------------------------------------------------------------

    @operation(
        "PUT",
        ROUTE,
        tag=_TAG,
        headers=_CONDITIONAL,
        body=RoutePutBody,
        answers={
            201: Told(meaning="Created.", body=RouteView, headers=_STORED),
            200: Told(meaning="Replaced, or equal.", body=RouteView, headers=_STORED),
            202: _PENDING,
        },
        refusals=[*IN_DATABASE, "400 blocked_address", _CHANGED_BY_OTHERS, "413 limit_reached"],
        example=Example(
            body={
                "webhook_url": "http://127.0.0.1:4000/callback",
                "headers": {"x-team": "games"},
                "retry": {"schedule_ms": [5_000, 60_000], "max_attempts": 5},
            }
        ),
    )
    async def put_route(self, call: Call) -> Answer:
        """Create or replace a route.

        Only `webhook_url` is required; omitted members take their defaults, but an absent `secret`
        keeps the stored one, and a masked value that is sent back the value it masks.
        """
        return await closed_answer(self._engine, await self._store.write(call, patch=False))

    @operation(
        "PATCH",
        ROUTE,
        tag=_TAG,
        headers=_CONDITIONAL,
        body=RouteBody,
        body_required=False,
        answers={
            200: Told(meaning="Changed, or equal.", body=RouteView, headers=_STORED),
            202: _PENDING,
        },
        refusals=[*_IN_ROUTE, "400 blocked_address", _CHANGED_BY_OTHERS],
        example=Example(body={"timeout_ms": 10_000, "retry": {"max_attempts": 8}}),
    )
    async def patch_route(self, call: Call) -> Answer:
        """Change a route.

        Replaces the members that are given; those of `retry` and `breaker` one by one.
        """
        find_route_of(self._engine, *call.names)
        return await closed_answer(self._engine, await self._store.write(call, patch=True))

    @operation(
        "DELETE",
        ROUTE,
        tag=_TAG,
        query=[flag("force", "Delete it although jobs are scheduled for it; those end dead.")],
        headers=(IDEMPOTENCY_KEY, IF_MATCH),
        answers={
            200: Told(meaning="What was deleted.", body=RouteView, headers=_STORED),
            202: _PENDING,
        },
        refusals=[*_IN_ROUTE, "409 route_in_use"],
        example=Example(query={"force": True}),
    )
    async def delete_route(self, call: Call) -> Answer:
        """Delete a route.

        Jobs that are scheduled for it end `dead`, reason `route_deleted`, and can be redriven.
        """
        return await closed_answer(self._engine, await self._store.delete(call))

    @operation(
        "POST",
        f"{ROUTE}/pause",
        tag=_TAG,
        headers=_CONDITIONAL,
        body=Nothing,
        body_required=False,
        answers={
            200: Told(meaning="No send can start any more.", body=RouteView, headers=_STORED),
            202: _PENDING,
        },
        refusals=[*_IN_ROUTE, _CHANGED_BY_OTHERS],
    )
    async def pause(self, call: Call) -> Answer:
        """Pause a route.

        Jobs that come due are `held` until it is resumed. After 202, pause it again to see whether
        `pending_vnodes` are left.
        """
        return await self._set_paused(call, paused=True)

    @operation(
        "POST",
        f"{ROUTE}/resume",
        tag=_TAG,
        headers=_CONDITIONAL,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="Sends start again.", body=RouteView, headers=_STORED)},
        refusals=[*_IN_ROUTE, _CHANGED_BY_OTHERS],
    )
    async def resume(self, call: Call) -> Answer:
        """Resume a route.

        Also where the system disabled it.
        """
        return await self._set_paused(call, paused=False)

    async def _set_paused(self, call: Call, *, paused: bool) -> Answer:
        call.no_members()
        find_route_of(self._engine, *call.names)

        def merge(base: Route | None) -> tuple[Route, None]:
            if base is None:
                raise refusal("route_not_found")
            if paused:
                return msgspec.structs.replace(base, paused=True), None
            return msgspec.structs.replace(base, paused=False, disabled=None), None

        return await closed_answer(self._engine, await self._store.change(call, merge))

    @operation(
        "POST",
        f"{ROUTE}/secret/rotate",
        tag=_TAG,
        headers=_CONDITIONAL,
        body=RotateBody,
        body_required=False,
        answers={
            200: Told(
                meaning="The secrets.",
                body=SecretView,
                headers=(*_STORED, "Cache-Control"),
            )
        },
        refusals=[*_IN_ROUTE, "400 limit_reached", _CHANGED_BY_OTHERS],
        example=Example(body={"grace_period_ms": 86_400_000}),
    )
    async def rotate_secret(self, call: Call) -> Answer:
        """Change the signing secret of a route.

        Until the grace is over, webhooks are signed with the new secret and with those before it
        (Standard Webhooks, zero downtime secret rotation). The new one may be of another type.
        """
        find_route_of(self._engine, *call.names)
        body = decoded(_decode_rotate, call.body or b"{}")
        check_range("/grace_period_ms", body.grace_period_ms, 0, limits.SECRET_GRACE_MS_MAX)
        if body.type not in (None, V1, V1A):
            raise invalid("/type", f"This is `{V1}` or `{V1A}`.")
        db, name = call.names
        engine = self._engine
        seals = Seals(engine, db, name)
        if body.secret is not None:
            check_secret(body.secret)
            if body.type not in (None, kind_of(body.secret)):
                raise invalid("/type", "The secret that is given is of the other type.")

        def merge(base: Route | None) -> tuple[Route, None]:
            if base is None:
                raise refusal("route_not_found")
            now_ms = engine.now_ms()
            current, *older = unexpired(base, now_ms)
            text = body.secret
            if text is None:
                text = seals.made_secret(body.type or kind_of(seals.open(current.sealed)))
            if body.grace_period_ms:
                expires_ms = now_ms + body.grace_period_ms
                older = [SealedKey(sealed=current.sealed, expires_ms=expires_ms), *older]
            if len(older) > limits.SECRETS_OLD_MAX:
                soonest_ms = min(each.expires_ms or 0 for each in older)
                raise invalid(
                    "",
                    f"A route has at most {limits.SECRETS_OLD_MAX} old secrets; the next one"
                    f" expires at {soonest_ms}.",
                    code="limit_reached",
                )
            secrets = (SealedKey(sealed=seals.seal(text)), *older)
            return msgspec.structs.replace(base, secrets=secrets), None

        result = await self._store.change(call, merge)
        answer = self._secret_answer(self._as_sealed_now(result.route))
        answer.headers |= replayed(result)
        return answer

    # --- reading ---------------------------------------------------------------------------

    @operation(
        "GET",
        ROUTE,
        tag=_TAG,
        answers={200: Told(meaning="The route.", body=RouteView, headers=("ETag",))},
        refusals=_IN_ROUTE,
    )
    async def get_route(self, call: Call) -> Answer:
        """Read a route."""
        return self._shown(find_route_of(self._engine, *call.names))

    @operation(
        "GET",
        f"{DATABASE}/routes",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="By name.", body=Page[RouteView])},
        refusals=IN_DATABASE,
    )
    async def list_routes(self, call: Call) -> Answer:
        """List the routes of a database."""
        db = call.names[0]
        find_database(self._engine, db)
        rows = [row for pair, row in self._engine.meta.routes.items() if pair[0] == db]
        return page(call, rows, f"{db}/routes", "name", self._view)

    @operation(
        "GET",
        f"{ROUTE}/secret",
        tag=_TAG,
        answers={
            200: Told(meaning="The secrets.", body=SecretView, headers=("ETag", "Cache-Control"))
        },
        refusals=_IN_ROUTE,
    )
    async def get_secret(self, call: Call) -> Answer:
        """Read the signing secret of a route.

        Recipients verify webhooks with it, or with the public key (Standard Webhooks).
        """
        return self._secret_answer(find_route_of(self._engine, *call.names))

    def _as_sealed_now(self, route: Route) -> Route:
        """A route of an answer that was kept: its secrets may be sealed with another key by now."""
        known = self._engine.meta.routes.get((route.db, route.name))
        same = known is not None and (known.uid, known.version) == (route.uid, route.version)
        return known if known is not None and same else route

    def _secret_answer(self, route: Route) -> Answer:
        seals = Seals(self._engine, route.db, route.name)
        current, *older = [
            (seals.open(each.sealed), each.expires_ms)
            for each in unexpired(route, self._engine.now_ms())
        ]
        previous = [
            PreviousSecret(secret, expires_ms, public_key_of(secret), _key_id(secret))
            for secret, expires_ms in older
        ]
        secret = current[0]
        answer = json_answer(SecretView(secret, public_key_of(secret), previous, _key_id(secret)))
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["ETag"] = f'"{route.version}"'
        return answer

    @operation(
        "POST",
        f"{ROUTE}/send-example",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="How it went, also where it failed.", body=ExampleView)},
        refusals=_IN_ROUTE,
    )
    async def send_example(self, call: Call) -> Answer:
        """Send one signed example now.

        Nothing is stored.
        """
        call.no_members()
        route = find_route_of(self._engine, *call.names)
        sent = await ask(self._engine.send_example, route)
        return json_answer(msgspec.convert(sent, ExampleView))


def _key_id(secret: str) -> str:
    return key_id_text(signing_key_id(parse_signing_key(secret)))
