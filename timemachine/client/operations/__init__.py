"""The operations of the API, one function each: what is asked, and what type answers.

These functions are the methods of `Client` and `SyncClient`; their docstrings are written for the
users of those. They do no I/O: each returns a Call that the client carries through.

Those that write take an `idempotency_key`: whoever repeats a call by hand, after a crash of his
own for instance, gives the same key again. Without one the client makes a key for each call.
Those that read take `consistency`: "stale" reads what the answering node has.
"""

from timemachine.client.operations.bulk import (
    cancel_jobs,
    cancel_task,
    forecast,
    get_task,
    list_tasks,
    redrive_route,
    replay_missing,
    reschedule_jobs,
)
from timemachine.client.operations.cluster import (
    cluster,
    get_settings,
    put_settings,
    ready,
    request,
    version,
    vnodes,
)
from timemachine.client.operations.databases import (
    delete_collection,
    delete_database,
    get_collection,
    get_database,
    list_collections,
    list_databases,
    put_collection,
    put_database,
)
from timemachine.client.operations.fields import (
    BatchFields,
    Consistency,
    NewJob,
    RateFields,
    RetryFields,
    RouteFields,
)
from timemachine.client.operations.jobs import (
    attempts,
    create_job,
    create_jobs,
    delete_attempt_content,
    delete_job,
    get_job,
    list_jobs,
    patch_job,
    put_job,
    redrive_job,
    run_job,
)
from timemachine.client.operations.routes import (
    delete_route,
    get_route,
    get_route_secret,
    list_routes,
    patch_route,
    pause_route,
    put_route,
    resume_route,
    rotate_route_secret,
    route_attempts,
    route_stats,
    send_example,
)

__all__ = [
    "BatchFields",
    "Consistency",
    "NewJob",
    "RateFields",
    "RetryFields",
    "RouteFields",
    "attempts",
    "cancel_jobs",
    "cancel_task",
    "cluster",
    "create_job",
    "create_jobs",
    "delete_attempt_content",
    "delete_collection",
    "delete_database",
    "delete_job",
    "delete_route",
    "forecast",
    "get_collection",
    "get_database",
    "get_job",
    "get_route",
    "get_route_secret",
    "get_settings",
    "get_task",
    "list_collections",
    "list_databases",
    "list_jobs",
    "list_routes",
    "list_tasks",
    "patch_job",
    "patch_route",
    "pause_route",
    "put_collection",
    "put_database",
    "put_job",
    "put_route",
    "put_settings",
    "ready",
    "redrive_job",
    "redrive_route",
    "replay_missing",
    "request",
    "reschedule_jobs",
    "resume_route",
    "rotate_route_secret",
    "route_attempts",
    "route_stats",
    "run_job",
    "send_example",
    "version",
    "vnodes",
]
