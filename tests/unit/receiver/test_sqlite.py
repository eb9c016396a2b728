"""Effect and mark in one transaction of SQLite, whoever opened connection and transaction."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from timemachine import limits
from timemachine.receiver import Dedupe, Done, InProgress, New, WebhookBusy, fingerprint
from timemachine.receiver.sqlite import SCHEMA, SQLiteStore, connect

ID = "msg_1"
PRINT = fingerprint(b"{}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with the marks, and a table for effects."""
    path = tmp_path / "app.db"
    with closing(connect(path)) as connection:
        SQLiteStore(connection).create_table()
        connection.execute("CREATE TABLE effects (what TEXT)")
    return path


@pytest.fixture(params=["connect", "legacy", "immediate"])
def connection(request: pytest.FixtureRequest, path: Path) -> Iterator[sqlite3.Connection]:
    """Connections as applications have them: ours, Python's usual one, and one set otherwise."""
    if request.param == "connect":
        opened = connect(path)
    elif request.param == "legacy":
        opened = sqlite3.connect(path)
    else:
        opened = sqlite3.connect(path, isolation_level="IMMEDIATE")
    with closing(opened):
        yield opened


def effect(connection: sqlite3.Connection) -> Callable[[], None]:
    """Writes one row."""

    def write() -> None:
        connection.execute("INSERT INTO effects VALUES ('paid')")

    return write


def begun(connection: sqlite3.Connection) -> New:
    """A claim, which must be free."""
    seen = Dedupe(SQLiteStore(connection)).begin(ID, PRINT)
    assert isinstance(seen, New)
    return seen


def seen_by_others(path: Path) -> tuple[int, New | InProgress | Done]:
    """How many effects there are for another process, and what it hears of the webhook."""
    with closing(connect(path, busy_timeout_ms=0)) as other:
        (count,) = other.execute("SELECT count(*) FROM effects").fetchone()
        with closing(sqlite3.connect(":memory:")) as scratch:
            other.backup(scratch)  # looking must not claim
            return count, Dedupe(SQLiteStore(scratch)).begin(ID, PRINT)


# --- one transaction ---------------------------------------------------------------------------


def test_once_commits_effect_and_mark(connection: sqlite3.Connection, path: Path) -> None:
    """When it returns, both are there for all, and no transaction is left open."""
    dedupe = Dedupe(SQLiteStore(connection))
    dedupe.once(ID, PRINT, effect(connection))
    assert not connection.in_transaction
    assert (1, Done(None)) == seen_by_others(path)


def test_once_rolls_both_back(connection: sqlite3.Connection, path: Path) -> None:
    """When the effect fails in its middle, nothing of it and no claim is left."""

    def fails() -> None:
        effect(connection)()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Dedupe(SQLiteStore(connection)).once(ID, PRINT, fails)
    assert not connection.in_transaction
    count, seen = seen_by_others(path)
    assert (0, True) == (count, isinstance(seen, New) and not seen.taken_over)


def test_a_claim_is_seen_by_others_at_once(connection: sqlite3.Connection, path: Path) -> None:
    """`begin` commits its claim, so that others hear of it while the work goes on."""
    begun(connection)
    assert not connection.in_transaction
    assert isinstance(seen_by_others(path)[1], InProgress)


def test_commit_is_a_part_of_the_transaction(connection: sqlite3.Connection, path: Path) -> None:
    """Effect and mark come together, and go together."""
    dedupe, claim = Dedupe(SQLiteStore(connection)), begun(connection)

    def work() -> None:
        with dedupe.transaction():
            effect(connection)()
            dedupe.commit(claim)
            assert 0 == seen_by_others(path)[0]
            if fails:
                raise ConnectionError

    fails = True
    with pytest.raises(ConnectionError):
        work()
    assert (0, InProgress) == (seen_by_others(path)[0], type(seen_by_others(path)[1]))
    fails = False
    work()
    assert (1, Done(None)) == seen_by_others(path)


def test_commit_joins_a_transaction_that_python_began(path: Path) -> None:
    """`with connection:` does on a usual connection, where a change begins a transaction."""
    with closing(sqlite3.connect(path)) as connection:
        dedupe, claim = Dedupe(SQLiteStore(connection)), begun(connection)
        with connection:
            effect(connection)()
            dedupe.commit(claim)
        assert (1, Done(None)) == seen_by_others(path)


@pytest.mark.parametrize("isolation", [None, "", "DEFERRED", "EXCLUSIVE"])
def test_commit_refuses_where_with_connection_begins_nothing(
    path: Path, isolation: str | None
) -> None:
    """Before the first change, or in autocommit, no transaction is open: refused, not parted."""
    with closing(sqlite3.connect(path, isolation_level=isolation)) as connection:  # type: ignore[arg-type]
        dedupe, claim = Dedupe(SQLiteStore(connection)), begun(connection)
        with pytest.raises(RuntimeError, match="transaction"), connection:
            dedupe.commit(claim)
        assert 0 == seen_by_others(path)[0]


