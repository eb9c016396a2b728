"""A recipient on loopback that misbehaves on purpose, and remembers every request.

In a test: `with FaultReceiver() as receiver: receiver.url("/status/503")`, then look at
`receiver.requests`. As a program, for nodes in other processes:

    python -m tests.faults.receiver --port 4000 [--tls KIND] [--log FILE]

`tests/faults/catalogue.py` says how an attempt has to end that meets each behaviour.

The program writes `ready http=HOST:PORT` when it listens; GET /seen answers what it saw as JSON,
and the log gets one line of JSON for each request. The path of a request says what becomes of it:

    /status/CODE                    that status; ?retry-after=FORM (see RETRY_AFTER) and
                                    ?webhook-delivery=WORD add headers, ?body=TEXT a body
    /flaky/N                        503 for the first N requests of a webhook-id, then 200
    /slow/MS                        200 after so long
    /redirect/CODE                  to /visited, or ?to=URL; `visited` counts who came
    /effect                         200, and what webhooks do here is done: see effects.py
    /close/before-reading           resets without having read
    /close/in-request               in the middle of the request's body
    /close/after-request            reads all, says nothing
    /close/in-head, in-body         in the middle of the response
    /close/after-head               after the head of a 200 with a body; ?code=CODE
    /close/header                   200 with Connection: close
    /close/idle                     200, closes right after
    /close/early                    413 without reading the body
    /reset/after-request, in-body   the same with a TCP reset
    /stall/before-reading, head, body   for ever, until the sender goes
    /drip/head, body                a byte each 200 ms (?interval=MS), for ever; ?code=CODE
    /big/BYTES                      200, chunked; ?chunk=BYTES
    /trailers/BYTES                 200, chunked, then so many bytes of trailers
    /largest                        200 with as much in head and body as is kept, none of it ASCII
    /gzip-bomb                      200, 16 KiB that would be 16 MiB
    /interim/N                      N times 100, then 200; /interim/flood for ever; ?code=CODE
    /switch                         101
    /header/BYTES                   200, one header so long; /headers/N so many headers
    /invalid/KIND                   no HTTP (see INVALID)
    /two-responses                  200 and 500 at once
    /extra/late                     200, and 500 ms later another response that nobody asked for
    /ice                            200 of another protocol
    anything else                   200

A duplicate with other bytes under one webhook-id is always wrong: `conflicts` lists them. A program
that finds one says so and ends with exit code 1, and so it does with two effects of one webhook at
/effect, where our own helper for receivers is to prevent them (`--no-dedupe`: it is not asked).
"""

import argparse
import gzip
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.faults.effects import Effects

RETRY_AFTER: Final[dict[str, Callable[[datetime], str]]] = {
    "seconds": lambda _: "7",
    "zero": lambda _: "0",
    "date": lambda now: format_datetime(now + timedelta(seconds=7), usegmt=True),
    "rfc850": lambda now: (now + timedelta(seconds=7)).strftime("%A, %d-%b-%y %H:%M:%S GMT"),
    "asctime": lambda now: (now + timedelta(seconds=7)).strftime("%a %b %e %H:%M:%S %Y"),
    "past": lambda now: format_datetime(now - timedelta(days=7), usegmt=True),
    "negative": lambda _: "-7",
    "huge": lambda _: "9" * 40,
    "junk": lambda _: "soon, I promise",
}

INVALID: Final = {
    "garbage": b"\x00\xff\x16\x03 this is no HTTP at all\r\n\r\n",
    "smtp": b"220 mail.example ESMTP\r\n",
    "html": b"<html><body>It works!</body></html>",
    "version": b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status": b"HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n",
    "status-low": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "both-lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n"
    ),
    "header-name": b"HTTP/1.1 200 OK\r\nCon tent: x\r\nContent-Length: 0\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
}

_BLOCK: Final = b"x" * 65536
_HEAD_BYTES_MAX: Final = 256 * 1024


