"""The SDK: an async and a sync client of TimeMachine, with the same methods.

    from timemachine.client import Client

    async with Client("http://127.0.0.1:8001") as tm:
        await tm.put_collection("default", "carts")
        await tm.put_route("default", "hello", webhook_url="http://127.0.0.1:4000/callback")
        job = await tm.create_job(
            "default", "carts", delay_ms=5_000, route="hello", meta={"cart": 7}
        )

Repeats are harmless: every write carries an Idempotency-Key, jobs without an id get one here, and
all tries of a call are the same bytes. So the client tries again by itself, on the next server if
it knows several, when a connection breaks and when a node is overloaded (429, 502, 503, 504; it
honours Retry-After), until `timeout_ms` is over. Errors are ClientErrors: ApiError and its kinds
for what a node refused, NoAnswer when none answered; `error.code` is stable and for programs.

How it is built: `operations` says what is asked, `conversation` decides how a call is carried
through, `http1` knows bytes; all three are without I/O. `asynchronous` and `synchronous` only
send, receive and sleep. Needs the standard library and msgspec.
"""

from timemachine.client.answers import (
    Attempt,
    Batch,
    BatchItem,
    Breaker,
    Bucket,
    Bulk,
    Cluster,
    Collection,
    Compaction,
    CreateResult,
    Database,
    Example,
    ExplainedPhase,
    ExplainedStep,
    Explanation,
    Finalised,
    Job,
    JoinToken,
    MasterKey,
    Node,
    NodeCompaction,
    Offset,
    Page,
    PendingVnode,
    Plan,
    PlannedMove,
    PlanProgress,
    Previous,
    PreviousSecret,
    Rate,
    Ready,
    Replica,
    Resealed,
    Retry,
    Route,
    RouteSecret,
    RouteStats,
    Settings,
    Task,
    Traffic,
    Version,
    Vnode,
)
from timemachine.client.async_batches import AsyncBatcher
from timemachine.client.asynchronous import AsyncItems, Client
from timemachine.client.call import Time
from timemachine.client.operations import (
    BatchFields,
    BreakerFields,
    Consistency,
    NewJob,
    PlanKind,
    RateFields,
    RetryFields,
    RouteFields,
)
from timemachine.client.problems import Fault, Problem
from timemachine.client.sync_batches import Batcher
from timemachine.client.synchronous import Items, SyncClient
from timemachine.errors import (
    ApiConflict,
    ApiDenied,
    ApiError,
    ApiInvalid,
    ApiNotFound,
    ApiOverloaded,
    ApiPreconditionFailed,
    BadAnswer,
    BatchFailed,
    ClientClosed,
    ClientError,
    NoAnswer,
    TaskFailed,
    TaskUnfinished,
    TimeMachineError,
)

__all__ = [
    "ApiConflict",
    "ApiDenied",
    "ApiError",
    "ApiInvalid",
    "ApiNotFound",
    "ApiOverloaded",
    "ApiPreconditionFailed",
    "AsyncBatcher",
    "AsyncItems",
    "Attempt",
    "BadAnswer",
    "Batch",
    "BatchFailed",
    "BatchFields",
    "BatchItem",
    "Batcher",
    "Breaker",
    "BreakerFields",
    "Bucket",
    "Bulk",
    "Client",
    "ClientClosed",
    "ClientError",
    "Cluster",
    "Collection",
    "Compaction",
    "Consistency",
    "CreateResult",
    "Database",
    "Example",
    "ExplainedPhase",
    "ExplainedStep",
    "Explanation",
    "Fault",
    "Finalised",
    "Items",
    "Job",
    "JoinToken",
    "MasterKey",
    "NewJob",
    "NoAnswer",
    "Node",
    "NodeCompaction",
    "Offset",
    "Page",
    "PendingVnode",
    "Plan",
    "PlanKind",
    "PlanProgress",
    "PlannedMove",
    "Previous",
    "PreviousSecret",
    "Problem",
    "Rate",
    "RateFields",
    "Ready",
    "Replica",
    "Resealed",
    "Retry",
    "RetryFields",
    "Route",
    "RouteFields",
    "RouteSecret",
    "RouteStats",
    "Settings",
    "SyncClient",
    "Task",
    "TaskFailed",
    "TaskUnfinished",
    "Time",
    "TimeMachineError",
    "Traffic",
    "Version",
    "Vnode",
]
