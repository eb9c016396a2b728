"""Effect and mark in one transaction of PostgreSQL, whoever opened connection and transaction."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.errors import InFailedSqlTransaction, SerializationFailure, UndefinedTable
from psycopg.rows import dict_row, scalar_row, tuple_row

from tests.unit.project import ROOT
from timemachine.receiver import Dedupe, Done, InProgress, New, WebhookBusy, fingerprint
from timemachine.receiver.postgres import SCHEMA, PostgresStore

ID = "msg_1"
PRINT = fingerprint(b"{}")

Connection = psycopg.Connection[Any]


@pytest.fixture
def place(schema: str) -> str:
    """How to connect to a schema with the tables of marks and effects."""
    with closing(psycopg.connect(schema)) as connection:
        PostgresStore(connection).create_table()
    return schema


@pytest.fixture(params=["usual", "autocommit", "odd"])
def connection(request: pytest.FixtureRequest, place: str) -> Iterator[Connection]:
    """Connections as applications have them: psycopg's usual one, and two set otherwise."""
    with closing(psycopg.connect(place)) as opened:
        made: Connection = opened
        made.autocommit = request.param != "usual"
        if request.param == "odd":
            made.row_factory = dict_row
            made.cursor_factory = psycopg.RawCursor
            made.prepare_threshold = 0
            made.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        yield made


def effect(connection: Connection) -> Callable[[], None]:
    """Writes one row."""

    def write() -> None:
        connection.execute("INSERT INTO effects VALUES ('paid')")

    return write


def begun(connection: Connection) -> New:
    """A claim, which must be free."""
    seen = Dedupe(PostgresStore(connection)).begin(ID, PRINT)
    assert isinstance(seen, New)
    return seen


def is_idle(connection: Connection) -> bool:
    """Is no transaction open?"""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def others_count(place: str) -> int:
    """How many effects there are for another process."""
    with closing(psycopg.connect(place)) as other:
        (count,) = other.execute("SELECT count(*) FROM effects").fetchone() or (None,)
        assert isinstance(count, int)
        return count


def others_see(place: str) -> tuple[int, New | InProgress | Done]:
    """How many effects there are for another process, and what it hears of the webhook."""
    with closing(psycopg.connect(place)) as other:
        # Looking must not claim, so nothing of it is ever committed.
        other.execute("SELECT 1")
        return others_count(place), Dedupe(PostgresStore(other)).begin(ID, PRINT)


# --- one transaction ---------------------------------------------------------------------------


def test_once_commits_effect_and_mark(connection: Connection, place: str) -> None:
    """When it returns, both are there for all, and no transaction is left open."""
    Dedupe(PostgresStore(connection)).once(ID, PRINT, effect(connection))
    assert is_idle(connection)
    assert (1, Done(None)) == others_see(place)


def test_once_rolls_both_back(connection: Connection, place: str) -> None:
    """When the effect fails in its middle, nothing of it and no claim is left."""

    def fails() -> None:
        effect(connection)()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, fails)
    assert is_idle(connection)
    count, seen = others_see(place)
    assert (0, True) == (count, isinstance(seen, New) and not seen.taken_over)


def test_a_claim_is_seen_by_others_at_once(connection: Connection, place: str) -> None:
    """`begin` commits its claim, so that others hear of it while the work goes on."""
    begun(connection)
    assert is_idle(connection)
    assert isinstance(others_see(place)[1], InProgress)


def test_commit_is_a_part_of_the_transaction(connection: Connection, place: str) -> None:
    """Effect and mark come together, and go together."""
    dedupe, claim = Dedupe(PostgresStore(connection)), begun(connection)

    def work() -> None:
        with dedupe.transaction():
            effect(connection)()
            dedupe.commit(claim)
            assert 0 == others_count(place)
            if fails:
                raise ConnectionError

    fails = True
    with pytest.raises(ConnectionError):
        work()
    count, seen = others_see(place)
    assert (0, True) == (count, isinstance(seen, InProgress))
    fails = False
    work()
    assert (1, Done(None)) == others_see(place)


