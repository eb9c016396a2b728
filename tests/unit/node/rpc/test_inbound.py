"""A connection that somebody else has dialled: nothing that comes there hurts more than itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc.framing import Kind, write
from node.rpc.hello import Hello, Self, read_hello, write_hello
from node.rpc.inbound import Inbound, State
from node.rpc.packing import pack
from tests.unit.node.rpc.wires import Wire
from timemachine import limits
from timemachine.errors import CodecError

HELLO = write(Kind.HELLO, write_hello(Self("c1", "n2", 2, 3, "h:2"), 1, 1))
PINGS = limits.RPC_PINGS_UNANSWERED_MAX


class _Desk:
    """Lets everybody in who says hello, and hears everybody who wants to join."""

    def __init__(self) -> None:
        self.open = 0
        self.said: list[tuple[Kind, bytes]] = []
        self.whys: list[str] = []

    def opened(self, connection: Inbound) -> None:
        self.open += 1

    def greeted(self, connection: Inbound, hello: bytes) -> None:
        connection.accept(read_hello(hello), b"welcome")

    def joining(self, connection: Inbound, kind: Kind, payload: bytes) -> None:
        if payload == b"bad":
            raise CodecError("bad")
        self.said.append((kind, payload))
        connection.join(60_000, 10)

    def closed(self, connection: Inbound, why: str) -> None:
        self.open -= 1
        self.whys.append(why)


class _Accepted:
    """A connection, its desk and its wire; `taken` are the frames of the engine."""

    def __init__(self, *said: bytes) -> None:
        self.desk = _Desk()
        self.taken: list[tuple[int, bytes]] = []
        self.inbound = Inbound(self.desk, lambda *taken: self.taken.append(taken))
        self.wire = Wire(self.inbound)
        for each in said:
            self.inbound.data_received(each)


def test_hello_and_frames() -> None:
    """A node is welcomed, its frames come with its number, its pings are answered."""
    node = _Accepted(HELLO, write(Kind.FRAME, b"1") + write(Kind.PING) + write(Kind.FRAME, b"2"))
    assert [(Kind.WELCOME, b"welcome"), (Kind.PONG, b"")] == node.wire.frames()
    assert [(2, b"1"), (2, b"2")] == node.taken
    assert (2, State.NODE) == (node.inbound.frames, node.inbound.state)
    assert isinstance(node.inbound.hello, Hello)
    assert "127.0.0.1:7" == node.inbound.peer


def test_parts() -> None:
    """A bulk frame is put together; others may come between its parts."""
    node = _Accepted(HELLO)
    for kind, payload in (
        (Kind.PART, b"a"),
        (Kind.FRAME, b"1"),
        (Kind.PART, b"b"),
        (Kind.PING, b""),
        (Kind.LAST_PART, b"c"),
        (Kind.LAST_PART, b"d"),
    ):
        node.inbound.data_received(write(kind, payload))
    assert [(2, b"1"), (2, b"abc"), (2, b"d")] == node.taken


def test_parts_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put together is bounded as a frame is."""
    monkeypatch.setattr(limits, "RPC_FRAME_BYTES_MAX", 100)
    node = _Accepted(HELLO, *[write(Kind.PART, bytes(30))] * 3)
    assert node.wire.open
    node.inbound.data_received(write(Kind.PART, bytes(30)))
    assert "aborted" == node.wire.closed
    node = _Accepted(HELLO, write(Kind.PART, b""))
    assert "aborted" == node.wire.closed


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.HELLO])
def test_what_a_stranger_may_not_say(kind: Kind) -> None:
    """Nothing before hello, but that it wants to join."""
    stranger = _Accepted(write(kind, b"x"))
    assert [] == stranger.taken
    if kind in (Kind.JOIN_ASK, Kind.JOIN_REQUEST):
        assert [(kind, b"x")] == stranger.desk.said
        # Who joins says no hello, on this connection.
        stranger.inbound.data_received(HELLO)
    assert "aborted" == stranger.wire.closed


@pytest.mark.parametrize(
    "kind", [kind for kind in Kind if kind not in {2, 3, 4, 5, 6, 7}] + [Kind.WELCOME, Kind.PONG]
)
def test_what_a_node_may_not_say(kind: Kind) -> None:
    """No second hello, nothing about joining, no answers to what was not asked."""
    node = _Accepted(HELLO, write(kind, HELLO[5:]))
    assert "aborted" == node.wire.closed


