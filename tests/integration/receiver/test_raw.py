"""Raw bodies as a real WSGI server hands them over: with a length, and in chunks."""

import http.client
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from werkzeug.serving import make_server

from timemachine.receiver import WebhookError
from timemachine.receiver.raw import read_wsgi

BODY = b'{"a":  1.0}\xff\r\n0\r\n\r\n'


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers with the body, and with the status of what is wrong with it."""

    def application(
        environ: dict[str, Any], start_response: Callable[..., object]
    ) -> Iterable[bytes]:
        status, body = 200, b""
        try:
            body, _ = read_wsgi(environ, body_bytes_max=100)
        except WebhookError as error:
            status = error.http_status
        start_response(f"{status} -", [("Content-Length", str(len(body)))])
        return [body]

    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    ("body", "status"), [(BODY, 200), (b"x" * 100, 200), (b"x" * 101, 413), (b"x" * 10_000, 413)]
)
def test_the_body_is_what_was_sent(port: int, body: bytes, status: int, *, chunked: bool) -> None:
    """Or it is refused, when it is too large."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        parts = [body[:3], body[3:]]
        if chunked:
            connection.request("POST", "/", iter(parts), encode_chunked=True)
        else:
            connection.request("POST", "/", body)
        answer = connection.getresponse()
        assert (status, body if status == 200 else b"") == (answer.status, answer.read())


def test_chunks_that_are_none_are_refused(port: int) -> None:
    """It is the sender's fault, and not a 500."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/", b"no chunks\r\n", {"Transfer-Encoding": "chunked"})
        assert 400 == connection.getresponse().status


def test_without_any_length_there_is_no_body(port: int) -> None:
    """The server says that there is none to wait for, and nothing waits."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("POST", "/")
        connection.endheaders()
        assert 400 == connection.getresponse().status