def test_commit_joins_a_transaction_of_psycopg(connection: Connection, place: str) -> None:
    """Both kinds: that of a block, and that of a connection without autocommit."""
    dedupe, claim = Dedupe(PostgresStore(connection)), begun(connection)
    with connection.transaction():
        effect(connection)()
        dedupe.commit(claim)
        assert 0 == others_count(place)
    assert (1, Done(None)) == others_see(place)

    connection.autocommit = False
    seen = dedupe.begin("msg_2", PRINT)
    assert isinstance(seen, New)
    effect(connection)()
    dedupe.commit(seen)
    assert 1 == others_count(place)
    connection.commit()
    assert 2 == others_count(place)


def test_commit_refuses_without_a_transaction(connection: Connection, place: str) -> None:
    """In autocommit, or before the first statement, none is open: refused, not parted."""
    dedupe, claim = Dedupe(PostgresStore(connection)), begun(connection)
    with pytest.raises(RuntimeError, match="transaction"):
        dedupe.commit(claim)
    assert isinstance(others_see(place)[1], InProgress)


@pytest.mark.parametrize("how", ["block", "statement", "by itself"])
@pytest.mark.parametrize("commits", [True, False])
def test_once_inside_a_transaction_belongs_to_it(
    connection: Connection, place: str, how: str, *, commits: bool
) -> None:
    """Frameworks open transactions of their own: it has happened when theirs is committed."""
    dedupe = Dedupe(PostgresStore(connection))

    def once() -> None:
        assert Done(None, repeated=False) == dedupe.once(ID, PRINT, effect(connection))
        assert not is_idle(connection)
        assert 0 == others_count(place)

    if how == "block":
        with connection.transaction(force_rollback=not commits):
            once()
    else:
        connection.autocommit = how == "statement"
        connection.execute("BEGIN" if how == "statement" else "SELECT 1")
        once()
        connection.execute("COMMIT" if commits else "ROLLBACK")
    assert is_idle(connection)
    assert (1 if commits else 0) == others_count(place)
    assert (Done if commits else New) is type(others_see(place)[1])


def test_failure_inside_a_transaction_leaves_the_rest_of_it(
    connection: Connection, place: str
) -> None:
    """Only what belongs to the webhook is taken back; the application decides about its own."""

    def fails() -> None:
        effect(connection)()
        connection.execute("SELECT no_such_column FROM effects")

    with connection.transaction():
        connection.execute("INSERT INTO effects VALUES ('its own')")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            Dedupe(PostgresStore(connection)).once(ID, PRINT, fails)
        connection.execute("INSERT INTO effects VALUES ('another')")
    count, seen = others_see(place)
    assert (2, New) == (count, type(seen))


def test_blocks_of_psycopg_in_an_effect_are_parts_of_it(connection: Connection, place: str) -> None:
    """An effect may try something, and take it back."""

    def tries() -> None:
        with connection.transaction():
            effect(connection)()
        with connection.transaction():
            effect(connection)()
            raise psycopg.Rollback

    Dedupe(PostgresStore(connection)).once(ID, PRINT, tries)
    assert (1, Done(None)) == others_see(place)


# --- effects that end the transaction ----------------------------------------------------------


def commit(connection: Connection) -> None:
    """What a function does that was written for itself."""
    connection.commit()


def roll_back(connection: Connection) -> None:
    """The same, of one that fails."""
    connection.rollback()


