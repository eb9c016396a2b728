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
from node.api.problems import invalid, refusal
from node.api.route_bodies import Merge, decode_route, seal_secret, unexpired
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


class RotateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST of a new secret takes: the secret, or none for a generated one."""

    secret: str | None = None
    grace_period_ms: int = limits.SECRET_GRACE_MS_DEFAULT


_decode_rotate = msgspec.json.Decoder(RotateBody).decode


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
        pending = route is not None and self._engine.jobs_of_route(route.uid)[0]
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

    async def rotate_secret(self, call: Call) -> Answer:
        """POST .../routes/{route}/secret/rotate.

        Until the grace is over, webhooks are signed with the new secret and with those before it
        (Standard Webhooks, zero downtime secret rotation).
        """
        call.only()
        self._find(call)
        body = decoded(_decode_rotate, call.body or b"{}")
        if not 0 <= body.grace_period_ms <= limits.SECRET_GRACE_MS_MAX:
            raise invalid("/grace_period_ms", f"This is 0 to {limits.SECRET_GRACE_MS_MAX}.")
        db, name = call.names
        engine = self._engine
        sealed = seal_secret(engine, db, name, body.secret)

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
        return self._secret_answer(self._find(call))

    def _secret_answer(self, route: Route) -> Answer:
        def opened(sealed: SealedKey) -> str:
            keys = self._engine.master_keys
            return open_value(keys, sealed.sealed, db=route.db, name=route.name)

        current, *older = unexpired(route, self._engine.now_ms())
        previous = [
            {"secret": opened(secret), "expires_time": secret.expires_ms} for secret in older
        ]
        answer = json_answer({"secret": opened(current), "previous": previous})
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["ETag"] = f'"{route.version}"'
        return answer

    async def send_example(self, call: Call) -> Answer:
        """POST .../routes/{route}/send-example."""
        call.only()
        call.no_members()
        route = self._find(call)
        return json_answer(await ask(self._engine.send_example, route))