def test_kinds_of_another_version() -> None:
    """They end the connection; what follows is not looked at."""
    node = _Accepted(HELLO, write(Kind.FRAME, b"1") + b"\0\0\0\1\xc8" + write(Kind.FRAME, b"2"))
    assert ([(2, b"1")], "aborted") == (node.taken, node.wire.closed)
    node.inbound.data_received(write(Kind.FRAME, b"3"))
    node.inbound.connection_lost(None)
    assert [(2, b"1")] == node.taken
    assert ["a frame of kind 200 has no place here"] == node.desk.whys
    assert 0 == node.desk.open


def test_a_stranger_may_say_little() -> None:
    """What is longer than a hello is refused before it has come."""
    stranger = _Accepted((limits.RPC_HELLO_BYTES_MAX + 2).to_bytes(4, "big") + b"\1")
    assert "aborted" == stranger.wire.closed
    stranger = _Accepted(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert "aborted" == stranger.wire.closed


def test_a_joiner_that_makes_no_sense() -> None:
    """It is cut, as everybody else."""
    joiner = _Accepted(write(Kind.JOIN_ASK, b"bad"))
    assert "aborted" == joiner.wire.closed


def test_no_hello_in_time() -> None:
    """Whoever says nothing, or not enough, does not stay."""
    for said in (b"", HELLO[:-1]):
        stranger = _Accepted(said)
        for _ in range(limits.RPC_HELLO_MS // limits.RPC_PING_MS):
            stranger.inbound.tick()
            stranger.inbound.data_received(b"")
        assert stranger.wire.open
        stranger.inbound.tick()
        assert "aborted" == stranger.wire.closed


def test_a_silent_node() -> None:
    """Its connection does not stay; what it says keeps it, however little."""
    node = _Accepted(HELLO)
    for _ in range(3 * PINGS):
        node.inbound.tick()
        node.inbound.data_received(write(Kind.PING)[:1])
        node.inbound.data_received(write(Kind.PING)[1:])
    for _ in range(PINGS + 1):
        assert node.wire.open
        node.inbound.tick()
    node.inbound.tick()
    assert "aborted" == node.wire.closed


def test_much_is_acknowledged() -> None:
    """Before it is complete: a slow way must not be taken for a dead one."""
    node = _Accepted(HELLO)
    node.wire.frames()
    whole = write(Kind.FRAME, bytes(4 * limits.RPC_ACKNOWLEDGED_BYTES))
    for start in range(0, len(whole) - 10_000, 10_000):
        node.inbound.data_received(whole[start : start + 10_000])
    assert 3 <= len(node.wire.frames()) <= 4
    assert [] == node.taken


def test_who_asks_and_does_not_read() -> None:
    """Answers to it do not pile up."""
    node = _Accepted(HELLO)
    node.wire.full = True
    node.inbound.data_received(write(Kind.PING) * 3)
    assert "aborted" == node.wire.closed


def test_a_last_word() -> None:
    """It leaves before the connection ends, and nothing is read after it."""
    stranger = _Accepted()
    stranger.inbound.part(Kind.WELCOME, b"no", "refused")
    assert "closed" == stranger.wire.closed
    assert [(Kind.WELCOME, b"no")] == stranger.wire.frames()
    stranger.inbound.data_received(HELLO)
    stranger.inbound.connection_lost(None)
    assert (["refused"], None) == (stranger.desk.whys, stranger.inbound.hello)


def test_a_fault_of_this_node_is_not_hidden() -> None:
    """What the engine raises is not taken for nonsense of another node."""
    desk = _Desk()

    def take(number: int, frame: bytes) -> None:
        raise ZeroDivisionError

    inbound = Inbound(desk, take)
    Wire(inbound)
    inbound.data_received(HELLO)
    with pytest.raises(ZeroDivisionError):
        inbound.data_received(write(Kind.FRAME, b"x"))


PAYLOADS = st.one_of(
    st.binary(max_size=50),
    st.just(HELLO[5:]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=9)),
        lambda inner: st.lists(inner, max_size=10),
        max_leaves=12,
    ).map(pack),
)
SAID: Any = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda kind, payload: bytes([0, 0, 0, len(payload) % 256 + 1, kind]) + payload,
            st.integers(0, 14),
            PAYLOADS,
        ),
    ),
    max_size=12,
)


@given(SAID, st.booleans())
def test_any_bytes(said: list[bytes], after_hello: bool) -> None:
    """Nothing is raised, nothing is taken before a hello, and memory is bounded."""
    node = _Accepted(*([HELLO] if after_hello else []))
    for each in said:
        node.inbound.data_received(each)
        if node.inbound.hello is None:
            assert [] == node.taken
        assert len(node.inbound._reader._held) <= limits.RPC_FRAME_BYTES_MAX + 5
        node.inbound.tick()
    node.inbound.connection_lost(None)
    assert 0 == node.desk.open