def leave(connection: Connection) -> None:
    """In psycopg 3 this commits, and closes the connection."""
    with connection:
        pass


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("end", [commit, roll_back, leave])
def test_psycopg_refuses_to_end_the_transaction(
    connection: Connection, place: str, end: Callable[[Connection], None], *, joined: bool
) -> None:
    """Nothing has happened, and the connection is as it was."""

    def wrong() -> None:
        effect(connection)()
        end(connection)

    if joined:
        connection.autocommit = False
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.ProgrammingError, match="forbidden"):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, wrong)
    assert joined is not is_idle(connection)
    connection.rollback()
    count, seen = others_see(place)
    assert (0, New) == (count, type(seen))
    Dedupe(PostgresStore(connection)).once(ID, PRINT, effect(connection))
    connection.commit()
    assert 1 == others_count(place)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_an_effect_that_executes_commit_is_told_of(
    connection: Connection, place: str, *, joined: bool, again: bool
) -> None:
    """It is a mistake that every webhook shows; even so the effect happens once."""

    def commits() -> None:
        effect(connection)()
        connection.execute("COMMIT")
        if again:
            connection.execute("BEGIN")
            effect(connection)()

    if joined:
        connection.autocommit = True
        connection.execute("BEGIN")
    with pytest.raises(RuntimeError, match=r"(?i)commit"):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, commits)
    if joined and again:
        connection.execute("COMMIT")  # that transaction is the application's
    assert is_idle(connection)
    assert (2 if again else 1, Done(None)) == others_see(place)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_an_effect_that_executes_rollback_is_told_of(
    connection: Connection, place: str, *, joined: bool, again: bool
) -> None:
    """Nothing of the webhook has happened, and it is as new as before."""

    def rolls_back() -> None:
        effect(connection)()
        connection.execute("ROLLBACK")
        if again:
            connection.execute("BEGIN")
            effect(connection)()

    if joined:
        connection.autocommit = True
        connection.execute("BEGIN")
    with pytest.raises(RuntimeError, match=r"(?i)roll ?back"):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, rolls_back)
    if joined and again:
        connection.execute("ROLLBACK")
    assert is_idle(connection)
    assert New is type(others_see(place)[1])


def test_an_effect_that_commits_and_fails_raises_its_own_error(connection: Connection) -> None:
    """What went wrong first is what is shown, and the connection can be used."""

    def commits_and_fails() -> None:
        connection.execute("COMMIT")
        raise ConnectionError

    dedupe = Dedupe(PostgresStore(connection))
    with pytest.raises(ConnectionError):
        dedupe.once(ID, PRINT, commits_and_fails)
    assert is_idle(connection)
    assert not dedupe.once("msg_2", PRINT, effect(connection)).repeated


def test_an_effect_that_swallows_an_error_of_sql_has_failed(
    connection: Connection, place: str
) -> None:
    """PostgreSQL does nothing more in such a transaction; that must not look like success."""

    def swallows() -> None:
        effect(connection)()
        with pytest.raises(UndefinedTable):
            connection.execute("SELECT * FROM no_such_table")

    dedupe = Dedupe(PostgresStore(connection))
    with pytest.raises(InFailedSqlTransaction):
        dedupe.once(ID, PRINT, swallows)
    with pytest.raises(InFailedSqlTransaction), dedupe.transaction():
        swallows()
    assert is_idle(connection)
    count, seen = others_see(place)
    assert (0, New) == (count, type(seen))


def test_an_effect_that_closes_the_connection_has_failed(place: str) -> None:
    """Nothing is left of it."""
    connection = psycopg.connect(place)
    with pytest.raises(psycopg.OperationalError):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, connection.close)
    assert New is type(others_see(place)[1])


def test_rollback_of_psycopg_comes_out(connection: Connection, place: str) -> None:
    """With it psycopg ends its innermost block, which is ours: `once` must not seem to succeed."""

    def gives_up() -> None:
        effect(connection)()
        raise psycopg.Rollback

    dedupe = Dedupe(PostgresStore(connection))
    with pytest.raises(psycopg.Rollback):
        dedupe.once(ID, PRINT, gives_up)
    with connection.transaction():
        effect(connection)()
        dedupe.once(ID, PRINT, gives_up)
    count, seen = others_see(place)
    assert (0, New) == (count, type(seen))


# --- what cannot be committed ------------------------------------------------------------------


def test_a_constraint_at_the_commit_leaves_nothing(connection: Connection) -> None:
    """What only the end of a transaction can find takes the mark back too."""
    connection.execute("CREATE TABLE carts (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE items (cart INTEGER REFERENCES carts INITIALLY DEFERRED)")
    connection.commit()

    def write() -> None:
        connection.execute("INSERT INTO items VALUES (7)")

    dedupe = Dedupe(PostgresStore(connection))
    with pytest.raises(psycopg.IntegrityError):
        dedupe.once(ID, PRINT, write)
    assert is_idle(connection)
    assert not dedupe.once(ID, PRINT, lambda: None).repeated