@dataclass(frozen=True)
class Seen:
    """One request that was read; header names are in lower case.

    at_s        when, on time.monotonic()
    connection  on which of the receiver's connections, numbered from 1
    head        the bytes of the head
    """

    at_s: float
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    head: bytes
    body: bytes

    @property
    def webhook_id(self) -> str:
        """What identifies the delivery; empty when the request has none."""
        return self.headers.get("webhook-id", "")

    def summary(self) -> dict[str, object]:
        """For another process."""
        return {
            "at_s": self.at_s,
            "connection": self.connection,
            "method": self.method,
            "path": self.path,
            "webhook_id": self.webhook_id,
            "attempt": self.headers.get("timemachine-attempt"),
            "body_bytes": len(self.body),
            "body_sha256": hashlib.sha256(self.body).hexdigest(),
        }


class _Gone(Exception):
    """The other side has closed, or the receiver stops."""


class _Visit:
    """One connection, served in a thread of its own."""

    def __init__(self, receiver: "FaultReceiver", stream: socket.socket, number: int) -> None:
        self.receiver = receiver
        self.stream = stream
        self.number = number
        self.buffer = b""
        self.words: list[str] = []
        self.query: dict[str, str] = {}
        self.seen: Seen | None = None

    # --- reading ---------------------------------------------------------------------------

    def serve(self) -> None:
        """Requests, one after the other."""
        while self.request():
            behaviour = _BEHAVIOURS.get(self.words[0], _ordinary)
            if not behaviour(self):
                return

    def request(self) -> bool:
        """Read one; whether there was one that wants an answer."""
        while b"\r\n\r\n" not in self.buffer:
            if self.must_not_read():
                return False
            data = self.receive()
            if not data or len(self.buffer) > _HEAD_BYTES_MAX:
                return False
            self.buffer += data
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.parse(target)
        if self.words == ["close", "early"]:
            self.answer(413, headers=["Connection: close"])
            return False
        length = int(headers.get("content-length", "0"))
        half = length // 2
        while len(rest) < length:
            data = self.receive()
            if not data:
                return False
            if len(rest) < half <= len(rest) + len(data) and not self.half(headers):
                return False
            rest += data
        self.buffer = rest[length:]
        self.seen = Seen(
            time.monotonic(), self.number, method, target, headers, head, rest[:length]
        )
        if target != "/seen":
            self.receiver.note(self.seen)
        return True

    def half(self, headers: dict[str, str]) -> bool:
        """Half of the body is read; whether to go on."""
        if self.words == ["close", "in-request"]:
            return False
        return self.receiver.on_half(headers.get("webhook-id", ""))

    def must_not_read(self) -> bool:
        """Deal with the behaviours that begin before the request is read; over TLS there are none.

        The path is known from looking at what lies in the socket without taking it.
        """
        if self.buffer or isinstance(self.stream, ssl.SSLSocket):
            return False
        line = self.stream.recv(1024, socket.MSG_PEEK).split(b"\r\n")[0].split(b" ")
        if len(line) < 2:
            return False
        self.parse(line[1].decode("latin-1"))
        match self.words:
            case ["close", "before-reading"]:
                return True
            case ["stall", "before-reading"]:
                self.receiver.stopping.wait()
                return True
        return False

    def parse(self, target: str) -> None:
        """Take the path and the query apart."""
        parts = urlsplit(target)
        self.words = parts.path.strip("/").split("/")
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}

    def receive(self) -> bytes:
        """Some bytes; none at the end."""
        return self.stream.recv(65536)

    # --- answering -------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes. Raises _Gone when nobody takes them."""
        if self.receiver.stopping.is_set():
            raise _Gone
        self.stream.sendall(data)
        with self.receiver.changed:
            self.receiver.sent_bytes += len(data)
            self.receiver.changed.notify_all()

    def answer(
        self, code: int, body: bytes = b"", *, headers: list[str] | tuple[str, ...] = ()
    ) -> None:
        """A whole response."""
        lines = [f"HTTP/1.1 {code} Answer", *headers]
        if code not in {204, 304}:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def drip(self, data: bytes) -> None:
        """A byte at a time, for ever."""
        interval_s = int(self.query.get("interval", "200")) / 1000
        while True:
            for byte in data:
                self.send(bytes((byte,)))
                if self.receiver.stopping.wait(interval_s):
                    raise _Gone

    def stall(self) -> None:
        """Say nothing until the sender has gone."""
        while self.receive():
            pass
        with self.receiver.changed:
            self.receiver.left += 1
            self.receiver.changed.notify_all()

    def reset(self) -> None:
        """Make closing a TCP reset."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def code(self) -> int:
        """The status that the query asks for."""
        return int(self.query.get("code", "200"))


# --- behaviours: each returns whether the connection goes on ------------------------------------


def _ordinary(visit: _Visit) -> bool:
    visit.answer(200, b"ok", headers=["Content-Type: text/plain", "Server: fault-receiver"])
    return True


def _status(visit: _Visit) -> bool:
    headers = []
    if "retry-after" in visit.query:
        form = RETRY_AFTER[visit.query["retry-after"]]
        headers.append(f"Retry-After: {form(datetime.now(UTC))}")
    if "webhook-delivery" in visit.query:
        headers.append(f"webhook-delivery: {visit.query['webhook-delivery']}")
    visit.answer(int(visit.words[1]), visit.query.get("body", "").encode(), headers=headers)
    return True


def _effect(visit: _Visit) -> bool:
    assert visit.seen is not None
    taken = [each.take(visit.seen.webhook_id, visit.seen.body) for each in visit.receiver.effects]
    visit.answer(max(taken, default=200))
    visit.receiver.on_answer(visit.seen)
    return True


def _flaky(visit: _Visit) -> bool:
    assert visit.seen is not None
    times = sum(
        visit.seen.webhook_id == each.webhook_id and visit.seen.path == each.path
        for each in visit.receiver.requests
    )
    visit.answer(503 if times <= int(visit.words[1]) else 200)
    return True


def _slow(visit: _Visit) -> bool:
    if visit.receiver.stopping.wait(int(visit.words[1]) / 1000):
        return False
    visit.answer(200)
    return True


def _redirect(visit: _Visit) -> bool:
    place = visit.query.get("to", visit.receiver.url("/visited?secret=in-the-location"))
    visit.answer(int(visit.words[1]), b"over there", headers=[f"Location: {place}"])
    return True


def _visited(visit: _Visit) -> bool:
    visit.receiver.visited += 1
    visit.answer(200)
    return True


def _close(visit: _Visit) -> bool:
    match visit.words[1]:
        case "in-head":
            visit.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        case "after-head":
            visit.send(b"HTTP/1.1 %d Answer\r\nContent-Length: 100\r\n\r\n" % visit.code())
        case "in-body":
            visit.send(b"HTTP/1.1 %d Answer\r\nContent-Length: 100\r\n\r\nhalf" % visit.code())
        case "header":
            visit.answer(200, b"bye", headers=["Connection: close"])
        case "idle":
            visit.answer(200, b"bye")
    return False


def _reset(visit: _Visit) -> bool:
    if visit.words[1] == "in-body":
        visit.send(b"HTTP/1.1 %d Answer\r\nContent-Length: 100\r\n\r\nhalf" % visit.code())
        # The reset must not overtake what it follows.
        visit.receiver.stopping.wait(0.1)
    visit.reset()
    return False


def _linger(stream: socket.socket) -> None:
    """Read what still comes, as it is: closed over unread bytes, TCP resets and drops our alert."""
    with suppress(OSError):
        socket.socket.shutdown(stream, socket.SHUT_WR)
        stream.settimeout(5)
        while socket.socket.recv(stream, 65_536):
            pass


def _stall(visit: _Visit) -> bool:
    match visit.words[1]:
        case "head":
            visit.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        case "body":
            visit.send(b"HTTP/1.1 %d Answer\r\nContent-Length: 100\r\n\r\nhalf" % visit.code())
    visit.stall()
    return False


def _drip(visit: _Visit) -> bool:
    if visit.words[1] == "body":
        visit.send(b"HTTP/1.1 %d Answer\r\nContent-Length: 1000000\r\n\r\n" % visit.code())
        visit.drip(b"x")
    visit.send(b"HTTP/1.1 200 OK\r\n")
    visit.drip(b"X-Drop: x\r\n")
    return False


def _big(visit: _Visit) -> bool:
    left = int(visit.words[1])
    chunk = int(visit.query.get("chunk", str(len(_BLOCK))))
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    # Small chunks go out together, or the receiver would be what is slow.
    together = max(1, len(_BLOCK) // chunk)
    while left > 0:
        pieces = []
        for _ in range(together):
            size = min(chunk, left)
            if size:
                pieces.append(b"%x\r\n%b\r\n" % (size, _BLOCK[:size]))
            left -= size
        visit.send(b"".join(pieces))
    visit.send(b"0\r\n\r\n")
    return True


def _trailers(visit: _Visit) -> bool:
    left = int(visit.words[1])
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
    visit.send(b"Retry-After: 9\r\nX-Trailer: ")
    while left > 0:
        visit.send(_BLOCK[: min(len(_BLOCK), left)])
        left -= len(_BLOCK)
    visit.send(b"\r\n\r\n")
    return True


def _gzip_bomb(visit: _Visit) -> bool:
    bomb = gzip.compress(b"\0" * 16 * 1024 * 1024, mtime=0)
    visit.answer(200, bomb, headers=["Content-Encoding: gzip"])
    return True


def _largest(visit: _Visit) -> bool:
    kept = ("Content-Type", "Date", "Location", "Retry-After", "Server", "webhook-delivery")
    visit.answer(200, b"\xff" * 16_384, headers=[f"{name}: " + "\xff" * 2_000 for name in kept])
    return True


def _interim(visit: _Visit) -> bool:
    code = int(visit.query.get("code", "100"))
    interim = b"HTTP/1.1 %d Interim\r\nRetry-After: 99\r\n\r\n" % code
    if visit.words[1] == "flood":
        while True:
            visit.send(interim * 100)
    visit.send(interim * int(visit.words[1]))
    visit.answer(200, b"finally")
    return True


def _switch(visit: _Visit) -> bool:
    visit.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    visit.stall()
    return False


def _header(visit: _Visit) -> bool:
    left = int(visit.words[1])
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: ")
    while left > 0:
        visit.send(_BLOCK[: min(len(_BLOCK), left)])
        left -= len(_BLOCK)
    visit.send(b"\r\n\r\n")
    return True


def _headers(visit: _Visit) -> bool:
    lines = [f"X-Header-{number}: {number}" for number in range(int(visit.words[1]))]
    visit.answer(200, headers=lines)
    return True


def _invalid(visit: _Visit) -> bool:
    visit.send(INVALID[visit.words[1]])
    visit.stall()
    return False


def _two_responses(visit: _Visit) -> bool:
    visit.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"
        b"HTTP/1.1 500 Other\r\nContent-Length: 6\r\nRetry-After: 9\r\n\r\nsecond"
    )
    visit.stall()
    return False


def _extra(visit: _Visit) -> bool:
    visit.answer(200, b"asked")
    if not visit.receiver.stopping.wait(int(visit.query.get("after", "500")) / 1000):
        visit.answer(500, b"not asked")
        visit.stall()
    return False


def _ice(visit: _Visit) -> bool:
    visit.send(b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    visit.stall()
    return False


def _seen(visit: _Visit) -> bool:
    summaries = [seen.summary() for seen in visit.receiver.requests]
    visit.answer(200, json.dumps(summaries).encode(), headers=["Content-Type: application/json"])
    return True


_BEHAVIOURS: Final[dict[str, Callable[[_Visit], bool]]] = {
    "big": _big,
    "close": _close,
    "drip": _drip,
    "effect": _effect,
    "extra": _extra,
    "flaky": _flaky,
    "gzip-bomb": _gzip_bomb,
    "header": _header,
    "headers": _headers,
    "ice": _ice,
    "interim": _interim,
    "largest": _largest,
    "invalid": _invalid,
    "redirect": _redirect,
    "reset": _reset,
    "seen": _seen,
    "slow": _slow,
    "stall": _stall,
    "status": _status,
    "switch": _switch,
    "trailers": _trailers,
    "two-responses": _two_responses,
    "visited": _visited,
}


class FaultReceiver:
    """The receiver, in threads of this process. A context manager.

    requests     what was read, in order
    connections  how many were accepted
    open         how many are open now
    left         how often a sender left while it was kept waiting
    visited      how often a redirect was followed
    sent_bytes   all that the sockets took
    tls_failures how many handshakes failed
    changed      held while these change
    effects      what webhooks do that come to /effect
    on_request   called when a request has been read
    on_half      called when half of a body is read that came in pieces, with its webhook-id;
                 returns whether the other half is read, too
    on_answer    called when a webhook at /effect has been answered
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
        on_request: Callable[[Seen], None] | None = None,
        effects: Sequence[Effects] = (),
    ) -> None:
        self.stopping = threading.Event()
        self.requests: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.left = 0
        self.visited = 0
        self.sent_bytes = 0
        self.tls_failures = 0
        self.effects = effects
        self.on_half: Callable[[str], bool] = lambda _: True
        self.on_answer: Callable[[Seen], None] = lambda _: None
        self._context = context
        self.on_request: Callable[[Seen], None] = on_request or (lambda _: None)
        self.changed = threading.Condition()
        self._streams: set[socket.socket] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=1024)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self.host = host
        self.port: int = self._listener.getsockname()[1]

    def url(self, path: str = "/", *, host: str | None = None) -> str:
        """The URL of a path; `host` puts another name in place of the address."""
        scheme = "http" if self._context is None else "https"
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host or shown}:{self.port}{path}"

    def wait(self, count: int, timeout_s: float = 20.0) -> list[Seen]:
        """Wait until `count` requests have come. Raises TimeoutError."""
        self.wait_until(lambda: len(self.requests) >= count, timeout_s)
        return list(self.requests)

    def wait_until(self, holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until something about this receiver holds. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(holds, timeout_s):
                raise TimeoutError

    @property
    def conflicts(self) -> list[str]:
        """The webhook-ids that came with different bodies, which no sender may do."""
        bodies: dict[str, set[bytes]] = {}
        for seen in self.requests:
            bodies.setdefault(seen.webhook_id, set()).add(seen.body)
        return [each for each, different in bodies.items() if each and len(different) > 1]

    def note(self, seen: Seen) -> None:
        """Remember a request."""
        with self.changed:
            self.requests.append(seen)
            self.changed.notify_all()
        self.on_request(seen)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        # Closing alone would not wake the thread that waits for a connection. It must have ended
        # before the descriptor is somebody else's.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for stream in list(self._streams):
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed by the other side

    def serve_forever(self) -> None:
        """Accept in this thread."""
        self._accept()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self.connections += 1
                self.open += 1
                self.changed.notify_all()
            self._streams.add(stream)
            threading.Thread(
                target=self._serve, args=(stream, self.connections), daemon=True
            ).start()

    def _serve(self, stream: socket.socket, number: int) -> None:
        plain = stream
        try:
            if self._context is not None:
                stream = self._context.wrap_socket(
                    stream, server_side=True, do_handshake_on_connect=False
                )
                try:
                    stream.do_handshake()
                except OSError:
                    self.tls_failures += 1
                    _linger(stream)
                    return
            _Visit(self, stream, number).serve()
        except (_Gone, OSError):
            pass  # the sender left in the middle, as it should when this was too much for it
        finally:
            self._streams.discard(plain)
            stream.close()
            with self.changed:
                self.open -= 1
                self.changed.notify_all()


def main() -> None:
    """Run as a program, until it is killed."""
    parser = argparse.ArgumentParser(description="a recipient that misbehaves on purpose")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--tls", metavar="KIND", help="a kind of tests/faults/certificates.py")
    parser.add_argument("--log", type=Path, help="append a line of JSON for each request")
    parser.add_argument("--no-dedupe", action="store_true", help="at /effect every webhook counts")
    arguments = parser.parse_args()
    context = None
    if arguments.tls is not None:
        from tests.faults.certificates import Certificates  # noqa: PLC0415 - needs trustme

        certificates = Certificates()
        context = certificates.server(arguments.tls)
        print(certificates.ca_pem, file=sys.stderr)
    log = arguments.log.open("a") if arguments.log is not None else None
    effects = Effects(dedupe=not arguments.no_dedupe)

    def fail_if_wrong() -> None:
        wrong = [f"{each} came with two bodies" for each in receiver.conflicts] + effects.wrong()
        if wrong:
            print("wrong:", *dict.fromkeys(wrong), sep="\n", flush=True)
            os._exit(1)

    def on_request(seen: Seen) -> None:
        if log is not None:
            log.write(json.dumps(seen.summary()) + "\n")
            log.flush()
        fail_if_wrong()

    receiver = FaultReceiver(
        host=arguments.host,
        port=arguments.port,
        context=context,
        on_request=on_request,
        effects=(effects,),
    )
    receiver.on_answer = lambda _: fail_if_wrong()
    print(f"ready http={receiver.host}:{receiver.port}", flush=True)
    try:
        receiver.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
