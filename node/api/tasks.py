"""Tasks: what is done to many jobs at once; the requests that begin one, show it and end it."""

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from node.api.conventions import (
    NAME,
    Answer,
    Call,
    Nothing,
    ask,
    ask_meta,
    checked_time,
    decoded,
    encode_content,
    gathered,
    idempotency_key,
    json_answer,
    replayed,
    request_of,
)
from node.api.job_bodies import WHEN, RouteName, TagName, TimeGiven, checked_tag
from node.api.job_views import found_job_view
from node.api.lookups import find_collection, find_route
from node.api.operations import (
    IDEMPOTENCY_KEY,
    IN_COLLECTION,
    JOBS,
    ROUTE,
    Example,
    Told,
    operation,
)
from node.api.paging import PAGED, Page, newest
from node.api.problems import check_range, invalid, refusal
from node.api.schemas import between, exactly_one
from node.api.views import DryRunView, TaskBegun, TaskView
from node.engine import Engine
from node.gathering import CountJobs
from node.tasks import selection_of
from timemachine import limits
from timemachine.identifiers import uuid7, uuid8
from timemachine.model import (
    PENDING_STATES,
    STATES_BY_TEXT,
    Collection,
    JobState,
    Task,
    TaskKind,
    TaskState,
)
from timemachine.replica import meta as m

_PENDING = tuple(sorted(state.text for state in PENDING_STATES))
_STATE = Annotated[str, Meta(extra_json_schema={"enum": _PENDING})]
_STATES = Annotated[
    str, Meta(extra_json_schema={"pattern": "^(?:%s)(?:,(?:%s))*$" % (("|".join(_PENDING),) * 2)})
]
_FROM = Meta(description="Due at this time or later.")
_TO = Meta(description="Due before this time.")
_DRY_RUN = Meta(description="Only say what it would do.")
_TAG = "Many jobs"
_BEGUN = {
    202: Told(meaning="It has begun.", body=TaskBegun, headers=("Location", "Idempotent-Replayed")),
    200: Told(meaning="What it would do, for `dry_run`.", body=DryRunView),
}
_TOO_MANY = "429 too_many_tasks"


class FilterBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which jobs: those pending, narrowed by what is given. States: a comma list or a list."""

    state: _STATES | Annotated[list[_STATE], Meta(extra_json_schema={"minItems": 1})] | None = None
    route: RouteName | None = None
    tag: TagName | None = None
    from_: Annotated[TimeGiven | None, _FROM] = msgspec.field(name="from", default=None)
    to: Annotated[TimeGiven | None, _TO] = None


class CancelBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST .../jobs/cancel takes."""

    filter: FilterBody
    dry_run: Annotated[bool, _DRY_RUN] = False


class RescheduleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST .../jobs/reschedule takes: a time, or by how much to move."""

    filter: FilterBody
    trigger_time: Annotated[TimeGiven | None, WHEN] = None
    shift_ms: Annotated[
        Annotated[int, between(-limits.TIME_MS_MAX, limits.TIME_MS_MAX)] | None,
        Meta(description="By how much later, or, below zero, earlier; not before 1970."),
    ] = None
    dry_run: Annotated[bool, _DRY_RUN] = False

    SCHEMA: ClassVar[dict[str, Any]] = exactly_one("trigger_time", "shift_ms")


class WindowBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What redrive and replay-missing of a route take: trigger times."""

    from_: Annotated[TimeGiven | None, _FROM] = msgspec.field(name="from", default=None)
    to: Annotated[TimeGiven | None, _TO] = None
    dry_run: Annotated[bool, _DRY_RUN] = False


_decode_cancel = msgspec.json.Decoder(CancelBody).decode
_decode_reschedule = msgspec.json.Decoder(RescheduleBody).decode
_decode_window = msgspec.json.Decoder(WindowBody).decode


def _optional_time(value: int | str | None, pointer: str) -> int | None:
    return None if value is None else checked_time(value, pointer)


