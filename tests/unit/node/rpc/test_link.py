"""The way to one node: what leaves first, what waits, and how it is dialled."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from node.rpc.framing import FrameReader, Kind, header, write
from node.rpc.hello import Self, write_welcome
from node.rpc.link import Dialling, Link
from node.rpc.outbound import Outbound
from tests.sim.world import SimWorld
from tests.unit.node.rpc.nodes import until
from timemachine import limits

OWN = Self("c1", "n1", 1, 7, "127.0.0.1:1")
OTHER = Self("c1", "n2", 2, 3, "127.0.0.1:2")
PIECE = limits.RPC_PIECE_BYTES


class _Up(Outbound):
    """A connection that takes so many frames before it asks for a pause."""

    def __init__(self, room: int = 1_000) -> None:
        super().__init__(b"", lambda: None)
        self.room = room
        self.written: list[tuple[Kind, bytes]] = []

    def write(self, kind: Kind, payload: bytes | memoryview) -> None:
        assert not self.paused
        self.written.append((kind, bytes(payload)))
        self.paused = len(self.written) >= self.room


def made(places: Any = ()) -> tuple[Link, SimWorld]:
    """A link that is not started, and its world."""
    world = SimWorld(1)
    loop = asyncio.get_running_loop()
    dialling = Dialling(
        world, loop, OWN, None, lambda _: list(places), lambda: None, lambda: 1, lambda: None
    )
    return Link(2, dialling), world


def connected(link: Link, up: Outbound | None) -> None:
    """As if it had been dialled."""
    link._up = up
    link._drain()


async def test_straight_through() -> None:
    """What can leave leaves at once."""
    link, _ = made()
    up = _Up()
    connected(link, up)
    link.send(b"1", bulk=False)
    link.send(b"2", bulk=True)
    assert [(Kind.FRAME, b"1"), (Kind.LAST_PART, b"2")] == up.written
    shown = link.statistics()
    assert (True, 2, 2, 0, 0) == (
        shown.connected,
        shown.frames,
        shown.bytes,
        shown.dropped,
        shown.waiting,
    )


async def test_bulk_waits_for_the_others() -> None:
    """Also between its pieces."""
    link, _ = made()
    link.send(b"b" * (2 * PIECE + 1), bulk=True)
    link.send(b"c", bulk=True)
    link.send(b"1", bulk=False)
    up = _Up(room=2)
    connected(link, up)
    assert [(Kind.FRAME, b"1"), (Kind.PART, b"b" * PIECE)] == up.written
    link.send(b"2", bulk=False)
    up.paused, up.room = False, 1_000
    link._drain()
    assert [
        (Kind.FRAME, b"2"),
        (Kind.PART, b"b" * PIECE),
        (Kind.LAST_PART, b"b"),
        (Kind.LAST_PART, b"c"),
    ] == up.written[2:]
    assert (4, 2 * PIECE + 4) == link.statistics()[1:3]


async def test_a_frame_of_exactly_some_pieces() -> None:
    """There is no empty part."""
    link, _ = made()
    up = _Up()
    connected(link, up)
    link.send(b"b" * (2 * PIECE), bulk=True)
    link.send(b"", bulk=False)
    assert [Kind.PART, Kind.LAST_PART, Kind.FRAME] == [kind for kind, _ in up.written]
    assert all(payload for kind, payload in up.written if kind != Kind.FRAME)


async def test_what_waited_too_long_never_leaves() -> None:
    """A vote from before the silence tells nothing; what came last does."""
    link, world = made()
    link.send(b"old", bulk=False)
    link.send(b"old", bulk=True)
    world.run_for(limits.RPC_WAITING_MS_MAX + 1)
    link.send(b"new", bulk=False)
    up = _Up()
    connected(link, up)
    assert [(Kind.FRAME, b"new")] == up.written
    assert 2 == link.statistics().dropped


async def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is dropped and counted; what is bulk does not push out what is not."""
    monkeypatch.setattr(limits, "RPC_WAITING_FRAMES_MAX", 2)
    monkeypatch.setattr(limits, "RPC_BULK_WAITING_BYTES_MAX", 3)
    monkeypatch.setattr(limits, "RPC_FRAME_BYTES_MAX", 10)
    link, _ = made()
    for frame in (b"1", b"2", b"3", b"much too long"):
        link.send(frame, bulk=False)
    for frame in (b"bb", b"bbb"):
        link.send(frame, bulk=True)
    shown = link.statistics()
    assert (3, 3, 5) == (shown.dropped, shown.waiting, shown.waiting_bytes)
    up = _Up()
    connected(link, up)
    assert [b"2", b"3", b"bbb"] == [payload for _, payload in up.written]


# --- dialling ----------------------------------------------------------------------------------


class _Other(asyncio.Protocol):
    """The other node, as far as a link knows it. `answer` is what it says to each hello."""

    def __init__(self, side: "_Side") -> None:
        self._side = side
        self._reader = FrameReader(limits.RPC_FRAME_BYTES_MAX)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._side.connections.append(self)
        if self._side.greets:
            self.transport.write(self._side.answer)

    def data_received(self, data: bytes) -> None:
        if self._side.greets:
            return
        for kind, payload in self._reader.feed(data):
            self._side.said.append((kind, payload))
            if kind == Kind.HELLO:
                self.transport.write(self._side.answer)


