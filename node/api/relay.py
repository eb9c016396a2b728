"""Where a request is answered: here, or by the node that leads what it is about.

A job that has an ordering key lives in the vnode of that. Who leads the vnode of its id says so,
and the request goes on from there.

The node that a client asks checks who it is and how much it sends. Then the request goes on to the
leader as it was read (operation, names, query, body), and its answer comes back. It goes on once:
who does not lead says so, and has done nothing.

What is read is no older than the request. A leader sees to that before its handler looks; and
what meta holds is looked at here, once this node has got as far as the node leader was. That
something is *not* in meta is never believed before that.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Any, Final

import msgspec
from multidict import CIMultiDict

from node.api.conventions import DIGITS, Answer, Call, ask, stale
from node.api.dispatch import OPERATIONS, Dispatch, Handler
from node.api.operations import Operation
from node.calls import Answer as Tell
from node.engine import Engine
from node.router import not_led
from timemachine import codec, limits
from timemachine.carried import CarriedError, arrived, carry
from timemachine.errors import (
    CodecError,
    NotLeader,
    TimeMachineError,
    TooManyRequests,
    Unavailable,
)
from timemachine.group import META_GROUP
from timemachine.replica.meta import DEFAULT_DATABASE
from timemachine.ring import OrderedId, key_of

Group = tuple[int, int]
Job = tuple[str, str, str | int]
"""Database, collection and id; a number stands for the vnode itself."""

KIND: Final = "request"
"""The kind of these calls."""

_AGAIN_MS: Final = 50
_LOOK_MS: Final = 250
_HEADERS: Final = ("Content-Type", "Idempotency-Key", "If-Match", "If-None-Match")
"""What handlers look at."""
_NOT_THERE: Final = frozenset(
    {"database_not_found", "collection_not_found", "route_not_found", "restore_not_found"}
)
"""Refusals that a node may come to because it is behind."""


class Where(Enum):
    """Where an operation is answered."""

    HERE = "by the node that was asked"
    """Creates, and reads over many vnodes, which find the leaders themselves; and what is about
    the node."""
    FRESH = "the same, once it knows what meta says now"
    NODE_LEADER = "by the node leader"
    JOB_LEADER = "by the leader of the job's vnode"
    VNODE_LEADER = "by the leader of the vnode that is named"


def where(operation: Operation) -> Where:
    """Where an operation is answered."""
    path = operation.path
    if path.startswith("/job/") or path.endswith("/jobs/{id}") or "/jobs/{id}/" in path:
        return Where.JOB_LEADER
    if not path.startswith(("/v1/", "/route")) or operation.id in _HERE:
        return Where.HERE
    if path.endswith("/{db}/{collection}/{vnode}"):
        return Where.VNODE_LEADER
    if path.startswith(("/v1/tasks", "/v1/cluster/plans")):
        return Where.NODE_LEADER  # it conducts them, and knows how far they are
    if operation.method == "GET" or operation.id in _READING:
        return Where.FRESH
    return Where.NODE_LEADER


_HERE: Final = frozenset(
    {
        "forecast",
        "get_cluster",
        "get_vnodes",
        "list_jobs",
        "post_batch",
        "post_job",
        "restore_jobs",
        "version_of_api",
    }
)
_OF_VNODES: Final = frozenset({Where.JOB_LEADER, Where.VNODE_LEADER})
_READING: Final = frozenset({"send_example"})
"""They change nothing, whatever their method."""

WHERE: Final = {operation.id: where(operation) for operation in OPERATIONS}


class Relayed(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A request on its way from node to node; see `Call`. `operation` is the id of one.

    `ordering_key` is that of the job it names, where the request was at the vnode of its id before.
    """

    operation: str
    method: str
    names: list[str]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    request_id: str
    ordering_key: str | None = None


