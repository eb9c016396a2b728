"""Raw requests: the bytes as they came, for applications without a framework."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from timemachine.receiver import WebhookError, WebhookTooLarge
from timemachine.receiver.raw import read_asgi, read_wsgi

BODY = b'{"a":  1.0}\xff'


class Trickle(io.BytesIO):
    """Gives one byte at a time, as sockets may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1, size or 0))


def environ(body: bytes = BODY, /, **changes: Any) -> dict[str, Any]:
    """A WSGI request."""
    return {
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "HTTP_WEBHOOK_ID": "msg_1",
        "REQUEST_METHOD": "POST",
        "wsgi.input": Trickle(body),
        **changes,
    }


def messages(*parts: bytes, end: bool = True) -> Callable[[], Awaitable[dict[str, Any]]]:
    """The `receive` of an ASGI request that comes in parts."""
    left: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    left.append({"type": "http.request"} if end else {"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """An ASGI request."""
    return {"type": "http", "headers": headers}


def test_wsgi_body_is_what_came() -> None:
    """The bytes are untouched, and only those that the length tells are read."""
    body, headers = read_wsgi(environ(BODY + b"next", CONTENT_LENGTH=str(len(BODY))))
    assert BODY == body
    assert {"webhook-id": "msg_1", "content-type": "application/json"} == headers


@pytest.mark.parametrize("length", ["", "-1", "+5", "1e3", " 5", "٣", "0x5"])
def test_wsgi_needs_a_length(length: str) -> None:
    """Without a length nobody knows where the body ends."""
    with pytest.raises(WebhookError):
        read_wsgi(environ(CONTENT_LENGTH=length))


def test_wsgi_body_that_ends_early_is_refused() -> None:
    """A sender that was cut off has sent no webhook."""
    with pytest.raises(WebhookError):
        read_wsgi(environ(BODY, CONTENT_LENGTH=str(len(BODY) + 1)))


@pytest.mark.parametrize("length", ["11", "9" * 15, "9" * 5_000])
def test_wsgi_body_is_bounded(length: str) -> None:
    """A body that is too large is refused before it is read."""
    with pytest.raises(WebhookTooLarge):
        read_wsgi(environ(CONTENT_LENGTH=length), body_bytes_max=10)
    assert BODY[:10] == read_wsgi(environ(BODY[:10]), body_bytes_max=10)[0]


def test_wsgi_body_in_chunks_is_what_came() -> None:
    """Servers that end the input by themselves say so: then no length is needed."""
    for length in ("", None):
        request = environ(CONTENT_LENGTH=length, **{"wsgi.input_terminated": True})
        assert BODY == read_wsgi(request)[0]


def test_wsgi_length_holds_where_it_is_told() -> None:
    """Also with an input that ends by itself: what is missing is missing."""
    terminated = {"wsgi.input_terminated": True}
    assert BODY[:5] == read_wsgi(environ(CONTENT_LENGTH="5", **terminated))[0]
    with pytest.raises(WebhookError, match="early"):
        read_wsgi(environ(CONTENT_LENGTH="99", **terminated))
    with pytest.raises(WebhookError, match="length"):
        read_wsgi(environ(CONTENT_LENGTH="-1", **terminated))


class Endless(io.RawIOBase):
    """A body that never ends; it counts what was read."""

    taken = 0

    def read(self, size: int = -1, /) -> bytes:
        assert 0 < size <= 11
        self.taken += size
        return b"x" * size


def test_wsgi_body_in_chunks_is_bounded() -> None:
    """One byte too much is enough to know."""
    endless = Endless()
    request = environ(CONTENT_LENGTH="", **{"wsgi.input": endless, "wsgi.input_terminated": True})
    with pytest.raises(WebhookTooLarge):
        read_wsgi(request, body_bytes_max=10)
    assert 11 == endless.taken
    fits = environ(BODY[:10], CONTENT_LENGTH="", **{"wsgi.input_terminated": True})
    assert BODY[:10] == read_wsgi(fits, body_bytes_max=10)[0]


class Broken(io.RawIOBase):
    """A body whose sender has gone, or sends something that are no chunks."""

    def read(self, size: int = -1, /) -> bytes:
        raise ConnectionResetError


@pytest.mark.parametrize("length", ["", "5"])
def test_wsgi_body_that_breaks_off_is_refused(length: str) -> None:
    """It is no fault of the recipient."""
    broken = {"wsgi.input": Broken(), "wsgi.input_terminated": True}
    with pytest.raises(WebhookError, match="early"):
        read_wsgi(environ(CONTENT_LENGTH=length, **broken))


async def test_asgi_body_is_what_came() -> None:
    """The parts are put together; names are in lower case."""
    pairs = (b"Webhook-Id", b"msg_1"), (b"x-odd", b"\xff")
    body, headers = await read_asgi(scope(*pairs), messages(BODY[:3], b"", BODY[3:]))
    assert BODY == body
    assert {"webhook-id": "msg_1", "x-odd": "ÿ"} == headers


async def test_asgi_header_that_came_twice_is_joined() -> None:
    """Both values are there, so that neither can stand for the other."""
    pairs = (b"webhook-id", b"a"), (b"Webhook-ID", b"b")
    assert {"webhook-id": "a, b"} == (await read_asgi(scope(*pairs), messages()))[1]


async def test_asgi_body_that_ends_early_is_refused() -> None:
    """A sender that was cut off has sent no webhook."""
    with pytest.raises(WebhookError):
        await read_asgi(scope(), messages(BODY, end=False))


async def test_asgi_body_is_bounded() -> None:
    """Reading stops with the part that is too much."""
    with pytest.raises(WebhookTooLarge):
        await read_asgi(scope(), messages(b"12345", b"678901", end=False), body_bytes_max=10)
    assert (
        b"1234567890"
        == (await read_asgi(scope(), messages(b"12345", b"67890"), body_bytes_max=10))[0]
    )
