"""Routes: where jobs are sent."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from node.api.conventions import (
    NO_VERSION,
    Answer,
    Call,
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
from node.api.databases import find_database, page
from node.api.problems import refusal
from node.api.route_bodies import Merge, decode_route
from node.api.views import route_view
from node.engine import Engine
from node.secrets import open_value
from timemachine import limits
from timemachine.errors import Conflict
from timemachine.model import Route, SealedKey
from timemachine.outbound import Target
from timemachine.replica import meta as m

CheckTarget = Callable[[Target], Awaitable[None]]
"""Judges where a route would send to. Raises InvalidRequest."""

_ATTEMPTS_TO_MERGE = 10


class RouteHandlers:
    """Operations on routes."""

    def __init__(self, engine: Engine, check_target: CheckTarget) -> None:
        self._engine = engine
        self._check_target = check_target

    def _find(self, call: Call) -> Route:
        db, name = call.names
        route = self._engine.meta.routes.get((db, name))
        if route is None:
            find_database(self._engine, db)
            raise refusal("route_not_found")
        return route

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
        body = decoded(decode_route, call.body or b"{}")

        def merge(base: Route | None) -> tuple[Route, Target]:
            return Merge(self._engine, body, base, db, name, patch=patch).run()

        return await self._store(call, merge)

    async def _store(
        self, call: Call, merge: Callable[[Route | None], tuple[Route, Target | None]]
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
            return self._answer(result.route, result)
        raise Conflict("The route is being changed by others all the time.")

    async def delete_route(self, call: Call) -> Answer:
        """DELETE .../routes/{route}."""
        call.only("force")
        key = idempotency_key(call)
        db, name = call.names
        route = self._engine.meta.routes.get((db, name))
        if route is None and key is None:
            route = self._find(call)
        condition = self._condition(call)
        if condition == NO_VERSION and key is None:
            raise refusal("precondition_failed")
        pending = route is not None and self._engine.pending_of_route(route.uid)
        if pending and not call.flag("force"):
            raise Conflict(
                f"{pending} jobs are scheduled for this route; delete it with ?force=true, and"
                " they end as dead, reason route_deleted.",
                code="route_in_use",
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

    async def pause(self, call: Call) -> Answer:
        """POST .../routes/{route}/pause."""
        return await self._set_paused(call, paused=True)

    async def resume(self, call: Call) -> Answer:
        """POST .../routes/{route}/resume: also where the system disabled it."""
        return await self._set_paused(call, paused=False)

    async def _set_paused(self, call: Call, *, paused: bool) -> Answer:
        call.only()
        call.no_members()
        self._find(call)

        def merge(base: Route | None) -> tuple[Route, None]:
            if base is None:
                raise refusal("route_not_found")
            if paused:
                return msgspec.structs.replace(base, paused=True), None
            return msgspec.structs.replace(base, paused=False, disabled=None), None

        return await self._store(call, merge)

    # --- reading ---------------------------------------------------------------------------

    async def get_route(self, call: Call) -> Answer:
        """GET .../routes/{route}."""
        call.reads()
        return self._answer(self._find(call))

    async def list_routes(self, call: Call) -> Answer:
        """GET .../routes."""
        call.reads("limit", "cursor")
        db = call.names[0]
        find_database(self._engine, db)
        rows = [row for pair, row in self._engine.meta.routes.items() if pair[0] == db]
        return page(call, rows, f"{db}/routes", "name", route_view)

    async def get_secret(self, call: Call) -> Answer:
        """GET .../routes/{route}/secret."""
        call.reads()
        route = self._find(call)

        def opened(sealed: SealedKey) -> str:
            keys = self._engine.master_keys
            return open_value(keys, sealed.sealed, db=route.db, name=route.name)

        current, *older = route.secrets
        previous = [
            {"secret": opened(secret), "expires_time": secret.expires_ms} for secret in older
        ]
        answer = json_answer({"secret": opened(current), "previous": previous})
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def send_example(self, call: Call) -> Answer:
        """POST .../routes/{route}/send-example."""
        call.only()
        call.no_members()
        route = self._find(call)
        return json_answer(await ask(self._engine.send_example, route))
