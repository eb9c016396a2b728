"""A whole node, clients that are slow beyond reason, and others that want to be served."""

import http.client
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.cluster.process import JOBS, NodeProcess, Recipient, ask, wait_until

FAR_MS: Final = 4_000_000_000_000
MIB: Final = 1024 * 1024
POST: Final = f"POST {JOBS} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n".encode()
BODY: Final = b'{"id":"slow%d","delay_ms":0,"route":"hook"}'


class Clients(ABC):
    """Raw connections to a node, and a thread that does to them what a subclass says.

    Use it as a context manager: it begins at once, and hangs up in the end.
    """

    def __init__(self, node: NodeProcess, number: int, *, window_bytes: int | None = None) -> None:
        host, _, port = node.address.rpartition(":")
        self._address = host, int(port)
        self._window_bytes = window_bytes
        self._connections = [self._connect() for _ in range(number)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _connect(self) -> socket.socket:
        connection = socket.socket()
        if self._window_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._window_bytes)
        connection.settimeout(30)
        connection.connect(self._address)
        return connection

    def _run(self) -> None:
        try:
            self._misbehave()
        except OSError:
            if not self._stop.is_set():
                raise

    @abstractmethod
    def _misbehave(self) -> None: ...

    def answered(self) -> int:
        """How many have an answer that they have not read, or were sent away."""
        return len(select.select(self._connections, [], [], 0)[0])

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self.give_up()
        for connection in self._connections:
            connection.close()

    def give_up(self) -> None:
        """Send no more from now on; the connections stay."""
        self._stop.set()
        self._thread.join()


class Drip(Clients):
    """Send `start`, then `filler` again and again, byte by byte; told to finish, then `rest`.

    What all of it is together, is a whole request that creates a job.
    """

    def __init__(
        self, node: NodeProcess, start: bytes, filler: bytes, rest: Callable[[bytes], bytes]
    ) -> None:
        super().__init__(node, 20)
        self._start, self._filler = start, filler
        self._rests = [rest(BODY % number) for number in range(len(self._connections))]
        self.fillers = 0

    def _misbehave(self) -> None:
        self._send([self._start] * len(self._rests))
        while not self._stop.is_set():
            self._send([self._filler] * len(self._rests))
            self.fillers += 1

    def _send(self, parts: list[bytes]) -> None:
        for place in range(max(len(part) for part in parts)):
            for connection, part in zip(self._connections, parts, strict=True):
                connection.sendall(part[place : place + 1])
            time.sleep(0.001)

    def finish(self) -> list[bytes]:
        """Let all send the rest, no faster; returns the first lines of their answers."""
        self.give_up()
        self._send(self._rests)
        return [connection.recv(65_536).partition(b"\r\n")[0] for connection in self._connections]


def _head_drip(node: NodeProcess) -> Drip:
    """A head of which another byte comes and comes."""
    return Drip(
        node,
        POST + b"X-Padding: ",
        b"x",
        lambda body: b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    )


def _body_drip(node: NodeProcess) -> Drip:
    """A body with white space before it, of which another chunk comes and comes."""
    return Drip(
        node,
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1\r\n \r\n",
        lambda body: b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    )


class Deaf(Clients):
    """Ask as fast as the node takes it, and never read an answer."""

    def __init__(self, node: NodeProcess, requests: Iterator[bytes]) -> None:
        super().__init__(node, 2, window_bytes=4_096)
        self._requests = requests
        self.asked = 0
        self.stalled = False

    def _misbehave(self) -> None:
        for connection in self._connections:
            connection.setblocking(False)
        rests = dict.fromkeys(self._connections, b"")
        while not self._stop.is_set():
            _, writable, _ = select.select([], self._connections, [], 0.3)
            self.stalled = not writable
            for connection in writable:
                if not rests[connection]:
                    rests[connection] = next(self._requests)
                    self.asked += 1
                rests[connection] = rests[connection][connection.send(rests[connection]) :]


def _lists() -> Iterator[bytes]:
    """The same long list, for ever."""
    while True:
        yield f"GET {JOBS}?limit=1000 HTTP/1.1\r\nHost: node\r\n\r\n".encode()


