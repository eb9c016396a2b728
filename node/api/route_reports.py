"""What became of a route's jobs: its state and counts, its attempts."""

import asyncio

from node.api.conventions import (
    Answer,
    Call,
    finished,
    json_answer,
    query_limit,
    read_cursor,
    write_cursor,
)
from node.api.problems import refusal
from node.api.views import attempt_view, route_state
from node.engine import Engine
from timemachine.identifiers import webhook_id
from timemachine.model import Route

_VIEWS_BETWEEN_YIELDS = 64


class RouteReportHandlers:
    """GET .../routes/{route}/stats and /attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, call: Call) -> Route:
        db, name = call.names
        route = self._engine.meta.routes.get((db, name))
        if route is None:
            raise refusal("route_not_found")
        return route

    async def get_stats(self, call: Call) -> Answer:
        """GET .../routes/{route}/stats."""
        call.reads()
        route = self._find(call)
        pending, waiting = self._engine.jobs_of_route(route.uid)
        queue = self._engine.delivery.queue_of(route)
        return json_answer(
            {
                "state": route_state(route),
                "pending": pending,
                "waiting": waiting,
                "in_flight": queue.in_flight,
                "since_time": self._engine.started_ms,
                "succeeded": queue.succeeded,
                "failed": queue.failed,
                "last_success_time": queue.last_success_ms,
                "last_failure_time": queue.last_failure_ms,
                "last_failure": queue.last_failure,
            }
        )

    async def list_attempts(self, call: Call) -> Answer:
        """GET .../routes/{route}/attempts: the newest first."""
        call.reads("limit", "cursor")
        route = self._find(call)
        scope = f"route-attempts/{route.uid}"
        before = read_cursor(call, scope, tuple[bytes, int, int, int])
        limit = query_limit(call)
        found, position = await finished(
            self._engine.route_attempts(route.db, route.uid, before, limit)
        )
        items = []
        for number, each in enumerate(found):
            record = each.record
            item = attempt_view(each.attempt)
            item["job_id"] = each.job_id
            item["db"], item["collection"] = each.collection.db, each.collection.name
            # Versions of before may be of a former life of that id.
            item["webhook_id"] = (
                webhook_id(record.uid, record.version, record.occurrence)
                if each.attempt.version == record.version
                else None
            )
            items.append(item)
            if number % _VIEWS_BETWEEN_YIELDS == _VIEWS_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        cursor = None if position is None else write_cursor(position, scope)
        return json_answer({"items": items, "next_cursor": cursor})
