"""What became of a route's jobs: its state and counts, its attempts."""

from collections.abc import Sequence

from node.api.attempt_queries import FILTERS, AttemptPage, filter_scope, query_filter
from node.api.conventions import Answer, Call, gathered, json_answer, polled
from node.api.job_views import attempt_view
from node.api.lookups import find_route
from node.api.operations import ROUTE, Told, operation
from node.api.paging import PAGED, Natural, query_limit, read_cursor, viewed, write_cursor
from node.api.route_views import RouteStatsView
from node.attempts import RouteAttempt, RoutePosition
from node.engine import Engine
from node.gathering import ListAttempts, RouteCounts, RouteSends
from timemachine import limits
from timemachine.model import Collection, Route

_TAG = "Routes"
_PLACE_MAX = 1 << 32  # of cursors that somebody made up


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
        query=[*FILTERS, *PAGED],
        answers={200: Told(meaning="The newest first.", body=AttemptPage)},
        refusals=["404 route_not_found"],
    )
    async def list_route_attempts(self, call: Call) -> Answer:
        """List the attempts of a route's jobs.

        The newest first. `previous_cursor` leads to newer ones, also to those that come later.
        """
        route = find_route(self._engine, *call.names)
        scope = f"route-attempts/{route.uid}/{filter_scope(call)}"
        position = read_cursor(call, scope, tuple[bool, bytes, Natural, Natural, Natural])
        newer, behind = (False, None) if position is None else (position[0], position[1:])
        places, now_ms = self._places(route), self._engine.now_ms()
        question = ListAttempts(
            route.uid,
            behind,
            query_limit(call),
            newer=newer,
            among=query_filter(call),
            kept_ms=tuple(
                (each.uid, max(0, now_ms - _kept_ms(each.history_retention_ms))) for each in places
            ),
        )
        found = await gathered(self._engine, question, places, call)
        collections = {each.uid: each for each in places}
        rows = found.attempts[::-1] if newer else found.attempts
        items = await viewed(
            # What is of a collection that was deleted meanwhile is gone.
            [each for each in rows if each.position[1] in collections],
            lambda each: attempt_view(
                each.attempt, each.job_id, collections[each.position[1]], now_ms
            ),
        )
        following, previous = _cursors(rows, found.position, behind, newer=newer)
        return json_answer(
            AttemptPage(
                items,
                following and write_cursor((False, *following), scope),
                previous and write_cursor((True, *previous), scope),
            )
        )

    def _places(self, route: Route) -> list[Collection]:
        """The collections that a route's jobs can be in."""
        return [each for each in self._engine.meta.collections.values() if each.db == route.db]


def _kept_ms(retention_ms: int) -> int:
    """How long attempts are listed at most: they are forgotten a little later than they may be."""
    return max(retention_ms, limits.REQUESTS_MADE_KEPT_MS) + limits.FORGET_MARGIN_MS


def _cursors(
    rows: Sequence[RouteAttempt],
    position: RoutePosition | None,
    behind: RoutePosition | None,
    *,
    newer: bool,
) -> tuple[RoutePosition | None, RoutePosition | None]:
    """What older and newer attempts are behind, of a page that shows these, the newest first.

    `position` is where the page ended, None at the end, and `behind` where it began.
    """
    if newer:
        assert behind is not None
        # Of an empty page: behind where it began, and that attempt with them.
        row, uid, index, place = behind
        older = rows[-1].position if rows else (row, uid, index, min(place, _PLACE_MAX) + 1)
        return older, position or (rows[0].position if rows else behind)
    return position, rows[0].position if rows else behind
