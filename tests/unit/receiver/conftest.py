"""Stores in memory, for the tests of what every store has to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.unit.receiver.marks import DictStore
from timemachine.receiver import Store
from timemachine.receiver.sqlite import SQLiteStore
from timemachine.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only the test moves."""
    return ManualClock()


@pytest.fixture(params=["dict", "sqlite"])
def transactional(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each of the stores whose transactions hold the effect."""
    if request.param == "dict":
        yield DictStore()
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        store = SQLiteStore(connection)
        store.create_table()
        yield store


@pytest.fixture(params=["claims only", "dict", "sqlite"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each of the stores."""
    if request.param == "claims only":
        yield DictStore(transactional=False)
        return
    if request.param == "dict":
        yield DictStore()
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        sqlite = SQLiteStore(connection)
        sqlite.create_table()
        yield sqlite
