"""Routes: where jobs are sent."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from node.api.conventions import (
    NO_VERSION,
    Answer,
    Call,
    Nothing,
    ask,
    ask_meta,
    checked_name,
    decoded,
    encode_content,
    encode_json,
    idempotency_key,
    if_match,
    if_none_match,
    json_answer,
    request_of,
)
from node.api.lookups import find_database, find_route
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
from node.api.route_bodies import (
    SECRET_SCHEMA,
    RouteBody,
    RoutePutBody,
    decode_patched_route,
    decode_route,
)
from node.api.route_merge import Merge
from node.api.route_seals import Seals, unexpired
from node.api.route_views import ExampleView, PreviousSecret, RouteView, SecretView, route_view
from node.api.schemas import between
from node.engine import Engine
from timemachine import limits
from timemachine.errors import Conflict
from timemachine.model import Route, SealedKey
from timemachine.outbound import Target
from timemachine.replica import meta as m

CheckTarget = Callable[[Target], Awaitable[None]]
"""Judges where a route would send to. Raises InvalidRequest."""

_ATTEMPTS_TO_MERGE = 10

_TAG = "Routes"
_CONDITIONAL = (IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH)
_IN_ROUTE = (*IN_DATABASE, "404 route_not_found")
_STORED = ("ETag", "Idempotent-Replayed")
_CHANGED_BY_OTHERS = "409 conflict"


class RotateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new secret."""

    secret: Annotated[
        str | None,
        Meta(
            description="`whsec_` and base64; generated when absent.",
            extra_json_schema=SECRET_SCHEMA,
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

    def __init__(self, engine: Engine, check_target: CheckTarget) -> None:
        self._engine = engine
        self._check_target = check_target

    def _find(self, call: Call) -> Route:
        db, name = call.names
        if (db, name) not in self._engine.meta.routes:
            find_database(self._engine, db)
        return find_route(self._engine, db, name)

    def _condition(self, call: Call) -> int | None:
        db, name = call.names

        def version() -> int:
            route = self._engine.meta.routes.get((db, name))
            return NO_VERSION if route is None else route.version

        return if_match(call, version)

    @staticmethod
    def _answer(route: Route, result: Any = None) -> Answer:
        """A route, after a command with this result or as it was found."""
        headers = {"ETag": f'"{route.version}"'}
        if result is not None and result.replayed:
            headers["Idempotent-Replayed"] = "true"
        status = 201 if result is not None and result.kind == "created" else 200
        return Answer(status=status, body=encode_json(route_view(route)), headers=headers)

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
        return await self._write(call, patch=False)

    @operation(
        "PATCH",
        ROUTE,
        tag=_TAG,
        headers=_CONDITIONAL,
        body=RouteBody,
        body_required=False,
        answers={200: Told(meaning="Changed, or equal.", body=RouteView, headers=_STORED)},
        refusals=[*_IN_ROUTE, "400 blocked_address", _CHANGED_BY_OTHERS],
        example=Example(body={"timeout_ms": 10_000, "retry": {"max_attempts": 8}}),
    )
    async def patch_route(self, call: Call) -> Answer:
        """Change a route.

        Replaces the members that are given; those of `retry` one by one.
        """
        self._find(call)
        return await self._write(call, patch=True)

    async def _write(self, call: Call, *, patch: bool) -> Answer:
        db, name = call.names
        find_database(self._engine, db)
        checked_name(name, "route")
        body = decoded(decode_patched_route if patch else decode_route, call.body or b"{}")

        def merge(base: Route | None) -> tuple[Route, Target]:
            return Merge(self._engine, body, base, db, name, patch=patch).run()

        return await self._store(call, merge)

    async def _store(
        self,
        call: Call,
        merge: Callable[[Route | None], tuple[Route, Target | None]],
        view: Callable[[Route], Answer] | None = None,
    ) -> Answer:
        """Merge with what is stored, check, propose; again when it changed meanwhile.

        Conditions go into the command, since a repeat with the same key must be answered by the
        log even where the condition, by the first request's success, does not hold any more.
        """
        db, name = call.names
        condition = self._condition(call)
        absent = if_none_match(call)
        key = idempotency_key(call)
        content = encode_content((call.method, call.operation, call.body, condition, absent))
        request = request_of(key, f"route/{db}/{name}", content)
        for _ in range(_ATTEMPTS_TO_MERGE):
            base = self._engine.meta.routes.get((db, name))
            version = NO_VERSION if base is None else base.version
            expected = NO_VERSION if absent else version if condition is None else condition
            conditional = absent or condition is not None
            # A condition for version 0 never holds, while the command takes it for "no route".
            if (expected != version and key is None) or condition == NO_VERSION:
                raise refusal("precondition_failed")
            route, target = merge(base)
            if target is not None:
                await self._check_target(target)
            command = m.PutRoute(
                now_ms=self._engine.now_ms(),
                route=route,
                expected_version=expected,
                request=request,
            )
            result = await ask(self._engine.propose_meta, command)
            if result.code == "version_moved" and not conditional:
                continue
            if result.kind == "refused":
                raise refusal(
                    result.code,
                    f"A cluster has at most {limits.ROUTES_MAX} routes."
                    if result.code == "limit_reached"
                    else None,
                )
            if view is not None:
                answer = view(result.route)
                if result.replayed:
                    answer.headers["Idempotent-Replayed"] = "true"
                return answer
            return self._answer(result.route, result)
        raise Conflict("The route is being changed by others all the time.")

    @operation(
        "DELETE",
        ROUTE,
        tag=_TAG,
        query=[flag("force", "Delete it although jobs are scheduled for it; those end dead.")],
        headers=(IDEMPOTENCY_KEY, IF_MATCH),
        answers={200: Told(meaning="What was deleted.", body=RouteView, headers=_STORED)},
        refusals=[*_IN_ROUTE, "409 route_in_use"],
        example=Example(query={"force": True}),
    )
    async def delete_route(self, call: Call) -> Answer:
        """Delete a route.

        Jobs that are scheduled for it end `dead`, reason `route_deleted`, and can be redriven.
        """
        key = idempotency_key(call)
        db, name = call.names
        route = self._engine.meta.routes.get((db, name))
        if route is None and key is None:
            route = self._find(call)
        condition = self._condition(call)
        if condition == NO_VERSION and key is None:
            raise refusal("precondition_failed")
        pending = route is not None and self._engine.jobs_of_route(route.uid)[0]
        if pending and not call.flag("force"):
            raise refusal(
                "route_in_use",
                f"{pending} jobs are scheduled for this route; delete it with ?force=true, and"
                " they end as dead, reason route_deleted.",
            )
        command = m.DeleteRoute(
            now_ms=self._engine.now_ms(),
            db=db,
            name=name,
            expected_version=condition,
            request=request_of(key, f"route/{db}/{name}", encode_content(("delete", condition))),
        )
        result = await ask_meta(self._engine, command, missing="route_not_found")
        return self._answer(result.route, result)

    @operation(
        "POST",
        f"{ROUTE}/pause",
        tag=_TAG,
        headers=_CONDITIONAL,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="No send can start any more.", body=RouteView, headers=_STORED)},
        refusals=[*_IN_ROUTE, _CHANGED_BY_OTHERS],
    )
    async def pause(self, call: Call) -> Answer:
        """Pause a route.

        Jobs that come due are `held` until it is resumed.
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
        self._find(call)

        def merge(base: Route | None) -> tuple[Route, None]:
            if base is None:
                raise refusal("route_not_found")
            if paused:
                return msgspec.structs.replace(base, paused=True), None
            return msgspec.structs.replace(base, paused=False, disabled=None), None

        return await self._store(call, merge)

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
        (Standard Webhooks, zero downtime secret rotation).
        """
        self._find(call)
        body = decoded(_decode_rotate, call.body or b"{}")
        check_range("/grace_period_ms", body.grace_period_ms, 0, limits.SECRET_GRACE_MS_MAX)
        db, name = call.names
        engine = self._engine
        sealed = Seals(engine, db, name).new_secret(body.secret)

        def merge(base: Route | None) -> tuple[Route, None]:
            if base is None:
                raise refusal("route_not_found")
            now_ms = engine.now_ms()
            current, *older = unexpired(base, now_ms)
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
            secrets = (SealedKey(sealed=sealed), *older)
            return msgspec.structs.replace(base, secrets=secrets), None

        return await self._store(call, merge, view=self._secret_answer)

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
        return self._answer(self._find(call))

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
        return page(call, rows, f"{db}/routes", "name", route_view)

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

        Recipients verify webhooks with it (Standard Webhooks).
        """
        return self._secret_answer(self._find(call))

    def _secret_answer(self, route: Route) -> Answer:
        seals = Seals(self._engine, route.db, route.name)
        current, *older = unexpired(route, self._engine.now_ms())
        previous = [PreviousSecret(seals.open(each.sealed), each.expires_ms) for each in older]
        answer = json_answer(SecretView(seals.open(current.sealed), previous))
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
        route = self._find(call)
        sent = await ask(self._engine.send_example, route)
        return json_answer(msgspec.convert(sent, ExampleView))
