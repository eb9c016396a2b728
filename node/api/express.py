"""The short way of single creates: whole requests read without aiohttp between.

aiohttp takes more of a small create than the log and the disk do together (`bench/ingest`). So
heads of `POST .../jobs` are read here, by llhttp, which is also aiohttp's parser. Only what holds
nothing to think about is taken: one request that came as a whole, its length told, with headers
that mean nothing to the transport. Everything else is declined, not judged; aiohttp judges it.
"""

from typing import Final, NamedTuple

import httptools
from multidict import CIMultiDict

from node.api.conventions import Call
from node.api.dispatch import JOBS, Dispatch
from node.api.media import JSON
from timemachine import limits
from timemachine.errors import TimeMachineError

_BEGINNING: Final = b"POST /v1/dbs/"
_END: Final = b"\r\n\r\n"
_HEAD_BYTES_MAX: Final = 4_096
_HEADS_KEPT_MAX: Final = 256

# Those that say how a request is to be read, or by whom it was sent, and one that aiohttp refuses.
_DECLINED: Final = frozenset(
    {
        "content-encoding",
        "expect",
        "keep-alive",
        "origin",
        "proxy-connection",
        "sec-websocket-key1",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Head(NamedTuple):
    """A head that was read.

    size     its bytes, with the empty line
    total    the same and the body
    names    of the database and the collection
    headers  by name, in any case
    """

    size: int
    total: int
    names: list[str]
    headers: CIMultiDict[str]

    def call(self, body: bytes) -> Call:
        """The request with this head."""
        return Call(
            method="POST",
            operation=JOBS,
            names=self.names,
            query={},
            headers=self.headers,
            body=body,
        )


class HeadReader:
    """Reads heads, and remembers some: a client sends the same bytes again and again."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._heads: dict[bytes, Head] = {}

    def read(self, data: bytes) -> Head | None:
        """The head of `data`, if that is one create and nothing else; None to decline."""
        size = data.find(_END, 0, _HEAD_BYTES_MAX) + len(_END)
        if size < len(_END):
            return None
        raw = data[:size]
        head = self._heads.get(raw)
        if head is None:
            head = self._parse(raw)
            if head is None:
                return None
            if len(self._heads) >= _HEADS_KEPT_MAX:
                self._heads.clear()
            self._heads[raw] = head
        return head if head.total == len(data) else None

    def _parse(self, raw: bytes) -> Head | None:
        if not raw.startswith(_BEGINNING) or not raw.isascii():
            return None
        parsing = _Parsing()
        parser = httptools.HttpRequestParser(parsing)
        try:
            parser.feed_data(raw)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        headers = parsing.headers
        length = headers.get("content-length", "")
        if (
            not parsing.complete
            or parsing.unusual
            or b"?" in parsing.url
            or "host" not in headers
            or headers.get("connection", "keep-alive").lower() != "keep-alive"
            or len(headers) > limits.HTTP_HEADERS_COUNT_MAX
            or parser.get_http_version() != "1.1"
            or headers.get("content-type") != JSON
            or "msgpack" in headers.get("accept", "").lower()
            or not length.isdigit()
            or not 0 < int(length) <= limits.HTTP_EXPRESS_BODY_BYTES_MAX
        ):
            return None
        try:
            _, operation, names = self._dispatch.find("POST", parsing.url.decode("ascii"))
        except TimeMachineError:
            return None
        if operation.place != JOBS:
            return None
        return Head(len(raw), len(raw) + int(length), names, headers)


class _Parsing:
    """What llhttp tells of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.unusual = self.complete = False

    def on_url(self, url: bytes) -> None:
        """Called with the target, perhaps in pieces."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called for each header."""
        text = name.decode("ascii").lower()
        self.unusual = self.unusual or text in _DECLINED or text in self.headers
        self.headers[text] = value.decode("ascii").strip(" \t")

    def on_headers_complete(self) -> None:
        """Called at the empty line."""
        self.complete = True
