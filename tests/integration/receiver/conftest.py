"""Stores and databases on real servers."""

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import redis

from tests.integration.receiver.places import Place, PostgresPlace, SQLitePlace
from tests.integration.receiver.servers import postgres, redis_server
from timemachine.receiver import Store
from timemachine.receiver.postgres import PostgresStore
from timemachine.receiver.redis import RedisStore
from timemachine.testing import ManualClock

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """One server for all tests; each has a schema of its own in it."""
    with postgres() as place:
        yield place


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[str]:
    """One server for all tests; each finds it empty."""
    with redis_server() as path:
        yield path


@pytest.fixture
def schema(postgres_server: str) -> Iterator[str]:
    """How to connect to a new schema, with a table for effects that takes any number of each."""
    name = f"test_{next(_NUMBERS)}"
    with closing(psycopg.connect(postgres_server, autocommit=True)) as connection:
        connection.execute(f"CREATE SCHEMA {name} CREATE TABLE effects (what TEXT)")
        yield f"{postgres_server} options=-csearch_path={name}"
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def client(redis_socket: str) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    with redis.Redis(unix_socket_path=redis_socket) as client:
        client.flushall()
        yield client


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only the test moves; at first it shows the time by which Redis forgets."""
    return ManualClock(int(time.time() * 1000))


@pytest.fixture
def transactional(schema: str) -> Iterator[Store]:
    """The store on a server whose transactions hold the effect."""
    with closing(psycopg.connect(schema)) as connection:
        store = PostgresStore(connection)
        store.create_table()
        yield store


@pytest.fixture(params=["postgres", "redis"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each of the stores on a server."""
    if request.param == "redis":
        return RedisStore(request.getfixturevalue("client"))
    found: Store = request.getfixturevalue("transactional")
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new database, which many workers may use."""
    if request.param == "postgres":
        return PostgresPlace(request.getfixturevalue("schema"))
    return SQLitePlace(str(tmp_path / "app.db"))
