"""The side of a joiner's conversation that has something to lose."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc.framing import Kind
from node.rpc.joindesk import UNKNOWN_TOKEN, JoinDesk
from node.rpc.joinwords import (
    MAGIC,
    Ask,
    Joined,
    JoinRequest,
    KeyExchange,
    Proven,
    Refused,
    open_answer,
    prove,
    read_challenge,
    read_refused,
    transcript,
)
from node.rpc.packing import pack
from tests.sim.world import SimWorld
from tests.unit.node.rpc.test_joinwords import NODE
from timemachine import limits
from timemachine.errors import CodecError

KEY = b"k" * 32
TOKEN = "t"
JOINED = Joined("c1", 4, (), "# keys")


class _Caller:
    """A connection to the desk."""

    peer = "127.0.0.1:7"

    def __init__(self) -> None:
        self.said: list[tuple[Kind, bytes]] = []
        self.parted = False
        self.patience_ms = 0

    def join(self, patience_ms: int, bytes_max: int) -> None:
        self.patience_ms = patience_ms

    def say(self, kind: Kind, payload: bytes) -> None:
        assert not self.parted
        self.said.append((kind, payload))

    def part(self, kind: Kind, payload: bytes, why: str) -> None:
        self.say(kind, payload)
        self.parted = True


class _Desk:
    """A desk that knows one token, `t`. `asked` are the requests that came so far."""

    def __init__(self) -> None:
        self.world = SimWorld(1)
        self.asked: list[Any] = []
        self.desk = JoinDesk(self.world, {"t": KEY}.get, lambda *asked: self.asked.append(asked))

    def ask(self, token: str = TOKEN, **changed: Any) -> "_Joiner":
        """Somebody who has asked."""
        return _Joiner(self.desk, token, **changed)


class _Joiner:
    """Who asks."""

    def __init__(self, desk: JoinDesk, token: str, **changed: Any) -> None:
        self.caller = _Caller()
        self.keys = KeyExchange(bytes([7]) * 32)
        self.token = token
        self._desk = desk
        ask = Ask(MAGIC, 1, 1, token, bytes(32), self.keys.public)
        self.ask = pack(msgspec.structs.replace(ask, **changed))
        desk.hear(self.caller, Kind.JOIN_ASK, self.ask)

    def request(self, key: bytes = KEY, wanted: Any = None, **changed: Any) -> None:
        """Show the token."""
        ((_, challenge),) = self.caller.said
        packed = pack(wanted or JoinRequest(self.token, NODE))
        words = transcript(self.ask, challenge, packed)
        proven = msgspec.structs.replace(Proven(prove(key, words), packed), **changed)
        self._desk.hear(self.caller, Kind.JOIN_REQUEST, pack(proven))
        self.answer_key = self.keys.answer_key(
            read_challenge(challenge).public, key, words + proven.proof
        )

    @property
    def refused(self) -> Refused:
        """How it was refused before it had proven anything."""
        kind, payload = self.caller.said[-1]
        assert (Kind.JOIN_REFUSED, True) == (kind, self.caller.parted)
        refused: Refused = read_refused(payload)
        return refused


def test_taken_in() -> None:
    """The request reaches who decides, and the answer the joiner."""
    desk = _Desk()
    joiner = desk.ask()
    joiner.request()
    ((wanted, answer),) = desk.asked
    assert JoinRequest("t", NODE) == wanted
    assert limits.RPC_JOIN_MS == joiner.caller.patience_ms
    assert not joiner.caller.parted
    answer(JOINED)
    kind, sealed = joiner.caller.said[-1]
    assert (Kind.JOIN_ANSWER, JOINED) == (kind, open_answer(joiner.answer_key, sealed))
    assert joiner.caller.parted
    assert 0 == len(desk.desk)
    answer(JOINED)
    assert 2 == len(joiner.caller.said)


def test_gone_before_the_answer() -> None:
    """It asks again; nothing of the first time is left."""
    desk = _Desk()
    joiner = desk.ask()
    joiner.request()
    desk.desk.closed(joiner.caller)
    desk.asked[0][1](JOINED)
    assert 1 == len(joiner.caller.said)
    assert 0 == len(desk.desk)


def test_no_token() -> None:
    """An unknown one, a wrong secret and a changed request look the same."""
    desk = _Desk()
    other = pack(JoinRequest("t", msgspec.structs.replace(NODE, id="n5")))
    for token, key, changed in (
        ("u", KEY, {}),
        ("t", b"l" * 32, {}),
        ("t", KEY, {"proof": b""}),
        ("t", KEY, {"request": other}),
    ):
        joiner = desk.ask(token)
        joiner.request(key, **changed)
        assert Refused(UNKNOWN_TOKEN) == joiner.refused
    assert [] == desk.asked


def test_a_proof_is_worth_nothing_elsewhere() -> None:
    """Who has recorded one cannot show it again."""
    desk = _Desk()
    first = desk.ask()
    ((_, challenge),) = first.caller.said
    packed = pack(JoinRequest("t", NODE))
    proven = pack(Proven(prove(KEY, transcript(first.ask, challenge, packed)), packed))
    second = desk.ask()
    desk.desk.hear(second.caller, Kind.JOIN_REQUEST, proven)
    assert Refused(UNKNOWN_TOKEN) == second.refused
    desk.desk.hear(first.caller, Kind.JOIN_REQUEST, proven)
    assert 1 == len(desk.asked)


def test_a_token_for_another_request() -> None:
    """The request names the token that was proven."""
    joiner = _Desk().ask()
    with pytest.raises(CodecError):
        joiner.request(wanted=JoinRequest("u", NODE))


def test_out_of_turn() -> None:
    """One question, one request."""
    desk = _Desk()
    with pytest.raises(CodecError):
        desk.desk.hear(_Caller(), Kind.JOIN_REQUEST, b"")
    joiner = desk.ask()
    with pytest.raises(CodecError):
        desk.desk.hear(joiner.caller, Kind.JOIN_ASK, joiner.ask)
    joiner.request()
    with pytest.raises(CodecError):
        joiner.request()


@pytest.mark.parametrize(
    "changed", [{"magic": "x"}, {"nonce": b""}, {"nonce": bytes(33)}, {"public": b""}]
)
def test_who_does_not_mean_us(changed: dict[str, Any]) -> None:
    """Nothing is kept for them."""
    desk = _Desk()
    with pytest.raises(CodecError):
        desk.ask(**changed)
    assert 0 == len(desk.desk)


def test_a_public_key_that_is_none() -> None:
    """It is noticed when the token is proven."""
    joiner = _Desk().ask(public=bytes(32))
    with pytest.raises(CodecError):
        joiner.request()


def test_another_version() -> None:
    """The reason is told."""
    assert "version" in _Desk().ask(first=2, last=3).refused.reason


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and in a minute; they may come again."""
    monkeypatch.setattr(limits, "RPC_JOINS_MAX", 2)
    monkeypatch.setattr(limits, "RPC_JOINS_PER_MINUTE_MAX", 3)
    desk = _Desk()
    first, _, third = desk.ask(), desk.ask(), desk.ask()
    assert third.refused.again
    desk.desk.closed(first.caller)
    fourth = desk.ask()
    assert not fourth.caller.parted
    desk.desk.closed(fourth.caller)
    assert desk.ask().refused.again
    desk.world.run_for(60_001)
    assert not desk.ask().caller.parted


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_any_bytes(ask: bytes, request: bytes) -> None:
    """They reach nobody who decides."""
    desk = _Desk()
    caller = _Caller()
    with pytest.raises(CodecError):
        desk.desk.hear(caller, Kind.JOIN_ASK, ask)
    joiner = desk.ask()
    with pytest.raises(CodecError):
        desk.desk.hear(joiner.caller, Kind.JOIN_REQUEST, request)
    assert [] == desk.asked
