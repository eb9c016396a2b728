"""What a leader sends to its peers: entries, heartbeats, and snapshots."""

from typing import TYPE_CHECKING, Final

from timemachine.raft.messages import Message, MessageType
from timemachine.raft.progress import Progress, ProgressState
from timemachine.raft.storage import Compacted, SnapshotUnavailable

if TYPE_CHECKING:
    from timemachine.raft.core import Raft

_APPEND: Final = MessageType.APPEND
_REPLICATE: Final = ProgressState.REPLICATE


def send_append(raft: "Raft", to: int, *, even_empty: bool = True) -> bool:
    """Send `to` the entries that it lacks, or a snapshot; whether anything was sent.

    An append without entries still tells the commit index, and is an answer's occasion. A window
    that is full lets only such appends through (and `is_paused` not even these, until a heartbeat
    is answered): if everything in the window was lost, its answer says so.
    """
    progress = raft.tracker.progress[to]
    if progress.is_paused():
        return False
    log = raft.log
    before = progress.next - 1
    try:
        log_term = log.term(before)
        if progress.state is _REPLICATE and progress.inflights.full():
            entries = []
        else:
            entries = log.entries_from(progress.next, raft.message_bytes_max)
    except Compacted:
        return _send_snapshot(raft, to, progress)
    if not entries and not even_empty:
        return False
    raft.messages.append(
        Message(
            _APPEND,
            to,
            raft.id,
            raft.term,
            log_term,
            before,
            entries,
            log.committed,
            acked=raft.acked_by(to, progress.match),
        )
    )
    progress.sent_entries(len(entries), sum([len(entry.data) for entry in entries]))
    progress.sent_commit = log.committed
    return True


def broadcast_append(raft: "Raft") -> None:
    """Send every peer what it lacks."""
    for peer in raft.peers:
        send_append(raft, peer)


def broadcast_heartbeat(raft: "Raft") -> None:
    """Tell every peer who leads and what is committed, and ask on behalf of the waiting reads.

    Not more is said to be committed than the peer is known to have: its log may differ behind.
    """
    context = raft.reads.context()
    for peer in raft.peers:
        progress = raft.tracker.progress[peer]
        commit = min(progress.match, raft.log.committed)
        raft.messages.append(
            Message(
                MessageType.HEARTBEAT,
                peer,
                raft.id,
                raft.term,
                commit=commit,
                context=context,
                acked=raft.acked_by(peer, progress.match),
            )
        )
        progress.sent_commit = commit


def _send_snapshot(raft: "Raft", to: int, progress: Progress) -> bool:
    """Send `to` a snapshot in place of entries that are compacted; whether there was one.

    Nothing else is sent to it until the host reports how the snapshot fared, or the follower
    answers from a log that can be continued.
    """
    if not progress.recent_active:
        raft.say(f"has no snapshot for {to}, which was not heard of")
        return False
    try:
        snapshot = raft.log.snapshot()
    except SnapshotUnavailable:
        raft.say(f"has no snapshot for {to} yet")
        return False
    metadata = snapshot.metadata
    assert metadata.index, "a storage with a compacted log has a snapshot"
    raft.say(f"sends {to} a snapshot that ends at {metadata.index}")
    progress.become_snapshot(metadata.index)
    raft.messages.append(
        Message(
            MessageType.SNAPSHOT,
            to,
            raft.id,
            raft.term,
            snapshot=snapshot,
            acked=raft.acked_by(to, progress.match),
        )
    )
    return True
