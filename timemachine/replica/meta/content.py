"""Databases, collections, routes, settings: what creators and admins write."""

import msgspec

from timemachine import limits
from timemachine.model import Collection, Database, Route
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.placing import place_new
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables


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
    )
    tables.keep(collection)
    place_new(tables, collection)
    return MetaResult(kind="created", collection=collection)


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
    if existing is None:
        if len(tables.routes) >= limits.ROUTES_MAX:
            return refused("limit_reached")
        stored = msgspec.structs.replace(
            route,
            uid=tables.new_uid(),
            version=1,
            created_ms=command.now_ms,
            updated_ms=command.now_ms,
        )
        kind = "created"
    else:
        same = msgspec.structs.replace(
            route,
            uid=existing.uid,
            version=existing.version,
            created_ms=existing.created_ms,
            updated_ms=existing.updated_ms,
        )
        if same == existing:
            return MetaResult(kind="unchanged", route=existing)
        stored = msgspec.structs.replace(
            same, version=existing.version + 1, updated_ms=command.now_ms
        )
        kind = "replaced"
    tables.keep(stored)
    return MetaResult(kind=kind, route=stored)


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
    """Stop a route, unless it is stopped."""
    existing = tables.routes_by_uid.get(command.uid)
    if existing is None:
        return refused("not_found")
    if existing.disabled is not None:
        return MetaResult(kind="unchanged", route=existing)
    route = msgspec.structs.replace(
        existing,
        disabled=command.reason,
        version=existing.version + 1,
        updated_ms=command.now_ms,
    )
    tables.keep(route)
    return MetaResult(kind="replaced", route=route)


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
