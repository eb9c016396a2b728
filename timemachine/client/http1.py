"""HTTP/1.1 (RFC 9112) as far as a client of TimeMachine needs it, without any I/O.

Only what a node, or a proxy before it, sends: answers with a length, chunked, or up to the end of
the connection. Everything has a bound; what breaks the grammar raises BadAnswer.
"""

import re
from dataclasses import dataclass
from typing import Final

from timemachine import limits
from timemachine.errors import BadAnswer

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;.*)?")
_UNSAFE: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_CHUNK_LINE_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def format_request(
    method: str, target: str, host: str, headers: list[tuple[str, str]], body: bytes | None
) -> bytes:
    """The bytes of a request. Raises ValueError for a header that would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    for name, value in headers:
        if _UNSAFE.search(value):
            raise ValueError(f"the header {name} has a character that headers cannot carry")
        lines.append(f"{name}: {value}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class AnswerParser:
    """Turns the bytes of one answer into a RawAnswer.

    Feed it what arrives until `answer` is there; `end()` tells it that the connection ended.
    `started` says whether anything arrived, `keep_alive` whether the connection can be used again.
    """

    def __init__(self) -> None:
        self.answer: RawAnswer | None = None
        self.started = False
        self.keep_alive = False
        self._buffer = bytearray()
        self._body = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._missing = 0
        """Bytes of the body, or of the chunk, that have not come yet."""
        self._step = self._read_head

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises BadAnswer when they are no answer or too many."""
        self.started = True
        self._buffer += data
        while self.answer is None and self._step():
            pass
        if self.answer is not None and self._buffer:
            self.keep_alive = False  # More than one answer to one request: trust it no further.

    def end(self) -> None:
        """The connection ended. Raises ConnectionResetError when the answer needs more bytes."""
        if self.answer is None and self._step == self._read_to_end:
            self._done()
        elif self.answer is None:
            raise ConnectionResetError("the connection ended before the answer did")

    # Each step takes what it can from the buffer; False means that it needs more bytes.

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > limits.CLIENT_HEAD_BYTES_MAX:
            raise BadAnswer("The head of the answer is too large.")
        if end < 0:
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        found = _STATUS_LINE.fullmatch(lines[0])
        if not found:
            raise BadAnswer("This is no HTTP/1.1 server.")
        self._status = int(found[2])
        self._headers = _parse_headers(lines[1:])
        if self._status == 101:
            raise BadAnswer("The server wants another protocol.")
        if self._status < 200:
            return True  # An interim answer; the next head is the one.
        options = self._headers.get("connection", "").lower()
        self.keep_alive = "close" not in options and (found[1] == b"1" or "keep-alive" in options)
        return self._choose_body()

    def _choose_body(self) -> bool:
        coding = self._headers.get("transfer-encoding")
        length = self._headers.get("content-length")
        if self._status in (204, 304):
            return self._done()
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise BadAnswer("The answer's length cannot be told.")
            self._step = self._read_chunk_size
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise BadAnswer("The answer's length is no number.")
            self._expect(int(length))
            self._step = self._read_length
        else:
            self.keep_alive = False
            self._step = self._read_to_end
        return True

    def _read_length(self) -> bool:
        self._take()
        return self._missing == 0 and self._done()

    def _read_to_end(self) -> bool:
        self._expect(len(self._buffer))
        self._take()
        return False

    def _read_chunk_size(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        found = _CHUNK_SIZE.fullmatch(line)
        if not found:
            raise BadAnswer("A chunk of the answer has no size.")
        self._expect(int(found[1], 16))
        self._step = self._read_chunk if self._missing else self._read_trailer
        return True

    def _read_chunk(self) -> bool:
        self._take()
        if self._missing or len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise BadAnswer("A chunk of the answer is longer than its size.")
        del self._buffer[:2]
        self._step = self._read_chunk_size
        return True

    def _read_trailer(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        return True if line else self._done()

    def _expect(self, length: int) -> None:
        if len(self._body) + length > limits.CLIENT_ANSWER_BYTES_MAX:
            raise BadAnswer("The answer is too large.")
        self._missing = length

    def _take(self) -> None:
        """Move what belongs to the body out of the buffer."""
        part = self._buffer[: self._missing]
        self._body += part
        self._missing -= len(part)
        del self._buffer[: len(part)]

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if (end if end >= 0 else len(self._buffer)) > _CHUNK_LINE_BYTES_MAX:
            raise BadAnswer("A line of the answer is too long.")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _done(self) -> bool:
        self.answer = RawAnswer(self._status, self._headers, bytes(self._body))
        return True


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise BadAnswer("A header of the answer is malformed.")
        lower = name.lower()
        text = value.strip(" \t")
        if lower in headers and lower == "content-length" and headers[lower] != text:
            raise BadAnswer("The answer has two lengths.")
        if lower in headers and lower != "content-length":
            text = f"{headers[lower]}, {text}"
        headers[lower] = text
    return headers
