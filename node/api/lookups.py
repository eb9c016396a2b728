"""What a path names, or a 404 that says which part of it is not there."""

from node.api.conventions import checked_job_id
from node.api.problems import refusal
from node.engine import Engine
from timemachine.model import Collection, Database, JobRecord, Route


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
        raise refusal("collection_not_found")
    return collection


def find_route(engine: Engine, db: str, name: str) -> Route:
    """The route of that name, or 404."""
    route = engine.meta.routes.get((db, name))
    if route is None:
        raise refusal("route_not_found")
    return route


def find_route_of(engine: Engine, db: str, name: str) -> Route:
    """The route of that name, or 404; where there is no such database, that of the database."""
    if (db, name) not in engine.meta.routes:
        find_database(engine, db)
    return find_route(engine, db, name)


def find_job(engine: Engine, collection: Collection, job_id: str) -> tuple[JobRecord, bytes]:
    """The job of that id and its meta, or 404."""
    found = engine.read_job(collection, job_id)
    if found is None:
        raise refusal("job_not_found")
    return found


def job_named(engine: Engine, db: str, collection: str, job_id: str) -> tuple[Collection, str]:
    """The collection of a job, or 404, and its id, or 400. Whether it is there is not asked."""
    return find_collection(engine, db, collection), checked_job_id(job_id)
