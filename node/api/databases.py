"""Databases and collections."""

from typing import Any

import msgspec

from node.api.conventions import (
    Answer,
    Call,
    ask_meta,
    checked_name,
    idempotency_key,
    json_answer,
    query_limit,
    read_cursor,
    request_of,
    write_cursor,
)
from node.api.problems import from_validation, invalid, refusal
from node.api.views import collection_view
from node.engine import Engine
from timemachine import limits
from timemachine.errors import Conflict, NotFound
from timemachine.model import Collection, Database
from timemachine.replica import meta as m


class CollectionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What PUT of a collection takes; what GET shows beside it is ignored."""

    num_vnodes: int | None = None
    replicas: int | None = None
    history_retention_ms: int | None = None
    db: msgspec.Raw | None = None
    name: msgspec.Raw | None = None
    under_replicated: msgspec.Raw | None = None
    created_time: msgspec.Raw | None = None
    version: msgspec.Raw | None = None
    counts: msgspec.Raw | None = None


_decode_collection = msgspec.json.Decoder(CollectionBody).decode


def page(call: Call, rows: list[Any], scope: str, key: str, view: Any) -> Answer:
    """One page of a list that is small enough to sort in memory."""
    position = read_cursor(call, scope)
    limit = query_limit(call)
    rows.sort(key=lambda row: getattr(row, key))
    if position is not None:
        rows = [row for row in rows if getattr(row, key) > position[0]]
    more = len(rows) > limit
    rows = rows[:limit]
    cursor = write_cursor([getattr(rows[-1], key)], scope) if more else None
    return json_answer({"items": [view(row) for row in rows], "next_cursor": cursor})


def find_database(engine: Engine, name: str) -> Database:
    """The database of that name, or 404."""
    database = engine.meta.databases.get(name)
    if database is None:
        raise refusal("database_not_found")
    return database


def find_collection(engine: Engine, db: str, name: str) -> Collection:
    """The collection of that name, or 404."""
    collection = engine.meta.collections.get((db, name))
    if collection is None:
        find_database(engine, db)
        raise NotFound("There is no collection of this name.", code="collection_not_found")
    return collection


class DatabaseHandlers:
    """Operations on databases and collections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _view(self, database: Database) -> dict[str, Any]:
        return {"name": database.name, "created_time": database.created_ms}

    async def list_databases(self, call: Call) -> Answer:
        """GET /v1/dbs."""
        call.only("limit", "cursor")
        rows = list(self._engine.meta.databases.values())
        return page(call, rows, "dbs", "name", self._view)

    async def put_database(self, call: Call) -> Answer:
        """PUT /v1/dbs/{db}."""
        call.only()
        name = checked_name(call.names[0], "database")
        request = request_of(idempotency_key(call), f"db/{name}", b"put")
        command = m.PutDatabase(now_ms=self._engine.now_ms(), name=name, request=request)
        result = await ask_meta(self._engine, command)
        status = 201 if result.kind == "created" else 200
        return json_answer(self._view(result.database), status)

    async def get_database(self, call: Call) -> Answer:
        """GET /v1/dbs/{db}."""
        call.only("consistency")
        return json_answer(self._view(find_database(self._engine, call.names[0])))

    async def delete_database(self, call: Call) -> Answer:
        """DELETE /v1/dbs/{db}."""
        call.only("force")
        name = call.names[0]
        database = find_database(self._engine, name)
        if name == m.DEFAULT_DATABASE:
            raise Conflict("The database `default` cannot be deleted.", code="database_in_use")
        meta = self._engine.meta
        full = any(pair[0] == name for pair in (*meta.collections, *meta.routes))
        if full and not call.flag("force"):
            raise Conflict(
                "The database has collections or routes; delete it with ?force=true.",
                code="database_not_empty",
            )
        command = m.DeleteDatabase(now_ms=self._engine.now_ms(), name=name)
        await ask_meta(self._engine, command)
        return json_answer(self._view(database))

    def _collection(self, collection: Collection) -> dict[str, Any]:
        return collection_view(collection, len(self._engine.meta.nodes))

    async def list_collections(self, call: Call) -> Answer:
        """GET /v1/dbs/{db}/collections."""
        call.only("limit", "cursor")
        db = call.names[0]
        find_database(self._engine, db)
        rows = [row for pair, row in self._engine.meta.collections.items() if pair[0] == db]
        return page(call, rows, f"{db}/collections", "name", self._collection)

    async def put_collection(self, call: Call) -> Answer:
        """PUT /v1/dbs/{db}/collections/{collection}."""
        call.only()
        db, name = call.names
        find_database(self._engine, db)
        checked_name(name, "collection")
        try:
            body = _decode_collection(call.body or b"{}")
        except (msgspec.DecodeError, RecursionError) as error:
            raise from_validation(error) from None
        _in_range("/num_vnodes", body.num_vnodes, 1, limits.VNODES_PER_COLLECTION_MAX)
        _in_range("/replicas", body.replicas, 1, limits.REPLICAS_MAX)
        _in_range("/history_retention_ms", body.history_retention_ms, 0, limits.RETENTION_MS_MAX)
        command = m.PutCollection(
            now_ms=self._engine.now_ms(),
            db=db,
            name=name,
            num_vnodes=body.num_vnodes,
            replicas=body.replicas,
            history_retention_ms=body.history_retention_ms,
            request=request_of(idempotency_key(call), f"collection/{db}/{name}", call.body),
        )
        result = await ask_meta(self._engine, command)
        status = 201 if result.kind == "created" else 200
        return json_answer(self._collection(result.collection), status)

    async def get_collection(self, call: Call) -> Answer:
        """GET /v1/dbs/{db}/collections/{collection}."""
        call.only("consistency")
        collection = find_collection(self._engine, *call.names)
        view = self._collection(collection)
        view["counts"] = self._engine.counts(collection)
        return json_answer(view)

    async def delete_collection(self, call: Call) -> Answer:
        """DELETE /v1/dbs/{db}/collections/{collection}."""
        call.only("force")
        collection = find_collection(self._engine, *call.names)
        if any(self._engine.counts(collection).values()) and not call.flag("force"):
            raise Conflict(
                "The collection has jobs; delete it with ?force=true.",
                code="collection_not_empty",
            )
        view = self._collection(collection)
        command = m.DeleteCollection(
            now_ms=self._engine.now_ms(), db=collection.db, name=collection.name
        )
        await ask_meta(self._engine, command)
        return json_answer(view)


def _in_range(pointer: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise invalid(pointer, f"This is {low} to {high}.")