class _Side:
    """Where `_Other` listens. One that `greets` says its answer first, and does not listen."""

    def __init__(self, answer: bytes, *, greets: bool = False) -> None:
        self.answer = answer
        self.greets = greets
        self.connections: list[_Other] = []
        self.said: list[tuple[int, bytes]] = []

    async def listen(self) -> tuple[str, int]:
        """Take connections; returns where."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Other(self), "127.0.0.1", 0)
        address: tuple[str, int] = self.server.sockets[0].getsockname()
        return address

    def close(self) -> None:
        """Take no more, and end those that are there."""
        self.server.close()
        for each in self.connections:
            each.transport.abort()


@asynccontextmanager
async def linked(
    answer: bytes, *, greets: bool = False
) -> AsyncIterator[tuple[Link, SimWorld, _Side]]:
    """A link that is not started, and who is at the other end."""
    side = _Side(answer, greets=greets)
    link, world = made([await side.listen()])
    try:
        yield link, world, side
    finally:
        if ends := link.stop():
            await asyncio.wait(ends)
        side.close()


def welcome(own: Self = OTHER, version: int = 1, refused: str = "") -> bytes:
    """What a node answers."""
    return write(Kind.WELCOME, write_welcome(own, version, refused))


async def test_dialled_again_and_again() -> None:
    """However often the connection is lost; what was sent meanwhile follows."""
    async with linked(welcome()) as (link, _, side):
        link.start()
        for count in range(3):
            sent = b"%d" % count
            link.send(sent, bulk=False)
            await until(lambda sent=sent: (Kind.FRAME, sent) in side.said)  # type: ignore[misc]
            assert link.connected
            side.connections[-1].transport.abort()
            await until(lambda: not link.connected)
        assert link.statistics().connects >= 3


async def test_the_next_address_is_tried() -> None:
    """One of them may be out of date."""
    nobody = _Side(b"")
    wrong = await nobody.listen()
    nobody.close()
    async with linked(welcome()) as (link, _, _):
        places = [wrong, *link._dialling.addresses(2)]
        link._dialling = link._dialling._replace(addresses=lambda _: places)
        link.start()
        await until(lambda: link.connected)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (welcome(version=0, refused="unknown_node"), "it does not know a node of our number (yet)"),
        (welcome(version=0, refused="new_reason"), "new_reason"),
        (welcome(OTHER._replace(number=3)), "another node is at this address"),
        (welcome(OTHER._replace(cluster_id="c2")), "another node is at this address"),
        (welcome(version=9), "another node is at this address"),
        (header(Kind.WELCOME, 2**31), "a frame of 2147483649 bytes cannot be"),
        (b"220 mail.example ESMTP\r\n", "a frame of 842149920 bytes cannot be"),
    ],
)
async def test_who_is_not_the_other_node(answer: bytes, why: str) -> None:
    """No frame goes there."""
    async with linked(answer) as (link, _, side):
        link.start()
        link.send(b"secret", bulk=False)
        await until(lambda: link.statistics().dials >= 3)
        assert (False, why) == (link.connected, link.statistics().failure)
        assert {Kind.HELLO} == {kind for kind, _ in side.said}


async def test_nobody_answers_a_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a process that is stopped: its system accepts, and it never reads."""
    monkeypatch.setattr(limits, "RPC_HELLO_MS", 50)
    async with linked(b"") as (link, _, side):
        link.start()
        await until(lambda: link.statistics().failure)
        assert "no answer in time" == link.statistics().failure
        side.answer = welcome()
        monkeypatch.setattr(limits, "RPC_HELLO_MS", 3_000)
        await until(lambda: link.connected)


async def test_a_silent_connection_is_dialled_anew() -> None:
    """TCP would wait for minutes, and longer after each repeat."""
    async with linked(welcome()) as (link, _, side):
        link.start()
        await until(lambda: link.connected)
        for _ in range(limits.RPC_PINGS_UNANSWERED_MAX + 1):
            link.tick()
        await until(lambda: len(side.connections) == 2 and link.connected)


async def test_no_address_yet() -> None:
    """It is looked up at each attempt, and whoever is told of one makes haste."""
    async with linked(welcome()) as (link, _, _):
        places: list[tuple[str, int]] = []
        (place,) = link._dialling.addresses(2)
        link._dialling = link._dialling._replace(addresses=lambda _: places)
        link.start()
        await until(lambda: link.statistics().failure)
        assert "no address is known" == link.statistics().failure
        places.append(place)
        link.hurry()
        await until(lambda: link.connected)


async def test_tls_where_there_is_none() -> None:
    """Somebody who does not speak it is no node."""
    async with linked(b"no TLS", greets=True) as (link, _, side):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        link._dialling = link._dialling._replace(tls=lambda: context)
        link.start()
        await until(lambda: link.statistics().failure)
        assert not link.connected
        assert [] == side.said
