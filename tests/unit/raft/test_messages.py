"""timemachine/raft/messages.py: the vocabulary and the sizes of entries."""

import msgspec
import pytest

from timemachine.raft.messages import (
    ENTRY_OVERHEAD_BYTES,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
    SnapshotMetadata,
    entry_bytes,
    limit_size,
)


def test_message_numbers_are_those_of_etcd() -> None:
    """Every message type has the number that etcd's protocol gives it."""
    names = """
        HUP BEAT PROPOSE APPEND APPEND_RESPONSE VOTE VOTE_RESPONSE SNAPSHOT HEARTBEAT
        HEARTBEAT_RESPONSE UNREACHABLE SNAPSHOT_STATUS CHECK_QUORUM TRANSFER_LEADER TIMEOUT_NOW
        READ_INDEX READ_INDEX_RESPONSE PRE_VOTE PRE_VOTE_RESPONSE STORAGE_APPEND
        STORAGE_APPEND_RESPONSE STORAGE_APPLY STORAGE_APPLY_RESPONSE FORGET_LEADER
    """.split()
    assert list(enumerate(names)) == [(kind.value, kind.name) for kind in MessageType]


def test_entry_and_role_numbers_are_those_of_etcd() -> None:
    """Entry types and roles have etcd's numbers."""
    assert [("NORMAL", 0), ("CONF_CHANGE", 1), ("CONF_CHANGE_V2", 2)] == [
        (kind.name, kind.value) for kind in EntryType
    ]
    assert [("FOLLOWER", 0), ("CANDIDATE", 1), ("LEADER", 2), ("PRE_CANDIDATE", 3)] == [
        (role.name, role.value) for role in Role
    ]


def test_entries_and_messages_cannot_be_changed() -> None:
    """A value that log, storage and host share is frozen."""
    for value, field in ((Entry(), "term"), (Message(MessageType.HUP), "term")):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(value, field, 1)


def test_message_survives_the_wire() -> None:
    """A message keeps every field through MessagePack, nested messages included."""
    message = Message(
        MessageType.STORAGE_APPEND,
        to=2**64 - 1,
        from_=1,
        term=3,
        log_term=2,
        index=9,
        entries=[Entry(3, 10, EntryType.CONF_CHANGE_V2, b"data")],
        commit=8,
        vote=1,
        snapshot=Snapshot(b"image", SnapshotMetadata(index=7, term=2)),
        reject=True,
        reject_hint=6,
        context=b"context",
        responses=[Message(MessageType.APPEND_RESPONSE, entries=[], responses=[])],
    )
    assert message == msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)


def test_no_hard_state_equals_the_default() -> None:
    """An empty hard state is one that says nothing."""
    assert HardState(term=0, vote=0, commit=0) == HardState()


def test_entry_bytes_counts_empty_entries_too() -> None:
    """An entry without data still has a size, so that a limit on bytes also limits the number."""
    assert ENTRY_OVERHEAD_BYTES == entry_bytes(Entry(1, 1))
    assert ENTRY_OVERHEAD_BYTES + 3 == entry_bytes(Entry(1, 1, data=b"abc"))


@pytest.mark.parametrize(
    ("size_max", "count"),
    [(0, 1), (41, 1), (42, 1), (83, 1), (84, 2), (125, 2), (126, 3), (10**9, 3)],
)
def test_limit_size_takes_what_fits_but_never_nothing(size_max: int, count: int) -> None:
    """The prefix holds as many entries as fit, and one that does not fit alone."""
    entries = [Entry(1, index, data=b"0123456789") for index in (1, 2, 3)]
    assert entries[:count] == limit_size(entries, size_max)


def test_limit_size_of_nothing_is_nothing() -> None:
    """No entries stay no entries."""
    assert [] == limit_size([], 0)
