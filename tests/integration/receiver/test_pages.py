"""The code of the reference that needs a server, run with one."""

import functools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
import redis

from tests.docs.test_receiver_pages import REFERENCE, played, python_blocks
from timemachine.receiver import fingerprint

__all__ = ["played"]


def play(names: dict[str, Any], server: str) -> None:
    """Run the blocks that name this server, after those that need none."""
    blocks = [code for info, code in python_blocks(REFERENCE) if info == f"python {server}"]
    assert blocks
    for code in blocks:
        exec(compile(code, REFERENCE.name, "exec"), names)  # noqa: S102 - that is the test


@pytest.fixture
def shop(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of this name, on the server that psycopg finds by itself."""
    host = psycopg.conninfo.conninfo_to_dict(postgres_server)["host"]
    monkeypatch.setenv("PGHOST", str(host))
    monkeypatch.setenv("PGUSER", "tests")
    with closing(psycopg.connect(postgres_server, autocommit=True)) as connection:
        connection.execute("CREATE DATABASE shop")
        yield "dbname=shop"
        connection.execute("DROP DATABASE shop")


def test_postgres_of_the_reference(played: dict[str, Any], shop: str) -> None:
    """One effect for two attempts, and the right answer to a body that was changed."""
    connection = played["connection"]
    play(played, "postgres")
    body, headers = played["genuine"]("msg_7", {"meta": {"payment": "p-7"}})
    receive = played["receive"]
    assert [204, 204, 401] == [receive(each, headers) for each in (body, body, body + b" ")]
    with closing(psycopg.connect(shop)) as looking:
        assert [("p-7", "timed_out")] == looking.execute("SELECT * FROM payments").fetchall()
    played["connection"] = connection


def test_redis_of_the_reference(
    played: dict[str, Any],
    client: redis.Redis,
    redis_socket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a failure it is tried again, and then not any more."""
    keys: list[str] = []

    def refund(payment: str, *, idempotency_key: str) -> None:
        keys.append(idempotency_key)
        if len(keys) == 1:
            raise ConnectionError

    local = functools.partial(redis.Redis, unix_socket_path=redis_socket)
    monkeypatch.setattr(redis, "Redis", local)
    play(played, "redis")
    played["refund"] = refund
    refund_once = played["refund_once"]
    with pytest.raises(ConnectionError):
        refund_once("msg_9", b"{}", "p-9")
    assert [204, 204] == [refund_once("msg_9", b"{}", "p-9") for _ in range(2)]
    assert ["msg_9", "msg_9"] == keys
    played["dedupe"].begin("msg_10", fingerprint(b"{}"))
    assert 409 == refund_once("msg_10", b"{}", "p-10")
