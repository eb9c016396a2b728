"""Databases and collections."""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.conventions import (
    Answer,
    Call,
    Ignored,
    ask_meta,
    checked_name,
    decoded,
    encode_content,
    gathered,
    idempotency_key,
    json_answer,
    meta_answer,
    request_of,
)
from node.api.lookups import find_collection, find_database
from node.api.operations import (
    COLLECTION,
    DATABASE,
    IDEMPOTENCY_KEY,
    IN_COLLECTION,
    IN_DATABASE,
    Example,
    Told,
    flag,
    operation,
)
from node.api.paging import PAGED, Page, page
from node.api.problems import check_range, refusal
from node.api.schemas import between
from node.api.views import CollectionView, DatabaseView, collection_view
from node.engine import Engine
from node.gathering import Counts
from timemachine import limits
from timemachine.model import Collection, Database, JobState
from timemachine.replica import meta as m

_TAG = "Databases and collections"
_KEYED = (IDEMPOTENCY_KEY,)
_REPEATED = ("Idempotent-Replayed",)


class DatabaseBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What PUT of a database takes: nothing; what GET shows is ignored."""

    name: Ignored = msgspec.UNSET
    created_time: Ignored = msgspec.UNSET


class CollectionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What PUT of a collection takes; what GET shows beside it is ignored."""

    num_vnodes: Annotated[
        Annotated[int, between(1, limits.VNODES_PER_COLLECTION_MAX)] | None,
        Meta(
            description=f"Cannot change later; {limits.VNODES_DEFAULT} when absent at first,"
            " then what is stored."
        ),
    ] = None
    replicas: Annotated[
        Annotated[int, between(1, limits.REPLICAS_MAX)] | None,
        Meta(description=f"{limits.REPLICAS_DEFAULT} when absent."),
    ] = None
    history_retention_ms: Annotated[
        Annotated[int, between(0, limits.RETENTION_MS_MAX)] | None,
        Meta(
            description="How long jobs that ended stay readable;"
            f" {limits.HISTORY_RETENTION_MS_DEFAULT} when absent."
        ),
    ] = None
    content_retention_ms: Annotated[
        Annotated[int, between(0, limits.RETENTION_MS_MAX)] | None,
        Meta(
            description="How long the headers and bodies that recipients answered are kept with"
            " their attempts; as long as the attempts when absent or null."
        ),
    ] = None
    db: Ignored = msgspec.UNSET
    name: Ignored = msgspec.UNSET
    under_replicated: Ignored = msgspec.UNSET
    no_fault_tolerance: Ignored = msgspec.UNSET
    created_time: Ignored = msgspec.UNSET
    version: Ignored = msgspec.UNSET
    counts: Ignored = msgspec.UNSET


_decode_database = msgspec.json.Decoder(DatabaseBody).decode
_decode_collection = msgspec.json.Decoder(CollectionBody).decode


