"""How the log gets to the followers: what they answer, and what the leader makes of it.

The leader's view of each follower is a `Progress`. It probes with one append at a time until it
knows where the two logs agree, and then sends append after append without waiting, as many and
as much as the window allows (dissertation 3.5, 10.2.1). `sending` makes the messages.
"""

from typing import TYPE_CHECKING, Final

from timemachine.errors import ReplicaStopped
from timemachine.raft import reads, sending, transfer
from timemachine.raft.messages import Message, MessageType
from timemachine.raft.progress import Progress, ProgressState

if TYPE_CHECKING:
    from timemachine.raft.core import Raft

_APPEND_RESPONSE: Final = MessageType.APPEND_RESPONSE
_PROBE: Final = ProgressState.PROBE
_REPLICATE: Final = ProgressState.REPLICATE


# A follower takes.


def take_append(raft: "Raft", message: Message) -> None:
    """APPEND: take entries that follow what is here, or say where to look (dissertation 3.5)."""
    raft.check_promise(message)
    log = raft.log
    if message.index < log.committed:
        # An old message. What is committed needs no comparison.
        _acknowledge(raft, message.from_, log.committed)
        return
    last = log.maybe_append(message.index, message.log_term, message.entries, message.commit)
    if last is not None:
        _acknowledge(raft, message.from_, last)
        return
    # The leader's entries up to `index` have terms up to `log_term`. Everything of a newer term
    # here differs from them, so the guess may jump over all of it.
    hint, hint_term = log.find_conflict_by_term(
        min(message.index, log.last_index()), message.log_term
    )
    raft.promise(
        Message(
            _APPEND_RESPONSE,
            message.from_,
            raft.id,
            raft.term,
            hint_term,
            message.index,
            reject=True,
            reject_hint=hint,
        )
    )


def _acknowledge(raft: "Raft", leader: int, index: int) -> None:
    raft.promise(Message(_APPEND_RESPONSE, leader, raft.id, raft.term, 0, index))


def take_heartbeat(raft: "Raft", message: Message) -> None:
    """HEARTBEAT: the leader lives; commit what it says, and answer."""
    raft.check_promise(message)
    raft.log.commit_to(message.commit)
    raft.messages.append(
        Message(
            MessageType.HEARTBEAT_RESPONSE,
            message.from_,
            raft.id,
            raft.term,
            context=message.context,
        )
    )


def log_is_stable(raft: "Raft", message: Message) -> None:
    """STORAGE_APPEND_RESPONSE, of any role: storage shows the log up to `index`, or a snapshot.

    Comes here only in the term in which the write was ordered. In a later one, entries under the
    same indexes may be on their way to the disk behind these, or even the same entries once more
    behind others; then nobody may look for them in storage yet (`Raft._answer_the_past`).
    """
    if message.index:
        raft.log.unstable.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        raft.installed(message.snapshot)


# The leader counts.


def beat(raft: "Raft", message: Message) -> None:
    """BEAT, of a leader: heartbeats are due (dissertation 3.4)."""
    sending.broadcast_heartbeat(raft)


def count_append(raft: "Raft", message: Message) -> None:
    """APPEND_RESPONSE, of a leader: a log is durable up to `index`, or does not match there.

    Raises ReplicaStopped for more than there is: nobody can have what its leader never had.
    """
    index = message.index
    if raft.alone:
        # Nobody else answers, nothing can be wrong with one's own log, and it is the majority.
        own = raft.own
        assert own is not None
        own.match = index
        own.next = index + 1
        raft.log.maybe_commit(index, raft.term)
        if raft.waiting_reads:
            reads.release(raft)
        return
    sender = message.from_
    progress = raft.tracker.progress.get(sender)
    if progress is None:
        return
    if index > raft.log.last_index() and not message.reject:
        raise ReplicaStopped(
            f"Replica {raft.id} leads with a log that ends at {raft.log.last_index()}, and"
            f" {sender} claims entry {index} of it."
        )
    progress.recent_active = True
    if message.reject:
        _repair(raft, message, progress)
        return
    if not progress.maybe_update(index) and not (
        # A replica that matches as far as known, but was probed to find that out.
        progress.match == index and progress.state is _PROBE
    ):
        return
    _resume(raft, sender, progress, index)
    if raft.log.maybe_commit(raft.tracker.committed(), raft.term):
        reads.release(raft)
        sending.broadcast_append(raft)
    elif sender != raft.id and progress.can_bump_commit(raft.log.committed):
        # Not waiting for a heartbeat to say so.
        sending.send_append(raft, sender)
    if sender != raft.id:
        # The window may have room for several now.
        while sending.send_append(raft, sender, even_empty=False):
            pass
        transfer.finish(raft, sender, progress)


def _resume(raft: "Raft", sender: int, progress: Progress, index: int) -> None:
    """Send faster to a replica whose log is known to match."""
    state = progress.state
    if state is _REPLICATE:
        progress.inflights.free_le(index)
    elif state is _PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= raft.log.first_index():
        # Whatever it installed: it can go on from the log.
        raft.say(f"{sender} has caught up without the rest of its snapshot")
        progress.become_probe()
        progress.become_replicate()


def _repair(raft: "Raft", message: Message, progress: Progress) -> None:
    """Probe further in front, where the logs may agree (dissertation 3.5, at its end).

    The follower's guess can be bettered: if its entry there has an older term than the leader's,
    so has everything that the leader has of newer terms. Together with the follower's own jump
    that makes about one probe for each term in which the logs differ. Never behind `match`: what
    was acknowledged is not sent again (`Raft.check_promise`).
    """
    hint = message.reject_hint
    if message.log_term:
        hint, _ = raft.log.find_conflict_by_term(hint, message.log_term)
    if progress.maybe_decr_to(message.index, hint):
        if progress.state is _REPLICATE:
            progress.become_probe()
        sending.send_append(raft, message.from_)


def heartbeat_answered(raft: "Raft", message: Message) -> None:
    """HEARTBEAT_RESPONSE, of a leader: the peer lives and follows."""
    progress = raft.tracker.progress.get(message.from_)
    if progress is None:
        return
    progress.recent_active = True
    progress.append_paused = False
    if progress.match < raft.log.last_index() or progress.state is _PROBE:
        sending.send_append(raft, message.from_)
    if message.context:
        reads.acknowledge(raft, message)


def unreachable(raft: "Raft", message: Message) -> None:
    """UNREACHABLE, of a leader: what was sent is probably lost; find out what arrived."""
    progress = raft.tracker.progress.get(message.from_)
    if progress is not None and progress.state is _REPLICATE:
        progress.become_probe()
