"""Frames: the same however the bytes arrive, and no length that would fill the memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc.framing import HEADER_BYTES, FrameReader, Kind, header, write
from timemachine.errors import CodecError

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=40)), max_size=8)


def test_bytes() -> None:
    """These are what other versions expect."""
    assert b"\0\0\0\3\5hi" == write(Kind.FRAME, b"hi")
    assert b"\0\0\0\1\3" == write(Kind.PING)
    assert b"\0\0\0\3\5" == header(Kind.FRAME, 2)
    assert list(range(1, 13)) == list(Kind)


@given(FRAMES, st.data())
def test_the_same_however_they_arrive(
    frames: list[tuple[Kind, bytes]], data: st.DataObject
) -> None:
    """Byte by byte, all at once, or cut anywhere."""
    sent = b"".join(write(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    reader = FrameReader(40)
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        received += reader.feed(sent[start:end])
    assert frames == received


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Nonsense is frames within the bound, or an error; no more is kept than came."""
    reader = FrameReader(100)
    came = 0
    for piece in pieces:
        came += len(piece)
        try:
            received = reader.feed(piece)
        except CodecError:
            return
        assert all(len(payload) <= 100 for _, payload in received)
        assert len(reader._held) <= min(came, HEADER_BYTES + 100)


@pytest.mark.parametrize("length", [0, 12, 2**31, 2**32 - 1])
def test_lengths_that_cannot_be(length: int) -> None:
    """Refused as soon as they are read, and not when their bytes have come."""
    with pytest.raises(CodecError):
        FrameReader(10).feed(length.to_bytes(4, "big") + b"\5")


def test_the_bound_may_change() -> None:
    """A node may say more than a stranger."""
    reader = FrameReader(1)
    reader.bytes_max = 5
    assert [(5, b"12345")] == reader.feed(write(Kind.FRAME, b"12345"))


def test_a_large_frame_in_many_pieces() -> None:
    """It is looked for once, when it can be there, and not with each piece."""
    whole = write(Kind.FRAME, bytes(1_000_000)) + write(Kind.PING)
    reader = FrameReader(1_000_000)
    received = []
    for start in range(0, len(whole), 1_000):
        received += reader.feed(whole[start : start + 1_000])
    assert [(Kind.FRAME, bytes(1_000_000)), (Kind.PING, b"")] == received
