"""What became of a route's jobs: its state and counts, its attempts."""

import asyncio

from node.api.conventions import (
    Answer,
    Call,
    Natural,
    Page,
    finished,
    json_answer,
    query_limit,
    read_cursor,
    write_cursor,
)
from node.api.operations import PAGED, Told, operation
from node.api.problems import refusal
from node.api.views import RouteAttemptView, RouteStatsView, attempt_view, route_state
from node.engine import Engine
from timemachine.identifiers import webhook_id
from timemachine.model import Route

_VIEWS_BETWEEN_YIELDS = 64

_TAG = "Routes"
_ROUTE = "/v1/dbs/{db}/routes/{route}"


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

    @operation(
        "GET",
        f"{_ROUTE}/stats",
        tag=_TAG,
        answers={200: Told(meaning="Its state and counts.", body=RouteStatsView)},
        refusals=["404 route_not_found"],
    )
    async def get_stats(self, call: Call) -> Answer:
        """Read how a route does."""
        route = self._find(call)
        pending, waiting = self._engine.jobs_of_route(route.uid)
        queue = self._engine.delivery.queue_of(route)
        return json_answer(
            RouteStatsView(
                state=route_state(route),
                pending=pending,
                waiting=waiting,
                in_flight=queue.in_flight,
                since_time=self._engine.started_ms,
                succeeded=queue.succeeded,
                failed=queue.failed,
                last_success_time=queue.last_success_ms,
                last_failure_time=queue.last_failure_ms,
                last_failure=queue.last_failure,
            )
        )

    @operation(
        "GET",
        f"{_ROUTE}/attempts",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="The newest first.", body=Page[RouteAttemptView])},
        refusals=["404 route_not_found"],
    )
    async def list_route_attempts(self, call: Call) -> Answer:
        """List the attempts of a route's jobs."""
        route = self._find(call)
        scope = f"route-attempts/{route.uid}"
        before = read_cursor(call, scope, tuple[bytes, Natural, Natural, Natural])
        limit = query_limit(call)
        found, position = await finished(
            self._engine.route_attempts(route.db, route.uid, before, limit)
        )
        items = []
        for number, each in enumerate(found):
            record = each.record
            attempt = attempt_view(each.attempt)
            item = RouteAttemptView(
                job_id=each.job_id,
                db=each.collection.db,
                collection=each.collection.name,
                # Versions of before may be of a former life of that id.
                webhook_id=webhook_id(record.uid, record.version, record.occurrence)
                if each.attempt.version == record.version
                else None,
                **{name: getattr(attempt, name) for name in attempt.__struct_fields__},
            )
            items.append(item)
            if number % _VIEWS_BETWEEN_YIELDS == _VIEWS_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        cursor = None if position is None else write_cursor(position, scope)
        return json_answer(Page(items, cursor))
