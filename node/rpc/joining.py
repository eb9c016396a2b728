"""To become a node of a cluster that is there already."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import structlog

from node.config import RPC_PORT, split_address
from node.env import World
from node.rpc.dial import attach, dial, sentence
from node.rpc.framing import FrameReader, Kind, write
from node.rpc.joinwords import (
    MAGIC,
    NONCE_BYTES,
    PRIVATE_BYTES,
    VERSION_FIRST,
    VERSION_LAST,
    Ask,
    Challenge,
    Elsewhere,
    JoinAnswer,
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
from node.rpc.listener import shown
from node.rpc.packing import pack
from timemachine import limits
from timemachine.errors import CodecError, ConfigError, Unavailable

_PAUSE_S: Final = 0.2
_PAUSE_S_MAX: Final = 2.0
_ROUNDS_REFUSED: Final = 3
"""A token that was made a moment ago may not have come to the node that was asked."""

_HOPS_MAX: Final = 3
"""To the node leader, and once more if that has just changed."""

_PATIENCE_S: Final = (limits.RPC_HELLO_MS + limits.RPC_JOIN_MS) / 1000
_REASON_CHARACTERS_MAX: Final = 200

Address = tuple[str, int]

log = structlog.get_logger()


class _Outcome(NamedTuple):
    """What came of asking one node. Not `proven` is what anybody could have said."""

    why: str
    answer: JoinAnswer | None = None
    proven: bool = False

    @property
    def final(self) -> bool:
        """Whether the same will be refused again."""
        return isinstance(self.answer, Refused) and not self.answer.again


async def join(
    world: World,
    addresses: Sequence[Address],
    request: JoinRequest,
    key: bytes,
    *,
    source: str | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_ms: int = limits.RPC_JOINING_MS,
) -> Joined:
    """Ask the nodes at these RPC addresses, one after the other, to be taken in.

    `request.token` is the id of a token, and `key` its `secret_hash` (`timemachine.jointokens`).
    An answer may name the node leader's address, which is asked next. Whoever loses the answer
    asks again with the same request. Raises ConfigError when it is refused for good, Unavailable
    when nobody has decided in time.
    """
    caller = _Caller(world, request, key, source, tls)
    why = "nobody was asked"
    refused_rounds = 0
    pause_s = _PAUSE_S
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            while refused_rounds < _ROUNDS_REFUSED:
                all_refused = True
                for address in addresses:
                    outcome = await caller.ask_there(address)
                    why = f"{shown(*address)}: {outcome.why}"
                    if isinstance(outcome.answer, Joined):
                        return outcome.answer
                    if outcome.final and outcome.proven:
                        raise ConfigError(f"join: {why}")
                    all_refused = all_refused and outcome.final
                refused_rounds = refused_rounds + 1 if all_refused else 0
                log.info("not taken in yet", reason=why)
                await asyncio.sleep(pause_s * (0.5 + world.random()))
                pause_s = min(pause_s * 2, _PAUSE_S_MAX)
    except TimeoutError:
        raise Unavailable(f"join: No node took this one in; the last one, {why}") from None
    raise ConfigError(f"join: {why}")


class _Caller:
    """One who asks, as often as it takes."""

    def __init__(
        self,
        world: World,
        request: JoinRequest,
        key: bytes,
        source: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._world = world
        self._request = request
        self._key = key
        self._source = source
        self._tls = tls

    async def ask_there(self, address: Address) -> _Outcome:
        """Ask at an address, and where one is sent from there."""
        for _ in range(_HOPS_MAX):
            outcome = await self._ask(address)
            if not isinstance(outcome.answer, Elsewhere):
                return outcome
            try:
                address = split_address(outcome.answer.address, "join", default_port=RPC_PORT)
            except ConfigError as error:
                return _Outcome(error.detail)
        return _Outcome("sent from one node to the next")

    async def _ask(self, address: Address) -> _Outcome:
        loop = asyncio.get_running_loop()
        conversation = _Conversation()
        host, port = address
        try:
            stream = await dial(loop, host, port, self._source)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await attach(loop, conversation, stream, host, self._tls)
                    return await self._talk(conversation)
            finally:
                conversation.cut()
                stream.close()
        except (OSError, ValueError) as error:
            return _Outcome(sentence(error))
        except CodecError as error:
            return _Outcome(error.detail)

    async def _talk(self, conversation: "_Conversation") -> _Outcome:
        world, request = self._world, self._request
        keys = KeyExchange(world.random_bytes(PRIVATE_BYTES))
        nonce = world.random_bytes(NONCE_BYTES)
        ask = pack(Ask(MAGIC, VERSION_FIRST, VERSION_LAST, request.token, nonce, keys.public))
        said = await conversation.ask(Kind.JOIN_ASK, ask)
        if said.kind == Kind.JOIN_REFUSED:
            return _unproven(said.payload)
        challenge: Challenge = read_challenge(said.expect(Kind.JOIN_CHALLENGE))
        if not VERSION_FIRST <= challenge.version <= VERSION_LAST:
            raise CodecError("it speaks another version")
        packed = pack(request)
        words = transcript(ask, said.payload, packed)
        proof = prove(self._key, words)
        answer_key = keys.answer_key(challenge.public, self._key, words + proof)
        said = await conversation.ask(Kind.JOIN_REQUEST, pack(Proven(proof, packed)))
        if said.kind == Kind.JOIN_REFUSED:
            return _unproven(said.payload)
        answer = open_answer(answer_key, said.expect(Kind.JOIN_ANSWER))
        why = answer.reason if isinstance(answer, Refused) else ""
        return _Outcome(why, answer, proven=True)


def _unproven(payload: bytes) -> _Outcome:
    refused: Refused = read_refused(payload)
    return _Outcome(refused.reason[:_REASON_CHARACTERS_MAX], refused)


class _Said(NamedTuple):
    kind: int
    payload: bytes

    def expect(self, kind: Kind) -> bytes:
        """The payload, if it is of this kind. Raises CodecError."""
        if self.kind != kind:
            raise CodecError(f"a frame of kind {self.kind} has no place here")
        return self.payload


class _Conversation(asyncio.Protocol):
    """A connection on which one says something, and then hears something."""

    def __init__(self) -> None:
        self._reader = FrameReader(limits.RPC_JOIN_ANSWER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._heard: asyncio.Future[_Said] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            received = self._reader.feed(data)
        except CodecError as error:
            self._fail(error)
            return
        for kind, payload in received:
            if self._heard is None or self._heard.done():
                self.cut()
                return
            self._heard.set_result(_Said(kind, payload))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self._fail(ConnectionError(str(exc) if exc is not None else "the other side closed it"))

    def _fail(self, error: Exception) -> None:
        if self._heard is not None and not self._heard.done():
            self._heard.set_exception(error)
        self.cut()

    async def ask(self, kind: Kind, payload: bytes) -> _Said:
        """Say something, and wait for what comes. Raises OSError, CodecError."""
        if self._transport is None:
            raise ConnectionError("the other side closed it")
        self._heard = asyncio.get_running_loop().create_future()
        self._transport.write(write(kind, payload))
        return await self._heard

    def cut(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
