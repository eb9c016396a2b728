"""A request that is started and not written yet: no stray bytes may become its answer."""

import asyncio
from typing import Any

import pytest

from node.sender.connection import Connection
from node.sender.connection import _known as known_answers
from node.sender.failures import Failure

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _: str) -> Any:
        return self

    def fileno(self) -> int:
        return 7


class Exchange:
    """Notes how a request ends."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def answered(self, connection: Connection) -> None:
        self.ends.append(f"answered {connection.status}")
        connection.rest(0.0)

    def failed(self, failure: Failure) -> None:
        self.ends.append(f"failed {failure.code}")

    def displaced(self) -> None:
        self.ends.append("displaced")


@pytest.fixture
async def made() -> tuple[Connection, Transport]:
    """A connection that was just made."""
    connection = Connection(asyncio.get_running_loop(), "192.0.2.1")
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


def _serve(connection: Connection) -> None:
    """Let it carry one request to its answer."""
    first = Exchange()
    connection.start(first, b"first")
    connection.send()
    connection.data_received(ANSWER)
    assert ["answered 204"] == first.ends


async def test_stray_answer_displaces_what_is_not_sent(made: tuple[Connection, Transport]) -> None:
    """On a connection that rested, the request goes to another one, and nothing was written."""
    connection, transport = made
    _serve(connection)
    exchange = Exchange()
    connection.start(exchange, b"second")
    connection.data_received(ANSWER)
    connection.send()
    assert (["displaced"], [b"first"], True) == (
        exchange.ends,
        transport.written,
        transport.closing,
    )


async def test_loss_displaces_what_is_not_sent(made: tuple[Connection, Transport]) -> None:
    """So it does when the recipient has closed it."""
    connection, transport = made
    _serve(connection)
    exchange = Exchange()
    connection.start(exchange, b"second")
    connection.connection_lost(None)
    connection.send()
    assert (["displaced"], [b"first"]) == (exchange.ends, transport.written)


async def test_recipient_that_speaks_first_fails(made: tuple[Connection, Transport]) -> None:
    """A new connection that gets bytes unasked is no HTTP: it is not tried again and again."""
    connection, transport = made
    exchange = Exchange()
    connection.start(exchange, b"first")
    connection.data_received(ANSWER)
    assert (["failed protocol_error"], []) == (exchange.ends, transport.written)


async def test_sent_request_is_never_displaced(made: tuple[Connection, Transport]) -> None:
    """Once written it ends with this connection, and is told so."""
    connection, _ = made
    _serve(connection)
    exchange = Exchange()
    connection.start(exchange, b"second")
    connection.send()
    connection.connection_lost(ConnectionResetError())
    assert ["failed connection_reset"] == exchange.ends
    assert not connection.unsent


FULL = b"HTTP/1.1 200 OK\r\nServer: s\r\nLocation: http://a/b?c\r\nContent-Length: 2\r\n\r\nok"


class Reader(Exchange):
    """Takes what the answer says, and changes its headers as the pool does."""

    def answered(self, connection: Connection) -> None:
        """See Exchange."""
        said = (connection.status, dict(connection.headers), bytes(connection.body))
        self.ends.append(repr((*said, connection.truncated, connection.reusable)))
        connection.headers.pop("location", None)
        connection.rest(0.0)


def _ask(connection: Connection, *chunks: bytes) -> str:
    reader = Reader()
    connection.start(reader, b"request")
    connection.send()
    for chunk in chunks:
        connection.data_received(chunk)
    (end,) = reader.ends
    return end


async def test_what_is_known_is_told_as_what_is_parsed(made: tuple[Connection, Transport]) -> None:
    """The same answer again, in one piece or in several, with others between."""
    connection, transport = made
    first = _ask(connection, FULL)
    for _ in range(3):
        assert first == _ask(connection, FULL)
        assert first == _ask(connection, FULL[:20], FULL[20:])
        assert "(204, {}, b'', False, True)" == _ask(connection, ANSWER)
    assert "{'server': 's', 'location': 'http://a/b?c'}" in first
    assert not transport.closing


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", id="last one"),
        pytest.param(ANSWER + ANSWER, id="more than was asked for"),
    ],
)
async def test_only_what_leaves_the_connection_good_is_known(
    made: tuple[Connection, Transport], answer: bytes
) -> None:
    """However often it was said, such an answer ends the use of its connection."""
    for _ in range(3):
        connection = Connection(asyncio.get_running_loop(), "192.0.2.1")
        connection.connection_made(Transport())  # type: ignore[arg-type]
        assert _ask(connection, answer).endswith("False)")
        assert not connection.usable
    assert answer not in known_answers


async def test_as_much_is_known_as_there_is_room_for(made: tuple[Connection, Transport]) -> None:
    """Recipients that always say something else cost no memory, nor do long answers."""
    connection, _ = made
    for number in range(600):
        _ask(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%03d" % number)
    assert 0 < len(known_answers) <= 256
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000
    _ask(connection, long)
    assert long not in known_answers


async def test_only_a_connection_that_rested_is_asked_about(
    made: tuple[Connection, Transport],
) -> None:
    """Its descriptor is told while it is open: then the number may belong to somebody else."""
    connection, _ = made
    assert connection.descriptor is None
    _serve(connection)
    assert 7 == connection.descriptor
    connection.cut()
    assert connection.descriptor is None
