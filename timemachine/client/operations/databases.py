"""Databases and collections."""

from timemachine.client.answers import Collection, Database, Page
from timemachine.client.call import Call, collection_path, given, path_of, query_of
from timemachine.client.operations.fields import Consistency


def put_database(db: str, *, idempotency_key: str | None = None) -> Call[Database]:
    """Create a database, if it is not there yet."""
    return Call("PUT", path_of("dbs", db), Database, idempotency_key=idempotency_key)


def get_database(db: str, *, consistency: Consistency | None = None) -> Call[Database]:
    """A database."""
    query = query_of(consistency=consistency)
    return Call("GET", path_of("dbs", db), Database, query=query)


def list_databases(
    *, page_size: int | None = None, consistency: Consistency | None = None
) -> Call[Page[Database]]:
    """All databases."""
    query = query_of(consistency=consistency, limit=page_size)
    return Call("GET", path_of("dbs"), Page[Database], query=query)


def delete_database(
    db: str, *, force: bool = False, idempotency_key: str | None = None
) -> Call[None]:
    """Delete a database; one that is not empty only with `force`."""
    return Call(
        "DELETE",
        path_of("dbs", db),
        type(None),
        query=query_of(force=force),
        idempotency_key=idempotency_key,
    )


def put_collection(
    db: str,
    collection: str,
    *,
    num_vnodes: int | None = None,
    replicas: int | None = None,
    history_retention_ms: int | None = None,
    content_retention_ms: int | None = None,
    idempotency_key: str | None = None,
) -> Call[Collection]:
    """Create a collection, or change one. `num_vnodes` cannot be changed later."""
    fields = {
        "num_vnodes": num_vnodes,
        "replicas": replicas,
        "history_retention_ms": history_retention_ms,
        "content_retention_ms": content_retention_ms,
    }
    return Call(
        "PUT",
        collection_path(db, collection),
        Collection,
        body=given(fields),
        idempotency_key=idempotency_key,
    )


def get_collection(
    db: str, collection: str, *, consistency: Consistency | None = None
) -> Call[Collection]:
    """A collection, with its counts of jobs by state."""
    query = query_of(consistency=consistency)
    return Call("GET", collection_path(db, collection), Collection, query=query)


def list_collections(
    db: str, *, page_size: int | None = None, consistency: Consistency | None = None
) -> Call[Page[Collection]]:
    """All collections of a database."""
    query = query_of(consistency=consistency, limit=page_size)
    return Call("GET", path_of("dbs", db, "collections"), Page[Collection], query=query)


def delete_collection(
    db: str, collection: str, *, force: bool = False, idempotency_key: str | None = None
) -> Call[None]:
    """Delete a collection; one that is not empty only with `force`."""
    return Call(
        "DELETE",
        collection_path(db, collection),
        type(None),
        query=query_of(force=force),
        idempotency_key=idempotency_key,
    )
