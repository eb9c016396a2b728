"""Lists of jobs, in trigger order over all vnodes of a collection."""

from node.api.conventions import Answer, Call, gathered, json_answer, query_time
from node.api.job_bodies import TAG_SCHEMA, checked_tag
from node.api.job_views import JobView, found_job_view
from node.api.lookups import find_collection
from node.api.operations import FROM, IN_COLLECTION, JOBS, TO, Parameter, Told, operation
from node.api.paging import PAGED, Natural, Page, query_limit, read_cursor, viewed, write_cursor
from node.api.problems import invalid
from node.engine import Engine
from node.gathering import ListJobs
from node.selection import Selection
from timemachine.model import STATES_BY_TEXT, JobState

_STATES = Parameter(
    name="state",
    description="A comma list: jobs in one of these states.",
    schema={"type": "array", "items": {"enum": list(STATES_BY_TEXT)}, "minItems": 1},
)
_ROUTE = Parameter(name="route", description="Jobs of this route.", schema={"type": "string"})
_TAG = Parameter(name="tag", description="Jobs with this tag.", schema=TAG_SCHEMA)


class ListHandlers:
    """GET .../jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "GET",
        JOBS,
        tag="Jobs",
        query=[_STATES, _ROUTE, _TAG, FROM, TO, *PAGED],
        answers={200: Told(meaning="In order of trigger time.", body=Page[JobView])},
        refusals=IN_COLLECTION,
    )
    async def list_jobs(self, call: Call) -> Answer:
        """List jobs.

        In order of trigger time over all vnodes.
        """
        engine = self._engine
        collection = find_collection(engine, *call.names)
        names = ("state", "route", "tag", "from", "to")
        scope = f"jobs/{collection.uid}/{[call.query.get(name) for name in names]}"
        route = call.query.get("route")
        bound = None if route is None else engine.meta.routes.get((collection.db, route))
        tag = call.query.get("tag")
        selection = Selection(
            states=_query_states(call),
            route=route,
            route_uid=0 if bound is None else bound.uid,
            tag=None if tag is None else checked_tag(tag, "?tag"),
            from_ms=query_time(call, "from"),
            to_ms=query_time(call, "to"),
        )
        after = read_cursor(call, scope, tuple[Natural, str])
        limit = query_limit(call)
        question = ListJobs(selection, after, limit)
        found = await gathered(engine, question, [collection], call)
        items = await viewed(found.jobs, lambda job: found_job_view(engine, collection, job))
        cursor = None if found.position is None else write_cursor(found.position, scope)
        return json_answer(Page(items, cursor))


def _query_states(call: Call) -> frozenset[JobState] | None:
    """The states of `?state=`, a comma list, or None without it."""
    text = call.query.get("state")
    if text is None:
        return None
    names = text.split(",")
    if any(name not in STATES_BY_TEXT for name in names):
        raise invalid("?state", f"This is a comma list of {', '.join(STATES_BY_TEXT)}.")
    return frozenset(STATES_BY_TEXT[name] for name in names)
