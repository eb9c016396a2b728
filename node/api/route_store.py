"""Changes of routes: merged with what is stored, judged, and put through the log."""

from collections.abc import Awaitable, Callable
from typing import Any

from node.api.conventions import (
    NO_VERSION,
    Call,
    ask,
    ask_meta,
    checked_name,
    decoded,
    encode_content,
    gathered,
    idempotency_key,
    if_match,
    if_none_match,
    request_of,
)
from node.api.lookups import find_database, find_route_of
from node.api.problems import refusal
from node.api.route_bodies import decode_patched_route, decode_route
from node.api.route_merge import Merge
from node.engine import Engine
from node.gathering import CountJobs, RouteCounts
from node.selection import Selection
from timemachine import limits
from timemachine.errors import Conflict
from timemachine.model import PENDING_STATES, Route
from timemachine.outbound import Target
from timemachine.replica import meta as m

_ATTEMPTS_TO_MERGE = 10
_NO_ROUTE = 0

CheckTarget = Callable[[Target], Awaitable[None]]
"""Judges where a route would send to. Raises InvalidRequest."""


class RouteStore:
    """Writes the routes that calls name, under their conditions and keys."""

    def __init__(self, engine: Engine, check_target: CheckTarget) -> None:
        self._engine = engine
        self._check_target = check_target

    async def write(self, call: Call, *, patch: bool) -> Any:
        """Create, replace or change the route that a call names, from its body."""
        db, name = call.names
        find_database(self._engine, db)
        checked_name(name, "route")
        body = decoded(decode_patched_route if patch else decode_route, call.body or b"{}")

        def merge(base: Route | None) -> tuple[Route, Target]:
            return Merge(self._engine, body, base, db, name, patch=patch).run()

        return await self.change(call, merge)

    async def change(
        self, call: Call, merge: Callable[[Route | None], tuple[Route, Target | None]]
    ) -> Any:
        """Merge with what is stored, check, propose; again when it changed meanwhile.

        Also when another master key seals by now: `merge` seals what is new.

        Conditions go into the command, since a repeat with the same key must be answered by the
        log even where the condition, by the first request's success, does not hold any more.
        """
        db, name = call.names
        condition = _condition(self._engine, call)
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
            if result.code == "key_moved" or (result.code == "version_moved" and not conditional):
                continue
            if result.kind == "refused":
                raise refusal(
                    result.code,
                    f"A cluster has at most {limits.ROUTES_MAX} routes."
                    if result.code == "limit_reached"
                    else None,
                )
            return result
        raise Conflict("The route is being changed by others all the time.")

    async def delete(self, call: Call) -> Any:
        """Delete the route that a call names."""
        key = idempotency_key(call)
        db, name = call.names
        route = self._engine.meta.routes.get((db, name))
        if route is None and key is None:
            route = find_route_of(self._engine, db, name)
        condition = _condition(self._engine, call)
        if condition == NO_VERSION and key is None:
            raise refusal("precondition_failed")
        forced = call.flag("force")
        pending = 0 if route is None or forced else await self._scheduled(route)
        if pending:
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
        return await ask_meta(self._engine, command, missing="route_not_found")

    async def _scheduled(self, route: Route) -> int:
        """How many jobs are scheduled for a route."""
        engine = self._engine
        collections = [each for each in engine.meta.collections.values() if each.db == route.db]
        asked = RouteCounts((route.uid, _NO_ROUTE))
        (count, _), (unbound, _) = await gathered(engine, asked, collections)
        if unbound:
            # Those that were accepted before it existed are bound to none until they are due.
            named = Selection(states=PENDING_STATES, route=route.name, route_uid=_NO_ROUTE)
            count += (await gathered(engine, CountJobs(named), collections)).count
        return int(count)


def _condition(engine: Engine, call: Call) -> int | None:
    db, name = call.names

    def version() -> int:
        route = engine.meta.routes.get((db, name))
        return NO_VERSION if route is None else route.version

    return if_match(call, version)
