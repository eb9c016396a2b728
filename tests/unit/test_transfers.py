"""The frames of a transfer: what is sent is what is read."""

from timemachine import codec
from timemachine.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from timemachine.replica.snapshot import ImageEnd
from timemachine.transfers import SnapshotAnswer, SnapshotChunk


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