class Told(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What its handler has answered: an Answer's members, or an `error`.

    With an `ordering_key` nothing was done: the job of the id that was named lives where that says.
    """

    status: int = 0
    headers: dict[str, str] = {}
    content_type: str = ""
    body: bytes = b""
    error: CarriedError | None = None
    ordering_key: str | None = None


class _IdOnly(msgspec.Struct):
    """A body, as far as it names a job."""

    id: str | None = None


_read_relayed: Any = codec.decoder(Relayed)
_read_told: Any = codec.decoder(Told)
_read_id = msgspec.json.Decoder(_IdOnly).decode


class Relay:
    """Has requests answered where they belong.

    `admit` raises what keeps this node from answering any request now; `guarded` runs a handler
    for another node, and turns whatever it raises into a TimeMachineError.
    """

    def __init__(
        self,
        engine: Engine,
        dispatch: Dispatch,
        *,
        admit: Callable[[Operation], None],
        guarded: Callable[[Awaitable[Answer], str, str], Awaitable[Answer]],
    ) -> None:
        self._engine = engine
        self._router = engine.router
        self._admit = admit
        self._guarded = guarded
        self._handlers = dispatch.by_id()
        self._tasks: set[asyncio.Task[None]] = set()
        engine.calls.serve(KIND, self._asked)

    # --- of clients ------------------------------------------------------------------------

    async def answer(
        self, handler: Handler, operation: Operation, call: Call, request_id: str
    ) -> Answer:
        """Have a request answered, here or elsewhere. Raises what it is refused with."""
        try:
            return await self._answer(handler, operation, call, request_id)
        except TooManyRequests as error:
            if (error.http_status, error.code) in operation.refusals:
                raise
            raise Unavailable(error.detail, retry_after_s=error.retry_after_s) from None

    async def _answer(
        self, handler: Handler, operation: Operation, call: Call, request_id: str
    ) -> Answer:
        place = WHERE[operation.id]
        of_vnode = place in _OF_VNODES
        if place is Where.HERE or (not of_vnode and stale(call)):
            return await self._checked(handler, call)
        if place is Where.FRESH:
            await ask(self._router.read_meta)
            return await handler(call)
        if place is Where.NODE_LEADER:
            return await self._answer_at_leader(None, handler, operation, call, request_id)
        job = _job_of(operation, call)
        group = await self._group_of(job)
        if job is None or group is None:
            return await self._checked(handler, call)
        if stale(call) and group in self._engine.runtime.vnodes:
            key = self._ordering_key(job, call)
            if key is None:
                return await self._checked(handler, call)
            job = _found_at(job, call, key)
            group = self._group(job)
            if group in self._engine.runtime.vnodes:
                return await self._checked(handler, call)
        return await self._answer_at_leader(job, handler, operation, call, request_id)

    def find(self, operation: Operation, call: Call) -> None:
        """Have the handler find the job that is named, where all vnodes are on this node."""
        if WHERE[operation.id] is Where.JOB_LEADER:
            job = _job_of(operation, call)
            key = self._ordering_key(job, call)
            if job is not None and key is not None:
                _found_at(job, call, key)

    async def _answer_at_leader(
        self,
        job: Job | None,
        handler: Handler,
        operation: Operation,
        call: Call,
        request_id: str,
    ) -> Answer:
        """The answer of the leader of a job's vnode, or of the node leader."""
        router = self._router
        now = asyncio.get_running_loop().time
        until = now() + limits.ROUTER_PATIENCE_MS / 1000
        body = b""
        asked = 0  # who has just refused it, for it does not lead
        while now() < until:
            # Looked up anew: there may be another collection of that name by now.
            group = META_GROUP if job is None else self._group(job)
            if group is None:
                return await self._checked(handler, call)
            leader = router.leader(group)
            if leader == self._engine.number:
                try:
                    await self._barrier(group)
                except NotLeader:
                    await asyncio.sleep(_AGAIN_MS / 1000)
                    continue
                key = self._ordering_key(job, call)
                if job is None or key is None:
                    return await self._checked(handler, call)
                job, body = _found_at(job, call, key), b""
                continue
            if not leader or leader == asked:
                asked = 0
                await asyncio.sleep(_AGAIN_MS / 1000)
                continue
            body = body or _written(operation, call, request_id)
            timeout_ms = _timeout_ms(group, call, until - now())
            try:
                answer = await self._relayed(leader, body, timeout_ms)
                if isinstance(answer, Answer):
                    return answer
                assert job is not None
                job, body = _found_at(job, call, answer), b""
                continue
            except NotLeader as error:
                router.hint(group, error.leader)
            except _Silent:
                if not _repeatable(call):
                    raise not_led() from None
                router.hint(group, 0)
            asked = leader
        raise not_led()

    async def _barrier(self, group: Group) -> None:
        """See to it that what is read here is no older than now. Raises NotLeader."""
        vnode = self._engine.runtime.vnodes.get(group)
        if vnode is None:
            raise NotLeader
        if not vnode.sole:
            await ask(self._engine.runtime.barrier, vnode)
            if not self._engine.runtime.holds(vnode):
                # A replica that has taken its place here may be empty yet.
                raise NotLeader

    def _group(self, job: Job) -> Group | None:
        """The vnode of a job; None while its collection is not known here."""
        db, collection, job_id = job
        found = self._engine.meta.collections.get((db, collection))
        if found is None:
            return None
        if isinstance(job_id, int):
            return (found.uid, job_id) if job_id < found.num_vnodes else None
        return found.uid, self._engine.vnode_of(found, job_id)

    def _ordering_key(self, job: Job | None, call: Call) -> str | None:
        """The key that a job is found by, as the vnode of its id says, which is led here.

        None where it is there, or nowhere, or the request came from there.
        """
        if job is None:
            return None
        db, collection, job_id = job
        at = _id_at(call)
        if isinstance(job_id, int | OrderedId) or at is None or call.names[at] != job_id:
            return None
        found = self._engine.meta.collections.get((db, collection))
        if found is None:
            return None
        alias = self._engine.alias_of(found, job_id)
        return None if alias is None else alias.key

    async def _group_of(self, job: Job | None) -> Group | None:
        """The same; None only where there is no such collection, or no job is named."""
        if job is None:
            return None
        group = self._group(job)
        if group is None:
            await ask(self._router.read_meta)
            group = self._group(job)
        return group

    async def _checked(self, handler: Handler, call: Call) -> Answer:
        """Run a handler; what it does not find is looked for once more in what meta says now."""
        meta = self._engine.meta
        changes = meta.changes
        try:
            return await handler(call)
        except TimeMachineError as error:
            if error.specific_code not in _NOT_THERE:
                raise
            await ask(self._router.read_meta)
            if meta.changes == changes:
                raise
        return await handler(call)

    def behind(self, error: TimeMachineError) -> bool:
        """Whether a refusal may come from this node's being behind in what meta says."""
        return error.specific_code in _NOT_THERE and not self._router.alone

    # --- to other nodes --------------------------------------------------------------------

    async def _relayed(self, leader: int, body: bytes, timeout_ms: int) -> Answer | str:
        """The answer of another node, or the ordering key that the job is found by.

        Raises NotLeader, when it has done nothing, and _Silent.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | TimeMachineError] = loop.create_future()

        def told(answer: bytes | TimeMachineError) -> None:
            if not future.done():
                future.set_result(answer)

        def look() -> None:
            if not future.done():
                if not self._engine.alive(leader):
                    told(Unavailable("A node is gone."))
                loop.call_later(_LOOK_MS / 1000, look)

        self._engine.calls.call(leader, KIND, body, told, timeout_ms)
        first = loop.call_later(_LOOK_MS / 1000, look)
        answer = await future
        first.cancel()
        if isinstance(answer, NotLeader | TooManyRequests):
            raise answer
        if isinstance(answer, TimeMachineError):
            raise _Silent from answer
        found: Told = _read_told(answer)
        if found.error is not None:
            raise arrived(found.error)
        if found.ordering_key is not None:
            return found.ordering_key
        return Answer(
            status=found.status,
            headers=found.headers,
            content_type=found.content_type,
            body=found.body,
        )

    # --- of other nodes --------------------------------------------------------------------

    def _asked(self, _: int, body: bytes, tell: Tell) -> None:
        """A request that another node was asked."""
        relayed: Relayed = _read_relayed(body)
        found = self._handlers.get(relayed.operation)
        if found is None:
            raise CodecError("This node has no such operation.")
        handler, operation = found
        self._admit(operation)
        call = Call(
            method=relayed.method,
            operation=operation.place,
            names=relayed.names,
            query=relayed.query,
            headers=CIMultiDict(relayed.headers),
            body=relayed.body,
        )
        job = _job_of(operation, call) if WHERE[operation.id] in _OF_VNODES else None
        if relayed.ordering_key is not None and job is not None:
            job = _found_at(job, call, relayed.ordering_key)
        task = asyncio.get_running_loop().create_task(
            self._answer_asked(job, handler, operation, call, relayed.request_id, tell)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_asked(
        self,
        job: Job | None,
        handler: Handler,
        operation: Operation,
        call: Call,
        request_id: str,
        tell: Tell,
    ) -> None:
        try:
            group: Group | None = META_GROUP
            if WHERE[operation.id] in _OF_VNODES:
                group = await self._group_of(job)
            if group is not None:
                if not self._router.leads(group):
                    leader = self._router.leader(group)
                    raise NotLeader(leader if group in self._engine.runtime.vnodes else 0)
                await self._barrier(group)
        except TimeMachineError as error:
            # Nothing is done yet.
            tell(error)
            return
        key = self._ordering_key(job, call)
        if key is not None:
            tell(codec.encode(Told(ordering_key=key)))
            return
        running = partial(self._checked, handler, call)
        try:
            answer = await self._guarded(running(), operation.path, request_id)
        except TimeMachineError as error:
            tell(codec.encode(Told(error=carry(error))))
            return
        told = Told(
            status=answer.status,
            headers=answer.headers,
            content_type=answer.content_type,
            body=answer.body,
        )
        tell(codec.encode(told))


def _job_of(operation: Operation, call: Call) -> Job | None:
    """The job that a request names; None for one of the original's that leaves that to the node."""
    names = call.names
    if WHERE[operation.id] is Where.VNODE_LEADER:
        db, collection, vnode = names
        return (db, collection, int(vnode)) if DIGITS.fullmatch(vnode) else None
    if operation.path.startswith("/job/"):
        if operation.method == "POST":
            try:
                job_id = _read_id(call.body).id
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                return None
            if job_id is None:
                return None
            names = [*names, job_id]
        names = [DEFAULT_DATABASE, *names][-3:]
    db, collection, job_id, *_ = names
    return db, collection, job_id


def _id_at(call: Call) -> int | None:
    """Which of the names of a path is the id of a job; None where the body has it, if anything."""
    if not call.operation.startswith("job/"):
        return 2
    return -1 if call.method != "POST" or len(call.names) > 2 else None


def _found_at(job: Job, call: Call, ordering_key: str) -> Job:
    """The job with the key that it is found by, which its handler is to know, too."""
    db, collection, job_id = job
    assert isinstance(job_id, str)
    found = OrderedId(job_id, ordering_key)
    at = _id_at(call)
    assert at is not None
    call.names = [*call.names]
    call.names[at] = found
    return db, collection, found


class _Silent(Exception):
    """A node did not answer: whether it has done what was asked is not known."""


def _timeout_ms(group: Group, call: Call, left_s: float) -> int:
    """How long to wait for a node that is alive: what it was asked may have been lost on the way.

    A request about meta may be long: how many jobs something is about is counted first.
    """
    if group == META_GROUP:
        return limits.RELAY_TIMEOUT_MS
    patience_ms = limits.ROUTER_TRY_MS if _repeatable(call) else limits.ROUTER_PATIENCE_MS
    return max(1, min(patience_ms, int(left_s * 1000)))


def _repeatable(call: Call) -> bool:
    """Whether a request may be sent again although it may have been done."""
    return call.method in ("GET", "HEAD") or "Idempotency-Key" in call.headers


def _written(operation: Operation, call: Call, request_id: str) -> bytes:
    headers = {name: call.headers[name] for name in _HEADERS if name in call.headers}
    return codec.encode(
        Relayed(
            operation=operation.id,
            method=call.method,
            names=[str(name) for name in call.names],
            query=call.query,
            headers=headers,
            body=call.body,
            request_id=request_id,
            ordering_key=next((key_of(name) for name in call.names if key_of(name)), None),
        )
    )
