"""What became of a route's jobs: its state and counts, its attempts."""

from node.api.conventions import Answer, Call, gathered, json_answer, polled
from node.api.job_views import attempt_view
from node.api.lookups import find_route
from node.api.operations import ROUTE, Told, operation
from node.api.paging import PAGED, Natural, Page, query_limit, read_cursor, viewed, write_cursor
from node.api.route_views import RouteAttemptView, RouteStatsView
from node.attempts import RouteAttempt
from node.engine import Engine
from node.gathering import ListAttempts, RouteCounts, RouteSends
from timemachine.identifiers import webhook_id
from timemachine.model import Collection, Route

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
        asked = RouteCounts((route.uid,))
        ((pending, waiting),) = await gathered(self._engine, asked, self._places(route), call)
        sends, _ = await polled(self._engine, RouteSends(route.uid), call)
        condition = self._engine.delivery.condition(route)
        return json_answer(
            RouteStatsView(
                state=condition.state,
                state_reason=condition.reason,
                state_since_time=condition.since_ms,
                state_until_time=condition.until_ms,
                failing_since_time=route.failing.first_ms or None,
                pending=pending,
                waiting=waiting,
                in_flight=sends.in_flight,
                since_time=sends.since_ms,
                succeeded=sends.succeeded,
                failed=sends.failed,
                last_success_time=sends.last_success_ms,
                last_failure_time=sends.last_failure_ms,
                last_failure=sends.last_failure,
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
        question = ListAttempts(route.uid, before, limit)
        found = await gathered(self._engine, question, self._places(route), call)
        names = {each.uid: each.name for each in self._places(route)}
        items = await viewed(
            # What is of a collection that was deleted meanwhile is gone.
            [each for each in found.attempts if each.position[1] in names],
            lambda each: _view(each, route.db, names[each.position[1]]),
        )
        cursor = None if found.position is None else write_cursor(found.position, scope)
        return json_answer(Page(items, cursor))

    def _places(self, route: Route) -> list[Collection]:
        """The collections that a route's jobs can be in."""
        return [each for each in self._engine.meta.collections.values() if each.db == route.db]


def _view(found: RouteAttempt, db: str, collection: str) -> RouteAttemptView:
    attempt, record = attempt_view(found.attempt), found.record
    return RouteAttemptView(
        job_id=found.job_id,
        db=db,
        collection=collection,
        # Versions of before may be of a former life of that id.
        webhook_id=webhook_id(record.uid, record.version, record.occurrence)
        if found.attempt.version == record.version
        else None,
        **{name: getattr(attempt, name) for name in attempt.__struct_fields__},
    )
