"""The bytes between two nodes: every kind of frame is read as it was written, and nothing else is.

The golden bytes are the format as other versions speak it: they change only together with the
version byte.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timemachine import codec
from timemachine.errors import CodecError
from timemachine.frames import (
    CallPart,
    Forward,
    Frame,
    GroupMessage,
    ReplyPart,
    read_frame,
    write_frame,
)
from timemachine.liveness import Announcement, Answer, Beat
from timemachine.members import members_row
from timemachine.raft import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.replica.snapshot import ImageEnd
from timemachine.transfers import SnapshotAnswer, SnapshotChunk

APPEND = Message(
    MessageType.APPEND,
    to=2,
    from_=1,
    term=7,
    log_term=6,
    index=9,
    entries=(Entry(7, 10, EntryType.CONF_CHANGE, b"a"), Entry(7, 11, data=b"\xff")),
    commit=8,
    context=b"ctx",
    acked=9,
)
REFUSAL = Message(
    MessageType.VOTE_RESPONSE,
    to=3,
    from_=2,
    term=1 << 40,
    reject=True,
    reject_hint=5,
    known_commit=(4, 3),
)
SNAPSHOT = Message(
    MessageType.SNAPSHOT,
    to=2,
    from_=1,
    term=7,
    snapshot=Snapshot(b"", SnapshotMetadata(ConfState((1, 2), (3,)), 9, 6)),
)
EVERYTHING = Frame(
    3,
    1 << 33,
    (GroupMessage(0, 0, APPEND), GroupMessage(1 << 60, 4, REFUSAL)),
    (Forward(5, 1, 2, b"c"),),
    (6, 7),
    Beat(4, 9, (2, 1), 8),
    Answer(4, 9, (2, 1)),
    (SnapshotChunk((1, 3), (7, 1), 1, b"rows"),),
    (SnapshotAnswer((1, 3), (7, 1), 2),),
    (CallPart(9, "relay", 10_000, 0, 1, b"asked"),),
    (ReplyPart(8, False, 0, 1, b"answered"),),
)
GOLDEN = {
    "nothing": (Frame(1, 2), "019b0102909090c0c090909090"),
    "messages": (
        Frame(1, 2, (GroupMessage(1 << 60, 4, APPEND), GroupMessage(0, 0, REFUSAL))),
        (
            "019b01029293cf100000000000000004dc00100302010706099294070a01c4016194070b00c401ff0800"
            "c0c200c4036374789009920000930000dc0010060302cf00000100000000000000900000c0c305c40090"
            "009204039090c0c090909090"
        ),
    ),
    "forward": (
        Frame(1, 2, forwards=(Forward(1 << 47, 1, 2, b"commands"),)),
        "019b0102909194cf00008000000000000102c408636f6d6d616e647390c0c090909090",
    ),
    "forwarded": (
        Frame(1, 2, forwarded=(3, 1 << 47)),
        "019b010290909203cf0000800000000000c0c090909090",
    ),
    "beat": (
        Frame(1, 2, beat=Beat(2, 9, (5, 1), 8, (Announcement((1, 3), 1, 7, 11),), ((1, 4),))),
        "019b010290909096020992050108919492010301070b91920104c090909090",
    ),
    "answer": (
        Frame(1, 2, answer=Answer(2, 9, (5, 1), ((1, 3),), ((1, 4),), ((1, 5),))),
        "019b0102909090c096020992050191920103919201049192010590909090",
    ),
    "first chunk": (
        Frame(1, 2, chunks=(SnapshotChunk((1, 3), (7, 1), 0, b"\0\xff", SNAPSHOT),)),
        (
            "019b0102909090c0c0919692010392070100c40200ffdc001007020107000090000092c4009395920102"
            "91039090c20906c200c4009000920000c0909090"
        ),
    ),
    "last chunk": (
        Frame(
            1,
            2,
            chunks=(SnapshotChunk((1, 3), (7, 1), 2, b"", end=ImageEnd(9, 6, 2, 50, 1 << 31)),),
        ),
        "019b0102909090c0c0919692010392070102c400c09509060232ce80000000909090",
    ),
    "chunk answers": (
        Frame(
            1,
            2,
            chunk_answers=(
                SnapshotAnswer((1, 3), (7, 1), 2),
                SnapshotAnswer((1, 4), (7, 2), 0, refused=True),
            ),
        ),
        "019b0102909090c0c090929492010392070102c29492010492070200c39090",
    ),
    "call": (
        Frame(1, 2, calls=(CallPart(1 << 47, "relay", 10_000, 0, 2, b"\0\xff"),)),
        "019b0102909090c0c090909196cf0000800000000000a572656c6179cd27100002c40200ff90",
    ),
    "reply": (
        Frame(1, 2, replies=(ReplyPart(9, False, 0, 1, b"done"), ReplyPart(8, True, 1, 2, b"e"))),
        "019b0102909090c0c0909090929509c20001c404646f6e659508c30102c40165",
    ),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_bytes_of_each_kind_stay_as_they_are(kind: str) -> None:
    """A node of this version is understood by one of the version before."""
    frame, golden = GOLDEN[kind]
    assert golden == write_frame(frame).hex()


@pytest.mark.parametrize("kind", GOLDEN)
def test_what_another_version_wrote_is_read(kind: str) -> None:
    """Every field comes back, where it belongs and as what it was."""
    frame, golden = GOLDEN[kind]
    found = read_frame(bytes.fromhex(golden))
    assert _plain(frame) == _plain(found)
    for message in found.messages:
        assert isinstance(message.message.type, MessageType)
        assert all(isinstance(entry.type, EntryType) for entry in message.message.entries)


def test_a_frame_of_before_calls_is_read() -> None:
    """What comes behind in a frame may be missing: a node of the version before sends no calls."""
    assert _plain(Frame(1, 2)) == _plain(read_frame(bytes.fromhex("01990102909090c0c09090")))


def test_a_frame_may_hold_all_kinds_at_once() -> None:
    """One frame a peer and cycle carries whatever there is."""
    assert _plain(EVERYTHING) == _plain(read_frame(write_frame(EVERYTHING)))


def test_a_cut_frame_is_refused() -> None:
    """Wherever it was cut, and also if something was left behind it."""
    data = write_frame(EVERYTHING)
    for length in range(len(data)):
        with pytest.raises(CodecError):
            read_frame(data[:length])
    with pytest.raises(CodecError):
        read_frame(data + b"\0")


def test_foreign_bytes_are_refused() -> None:
    """Other versions, other records, kinds of messages that are none."""
    unknown = Frame(1, 2, (GroupMessage(1, 0, APPEND),))
    data = write_frame(unknown)
    place = data.index(bytes((MessageType.APPEND, 2, 1, 7, 6, 9)))
    foreign = [
        b"\x02" + data[1:],
        data[1:],
        members_row(ConfState((1, 2))),
        codec.encode({"sender": 1, "epoch": 2}),
        codec.encode(["1", 2]),
        data[:place] + b"\x7f" + data[place + 1 :],
    ]
    for each in foreign:
        with pytest.raises(CodecError):
            read_frame(each)


def test_a_frame_that_is_too_deep_is_refused() -> None:
    """Answers within answers without end are nothing that a node sends.

    (Named: they ended the receiver with a RecursionError.)
    """
    message = codec.encode(APPEND)[1:]
    no_responses = message.rindex(b"\x90")
    head, tail = message[:no_responses] + b"\x91", message[no_responses + 1 :]
    deep = head * 100_000 + message + tail * 100_000
    data = write_frame(Frame(1, 2, (GroupMessage(1, 0, APPEND),))).replace(message, deep)
    with pytest.raises(CodecError):
        read_frame(data)


@given(st.integers(0, len(write_frame(EVERYTHING)) - 1), st.integers(1, 255))
def test_a_damaged_frame_is_refused_or_another_frame(place: int, bits: int) -> None:
    """Nothing but CodecError comes out of bytes that were changed on the way."""
    data = bytearray(write_frame(EVERYTHING))
    data[place] ^= bits
    try:
        found = read_frame(bytes(data))
    except CodecError:
        return
    assert isinstance(found, Frame)


def _plain(value: object) -> object:
    """A value field by field; a tuple that was read is a list."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    fields = getattr(value, "__struct_fields__", None)
    if fields is None:
        return value
    return {field: _plain(getattr(value, field)) for field in fields}