def test_a_serialization_failure_at_the_commit_is_busy(connection: Connection, place: str) -> None:
    """Others were in the way, as the commit finds out: nothing is left."""
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION USING ERRCODE = ''40001''; END'"
    )
    connection.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON effects INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    connection.commit()
    with pytest.raises(WebhookBusy):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, effect(connection))
    assert is_idle(connection)
    count, seen = others_see(place)
    assert (0, New) == (count, type(seen))


def test_errors_of_the_effect_are_its_own(connection: Connection) -> None:
    """Also those that are WebhookBusy in the store's own statements."""

    def fails() -> None:
        raise SerializationFailure

    with pytest.raises(SerializationFailure):
        Dedupe(PostgresStore(connection)).once(ID, PRINT, fails)
    assert is_idle(connection)


# --- the connection ----------------------------------------------------------------------------


def test_pipelines_are_refused(connection: Connection, place: str) -> None:
    """There an answer comes later than it is needed; what the application has sent stays."""
    dedupe, claim = Dedupe(PostgresStore(connection)), begun(connection)
    connection.autocommit = True
    with connection.pipeline() as pipeline:
        connection.execute("BEGIN")
        effect(connection)()
        with pytest.raises(RuntimeError, match="pipeline"):
            dedupe.once("msg_2", PRINT, effect(connection))
        pipeline.sync()
        with pytest.raises(RuntimeError, match="pipeline"):
            dedupe.commit(claim)
        connection.execute("COMMIT")
    assert 1 == others_count(place)
    assert isinstance(others_see(place)[1], InProgress)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("own", "inside"), [("0", "5s"), ("7s", "7s"), ("3s", "3s")])
def test_waiting_for_locks_is_bounded_in_the_block_alone(
    connection: Connection, own: str, inside: str, *, joined: bool
) -> None:
    """What the application has chosen stays; where it has chosen nothing, five seconds hold."""

    def shown() -> str:
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        (text,) = cursor.execute("SHOW lock_timeout").fetchone() or (None,)
        assert isinstance(text, str)
        return text

    connection.execute(f"SET lock_timeout = '{own}'")
    connection.commit()
    dedupe, seen = Dedupe(PostgresStore(connection)), list[str]()
    if joined:
        assert own == shown()
    dedupe.once(ID, PRINT, lambda: seen.append(shown()))
    with pytest.raises(ConnectionError):
        dedupe.once("msg_2", PRINT, fail)
    assert [inside] == seen
    assert own == shown()


def fail() -> None:
    """An effect that does not succeed."""
    raise ConnectionError


@pytest.mark.parametrize("lock_timeout_ms", [0, -1])
def test_waiting_for_ever_cannot_be_chosen(connection: Connection, lock_timeout_ms: int) -> None:
    """For PostgreSQL no time at all means any time."""
    with pytest.raises(ValueError, match="lock_timeout_ms"):
        PostgresStore(connection, lock_timeout_ms=lock_timeout_ms)


def test_a_missing_table_is_named(schema: str) -> None:
    """Who forgot to make the table reads which one."""
    with (
        closing(psycopg.connect(schema)) as connection,
        pytest.raises(UndefinedTable, match="timemachine_webhooks"),
    ):
        Dedupe(PostgresStore(connection)).begin(ID, PRINT)


def test_the_table_may_be_made_again_or_by_migrations(connection: Connection, place: str) -> None:
    """Each start may ask for it, and its statements can be run by other tools."""
    Dedupe(PostgresStore(connection)).once(ID, PRINT, effect(connection))
    PostgresStore(connection).create_table()
    for statement in SCHEMA:
        connection.execute(statement)
    connection.commit()
    assert (1, Done(None)) == others_see(place)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "UTF8"])
def test_encodings_do_not_matter(place: str, encoding: str) -> None:
    """Any text is kept, whatever the connection takes for text."""
    with closing(psycopg.connect(place, client_encoding=encoding)) as connection:
        dedupe = Dedupe(PostgresStore(connection))
        dedupe.once("ä✓", PRINT, lambda: "✓")
    with closing(psycopg.connect(place)) as connection:
        assert Done("✓") == Dedupe(PostgresStore(connection)).begin("ä✓", PRINT)
        (shown,) = connection.execute(
            "SELECT convert_from(id, 'UTF8') FROM timemachine_webhooks"
        ).fetchone() or (None,)
        assert "ä✓" == shown


