"""The pages about receiving webhooks: their code runs, and is that of the examples."""

import inspect
import io
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.examples.process import FOLDER
from tests.unit.project import ROOT
from timemachine import receiver
from timemachine.receiver import postgres, raw, redis, sqlite

HOWTO = ROOT / "docs" / "howto" / "receive-webhooks.md"
REFERENCE = ROOT / "docs" / "reference" / "receiver.md"


def python_blocks(page: Path) -> list[tuple[str, str]]:
    """(words behind the fence, code) of each block of Python on a page."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [
        (token.info, token.content)
        for token in tokens
        if token.type == "fence" and token.info.startswith("python")
    ]


def test_the_howto_shows_the_examples() -> None:
    """The file to save is the example for Flask, each piece stands so in one of the others."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))]
    saved: list[str] = []
    pieces: list[str] = []
    for info, code in python_blocks(HOWTO):
        (pieces if "not-run" in info else saved).append(code)
    flask = (FOLDER / "flask_app.py").read_text(encoding="utf-8")
    assert flask.endswith(f'"""\n\n{saved[0]}')
    assert [] == [piece for piece in pieces if not any(piece in source for source in sources)]
    assert 5 == len(pieces)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The names that all code of the reference has made, run in order.

    What needs a server says which, and is run by `tests/integration/receiver`.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for info, code in python_blocks(REFERENCE):
        if info == "python":
            exec(compile(code, REFERENCE.name, "exec"), names)  # noqa: S102 - that is the test
    yield names
    names["connection"].close()


def test_the_reference_runs(played: dict[str, Any]) -> None:
    """All code of the reference runs as it stands, and its assertions hold."""
    rows = played["connection"].execute("SELECT * FROM payments").fetchall()
    assert [(name, "timed_out") for name in ("p-17", "p-b1", "p-b2")] == rows


def test_long_work_of_the_reference(played: dict[str, Any]) -> None:
    """What it shows for long work tries again after a failure, and then works once."""
    keys: list[str] = []

    def refund(payment: str, *, idempotency_key: str) -> None:
        keys.append(idempotency_key)
        if len(keys) == 1:
            raise ConnectionError

    played["refund"] = refund
    refund_once = played["refund_once"]
    with pytest.raises(ConnectionError):
        refund_once("msg_9", b"{}", "p-9")
    assert [204, 204] == [refund_once("msg_9", b"{}", "p-9") for _ in range(2)]
    assert ["msg_9", "msg_9"] == keys
    played["dedupe"].begin("msg_10", receiver.fingerprint(b"{}"))
    assert 409 == refund_once("msg_10", b"{}", "p-10")
    rows = played["connection"].execute("SELECT id FROM payments WHERE state = 'refunded'")
    assert [("p-9",)] == rows.fetchall()


def test_the_wsgi_application_of_the_reference(played: dict[str, Any]) -> None:
    """It answers what `receive` says, and 413 to a body that it does not read."""
    body, headers = played["genuine"]("msg_3", {"meta": {"payment": "p-3"}})
    statuses: list[str] = []
    for length in (len(body), 2**30):
        environ = {
            "CONTENT_LENGTH": str(length),
            "wsgi.input": io.BytesIO(body),
            **{f"HTTP_{key.upper().replace('-', '_')}": headers[key] for key in headers},
        }
        assert [] == played["application"](environ, lambda status, _: statuses.append(status))
    assert ["204 -", "413 -"] == statuses


def _offered() -> list[str]:
    names = [*receiver.__all__, "SCHEMA", "SQLiteStore", "PostgresStore", "RedisStore"]
    names += ["connect", "read_asgi", "read_wsgi"]
    for kind in (receiver.Webhook, receiver.Dedupe, receiver.Store):
        names += [name for name in vars(kind) if not name.startswith("_")]
    return sorted(set(names))


@pytest.mark.parametrize("name", _offered())
def test_all_that_is_offered_is_documented(name: str) -> None:
    """Each public name and method stands in the reference."""
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", REFERENCE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("call", "written"),
    [
        (receiver.Webhook, "Webhook"),
        (receiver.Webhook.verify, "webhook.verify"),
        (receiver.Webhook.sign, "webhook.sign"),
        (receiver.Dedupe, "Dedupe"),
        (receiver.Dedupe.once, "dedupe.once"),
        (receiver.Dedupe.begin, "dedupe.begin"),
        (receiver.Dedupe.commit, "dedupe.commit"),
        (receiver.Dedupe.release, "dedupe.release"),
        (receiver.Dedupe.purge, "dedupe.purge"),
        (receiver.fingerprint, "fingerprint"),
        (sqlite.SQLiteStore, "SQLiteStore"),
        (sqlite.connect, "connect"),
        (postgres.PostgresStore, "PostgresStore"),
        (redis.RedisStore, "RedisStore"),
        (raw.read_wsgi, "read_wsgi"),
        (raw.read_asgi, "read_asgi"),
    ],
)
def test_calls_are_documented_as_they_are(call: Any, written: str) -> None:
    """The arguments and their defaults are those of the code."""
    parts, keyword = [], False
    for name, parameter in inspect.signature(call).parameters.items():
        if name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            keyword = True
            parts.append("*")
        default = parameter.default
        if default is parameter.empty:
            parts.append(name)
        else:
            parts.append(f"{name}={'time.time' if callable(default) else repr(default)}")
    assert f"`{written}({', '.join(parts)})`" in REFERENCE.read_text().replace("`await ", "`")
