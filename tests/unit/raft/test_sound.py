"""What replicas say to each other, and what none of them would say."""

import pytest

from timemachine.raft import (
    ConfState,
    Entry,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
    is_sound,
)

APPEND = MessageType.APPEND
SNAPSHOT = MessageType.SNAPSHOT


def _image(index: int = 9, term: int = 3) -> Snapshot:
    return Snapshot(metadata=SnapshotMetadata(ConfState((1, 2, 3)), index, term))


@pytest.mark.parametrize(
    "message",
    [
        Message(APPEND, 1, 2, 3, 1, 4, (Entry(1, 5), Entry(3, 6)), 4),
        Message(APPEND, 1, 2, 3),
        Message(MessageType.APPEND_RESPONSE, 1, 2, 3, 2, 9, reject=True, reject_hint=4),
        Message(MessageType.HEARTBEAT, 1, 2, 3, commit=4, acked=7, context=b"any"),
        Message(MessageType.PRE_VOTE_RESPONSE, 1, 2, 0, reject=True, known_commit=(4, 3)),
        Message(MessageType.TIMEOUT_NOW, 1, 2, 3),
        Message(SNAPSHOT, 1, 2, 3, snapshot=_image()),
    ],
)
def test_what_replicas_say_is_sound(message: Message) -> None:
    """Of each kind something."""
    assert is_sound(message)


@pytest.mark.parametrize(
    "message",
    [
        *[
            Message(kind, 1, 2, 3, entries=(Entry(3, 1),))
            for kind in MessageType
            if kind.name in {"HUP", "PROPOSE", "TRANSFER_LEADER", "READ_INDEX", "STORAGE_APPEND"}
        ],
        Message(MessageType.READ_INDEX_RESPONSE, 1, 2, 3),
        Message(APPEND, 1, 2, 0),
        Message(MessageType.HEARTBEAT, 1, 2, 0),
        Message(MessageType.TIMEOUT_NOW, 1, 2, 2**64 - 1),
        Message(APPEND, 1, 2, 3, 1, -1),
        Message(APPEND, 1, 2, 3, 1, 4, (Entry(1, 6),)),
        Message(APPEND, 1, 2, 3, 2, 4, (Entry(1, 5),)),
        Message(APPEND, 1, 2, 3, 1, 4, (Entry(4, 5),)),
        Message(APPEND, 1, 2, 3, 1, 4, (Entry(1, 5), Entry(2, 7))),
        Message(MessageType.VOTE_RESPONSE, 1, 2, 3, known_commit=(-4, 3)),
        Message(APPEND, 1, 2, 3, snapshot=_image()),
        Message(SNAPSHOT, 1, 2, 3),
        Message(SNAPSHOT, 1, 2, 3, snapshot=_image(index=0)),
        Message(SNAPSHOT, 1, 2, 3, snapshot=_image(term=4)),
    ],
)
def test_what_no_replica_says_is_not(message: Message) -> None:
    """Kinds of a node's own, numbers beyond all range, entries that do not follow each other."""
    assert not is_sound(message)