def _states(given: str | list[str] | None) -> tuple[int, ...]:
    """The states of a filter: those of jobs that can still be changed."""
    if given is None:
        return tuple(sorted(map(int, PENDING_STATES)))
    names = set(given.split(",") if isinstance(given, str) else given)
    if not names or not names <= set(_PENDING):
        raise invalid("/filter/state", f"This takes some of {', '.join(_PENDING)}.")
    return tuple(sorted(int(STATES_BY_TEXT[name]) for name in names))


class TaskHandlers:
    """Operations on many jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- beginning -------------------------------------------------------------------------

    @operation(
        "POST",
        f"{JOBS}/cancel",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=CancelBody,
        answers=_BEGUN,
        refusals=[*IN_COLLECTION, _TOO_MANY],
        example=Example(body={"filter": {"tag": "cart"}}),
    )
    async def cancel_jobs(self, call: Call) -> Answer:
        """Cancel many jobs.

        Those that are pending, narrowed by the filter.
        """
        body = decoded(_decode_cancel, call.body)
        collection, task = self._of_filter(call, body.filter, TaskKind.CANCEL)
        return await self._begin(call, task, [collection], dry_run=body.dry_run)

    @operation(
        "POST",
        f"{JOBS}/reschedule",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=RescheduleBody,
        answers=_BEGUN,
        refusals=[*IN_COLLECTION, _TOO_MANY],
        example=Example(body={"filter": {"route": "hello"}, "shift_ms": 3_600_000}),
    )
    async def reschedule_jobs(self, call: Call) -> Answer:
        """Move many jobs.

        To a time, or by one.
        """
        body = decoded(_decode_reschedule, call.body)
        collection, task = self._of_filter(call, body.filter, TaskKind.RESCHEDULE)
        trigger_ms = _optional_time(body.trigger_time, "/trigger_time")
        if (trigger_ms is None) == (body.shift_ms is None):
            raise invalid("/trigger_time", "Give trigger_time or shift_ms, just one of them.")
        shift_ms = body.shift_ms or 0
        check_range("/shift_ms", shift_ms, -limits.TIME_MS_MAX, limits.TIME_MS_MAX)
        task = msgspec.structs.replace(task, trigger_ms=trigger_ms, shift_ms=shift_ms)
        return await self._begin(call, task, [collection], dry_run=body.dry_run)

    @operation(
        "POST",
        f"{ROUTE}/redrive",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=WindowBody,
        body_required=False,
        answers=_BEGUN,
        refusals=["404 route_not_found", _TOO_MANY],
        example=Example(
            body={"from": 1_890_000_000_000, "to": "2030-05-01T00:00:00Z", "dry_run": True}
        ),
    )
    async def redrive_route(self, call: Call) -> Answer:
        """Send the dead jobs of a route again.

        Those whose trigger time is in the window; those of former routes of its name, too.
        """
        return await self._of_route(call, TaskKind.REDRIVE)

    @operation(
        "POST",
        f"{ROUTE}/replay-missing",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=WindowBody,
        body_required=False,
        answers=_BEGUN,
        refusals=["404 route_not_found", _TOO_MANY],
        example=Example(body={"from": 1_890_000_000_000}),
    )
    async def replay_missing(self, call: Call) -> Answer:
        """Send what a route has missed.

        Its dead jobs that were never attempted.
        """
        return await self._of_route(call, TaskKind.REPLAY_MISSING)

    def _of_filter(self, call: Call, wanted: FilterBody, kind: TaskKind) -> tuple[Collection, Task]:
        engine = self._engine
        collection = find_collection(engine, *call.names[:2])
        if wanted.route is not None and NAME.fullmatch(wanted.route) is None:
            raise invalid("/filter/route", "This cannot be the name of a route.")
        route = engine.meta.routes.get((collection.db, wanted.route or ""))
        task = Task(
            id="",
            kind=kind,
            db=collection.db,
            collections=(collection.uid,),
            states=_states(wanted.state),
            created_ms=engine.now_ms(),
            route=wanted.route,
            route_uid=0 if route is None else route.uid,
            tag=None if wanted.tag is None else checked_tag(wanted.tag, "/filter/tag"),
            from_ms=_optional_time(wanted.from_, "/filter/from"),
            to_ms=_optional_time(wanted.to, "/filter/to"),
        )
        return collection, task

    async def _of_route(self, call: Call, kind: TaskKind) -> Answer:
        engine = self._engine
        db, name = call.names
        route = find_route(engine, db, name)
        body = decoded(_decode_window, call.body or b"{}")
        collections = [each for each in engine.meta.collections.values() if each.db == db]
        task = Task(
            id="",
            kind=kind,
            db=db,
            collections=tuple(sorted(each.uid for each in collections)),
            states=(int(JobState.DEAD),),
            created_ms=engine.now_ms(),
            route=name,
            route_uid=route.uid,
            from_ms=_optional_time(body.from_, "/from"),
            to_ms=_optional_time(body.to, "/to"),
            unattempted=kind is TaskKind.REPLAY_MISSING,
        )
        return await self._begin(call, task, collections, dry_run=body.dry_run)

    async def _begin(
        self, call: Call, task: Task, collections: list[Collection], *, dry_run: bool
    ) -> Answer:
        key = idempotency_key(call)
        if dry_run:
            return await self._dry_run(task, collections)
        engine = self._engine
        scope = f"{call.operation}/{call.names}"
        if key is None:
            name = uuid7(engine.now_ms(), engine.random_bytes(10))
        else:
            name = uuid8(task.collections[0] if task.collections else 0, f"{scope}/{key}", 0)
        command = m.PutTask(
            now_ms=engine.now_ms(),
            task=msgspec.structs.replace(task, id=name),
            request=request_of(key, scope, encode_content((scope, call.body))),
        )
        result = await ask_meta(engine, command)
        headers = {"Location": f"/v1/tasks/{result.task.id}", **replayed(result)}
        return json_answer(TaskBegun(result.task.id), 202, headers)

    async def _dry_run(self, task: Task, collections: list[Collection]) -> Answer:
        """What the task would find now."""
        engine = self._engine
        count = 0
        sample: list[Any] = []
        for collection in collections:
            left = limits.TASK_SAMPLE_JOBS - len(sample)
            question = CountJobs(selection_of(task), task.unattempted, left)
            found = await gathered(engine, question, [collection])
            count += found.count
            sample += [found_job_view(engine, collection, job) for _, job in found.sample]
        return json_answer(DryRunView(count, sample))

    # --- looking and ending ----------------------------------------------------------------

    @operation(
        "GET",
        "/v1/tasks/{task}",
        tag=_TAG,
        answers={200: Told(meaning="The task.", body=TaskView)},
        refusals=["404 task_not_found"],
    )
    async def get_task(self, call: Call) -> Answer:
        """Read a task."""
        return json_answer(self._view(self._find(call)))

    @operation(
        "GET",
        "/v1/tasks",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="The newest first.", body=Page[TaskView])},
    )
    async def list_tasks(self, call: Call) -> Answer:
        """List the tasks."""
        shown, cursor = newest(call, self._engine.meta.tasks.values(), "tasks")
        return json_answer(Page([self._view(task) for task in shown], cursor))

    @operation(
        "POST",
        "/v1/tasks/{task}/cancel",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="The task as it ended.", body=TaskView)},
        refusals=["404 task_not_found", "429 too_many_requests"],
    )
    async def cancel_task(self, call: Call) -> Answer:
        """Stop a task.

        Nothing more is done after the answer.
        """
        call.no_members()
        task = self._find(call)
        if task.state is TaskState.RUNNING:
            result = await ask(self._engine.tasks.cancel, task.id)
            if result.kind == "refused":
                raise refusal("task_not_found")
            task = result.task
        return json_answer(self._view(task))

    def _find(self, call: Call) -> Task:
        task = self._engine.meta.tasks.get(call.names[0])
        if task is None:
            raise refusal("task_not_found")
        return task

    def _view(self, task: Task) -> TaskView:
        running = task.state is TaskState.RUNNING
        counts = self._engine.tasks.counts(task.id) if running else task.counts
        return TaskView(
            id=task.id,
            kind=task.kind.value,
            db=task.db,
            state=task.state.value,
            progress={"done": sum(counts.values()), **counts},
            result=None if running else counts,
            error=task.error,
            created_time=task.created_ms,
            finished_time=task.finished_ms,
        )
