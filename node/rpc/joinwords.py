"""How a node that is none yet proves that it has a token, and what it gets for it.

Of a token (`timemachine.jointokens`) the cluster keeps the SHA-256 of the secret, under the id:
that is the key here, and neither it nor the secret is ever sent.

    joiner                                      a node of the cluster
    ask: token id, nonce, public key   ->
                                       <-       challenge: nonce, public key
    request, HMAC(key, all of that)    ->
                                       <-       answer, sealed

All of what was said before is the transcript. The proof is worth nothing on another connection,
since the node's nonce is in it, and it covers the request. The answer is sealed with a key from
the token's key, the transcript and an exchange of keys that are forgotten afterwards (X25519,
RFC 7748; HKDF, RFC 5869; AES-256-GCM): who records it cannot read it, also when the token's key
becomes known later, and who can seal it knows the token, so a joiner trusts nobody else.
"""

import hashlib
import hmac
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from node.rpc.packing import pack, unpacker
from timemachine.errors import CodecError
from timemachine.model import Node

MAGIC: Final = "timemachine join"
VERSION_FIRST: Final = 1
VERSION_LAST: Final = 1
NONCE_BYTES: Final = 32
PRIVATE_BYTES: Final = 32
_PROOF_LABEL: Final = b"timemachine join 1 proof"
_ANSWER_LABEL: Final = b"timemachine join 1 answer"
_NONCE: Final = bytes(12)
"""Of AES-GCM. Each key seals one answer and no more, so that it need not be drawn."""


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """What a joiner says first. `public` is its X25519 key for this connection."""

    magic: str
    first: int
    last: int
    token: str
    nonce: bytes
    public: bytes


class Challenge(msgspec.Struct, frozen=True, array_like=True):
    """What a node answers; `version` is what both speak from here on."""

    version: int
    nonce: bytes
    public: bytes


class JoinRequest(msgspec.Struct, frozen=True, array_like=True):
    """Who wants to join.

    token    the id of its token, without the secret
    node     itself, as it wants to be known; the id is one that it has given itself, and the same
             when it asks again after a crash. Number and state are the cluster's to give
    replace  the id of the node whose place it takes, or ""
    """

    token: str
    node: Node
    replace: str = ""


class Proven(msgspec.Struct, frozen=True, array_like=True):
    """A request, as bytes, with the proof."""

    proof: bytes
    request: bytes


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A node of the cluster: its number, its id, and where its RPC is."""

    number: int
    node_id: str
    rpc: str


class Joined(msgspec.Struct, frozen=True, array_like=True, tag="joined"):
    """The joiner is a node.

    number     its own
    members    all nodes, itself among them or not
    keys       the text of the key file that secrets are sealed with
    key_check  tells which of them seals
    """

    cluster_id: str
    number: int
    members: tuple[Member, ...]
    keys: str
    key_check: bytes = b""

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Joined({self.cluster_id!r}, {self.number}, {self.members!r})"


class Elsewhere(msgspec.Struct, frozen=True, array_like=True, tag="elsewhere"):
    """Somebody else decides: the node leader, at this RPC address, HOST:PORT."""

    address: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The joiner is no node. `again` says whether the same may succeed later."""

    reason: str
    again: bool = False


JoinAnswer = Joined | Elsewhere | Refused


def transcript(*said: bytes) -> bytes:
    """The SHA-256 of what was said, in order, none of it running into the next."""
    digest = hashlib.sha256()
    for each in said:
        digest.update(len(each).to_bytes(8, "big"))
        digest.update(each)
    return digest.digest()


def prove(key: bytes, words: bytes) -> bytes:
    """The proof for a transcript."""
    return hmac.digest(key, _PROOF_LABEL + words, "sha256")


class KeyExchange:
    """One side's part of an exchange of keys. `private` are 32 random bytes, used once."""

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    def answer_key(self, public: bytes, key: bytes, words: bytes) -> bytes:
        """The key that the answer is sealed with. Raises CodecError for a public key that is none.

        `public` is the other side's, `key` the token's, `words` the transcript with the proof.
        """
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise CodecError("no public key") from None
        derive = HKDF(hashes.SHA256(), length=32, salt=words, info=_ANSWER_LABEL).derive
        return derive(key + shared)


def seal_answer(key: bytes, answer: JoinAnswer) -> bytes:
    """An answer that only the joiner can read. A key of `answer_key`, used for this alone."""
    return AESGCM(key).encrypt(_NONCE, pack(answer), None)


def open_answer(key: bytes, sealed: bytes) -> JoinAnswer:
    """What `seal_answer` has sealed. Raises CodecError."""
    try:
        answer: JoinAnswer = _read_answer(AESGCM(key).decrypt(_NONCE, sealed, None))
    except (InvalidTag, ValueError):
        raise CodecError("an answer of somebody who does not know the token") from None
    return answer


def check_ask(ask: Ask) -> None:
    """Raise CodecError for what cannot be meant for us."""
    if ask.magic != MAGIC or len(ask.nonce) != NONCE_BYTES or len(ask.public) != 32:
        raise CodecError("nobody who wants to join")


def common_version(first: int, last: int) -> int:
    """The newest version of this exchange that both speak, or 0."""
    newest = min(last, VERSION_LAST)
    return newest if newest >= max(first, VERSION_FIRST) else 0


read_ask = unpacker(Ask)
read_challenge = unpacker(Challenge)
read_proven = unpacker(Proven)
read_request = unpacker(JoinRequest)
read_refused = unpacker(Refused)
_read_answer = unpacker(JoinAnswer)
