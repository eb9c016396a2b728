"""Handing the leadership over (dissertation 3.10)."""

from typing import TYPE_CHECKING

import msgspec

from timemachine.raft import sending
from timemachine.raft.messages import NO_NODE, Message, MessageType
from timemachine.raft.progress import Progress

if TYPE_CHECKING:
    from timemachine.raft.core import Raft


def begin(raft: "Raft", message: Message) -> None:
    """TRANSFER_LEADER, of a leader: bring `from_` up to date, then have it campaign.

    Until then no proposals are taken. If it has not taken over after an election time-out, this
    replica goes on leading (`Raft.tick`).
    """
    to = message.from_
    progress = raft.tracker.progress.get(to)
    if progress is None or progress.is_learner or to == raft.transferee:
        return
    # An earlier transfer to somebody else is off, even if this one is to the leader itself.
    raft.transferee = NO_NODE
    if to == raft.id:
        return
    raft.say(f"hands over to {to}")
    raft.election_elapsed = 0
    raft.transferee = to
    if progress.match == raft.log.last_index():
        _have_it_campaign(raft, to)
    else:
        sending.send_append(raft, to)


def finish(raft: "Raft", sender: int, progress: Progress) -> None:
    """Have `sender` campaign if it is the one to take over and has the whole log now."""
    if sender == raft.transferee and progress.match == raft.log.last_index():
        _have_it_campaign(raft, sender)


def _have_it_campaign(raft: "Raft", to: int) -> None:
    raft.lease_given_up = True
    raft.messages.append(Message(MessageType.TIMEOUT_NOW, to, raft.id, raft.term))


def forward(raft: "Raft", message: Message) -> None:
    """TRANSFER_LEADER, of a follower: pass it on to the leader, if there is one."""
    if raft.leader != NO_NODE:
        raft.messages.append(msgspec.structs.replace(message, to=raft.leader, term=raft.term))