def test_factories_of_the_application_are_left_alone(place: str) -> None:
    """Many applications want rows of another kind, and go on getting them."""
    with closing(psycopg.connect(place, row_factory=scalar_row)) as connection:
        dedupe = Dedupe(PostgresStore(connection))
        assert isinstance(dedupe.begin(ID, PRINT), New)
        assert isinstance(dedupe.begin(ID, PRINT), InProgress)
        assert 7 == connection.execute("SELECT 7").fetchone()


# --- frameworks --------------------------------------------------------------------------------

DJANGO = """
import sys
import django
from django.conf import settings
host, schema = sys.argv[1:]
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "HOST": host, "USER": "tests", "NAME": "postgres",
    "OPTIONS": {"options": f"-csearch_path={schema}"},
}})
django.setup()
from django.db import connection, transaction
from timemachine.receiver import Dedupe
from timemachine.receiver.postgres import PostgresStore

def write():
    with transaction.atomic(), connection.cursor() as cursor:  # as models do
        cursor.execute("INSERT INTO effects VALUES ('paid')")

def once(webhook_id):
    return Dedupe(PostgresStore(connection.connection)).once(webhook_id, "print", write).repeated

with transaction.atomic():
    print(once("alone"))
with transaction.atomic():
    print(once("alone"))
with transaction.atomic():
    write()
    print(once("kept"))
with transaction.atomic():
    write()
    print(once("undone"))
    transaction.set_rollback(True)
connection.close()
"""

DJANGO_JOINED = DJANGO.replace(
    "PostgresStore(connection.connection)", "PostgresStore(connection.connection, joins=True)"
).replace(
    "connection.close()",
    """with transaction.atomic():
    print(once("first"))
    transaction.set_rollback(True)
try:
    with transaction.atomic():
        print(once("failed"))
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
with transaction.atomic():
    print(once("later"))
    write()
store = PostgresStore(connection.connection, joins=True)
print(Dedupe(store).once("outside", "print", lambda: None).repeated)
connection.close()""",
)


def test_django_has_its_transactions(place: str) -> None:
    """Inside `atomic` a webhook belongs to what has begun there, and else is a whole of its own."""
    assert "False True False False" == _told_by_django(DJANGO, place)
    assert 3 == others_count(place)
    with closing(psycopg.connect(place)) as connection:
        dedupe = Dedupe(PostgresStore(connection))
        kinds = [type(dedupe.begin(each, "print")) for each in ("alone", "kept", "undone")]
        assert [Done, Done, New] == kinds


def test_a_store_that_joins_belongs_to_atomic_altogether(place: str) -> None:
    """Named regression: as the first of an `atomic` that rolled back, a webhook stayed done.

    Its effect was committed by itself, while what followed it there was not. Outside of `atomic`
    Django is in autocommit, and there it is a whole of its own.
    """
    told = _told_by_django(DJANGO_JOINED, place)
    assert "False True False False False False False False" == told
    # Of alone; of kept, and before it; of later, and after it.
    assert 5 == others_count(place)
    with closing(psycopg.connect(place)) as connection:
        dedupe = Dedupe(PostgresStore(connection))
        names = ("alone", "kept", "undone", "first", "failed", "later", "outside")
        kinds = [type(dedupe.begin(each, "print")) for each in names]
        assert [Done, Done, New, New, New, Done, Done] == kinds


def test_joining_commits_nothing(place: str) -> None:
    """A connection without autocommit, whose owner commits: before that, others see nothing."""
    with closing(psycopg.connect(place)) as connection:
        dedupe = Dedupe(PostgresStore(connection, joins=True))
        assert not dedupe.once(ID, PRINT, effect(connection)).repeated
        assert not is_idle(connection)
        assert 0 == others_count(place)
        connection.commit()
        assert (1, Done(None)) == others_see(place)


def _told_by_django(program: str, place: str) -> str:
    """What a program with Django prints."""
    parts = psycopg.conninfo.conninfo_to_dict(place)
    schema = str(parts["options"]).removeprefix("-csearch_path=")
    run = subprocess.run(
        [sys.executable, "-c", program, str(parts["host"]), schema],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == run.stderr
    return " ".join(run.stdout.split())
