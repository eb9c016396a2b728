"""What became of a route's jobs: its state and counts, its attempts."""

from node.api.conventions import Answer, Call, finished, json_answer
from node.api.job_views import attempt_view
from node.api.lookups import find_route
from node.api.operations import ROUTE, Told, operation
from node.api.paging import PAGED, Natural, Page, query_limit, read_cursor, viewed, write_cursor
from node.api.route_views import RouteAttemptView, RouteStatsView, route_state
from node.attempts import RouteAttempt
from node.engine import Engine
from timemachine.identifiers import webhook_id

_TAG = "Routes"


class RouteReportHandlers:
    """GET .../routes/{route}/stats and /attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "GET",
        f"{ROUTE}/stats",
        tag=_TAG,
        answers={200: Told(meaning="Its state and counts.", body=RouteStatsView)},
        refusals=["404 route_not_found"],
    )
    async def get_stats(self, call: Call) -> Answer:
        """Read how a route does."""
        route = find_route(self._engine, *call.names)
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
        f"{ROUTE}/attempts",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="The newest first.", body=Page[RouteAttemptView])},
        refusals=["404 route_not_found"],
    )
    async def list_route_attempts(self, call: Call) -> Answer:
        """List the attempts of a route's jobs."""
        route = find_route(self._engine, *call.names)
        scope = f"route-attempts/{route.uid}"
        before = read_cursor(call, scope, tuple[bytes, Natural, Natural, Natural])
        limit = query_limit(call)
        found, position = await finished(
            self._engine.route_attempts(route.db, route.uid, before, limit)
        )
        items = await viewed(found, _view)
        cursor = None if position is None else write_cursor(position, scope)
        return json_answer(Page(items, cursor))


def _view(found: RouteAttempt) -> RouteAttemptView:
    attempt, record = attempt_view(found.attempt), found.record
    return RouteAttemptView(
        job_id=found.job_id,
        db=found.collection.db,
        collection=found.collection.name,
        # Versions of before may be of a former life of that id.
        webhook_id=webhook_id(record.uid, record.version, record.occurrence)
        if found.attempt.version == record.version
        else None,
        **{name: getattr(attempt, name) for name in attempt.__struct_fields__},
    )
