"""Where nodes that are none yet are heard: the token proven, then asked to be taken in."""

import hmac
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from node.env import World
from node.rpc.framing import Kind
from node.rpc.joinwords import (
    NONCE_BYTES,
    PRIVATE_BYTES,
    Ask,
    Challenge,
    JoinAnswer,
    Joined,
    JoinRequest,
    KeyExchange,
    Refused,
    check_ask,
    common_version,
    prove,
    read_ask,
    read_proven,
    read_request,
    seal_answer,
    transcript,
)
from node.rpc.packing import pack
from timemachine import limits
from timemachine.errors import CodecError

_MINUTE_MS: Final = 60_000.0

UNKNOWN_TOKEN: Final = "The join token is unknown here: mistyped, used up, expired, or too new."

OnJoin = Callable[[JoinRequest, Callable[[JoinAnswer], None]], None]

log = structlog.get_logger()


class Caller(Protocol):
    """The connection of a joiner."""

    @property
    def peer(self) -> str:
        """Its address, for people."""

    def join(self, patience_ms: int, bytes_max: int) -> None:
        """It is given so much time from here on."""

    def say(self, kind: Kind, payload: bytes) -> None:
        """Tell it something."""

    def part(self, kind: Kind, payload: bytes, why: str) -> None:
        """Tell it a last thing."""


class _Exchange:
    """How far one joiner is."""

    __slots__ = ("ask", "keys", "said", "waiting")

    def __init__(self, ask: Ask, keys: KeyExchange, said: tuple[bytes, bytes]) -> None:
        self.ask = ask
        self.keys = keys
        self.said = said
        self.waiting = False


class JoinDesk:
    """Hears joiners, a bounded number at a time and in a minute.

    find_key  the SHA-256 of the secret of the token with that id, or None
    on_join   decides about a joiner who has proven its token, and answers at once or later. It
              may be asked twice for the same, by a joiner that has lost the answer
    """

    def __init__(
        self, world: World, find_key: Callable[[str], bytes | None], on_join: OnJoin
    ) -> None:
        self._world = world
        self._find_key = find_key
        self._on_join = on_join
        self._exchanges: dict[Caller, _Exchange] = {}
        self._begun: deque[float] = deque()
        # For unknown tokens: the same arithmetic is done, so that time tells nothing.
        self._no_key = world.random_bytes(32)

    def __len__(self) -> int:
        return len(self._exchanges)

    def hear(self, caller: Caller, kind: Kind, payload: bytes) -> None:
        """A joiner says something. Raises CodecError for what makes no sense."""
        exchange = self._exchanges.get(caller)
        if kind == Kind.JOIN_ASK and exchange is None:
            self._asked(caller, payload)
        elif kind == Kind.JOIN_REQUEST and exchange is not None and not exchange.waiting:
            self._requested(caller, exchange, payload)
        else:
            raise CodecError(f"a frame of kind {kind} has no place here")

    def closed(self, caller: Caller) -> None:
        """A connection is gone; whether it was a joiner's does not matter."""
        self._exchanges.pop(caller, None)

    def _asked(self, caller: Caller, payload: bytes) -> None:
        ask: Ask = read_ask(payload)
        check_ask(ask)
        version = common_version(ask.first, ask.last)
        if not version:
            _refuse(caller, Refused("No version of the protocol is spoken by both."))
            return
        if self._is_busy():
            _refuse(caller, Refused("Too many want to join at the moment.", again=True))
            return
        keys = KeyExchange(self._world.random_bytes(PRIVATE_BYTES))
        nonce = self._world.random_bytes(NONCE_BYTES)
        challenge = pack(Challenge(version, nonce, keys.public))
        self._exchanges[caller] = _Exchange(ask, keys, (payload, challenge))
        caller.join(limits.RPC_HELLO_MS, limits.RPC_HELLO_BYTES_MAX)
        caller.say(Kind.JOIN_CHALLENGE, challenge)

    def _is_busy(self) -> bool:
        now_ms = self._world.mono_ms()
        begun = self._begun
        while begun and begun[0] < now_ms - _MINUTE_MS:
            begun.popleft()
        if (
            len(self._exchanges) >= limits.RPC_JOINS_MAX
            or len(begun) >= limits.RPC_JOINS_PER_MINUTE_MAX
        ):
            return True
        begun.append(now_ms)
        return False

    def _requested(self, caller: Caller, exchange: _Exchange, payload: bytes) -> None:
        proven = read_proven(payload)
        ask = exchange.ask
        key = self._find_key(ask.token)
        words = transcript(*exchange.said, proven.request)
        if not hmac.compare_digest(prove(key or self._no_key, words), proven.proof) or key is None:
            log.warning("a joiner has no valid token", peer=caller.peer, token=ask.token[:100])
            _refuse(caller, Refused(UNKNOWN_TOKEN))
            return
        request: JoinRequest = read_request(proven.request)
        if request.token != ask.token:
            raise CodecError("a request with another token")
        answer_key = exchange.keys.answer_key(ask.public, key, words + proven.proof)
        exchange.waiting = True
        caller.join(limits.RPC_JOIN_MS, limits.RPC_HELLO_BYTES_MAX)

        def answer(decided: JoinAnswer) -> None:
            # It may be gone, or answered already.
            if self._exchanges.pop(caller, None) is not exchange:
                return
            log.info(
                "answered a joiner",
                peer=caller.peer,
                id=request.node.id,
                token=request.token,
                number=decided.number if isinstance(decided, Joined) else 0,
                refused=decided.reason if isinstance(decided, Refused) else "",
            )
            caller.part(Kind.JOIN_ANSWER, seal_answer(answer_key, decided), "answered")

        self._on_join(request, answer)


def _refuse(caller: Caller, refused: Refused) -> None:
    caller.part(Kind.JOIN_REFUSED, pack(refused), refused.reason)
