"""Lists of jobs, in trigger order over all vnodes of a collection."""

import asyncio

from node.api.conventions import (
    Answer,
    Call,
    json_answer,
    query_limit,
    query_time,
    read_cursor,
    write_cursor,
)
from node.api.databases import find_collection
from node.api.problems import invalid
from node.api.views import job_view
from node.engine import Engine
from timemachine import limits
from timemachine.model import PENDING_STATES, STATES_BY_TEXT, Collection, JobRecord, JobState

_VIEWS_BETWEEN_YIELDS = 64

Row = tuple[str, JobRecord]


class ListHandlers:
    """GET .../jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_jobs(self, call: Call) -> Answer:
        """Jobs by state, route and trigger time."""
        call.reads("state", "route", "tag", "from", "to", "limit", "cursor")
        if "tag" in call.query:
            raise invalid("?tag", "Lists by tag are not supported yet.")
        engine = self._engine
        collection = find_collection(engine, *call.names)
        states = query_states(call)
        filters = [call.query.get(name) for name in ("state", "route", "from", "to")]
        scope = f"jobs/{collection.uid}/{filters}"
        after = read_cursor(call, scope, tuple[int, str])
        limit = query_limit(call)
        rows, position = await self._rows(
            collection,
            states,
            call.query.get("route"),
            query_time(call, "from"),
            query_time(call, "to"),
            after,
            limit,
        )
        items = []
        for number, (job_id, record) in enumerate(rows):
            meta = engine.read_meta(collection, job_id)
            vnode = engine.vnode_of(collection, job_id)
            items.append(job_view(collection, vnode, job_id, record, meta))
            if number % _VIEWS_BETWEEN_YIELDS == _VIEWS_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        cursor = None if position is None else write_cursor(position, scope)
        return json_answer({"items": items, "next_cursor": cursor})

    async def _rows(
        self,
        collection: Collection,
        states: frozenset[JobState] | None,
        route: str | None,
        from_ms: int | None,
        to_ms: int | None,
        after: tuple[int, str] | None,
        limit: int,
    ) -> tuple[list[Row], tuple[int, str] | None]:
        """A page of jobs, and the position that the next one starts after, if there is one."""

        async def read(
            route_uid: int | None, after: tuple[int, str] | None, count: int
        ) -> list[Row]:
            pages = self._engine.list_jobs(
                collection,
                states=states,
                route_uid=route_uid,
                from_ms=from_ms,
                to_ms=to_ms,
                after=after,
                limit=count,
            )
            found: list[Row] = []
            for page in pages:
                if page is None:
                    await asyncio.sleep(0)
                else:
                    found = page
            return found

        if route is None:
            return _cut(await read(None, after, limit + 1), limit)
        bound = self._engine.meta.routes.get((collection.db, route))
        if bound is not None and states is not None and states <= PENDING_STATES:
            # What is pending is bound to the route that exists, or to none yet.
            unbound = await read(0, after, limit + 1)
            if len(unbound) <= limit:
                rows = await read(bound.uid, after, limit + 1)
                rows += [row for row in unbound if row[1].route == route]
                return _cut(sorted(rows, key=_position), limit)
        # Ended jobs may be bound to predecessors of that name, which no index leads to.
        rows = []
        looked_at = 0
        while len(rows) <= limit and looked_at < limits.LIST_ROWS_LOOKED_AT_MAX:
            found = await read(None, after, limits.LIST_LIMIT_MAX)
            looked_at += len(found)
            rows += [row for row in found if row[1].route == route]
            if len(found) < limits.LIST_LIMIT_MAX:
                return _cut(rows, limit)
            after = _position(found[-1])
        if len(rows) > limit:
            return _cut(rows, limit)
        # Enough for one request: the caller goes on with the cursor.
        return rows, after


def query_states(call: Call) -> frozenset[JobState] | None:
    """The states of `?state=`, a comma list, or None without it."""
    text = call.query.get("state")
    if text is None:
        return None
    names = text.split(",")
    if any(name not in STATES_BY_TEXT for name in names):
        raise invalid("?state", f"This is a comma list of {', '.join(STATES_BY_TEXT)}.")
    return frozenset(STATES_BY_TEXT[name] for name in names)


def _position(row: Row) -> tuple[int, str]:
    return row[1].trigger_ms, row[0]


def _cut(rows: list[Row], limit: int) -> tuple[list[Row], tuple[int, str] | None]:
    """One page of rows that go on after it, if they do."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], _position(rows[limit - 1])
