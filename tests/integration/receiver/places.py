"""Databases that hold marks and effects: where several workers meet."""

from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from timemachine.receiver import Store
from timemachine.receiver.postgres import PostgresStore
from timemachine.receiver.sqlite import SQLiteStore, connect

# Nobody waits for long, but the machine may be slow.
PATIENCE_MS = 60_000


class Place(Protocol):
    """A database of one kind or the other.

    Connections have `execute` and `close`, whatever their kind.
    """

    @property
    def text(self) -> str:
        """What `place_of` makes such a place of."""
        ...

    @property
    def insert(self) -> str:
        """The statement that writes one effect."""
        ...

    def connect(self) -> Any:
        """A connection of its own, which begins no transactions by itself."""
        ...

    def store(self, connection: Any) -> Store:
        """The store on a connection."""
        ...

    def create_tables(self, connection: Any) -> None:
        """Make the table of the marks, and one for effects that takes any number of each."""
        ...


@dataclass(frozen=True)
class SQLitePlace:
    """A file."""

    text: str
    insert: str = "INSERT INTO effects VALUES (?)"

    def connect(self) -> Any:
        return connect(self.text, busy_timeout_ms=PATIENCE_MS)

    def store(self, connection: Any) -> Store:
        return SQLiteStore(connection)

    def create_tables(self, connection: Any) -> None:
        SQLiteStore(connection).create_table()
        connection.execute("CREATE TABLE IF NOT EXISTS effects (what TEXT)")


@dataclass(frozen=True)
class PostgresPlace:
    """A schema of a server, with the table for effects; `text` is how psycopg connects to it."""

    text: str
    insert: str = "INSERT INTO effects VALUES (%s)"

    def connect(self) -> Any:
        return psycopg.connect(self.text, autocommit=True)

    def store(self, connection: Any) -> Store:
        return PostgresStore(connection, lock_timeout_ms=PATIENCE_MS)

    def create_tables(self, connection: Any) -> None:
        PostgresStore(connection, lock_timeout_ms=PATIENCE_MS).create_table()


def place_of(text: str) -> Place:
    """The place with this name."""
    return PostgresPlace(text) if text.startswith("host=") else SQLitePlace(text)


def effects(place: Place) -> list[str]:
    """Every effect that was committed."""
    connection = place.connect()
    try:
        return [what for (what,) in connection.execute("SELECT what FROM effects").fetchall()]
    finally:
        connection.close()
