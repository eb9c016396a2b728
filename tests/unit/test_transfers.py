"""The frames of a transfer: what is sent is what is read."""

import pytest
from msgspec.structs import replace

from timemachine import codec
from timemachine.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from timemachine.replica.snapshot import ImageEnd
from timemachine.transfers import (
    SnapshotAnswer,
    SnapshotChunk,
    may_resume,
    pause_after_failures_ms,
)


def test_frames_are_read_as_they_were_written() -> None:
    """With the core's message, with the end, and with neither."""
    metadata = SnapshotMetadata(ConfState((1, 2), (3,)), 9, 2)
    message = Message(MessageType.SNAPSHOT, 2, 1, 7, snapshot=Snapshot(metadata=metadata))
    read = codec.decoder(SnapshotChunk)
    for chunk in (
        SnapshotChunk((1 << 60, 3), (7, 1), 0, b"\0\xff", message),
        SnapshotChunk((1, 3), (7, 1), 1, b"data"),
        SnapshotChunk((1, 3), (7, 1), 2, b"", end=ImageEnd(9, 2, 2, 50, 1 << 31)),
    ):
        found = read(codec.encode(chunk))
        assert codec.encode(chunk) == codec.encode(found)
        assert (chunk.group, chunk.transfer, chunk.data, chunk.end) == (
            found.group,
            found.transfer,
            found.data,
            found.end,
        )
    answer = SnapshotAnswer((1, 3), (7, 1), 2, refused=True)
    assert answer == codec.decoder(SnapshotAnswer)(codec.encode(answer))


def _announced(to: int = 2, term: int = 7, index: int = 9) -> Message:
    snapshot = Snapshot(metadata=SnapshotMetadata(ConfState((1, 2)), index, 2))
    return Message(MessageType.SNAPSHOT, to, 1, term, snapshot=snapshot)


@pytest.mark.parametrize(
    ("wanted", "log_base", "resumes"),
    [
        (_announced(), 0, True),
        (_announced(index=5), 9, True),
        (_announced(index=99), 9, True),
        (_announced(), 10, False),
        (_announced(term=8), 0, False),
        (_announced(to=(1 << 16) | 2), 0, False),
        (replace(_announced(), snapshot=None), 0, False),
    ],
)
def test_what_may_be_resumed(wanted: Message, log_base: int, *, resumes: bool) -> None:
    """An image for the same replica, in the same term, behind which the log is still there."""
    assert resumes is may_resume(_announced(), wanted, log_base)


def test_pauses_double_up_to_a_bound() -> None:
    """The first failure costs nothing: it may have been an accident."""
    pauses = [pause_after_failures_ms(failures) for failures in (0, 1, 2, 3, 4, 5, 6, 7, 1_000_000)]
    assert [0, 0, 200, 400, 800, 1_600, 2_000, 2_000, 2_000] == pauses
