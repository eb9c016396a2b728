"""The client's HTTP: answers in all lawful forms, cut anywhere; everything else refused."""

import pytest

from timemachine import limits
from timemachine.client.http1 import AnswerParser, format_request
from timemachine.errors import BadAnswer

LENGTH = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
    b'3;x=y\r\n{"a\r\n4\r\n":1}\r\n0\r\nTrailer: t\r\n\r\n'
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH


def parsed(data: bytes, *, step: int = 10**9) -> AnswerParser:
    """A parser fed with `data`, `step` bytes at a time."""
    parser = AnswerParser()
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
    return parser


@pytest.mark.parametrize("data", [LENGTH, CHUNKED, INTERIM])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 10**9])
def test_answer_is_read_however_it_is_cut(data: bytes, step: int) -> None:
    """An answer arrives in pieces of any size, after interim answers or not."""
    parser = parsed(data, step=step)
    assert parser.answer is not None
    assert (200, b'{"a":1}') == (parser.answer.status, parser.answer.body)
    assert parser.keep_alive


@pytest.mark.parametrize("data", [LENGTH, CHUNKED, INTERIM])
def test_answer_cut_short_is_a_broken_connection(data: bytes) -> None:
    """An answer that ends too early is no answer, wherever it is cut."""
    for length in range(len(data)):
        parser = parsed(data[:length])
        assert parser.answer is None
        assert (length > 0) == parser.started
        with pytest.raises(ConnectionResetError):
            parser.end()


def test_answer_without_length_goes_to_the_end_of_the_connection() -> None:
    """Neither a length nor chunks: the end of the connection ends the body."""
    parser = parsed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert parser.answer is None
    parser.end()
    assert parser.answer is not None
    assert (b"hello", False) == (parser.answer.body, parser.keep_alive)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    """204 and 304 end with their head."""
    parser = parsed(b"HTTP/1.1 %d x\r\n\r\n" % status)
    assert parser.answer is not None
    assert b"" == parser.answer.body


def test_empty_bodies() -> None:
    """A length of 0 and no chunks at all are empty bodies."""
    for data in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        parser = parsed(data)
        assert parser.answer is not None
        assert b"" == parser.answer.body


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close, x", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", True),
    ],
)
def test_connection_is_kept_when_both_sides_may(head: bytes, keep_alive: bool) -> None:
    """HTTP/1.1 keeps connections unless told otherwise, HTTP/1.0 the other way round."""
    assert keep_alive is parsed(head + b"\r\nContent-Length: 0\r\n\r\n").keep_alive


def test_a_second_answer_is_not_trusted() -> None:
    """Bytes after the answer mean that the connection is not used again."""
    assert not parsed(LENGTH + b"H").keep_alive


def test_headers_are_lower_case_and_joined() -> None:
    """Names are lower case, values trimmed, a header twice is a list."""
    parser = parsed(b"HTTP/1.1 204 x\r\nA: 1 \r\na:\t2\r\nB:\r\n\r\n")
    assert parser.answer is not None
    assert {"a": "1, 2", "b": ""} == parser.answer.headers


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nspace : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (limits.CLIENT_ANSWER_BYTES_MAX + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * limits.CLIENT_HEAD_BYTES_MAX,
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    """Everything that breaks the grammar or a bound is a bad answer."""
    with pytest.raises(BadAnswer):
        parsed(data)


def test_request_bytes() -> None:
    """A request is its line, its headers and its body."""
    expected = b"PUT /v1/dbs/a HTTP/1.1\r\nHost: h:1\r\nX: \xe9\r\nContent-Length: 2\r\n\r\n{}"
    assert expected == format_request("PUT", "/v1/dbs/a", "h:1", [("X", "é")], b"{}")


def test_request_without_body_has_no_length() -> None:
    """A GET says nothing about a body."""
    assert b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" == format_request("GET", "/", "h", [], None)


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\0", "\x7f", "✓"])
def test_header_cannot_break_out_of_its_line(value: str) -> None:
    """A key or token with a line end in it is refused before anything is sent."""
    with pytest.raises(ValueError, match="header X"):
        format_request("GET", "/", "h", [("X", value)], None)
