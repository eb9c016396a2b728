"""Plans: what is to move between nodes, shown first, then confirmed, watched, stopped."""

from collections.abc import Iterable

from timemachine import limits
from timemachine.client.answers import Page, Plan
from timemachine.client.call import Call, given, path_of, query_of
from timemachine.client.operations.fields import Consistency, PlanKind


def make_plan(
    kind: PlanKind,
    *,
    nodes: Iterable[str] = (),
    db: str | None = None,
    collection: str | None = None,
    replicas: int | None = None,
    transfers: int | None = None,
    vnodes: Iterable[int] = (),
    bytes_per_s: int | None = None,
    idempotency_key: str | None = None,
) -> Call[Plan]:
    """Plan what should move between nodes; nothing moves before the plan is confirmed.

    `nodes` are ids or names: for `drain` and `remove` those to empty, for `rebalance` those that
    were drained and are to have replicas again. `replicate` takes `db`, `collection` and
    `replicas`. `transfers` is how many vnodes change at once. `compact` moves nothing: these
    `nodes`, or all, give space back to their disks, of `vnodes` of a collection, of a collection,
    or of all they have; `transfers` of them at once, each at `bytes_per_s`. The answer takes a
    second, and several where nodes are down.
    """
    if isinstance(nodes, str):
        raise TypeError("nodes are a list of ids or names, not one text")
    fields = {
        "kind": kind,
        "nodes": list(nodes) or None,
        "db": db,
        "collection": collection,
        "replicas": replicas,
        "transfers": transfers,
        "vnodes": list(vnodes) or None,
        "bytes_per_s": bytes_per_s,
    }
    return Call(
        "POST",
        path_of("cluster", "plans"),
        Plan,
        body=given(fields),
        idempotency_key=idempotency_key,
        try_ms_min=limits.CLIENT_PLAN_TRY_MS,
    )


def get_plan(plan: Plan | str, *, consistency: Consistency | None = None) -> Call[Plan]:
    """A plan with every move, and how far it is; `plan` is its id, or itself."""
    return Call("GET", _path(plan), Plan, query=query_of(consistency=consistency))


def list_plans(
    *,
    limit: int | None = None,
    page_size: int | None = None,
    cursor: str | None = None,
    consistency: Consistency | None = None,
) -> Call[Page[Plan]]:
    """Iterate over the plans that are kept, without their moves, the newest first.

    There are `limit` of them at most.
    """
    query = query_of(consistency=consistency, limit=page_size, cursor=cursor)
    return Call("GET", path_of("cluster", "plans"), Page[Plan], query=query, items_max=limit)


def confirm_plan(plan: Plan | str, *, idempotency_key: str | None = None) -> Call[Plan]:
    """Have a plan run; ApiConflict if the cluster has changed since it was made."""
    return Call("POST", _path(plan, "confirm"), Plan, idempotency_key=idempotency_key)


def pause_plan(plan: Plan | str, *, idempotency_key: str | None = None) -> Call[Plan]:
    """Begin no further moves; those that are under way come to their end."""
    return Call("POST", _path(plan, "pause"), Plan, idempotency_key=idempotency_key)


def resume_plan(plan: Plan | str, *, idempotency_key: str | None = None) -> Call[Plan]:
    """Go on with a plan that was paused."""
    return Call("POST", _path(plan, "resume"), Plan, idempotency_key=idempotency_key)


def cancel_plan(plan: Plan | str, *, idempotency_key: str | None = None) -> Call[Plan]:
    """End a plan before its end; what was moved stays where it is."""
    return Call("POST", _path(plan, "cancel"), Plan, idempotency_key=idempotency_key)


def _path(plan: Plan | str, *rest: str) -> str:
    return path_of("cluster", "plans", plan.id if isinstance(plan, Plan) else plan, *rest)
