"""A connection that this node has dialled."""

import pytest

from node.rpc.framing import Kind, write
from node.rpc.hello import Self, write_welcome
from node.rpc.outbound import Outbound
from tests.unit.node.rpc.wires import Wire
from timemachine import limits

WELCOME = write(Kind.WELCOME, write_welcome(Self("c1", "n2", 2, 3, "h:2"), 1))


class _Dialled:
    """A connection and its wire."""

    def __init__(self) -> None:
        self.resumed = 0
        self.outbound = Outbound(b"hello", self._resume)
        self.wire = Wire(self.outbound)

    def _resume(self) -> None:
        self.resumed += 1


async def test_hello_first() -> None:
    """Then nothing until it is answered."""
    dialled = _Dialled()
    assert [(Kind.HELLO, b"hello")] == dialled.wire.frames()
    assert not dialled.outbound.welcome.done()
    dialled.outbound.data_received(WELCOME[:9])
    dialled.outbound.data_received(WELCOME[9:])
    assert "n2" == (await dialled.outbound.welcome).node_id
    dialled.outbound.write(Kind.FRAME, memoryview(b"frame"))
    assert [(Kind.FRAME, b"frame")] == dialled.wire.frames()


async def test_the_end_before_an_answer() -> None:
    """Whoever waits for it learns of it."""
    for error, why in ((None, "the other side closed it"), (OSError("broken"), "broken")):
        dialled = _Dialled()
        dialled.outbound.connection_lost(error)
        with pytest.raises(ConnectionError, match=why):
            await dialled.outbound.welcome
        assert why == await dialled.outbound.ended
        dialled.outbound.write(Kind.FRAME, b"too late")
        assert dialled.outbound.ping()
        assert dialled.outbound.paused


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        WELCOME + WELCOME,
        write(Kind.WELCOME, b"x"),
        write(Kind.FRAME, b"x"),
        write(Kind.PING),
        b"\0\1\0\0\2",
    ],
)
async def test_what_the_other_side_may_not_say(said: bytes) -> None:
    """It answers a hello and pings, and says nothing else."""
    dialled = _Dialled()
    dialled.outbound.data_received(said)
    assert "aborted" == dialled.wire.closed
    dialled.outbound.connection_lost(None)
    assert "the other side closed it" != await dialled.outbound.ended


async def test_silence() -> None:
    """After some questions without an answer nobody is there; any answer is one to all."""
    dialled = _Dialled()
    dialled.outbound.data_received(WELCOME)
    dialled.wire.frames()
    for _ in range(3):
        for _ in range(limits.RPC_PINGS_UNANSWERED_MAX):
            assert dialled.outbound.ping()
        dialled.outbound.data_received(write(Kind.PONG))
    for _ in range(limits.RPC_PINGS_UNANSWERED_MAX):
        assert dialled.outbound.ping()
    assert not dialled.outbound.ping()
    assert 4 * limits.RPC_PINGS_UNANSWERED_MAX == len(dialled.wire.frames())


async def test_pauses() -> None:
    """Nothing more is asked for while the other side is slow; but its silence counts."""
    dialled = _Dialled()
    dialled.outbound.data_received(WELCOME)
    dialled.wire.frames()
    dialled.outbound.pause_writing()
    assert dialled.outbound.paused
    for _ in range(limits.RPC_PINGS_UNANSWERED_MAX):
        assert dialled.outbound.ping()
    assert not dialled.outbound.ping()
    assert [] == dialled.wire.frames()
    dialled.outbound.resume_writing()
    assert (False, 1) == (dialled.outbound.paused, dialled.resumed)


async def test_ends() -> None:
    """Cut now, or closed after what was written; the first reason is the one that is told."""
    dialled = _Dialled()
    dialled.outbound.cut("silent")
    dialled.outbound.cut("later")
    assert "aborted" == dialled.wire.closed
    dialled.outbound.connection_lost(None)
    assert "silent" == await dialled.outbound.ended
    dialled = _Dialled()
    dialled.outbound.close("over")
    assert "closed" == dialled.wire.closed
    dialled.outbound.connection_lost(None)
    assert "over" == await dialled.outbound.ended
