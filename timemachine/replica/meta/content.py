"""Databases, collections, routes, settings: what creators and admins write."""

import msgspec

from timemachine import failing, limits
from timemachine.events import Event, EventKind
from timemachine.model import Collection, Database, Failing, Route
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.placing import place_new
from timemachine.replica.meta.records import MetaResult, RouteEvent, refused
from timemachine.replica.meta.sealing import may_store
from timemachine.replica.meta.tables import Tables

FAILING = "failing"
"""Why a route is disabled that has failed for too long."""


def put_database(tables: Tables, command: c.PutDatabase) -> MetaResult:
    """Create a database, unless it exists."""
    existing = tables.databases.get(command.name)
    if existing is not None:
        return MetaResult(kind="unchanged", database=existing)
    if len(tables.databases) >= limits.DATABASES_MAX:
        return refused("limit_reached")
    database = Database(uid=tables.new_uid(), name=command.name, created_ms=command.now_ms)
    tables.keep(database)
    return MetaResult(kind="created", database=database)


def delete_database(tables: Tables, command: c.DeleteDatabase) -> MetaResult:
    """Delete a database, its collections and its routes."""
    database = tables.databases.get(command.name)
    if database is None:
        return refused("not_found")
    tables.drop(database)
    records: list[Collection | Route] = [*tables.collections.values(), *tables.routes.values()]
    for record in records:
        if record.db == command.name:
            tables.drop(record)
    return MetaResult(kind="deleted", database=database)


def put_collection(tables: Tables, command: c.PutCollection) -> MetaResult:
    """Create a collection, or change what may change."""
    if command.db not in tables.databases:
        return refused("database_not_found")
    existing = tables.collections.get((command.db, command.name))
    if existing is None:
        return _create_collection(tables, command)
    if command.num_vnodes not in (None, existing.num_vnodes):
        return refused("immutable_field")
    changed = msgspec.structs.replace(
        existing,
        replicas=command.replicas or existing.replicas,
        history_retention_ms=(
            existing.history_retention_ms
            if command.history_retention_ms is None
            else command.history_retention_ms
        ),
        content_retention_ms=(
            existing.content_retention_ms
            if command.content_retention_ms is None
            else _content_retention_ms(command)
        ),
    )
    if changed == existing:
        return MetaResult(kind="unchanged", collection=existing)
    changed = msgspec.structs.replace(changed, version=existing.version + 1)
    tables.keep(changed)
    return MetaResult(kind="replaced", collection=changed)


def _create_collection(tables: Tables, command: c.PutCollection) -> MetaResult:
    num_vnodes = command.num_vnodes or limits.VNODES_DEFAULT
    vnodes = sum(collection.num_vnodes for collection in tables.collections.values())
    if (
        len(tables.collections) >= limits.COLLECTIONS_MAX
        or vnodes + num_vnodes > limits.VNODES_PER_CLUSTER_MAX
    ):
        return refused("limit_reached")
    collection = Collection(
        uid=tables.new_uid(),
        db=command.db,
        name=command.name,
        num_vnodes=num_vnodes,
        replicas=command.replicas or limits.REPLICAS_DEFAULT,
        history_retention_ms=(
            limits.HISTORY_RETENTION_MS_DEFAULT
            if command.history_retention_ms is None
            else command.history_retention_ms
        ),
        created_ms=command.now_ms,
        content_retention_ms=_content_retention_ms(command),
    )
    tables.keep(collection)
    place_new(tables, collection)
    return MetaResult(kind="created", collection=collection)


def _content_retention_ms(command: c.PutCollection) -> int | None:
    wanted_ms = command.content_retention_ms
    return None if wanted_ms == c.AS_ATTEMPTS else wanted_ms


def delete_collection(tables: Tables, command: c.DeleteCollection) -> MetaResult:
    """Delete a collection; its placements go with it."""
    collection = tables.collections.get((command.db, command.name))
    if collection is None:
        return refused("not_found")
    tables.drop(collection)
    return MetaResult(kind="deleted", collection=collection)


def put_route(tables: Tables, command: c.PutRoute) -> MetaResult:
    """Create or replace a route, if it is what the writer saw."""
    route = command.route
    if route.db not in tables.databases:
        return refused("database_not_found")
    existing = tables.routes.get((route.db, route.name))
    version = existing.version if existing is not None else 0
    if command.expected_version != version:
        return refused("version_moved")
    if not may_store(tables, route, existing):
        return refused("key_moved")
    if existing is None:
        if len(tables.routes) >= limits.ROUTES_MAX:
            return refused("limit_reached")
        stored = msgspec.structs.replace(
            route,
            uid=tables.new_uid(),
            version=1,
            created_ms=command.now_ms,
            updated_ms=command.now_ms,
            closed_ms=0 if route.open else command.now_ms,
            failing=Failing(),
        )
        kind = "created"
    else:
        same = msgspec.structs.replace(
            route,
            uid=existing.uid,
            version=existing.version,
            created_ms=existing.created_ms,
            updated_ms=existing.updated_ms,
            closed_ms=existing.closed_ms,
            failing=existing.failing,
        )
        if same == existing:
            return MetaResult(kind="unchanged", route=existing)
        stored = msgspec.structs.replace(
            same,
            version=existing.version + 1,
            updated_ms=command.now_ms,
            closed_ms=_closed_ms(existing, same, command.now_ms),
            failing=_failing(existing, same, command.now_ms),
        )
        kind = "replaced"
    tables.keep(stored)
    return MetaResult(kind=kind, route=stored)