def _creates() -> Iterator[bytes]:
    """New jobs, for ever."""
    for number in count():
        body = b'{"id":"deaf%d","trigger_time":%d,"route":"hook"}' % (number, FAR_MS)
        yield POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Flood(Clients):
    """Send a body that has no end, as fast as it goes; refused, begin anew. Counts the answers."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(node, 1)
        self.answers: Counter[bytes] = Counter()

    def _misbehave(self) -> None:
        chunk = b"%x\r\n%b\r\n" % (65_536, bytes(65_536))
        while not self._stop.is_set():
            (connection,) = self._connections
            connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            while not self._stop.is_set() and not self.answered():
                connection.sendall(chunk)
            if self.answered():
                self.answers[connection.recv(65_536).partition(b"\r\n")[0]] += 1
            connection.close()
            self._connections = [self._connect()]


def _others_are_served(node: NodeProcess, recipient: Recipient) -> None:
    """Jobs are created, one by one and many at once; all fire, and are listed as delivered."""
    before = len(recipient.arrivals())
    prefix = f"other{before}"
    node.create([{"id": f"{prefix}-b{number}", "delay_ms": 0} for number in range(200)])
    with closing(http.client.HTTPConnection(node.address, timeout=30)) as connection:
        for number in range(200):
            job = {"id": f"{prefix}-s{number}", "delay_ms": 0, "route": "hook"}
            assert 201 == ask(connection, "POST", JOBS, job)[0]
    recipient.wait(before + 400)
    wait_until(lambda: before + 400 == _delivered(node), "they do not settle")


def _fill(node: NodeProcess) -> None:
    """So many jobs of a far future that their list has most of a megabyte."""
    node.create(
        [{"id": f"far{n}", "trigger_time": FAR_MS, "meta": "x" * 500} for n in range(1_000)]
    )


def _delivered(node: NodeProcess) -> int:
    status, answer = node.ask("GET", JOBS.removesuffix("/jobs"))
    assert 200 == status, answer
    return int(answer["counts"]["delivered"])


@pytest.mark.parametrize("drip", [_head_drip, _body_drip])
def test_byte_by_byte(tmp_path: Path, drip: Callable[[NodeProcess], Drip]) -> None:
    """Whose request comes byte by byte keeps nobody waiting, and is served in the end."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url)
        with drip(node) as slow:
            wait_until(lambda: slow.fillers > 10, "they do not drip")
            _others_are_served(node, recipient)
            assert 0 == slow.answered(), "they are not at their end"
            assert {b"HTTP/1.1 201 Created"} == set(slow.finish())
            recipient.wait(420)
        node.drain()
        assert 0 == node.stop()
    assert 420 == len(recipient.arrivals())


@pytest.mark.parametrize("requests", [_lists, _creates])
def test_never_reading(tmp_path: Path, requests: Callable[[], Iterator[bytes]]) -> None:
    """Who does not read the answers is not read either, after a while; it takes no memory."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url)
        _fill(node)
        _others_are_served(node, recipient)
        before_bytes = node.memory_bytes("VmRSS")
        node.forget_highest_memory()
        with Deaf(node, requests()) as deaf:
            _others_are_served(node, recipient)
            wait_until(lambda: deaf.stalled, "the node reads on and on")
            _others_are_served(node, recipient)
        grown_bytes = node.memory_bytes("VmHWM") - before_bytes
        assert 0 == node.stop()
    print(f"{deaf.asked} requests, {grown_bytes} bytes more")
    assert grown_bytes < 32 * MIB


def test_a_body_without_an_end(tmp_path: Path) -> None:
    """It is refused at the limit, again and again, and keeps nobody from being served."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url)
        with Flood(node) as flood:
            wait_until(lambda: bool(flood.answers), "it is not refused")
            _others_are_served(node, recipient)
        assert {b"413"} == {line.split()[1] for line in flood.answers}
        assert 0 == node.stop()
    print(f"refused {flood.answers.total()} times")


def test_a_stop_does_not_wait_for_them(tmp_path: Path) -> None:
    """With all of them connected, SIGTERM still ends the node in order."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url)
        _fill(node)
        with _head_drip(node) as head, _body_drip(node) as body, Deaf(node, _lists()) as deaf:
            wait_until(lambda: head.fillers > 10 < body.fillers, "they do not drip")
            wait_until(lambda: deaf.stalled, "the node reads on and on")
            for clients in (head, body, deaf):
                clients.give_up()
            assert 0 == node.stop(), node.log_tail()
        assert "unhandled" not in node.log.read_text()
