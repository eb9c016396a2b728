"""Closing a route is answered when no node can start a send by it any more, or says what may."""

import asyncio
from typing import Any

import msgspec

from node.api.conventions import Answer, json_answer, replayed
from node.api.route_views import PendingVnode, route_view
from node.engine import Engine
from node.gathering.questions import Group


async def closed_answer(engine: Engine, result: Any) -> Answer:
    """The route of a command with this result; 202 with the vnodes that may still start a send.

    A route that is open, or was just created, has nothing to wait for.
    """
    route = result.route
    headers = {"ETag": f'"{route.version}"', **replayed(result)}
    view = route_view(route, engine.delivery.condition(route))
    if result.kind == "created":
        return json_answer(view, 201, headers)
    if route.open and result.kind != "deleted":
        return json_answer(view, 200, headers)
    pending = await _pending(engine, route.db)
    if not pending:
        return json_answer(view, 200, headers)
    return json_answer(msgspec.structs.replace(view, pending_vnodes=pending), 202, headers)


async def _pending(engine: Engine, db: str) -> tuple[PendingVnode, ...]:
    """The vnodes of a database of which it is not certain that they know."""
    future: asyncio.Future[list[Group]] = asyncio.get_running_loop().create_future()

    def done(groups: list[Group]) -> None:
        if not future.done():
            future.set_result(groups)

    engine.seal(db, done)
    names = {each.uid: each.name for each in engine.meta.collections.values()}
    return tuple(
        # What was deleted meanwhile fires no more.
        PendingVnode(names[uid], index)
        for uid, index in sorted(await future)
        if uid in names
    )