def test_once_inside_a_transaction_belongs_to_it(
    connection: sqlite3.Connection, path: Path
) -> None:
    """Frameworks open transactions of their own: it has happened when theirs is committed."""
    dedupe = Dedupe(SQLiteStore(connection))
    for end, count in (("ROLLBACK", 0), ("COMMIT", 1)):
        connection.execute("BEGIN")
        assert Done(None, repeated=False) == dedupe.once(ID, PRINT, effect(connection))
        assert connection.in_transaction
        assert 0 == seen_by_others(path)[0]
        connection.execute(end)
        assert count == seen_by_others(path)[0]
    assert Done(None) == seen_by_others(path)[1]


def test_failure_inside_a_transaction_leaves_the_rest_of_it(
    connection: sqlite3.Connection, path: Path
) -> None:
    """Only what belongs to the webhook is taken back; the application decides about its own."""

    def fails() -> None:
        effect(connection)()
        raise ConnectionError

    connection.execute("BEGIN")
    connection.execute("INSERT INTO effects VALUES ('its own')")
    with pytest.raises(ConnectionError):
        Dedupe(SQLiteStore(connection)).once(ID, PRINT, fails)
    connection.execute("COMMIT")
    count, seen = seen_by_others(path)
    assert (1, True) == (count, isinstance(seen, New))


# --- effects that end the transaction ----------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
def test_an_effect_that_commits_is_told_of(
    connection: sqlite3.Connection, path: Path, *, again: bool
) -> None:
    """It is a mistake that every webhook shows; even so the effect happens once."""

    def commits() -> None:
        effect(connection)()
        connection.execute("COMMIT")
        if again:
            connection.execute("BEGIN")
            effect(connection)()

    dedupe = Dedupe(SQLiteStore(connection))
    with pytest.raises(RuntimeError, match="commit"):
        dedupe.once(ID, PRINT, commits)
    assert not connection.in_transaction
    assert (2 if again else 1, Done(None)) == seen_by_others(path)


def test_with_connection_in_an_effect_is_told_of(
    connection: sqlite3.Connection, path: Path
) -> None:
    """The usual idiom commits, which a test of the effect alone does not show."""

    def commits() -> None:
        with connection:
            effect(connection)()

    with pytest.raises(RuntimeError, match="commit"):
        Dedupe(SQLiteStore(connection)).once(ID, PRINT, commits)
    assert (1, Done(None)) == seen_by_others(path)


@pytest.mark.parametrize("again", [False, True])
def test_an_effect_that_rolls_back_is_told_of(
    connection: sqlite3.Connection, path: Path, *, again: bool
) -> None:
    """Nothing has happened, and the webhook is as new as before."""

    def rolls_back() -> None:
        effect(connection)()
        connection.execute("ROLLBACK")
        if again:
            connection.execute("BEGIN")
            effect(connection)()

    with pytest.raises(RuntimeError, match="roll back"):
        Dedupe(SQLiteStore(connection)).once(ID, PRINT, rolls_back)
    assert not connection.in_transaction
    count, seen = seen_by_others(path)
    assert (0, True) == (count, isinstance(seen, New))


def test_an_effect_that_commits_and_fails_raises_its_own_error(
    connection: sqlite3.Connection,
) -> None:
    """What went wrong first is what is shown."""

    def commits_and_fails() -> None:
        connection.execute("COMMIT")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Dedupe(SQLiteStore(connection)).once(ID, PRINT, commits_and_fails)


# --- several workers ---------------------------------------------------------------------------


def test_a_database_that_stays_locked_is_busy(connection: sqlite3.Connection, path: Path) -> None:
    """Who waits in vain hears an error that says so, and leaves nothing open."""
    connection.execute("PRAGMA busy_timeout = 1")
    dedupe = Dedupe(SQLiteStore(connection))
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WebhookBusy):
            dedupe.begin(ID, PRINT)
        with pytest.raises(WebhookBusy):
            dedupe.once(ID, PRINT, effect(connection))
        with pytest.raises(WebhookBusy):
            dedupe.purge()
        assert not connection.in_transaction
        other.execute("ROLLBACK")
    assert isinstance(dedupe.begin(ID, PRINT), New)


def test_a_stale_transaction_is_busy(connection: sqlite3.Connection, path: Path) -> None:
    """What a transaction has read before may be old by now: it has to be begun anew."""
    dedupe = Dedupe(SQLiteStore(connection))
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM effects").fetchall()
    with closing(connect(path)) as other:
        effect(other)()
    with pytest.raises(WebhookBusy):
        dedupe.once(ID, PRINT, effect(connection))
    connection.execute("ROLLBACK")
    dedupe.once(ID, PRINT, effect(connection))
    assert (2, Done(None)) == seen_by_others(path)