class DatabaseHandlers:
    """Operations on databases and collections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _view(self, database: Database) -> DatabaseView:
        return DatabaseView(name=database.name, created_time=database.created_ms)

    @operation(
        "GET",
        "/v1/dbs",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="By name.", body=Page[DatabaseView])},
    )
    async def list_databases(self, call: Call) -> Answer:
        """List the databases."""
        rows = list(self._engine.meta.databases.values())
        return page(call, rows, "dbs", "name", self._view)

    @operation(
        "PUT",
        DATABASE,
        tag=_TAG,
        headers=_KEYED,
        body=DatabaseBody,
        body_required=False,
        answers={
            201: Told(meaning="Created.", body=DatabaseView, headers=_REPEATED),
            200: Told(meaning="There already.", body=DatabaseView, headers=_REPEATED),
        },
        refusals=["413 limit_reached"],
    )
    async def put_database(self, call: Call) -> Answer:
        """Create a database.

        It holds collections and routes. There is nothing to set.
        """
        decoded(_decode_database, call.body or b"{}")
        name = checked_name(call.names[0], "database")
        request = request_of(idempotency_key(call), f"db/{name}", b"put")
        command = m.PutDatabase(now_ms=self._engine.now_ms(), name=name, request=request)
        result = await ask_meta(self._engine, command)
        return meta_answer(self._view(result.database), result)

    @operation(
        "GET",
        DATABASE,
        tag=_TAG,
        answers={200: Told(meaning="The database.", body=DatabaseView)},
        refusals=IN_DATABASE,
    )
    async def get_database(self, call: Call) -> Answer:
        """Read a database."""
        return json_answer(self._view(find_database(self._engine, call.names[0])))

    @operation(
        "DELETE",
        DATABASE,
        tag=_TAG,
        query=[flag("force", "Delete its collections and routes, too.")],
        headers=_KEYED,
        answers={200: Told(meaning="What was deleted.", body=DatabaseView, headers=_REPEATED)},
        refusals=[*IN_DATABASE, "409 database_in_use", "409 database_not_empty"],
        example=Example(path={"db": "shop"}, query={"force": True}),
    )
    async def delete_database(self, call: Call) -> Answer:
        """Delete a database.

        The database `default` cannot be deleted.
        """
        name = call.names[0]
        key = idempotency_key(call)
        if name == m.DEFAULT_DATABASE:
            raise refusal("database_in_use")
        meta = self._engine.meta
        # With a key this may be a repeat of what was done: then the log answers.
        if key is None:
            find_database(self._engine, name)
        full = any(pair[0] == name for pair in (*meta.collections, *meta.routes))
        if full and not call.flag("force"):
            raise refusal("database_not_empty")
        command = m.DeleteDatabase(
            now_ms=self._engine.now_ms(),
            name=name,
            request=request_of(key, f"db/{name}", b"delete"),
        )
        result = await ask_meta(self._engine, command, missing="database_not_found")
        return meta_answer(self._view(result.database), result)

    def _collection(self, collection: Collection) -> CollectionView:
        return collection_view(collection, self._engine.meta)

    @operation(
        "GET",
        f"{DATABASE}/collections",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="By name.", body=Page[CollectionView])},
        refusals=IN_DATABASE,
    )
    async def list_collections(self, call: Call) -> Answer:
        """List the collections of a database."""
        db = call.names[0]
        find_database(self._engine, db)
        rows = [row for pair, row in self._engine.meta.collections.items() if pair[0] == db]
        return page(call, rows, f"{db}/collections", "name", self._collection)

    @operation(
        "PUT",
        COLLECTION,
        tag=_TAG,
        headers=_KEYED,
        body=CollectionBody,
        body_required=False,
        answers={
            201: Told(meaning="Created.", body=CollectionView, headers=_REPEATED),
            200: Told(meaning="Replaced, or equal.", body=CollectionView, headers=_REPEATED),
        },
        refusals=[*IN_DATABASE, "409 immutable_field", "413 limit_reached"],
        example=Example(body={"history_retention_ms": 604_800_000}),
    )
    async def put_collection(self, call: Call) -> Answer:
        """Create or change a collection.

        It holds jobs. `num_vnodes` is how many parts they are spread over, and cannot change.
        """
        db, name = call.names
        find_database(self._engine, db)
        checked_name(name, "collection")
        body = decoded(_decode_collection, call.body or b"{}")
        check_range("/num_vnodes", body.num_vnodes, 1, limits.VNODES_PER_COLLECTION_MAX)
        check_range("/replicas", body.replicas, 1, limits.REPLICAS_MAX)
        check_range("/history_retention_ms", body.history_retention_ms, 0, limits.RETENTION_MS_MAX)
        check_range("/content_retention_ms", body.content_retention_ms, 0, limits.RETENTION_MS_MAX)
        contents_ms = body.content_retention_ms
        if contents_ms is None:
            contents_ms = m.AS_ATTEMPTS
        retention_ms = body.history_retention_ms
        if retention_ms is None:
            retention_ms = limits.HISTORY_RETENTION_MS_DEFAULT
        replicas = limits.REPLICAS_DEFAULT if body.replicas is None else body.replicas
        content = encode_content(("put", body.num_vnodes, replicas, retention_ms, contents_ms))
        command = m.PutCollection(
            now_ms=self._engine.now_ms(),
            db=db,
            name=name,
            # Absent keeps what is stored; the others take their defaults, as PUT does.
            num_vnodes=body.num_vnodes,
            replicas=replicas,
            history_retention_ms=retention_ms,
            content_retention_ms=contents_ms,
            request=request_of(idempotency_key(call), f"collection/{db}/{name}", content),
        )
        result = await ask_meta(
            self._engine,
            command,
            limit=f"A cluster has at most {limits.COLLECTIONS_MAX} collections and"
            f" {limits.VNODES_PER_CLUSTER_MAX} vnodes (num_vnodes of all collections together).",
        )
        return meta_answer(self._collection(result.collection), result)

    @operation(
        "GET",
        COLLECTION,
        tag=_TAG,
        answers={200: Told(meaning="The collection, with counts by state.", body=CollectionView)},
        refusals=IN_COLLECTION,
    )
    async def get_collection(self, call: Call) -> Answer:
        """Read a collection."""
        collection = find_collection(self._engine, *call.names)
        view = self._collection(collection)
        counts = await gathered(self._engine, Counts(), [collection], call)
        view.counts = {state.text: counts[state] for state in JobState}
        return json_answer(view)

    @operation(
        "DELETE",
        COLLECTION,
        tag=_TAG,
        query=[flag("force", "Delete its jobs, too.")],
        headers=_KEYED,
        answers={200: Told(meaning="What was deleted.", body=CollectionView, headers=_REPEATED)},
        refusals=[*IN_COLLECTION, "409 collection_not_empty"],
        example=Example(query={"force": True}),
    )
    async def delete_collection(self, call: Call) -> Answer:
        """Delete a collection."""
        db, name = call.names
        key = idempotency_key(call)
        collection = self._engine.meta.collections.get((db, name))
        if collection is None and key is None:
            collection = find_collection(self._engine, db, name)
        judged = [] if collection is None or call.flag("force") else [collection]
        if any(await gathered(self._engine, Counts(), judged)):
            raise refusal("collection_not_empty")
        command = m.DeleteCollection(
            now_ms=self._engine.now_ms(),
            db=db,
            name=name,
            request=request_of(key, f"collection/{db}/{name}", b"delete"),
        )
        result = await ask_meta(self._engine, command, missing="collection_not_found")
        return meta_answer(self._collection(result.collection), result)
