"""What nodes send each other: one frame per peer and cycle, with all that is there for it.

A frame may be lost, late, doubled or overtaken. Nothing here counts on more: Raft's messages carry
their terms, and everything else says which of two came later.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from timemachine import codec
from timemachine.liveness import Answer, Beat
from timemachine.raft import Message
from timemachine.transfers import SnapshotAnswer, SnapshotChunk


class GroupMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message between two replicas of the group (`uid`, `index`)."""

    uid: int
    index: int
    message: Message


class Forward(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command for the leader of the group (`uid`, `index`), as an entry of the log holds it.

    It may arrive more than once, so only such are forwarded to which a repeat adds nothing.
    `number` is the sender's, for the acknowledgement.
    """

    number: int
    uid: int
    index: int
    commands: bytes


class CallPart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One of the parts of what one node asks of another, mostly the only one.

    number      the sender's, for the reply
    kind        what is asked
    timeout_ms  how long the sender waits, from when it asked
    part, parts its place, and how many there are
    body        what is asked, or that part of it
    """

    number: int
    kind: str
    timeout_ms: int
    part: int
    parts: int
    body: bytes


class ReplyPart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One of the parts of the answer to what the receiver asked under that number.

    `failed` says that the body is an error, see `timemachine.carried`.
    """

    number: int
    failed: bool
    part: int
    parts: int
    body: bytes


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that one node has for another one in one cycle.

    sender, epoch  who sends, and in which of its lives
    forwards       commands that the receiver should propose
    forwarded      numbers of forwards of the receiver that are committed
    beat, answer   see `timemachine.liveness`
    chunks, chunk_answers
                   see `timemachine.transfers`
    calls, replies what is asked of the receiver, and what it is answered
    """

    sender: int
    epoch: int
    messages: Sequence[GroupMessage] = ()
    forwards: Sequence[Forward] = ()
    forwarded: Sequence[int] = ()
    beat: Beat | None = None
    answer: Answer | None = None
    chunks: Sequence[SnapshotChunk] = ()
    chunk_answers: Sequence[SnapshotAnswer] = ()
    calls: Sequence[CallPart] = ()
    replies: Sequence[ReplyPart] = ()


def write_frame(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return codec.encode(frame)


_read: Any = codec.decoder(Frame)


def read_frame(data: bytes) -> Frame:
    """The frame of these bytes. Raises CodecError."""
    frame: Frame = _read(data)
    return frame