def test_a_reader_does_not_hold_up_anybody(path: Path) -> None:
    """With WAL a long report beside does not matter, and sees one state."""
    with closing(connect(path)) as reader, closing(connect(path, busy_timeout_ms=0)) as writer:
        reader.execute("BEGIN")
        assert (0,) == reader.execute("SELECT count(*) FROM effects").fetchone()
        Dedupe(SQLiteStore(writer)).once(ID, PRINT, effect(writer))
        assert (0,) == reader.execute("SELECT count(*) FROM effects").fetchone()
        reader.execute("COMMIT")
        assert (1,) == reader.execute("SELECT count(*) FROM effects").fetchone()


def test_a_commit_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    """Without WAL a reader can be in the way at the end: effect and mark are both rolled back."""
    path = tmp_path / "rollback.db"
    with closing(sqlite3.connect(path)) as writer, closing(sqlite3.connect(path)) as reader:
        store = SQLiteStore(writer)
        store.create_table()
        writer.execute("CREATE TABLE effects (what TEXT)")
        writer.execute("PRAGMA busy_timeout = 1")
        reader.execute("BEGIN")
        assert [] == reader.execute("SELECT * FROM effects").fetchall()
        with pytest.raises(WebhookBusy):
            Dedupe(store).once(ID, PRINT, effect(writer))
        assert not writer.in_transaction
        reader.execute("COMMIT")
        assert not Dedupe(store).once(ID, PRINT, effect(writer)).repeated
        assert (1,) == writer.execute("SELECT count(*) FROM effects").fetchone()


def test_a_constraint_at_the_commit_leaves_nothing(connection: sqlite3.Connection) -> None:
    """What only the end of a transaction can find takes the mark back too."""
    connection.executescript(
        """
        PRAGMA foreign_keys = ON;
        CREATE TABLE carts (id INTEGER PRIMARY KEY);
        CREATE TABLE items (cart INTEGER REFERENCES carts (id) DEFERRABLE INITIALLY DEFERRED);
        """
    )

    def write() -> None:
        connection.execute("INSERT INTO items VALUES (7)")

    dedupe = Dedupe(SQLiteStore(connection))
    with pytest.raises(sqlite3.IntegrityError):
        dedupe.once(ID, PRINT, write)
    assert not connection.in_transaction
    assert not dedupe.once(ID, PRINT, lambda: None).repeated


# --- the connection ----------------------------------------------------------------------------


def test_connect_is_safe_against_loss_of_power(path: Path) -> None:
    """WAL, and each commit is synced: its default in WAL would be to lose the last ones."""
    with closing(connect(path)) as connection:
        assert ("wal",) == connection.execute("PRAGMA journal_mode").fetchone()
        assert (2,) == connection.execute("PRAGMA synchronous").fetchone()
        assert (limits.SQLITE_BUSY_TIMEOUT_MS,) == connection.execute(
            "PRAGMA busy_timeout"
        ).fetchone()


def test_connect_leaves_nothing_open_when_it_fails(tmp_path: Path) -> None:
    """A file that is no database is told by SQLite's own error; pytest finds an open connection."""
    path = tmp_path / "no.db"
    path.write_text("This is no database, " * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        connect(path)


def test_connect_waits_for_who_holds_the_file(tmp_path: Path) -> None:
    """A new database that another process holds is busy, in the end."""
    path = tmp_path / "held.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE effects (what TEXT)")
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(WebhookBusy):
            connect(path, busy_timeout_ms=1)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """Who forgot to make the table reads which one."""
    with (
        closing(connect(tmp_path / "new.db")) as connection,
        pytest.raises(sqlite3.OperationalError, match="timemachine_webhooks"),
    ):
        Dedupe(SQLiteStore(connection)).begin(ID, PRINT)


def test_the_table_may_be_made_again_or_by_migrations(
    connection: sqlite3.Connection, path: Path
) -> None:
    """Each start may ask for it, and its statements can be run by other tools."""
    Dedupe(SQLiteStore(connection)).once(ID, PRINT, effect(connection))
    SQLiteStore(connection).create_table()
    for statement in SCHEMA:
        connection.execute(statement)
    assert (1, Done(None)) == seen_by_others(path)


@pytest.mark.parametrize(
    "factory", [sqlite3.Row, lambda cursor, row: {"row": row}, lambda cursor, row: None]
)
def test_row_factories_of_the_application_do_not_matter(
    connection: sqlite3.Connection, factory: Callable[[sqlite3.Cursor, tuple[object, ...]], object]
) -> None:
    """Many applications want rows of another kind, and go on getting them."""
    connection.row_factory = factory
    dedupe = Dedupe(SQLiteStore(connection))
    assert isinstance(dedupe.begin(ID, PRINT), New)
    assert isinstance(dedupe.begin(ID, PRINT), InProgress)
    assert factory is connection.row_factory
