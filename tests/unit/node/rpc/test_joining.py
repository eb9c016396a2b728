"""To become a node: over real connections, against what serves it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from node.clock import RealWorld
from node.rpc import joining
from node.rpc.joindesk import JoinDesk
from node.rpc.joining import join
from node.rpc.joinwords import Elsewhere, Joined, JoinRequest, Member, Refused
from tests.unit.node.rpc.nodes import Member as Server
from tests.unit.node.rpc.nodes import Nodes, nodes, until
from tests.unit.node.rpc.test_joinwords import NODE
from timemachine.errors import ConfigError, Unavailable

KEY = b"k" * 32
REQUEST = JoinRequest("t", NODE)
JOINED = Joined("c1", 4, (Member(1, "n1", "r:1"),), "# keys")


def world() -> RealWorld:
    """Clocks and chance."""
    return RealWorld(asyncio.get_running_loop())


@asynccontextmanager
async def hearing(
    on_join: Callable[[JoinRequest, Callable[[Any], None]], None], count: int = 1
) -> AsyncIterator[Nodes]:
    """Nodes that hear joiners."""
    desk = JoinDesk(world(), {"t": KEY}.get, on_join)
    async with nodes(count, desk=desk) as cluster:
        yield cluster


def place(server: Server) -> list[tuple[str, int]]:
    """Where to join."""
    return [server.address]


async def test_taken_in() -> None:
    """Number, nodes and keys come back; and again, if the answer was lost."""
    asked: list[JoinRequest] = []

    def on_join(request: JoinRequest, answer: Callable[[Any], None]) -> None:
        asked.append(request)
        asyncio.get_running_loop().call_soon(answer, JOINED)

    async with hearing(on_join) as cluster:
        for _ in range(2):
            assert JOINED == await join(world(), place(cluster.members[1]), REQUEST, KEY)
        assert [REQUEST, REQUEST] == asked
        await until(lambda: not cluster.members[1].rpc.statistics()["strangers"])


async def test_sent_to_the_node_leader() -> None:
    """Who is asked first need not be who decides; nor need it be there."""
    leader: list[tuple[str, int]] = []
    asked = 0

    def on_join(request: JoinRequest, answer: Callable[[Any], None]) -> None:
        nonlocal asked
        asked += 1
        host, port = leader[0]
        answer(Elsewhere(f"{host}:{port}") if asked == 1 else JOINED)

    async with hearing(on_join, 2) as cluster:
        leader += place(cluster.members[2])
        gone = await _nobody()
        places = [gone, *place(cluster.members[1])]
        assert JOINED == await join(world(), places, REQUEST, KEY)
        assert 2 == asked


async def _nobody() -> tuple[str, int]:
    """An address where nobody listens."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    address: tuple[str, int] = server.sockets[0].getsockname()
    server.close()
    return address


async def test_refused_for_good() -> None:
    """By who knows the token: at once, with the reason."""
    async with hearing(lambda _, answer: answer(Refused("it was used by n3"))) as cluster:
        with pytest.raises(ConfigError, match="it was used by n3"):
            await join(world(), place(cluster.members[1]), REQUEST, KEY)


async def test_not_yet() -> None:
    """While there is no leader the same is asked again."""
    answers: list[Any] = [Refused("no leader", again=True), Elsewhere("nowhere.invalid:1"), JOINED]
    async with hearing(lambda _, answer: answer(answers.pop(0))) as cluster:
        assert JOINED == await join(world(), place(cluster.members[1]), REQUEST, KEY)


async def test_sent_in_circles() -> None:
    """One does not follow for ever."""
    answers = 0
    address = ""

    def on_join(request: JoinRequest, answer: Callable[[Any], None]) -> None:
        nonlocal answers
        answers += 1
        answer(Elsewhere(address) if answers <= 3 else JOINED)

    async with hearing(on_join) as cluster:
        address = "{}:{}".format(*cluster.members[1].address)
        assert JOINED == await join(world(), place(cluster.members[1]), REQUEST, KEY)
        assert 4 == answers


async def test_a_token_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked a few times, since it may be younger than what a node knows; then told."""
    monkeypatch.setattr(joining, "_PAUSE_S", 0.001)
    async with hearing(lambda *_: None) as cluster:
        for request, key in ((JoinRequest("u", NODE), KEY), (REQUEST, b"l" * 32)):
            with pytest.raises(ConfigError, match="unknown here"):
                await join(world(), place(cluster.members[1]), request, key)


async def test_nobody_decides() -> None:
    """It ends after a time, and tells who was asked last."""
    host, port = await _nobody()
    with pytest.raises(Unavailable, match=rf"{host}:{port}: Connect"):
        await join(world(), [(host, port)], REQUEST, KEY, timeout_ms=1_000)
    async with hearing(lambda *_: None) as cluster:
        with pytest.raises(Unavailable):
            await join(world(), place(cluster.members[1]), REQUEST, KEY, timeout_ms=50)


async def test_a_node_that_hears_nobody() -> None:
    """It ends the conversation; that is no reason to give up."""
    async with nodes(1) as cluster:
        with pytest.raises(Unavailable, match=r"closed|reset|unknown"):
            await join(world(), place(cluster.members[1]), REQUEST, KEY, timeout_ms=100)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\2\x09x",
        b"\0\0\0\1\x0b",
        b"\0\0\0\2\x0cx",
        b"\0\0\0\1\x03" * 50,
        b"\xff" * 100,
    ],
)
async def test_others_that_listen_there(said: bytes) -> None:
    """Whatever they say, it is no answer; the next address is tried."""

    class Other(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(said)

    server = await asyncio.get_running_loop().create_server(Other, "127.0.0.1", 0)
    async with hearing(lambda _, answer: answer(JOINED)) as cluster:
        places = [server.sockets[0].getsockname(), *place(cluster.members[1])]
        assert JOINED == await join(world(), places, REQUEST, KEY)
    server.close()