def _closed_ms(before: Route, after: Route, now_ms: int) -> int:
    """Since when a route is closed as it is now; 0 if it is open."""
    if after.open:
        return 0
    same = (before.enabled, before.paused, before.disabled) == (
        after.enabled,
        after.paused,
        after.disabled,
    )
    return before.closed_ms if same else now_ms


def _failing(before: Route, after: Route, now_ms: int) -> Failing:
    """What is known of a route's failures: nothing any more, if it begins anew."""
    opened = after.open and not before.open
    moved = after.webhook_url != before.webhook_url
    return Failing(cleared_ms=now_ms) if opened or moved else before.failing


def delete_route(tables: Tables, command: c.DeleteRoute) -> MetaResult:
    """Delete a route."""
    existing = tables.routes.get((command.db, command.name))
    if existing is None:
        return refused("not_found")
    if command.expected_version not in (None, existing.version):
        return refused("version_moved")
    tables.drop(existing)
    return MetaResult(kind="deleted", route=existing)


def disable_route(tables: Tables, command: c.DisableRoute) -> MetaResult:
    """Stop a route, unless it is stopped or was written since."""
    existing = tables.routes_by_uid.get(command.uid)
    if existing is None:
        return refused("not_found")
    if existing.disabled is not None or existing.version != command.version:
        return MetaResult(kind="unchanged", route=existing)
    return _disable(tables, existing, command.reason, command.now_ms)


def route_failed(tables: Tables, command: c.RouteFailed) -> MetaResult:
    """Note that a route fails; stop it if it has failed for too long."""
    existing = tables.routes_by_uid.get(command.uid)
    if existing is None:
        return refused("not_found")
    if not existing.open:
        return MetaResult(kind="unchanged", route=existing)
    known, disables = failing.failed(
        existing.failing, command.since_ms, command.at_ms, existing.disable_after_ms
    )
    if disables:
        return _disable(tables, existing, FAILING, command.now_ms)
    return _note(tables, existing, known)


def route_succeeded(tables: Tables, command: c.RouteSucceeded) -> MetaResult:
    """Forget the failures of a route that came before."""
    existing = tables.routes_by_uid.get(command.uid)
    if existing is None:
        return refused("not_found")
    return _note(tables, existing, failing.succeeded(existing.failing, command.at_ms))


def _note(tables: Tables, route: Route, known: Failing) -> MetaResult:
    """Keep what is known of a route's failures. Its version is for what its owner writes."""
    if known == route.failing:
        return MetaResult(kind="unchanged", route=route)
    route = msgspec.structs.replace(route, failing=known)
    tables.keep(route)
    return MetaResult(kind="replaced", route=route)


def _disable(tables: Tables, route: Route, reason: str, now_ms: int) -> MetaResult:
    """Stop a route: the one place where the system does so, for whatever reason."""
    route = msgspec.structs.replace(
        route,
        disabled=reason,
        version=route.version + 1,
        updated_ms=now_ms,
        closed_ms=now_ms,
        failing=Failing(cleared_ms=now_ms),
    )
    tables.keep(route)
    if route.alert_route is not None and len(tables.events) < limits.EVENTS_WAITING_MAX:
        event = Event(
            kind=EventKind.DISABLED,
            at_ms=now_ms,
            route=route.name,
            alert_route=route.alert_route,
            reason=reason,
        )
        tables.keep(RouteEvent(tables.new_uid(), route.db, event))
    return MetaResult(kind="replaced", route=route)


def route_events_told(tables: Tables, command: c.RouteEventsTold) -> MetaResult:
    """Forget the events whose jobs are there."""
    told = [tables.events[each] for each in command.ids if each in tables.events]
    for event in told:
        tables.drop(event)
    return MetaResult(kind="deleted" if told else "unchanged")


def put_settings(tables: Tables, command: c.PutSettings) -> MetaResult:
    """Replace the settings.

    The restore epoch never goes back: who proposed this may not have heard of a restore.
    """
    epoch = max(command.settings.restore_epoch, tables.settings.restore_epoch)
    settings = msgspec.structs.replace(command.settings, restore_epoch=epoch)
    if settings == tables.settings:
        return MetaResult(kind="unchanged")
    tables.keep(settings)
    return MetaResult(kind="replaced")
