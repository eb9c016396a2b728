"""Stores in memory, for the tests of what every store has to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.unit.receiver.marks import DictStore
from timemachine.receiver import Store
from timemachine.receiver.sqlite import SQLiteStore
from timemachine.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only the test moves."""
    return ManualClock()


@contextmanager
def _opened(kind: str) -> Iterator[Store]:
    if kind != "sqlite":
        yield DictStore(transactional=kind == "dict")
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        store = SQLiteStore(connection)
        store.create_table()
        yield store


@pytest.fixture(params=["dict", "sqlite"])
def transactional(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each of the stores whose transactions hold the effect."""
    with _opened(request.param) as store:
        yield store


@pytest.fixture(params=["claims only", "dict", "sqlite"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each of the stores."""
    with _opened(request.param) as store:
        yield store
