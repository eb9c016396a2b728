"""Who leads: campaigns, votes, and when a replica gives up leading or following."""

from enum import Enum
from typing import TYPE_CHECKING, Final

from timemachine.raft import sending
from timemachine.raft.messages import (
    NO_NODE,
    EntryType,
    Message,
    MessageType,
    Role,
)
from timemachine.raft.quorum import VoteResult

if TYPE_CHECKING:
    from timemachine.raft.core import Raft


class Campaign(Enum):
    """Why a replica campaigns."""

    PRE_ELECTION = 1
    """To learn whether it would be elected (dissertation 9.6)."""
    ELECTION = 2
    """To be elected (3.4)."""
    TRANSFER = 3
    """Because the leader asked it to (3.10)."""


TRANSFER_CONTEXT: Final = b"transfer"
"""Marks a request for a vote that the leader wished for: being near a leader does not count."""


# Campaigning.


def promotable(raft: "Raft") -> bool:
    """Whether this replica may lead: it is a voter, and is not installing a snapshot."""
    own = raft.own
    return own is not None and not own.is_learner and raft.log.unstable.snapshot is None


def start(raft: "Raft", message: Message) -> None:
    """HUP, of a follower or candidate: campaign (dissertation 3.4, and 9.6 with pre-vote)."""
    campaign_if_allowed(raft, Campaign.PRE_ELECTION if raft.pre_vote else Campaign.ELECTION)


def start_for_leader(raft: "Raft", message: Message) -> None:
    """TIMEOUT_NOW, of a follower: campaign at once, the leader hands over (dissertation 3.10).

    Without a pre-vote: nobody recovers from a partition here.
    """
    campaign_if_allowed(raft, Campaign.TRANSFER)


def campaign_if_allowed(raft: "Raft", kind: Campaign) -> None:
    """Campaign, unless this replica may not lead."""
    if not promotable(raft):
        raft.say("may not lead and does not campaign")
    elif _has_unapplied_conf_change(raft):
        # It might be elected by a majority of a membership that is no longer in force.
        raft.say("does not campaign before it has applied a change of its membership")
    else:
        campaign(raft, kind)


def _has_unapplied_conf_change(raft: "Raft") -> bool:
    """Whether a committed configuration change is not applied; reads the log page by page."""
    log = raft.log
    index = log.applied + 1
    while index <= log.committed:
        entries = log.slice(index, log.committed + 1, log.committed_size_per_ready_max)
        if any(entry.type is not EntryType.NORMAL for entry in entries):
            return True
        index += len(entries)
    return False


def campaign(raft: "Raft", kind: Campaign) -> None:
    """Ask every voter, oneself included, for a vote."""
    if kind is Campaign.PRE_ELECTION:
        raft.become_pre_candidate()
        request, answer = MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE
        term = raft.term + 1
    else:
        raft.become_candidate()
        request, answer = MessageType.VOTE, MessageType.VOTE_RESPONSE
        term = raft.term
    context = TRANSFER_CONTEXT if kind is Campaign.TRANSFER else b""
    index, log_term = raft.log.last_index(), raft.log.last_term()
    for voter in raft.tracker.voter_ids():
        if voter == raft.id:
            # It counts once it is durable, like any other vote.
            raft.promise(Message(answer, voter, raft.id, term))
        else:
            raft.messages.append(
                Message(request, voter, raft.id, term, log_term, index, context=context)
            )


# Voting.


def vote(raft: "Raft", message: Message) -> None:
    """VOTE or PRE_VOTE: give the vote if it is free and the log is no older (dissertation 3.6.1).

    A learner votes as well. It may have been made a voter and not know it yet, and without its
    vote nobody might be left to tell it (`campaign_learner_must_vote` in etcd's tests).
    """
    kind = message.type
    free = (
        raft.vote == message.from_
        or (raft.vote == NO_NODE and raft.leader == NO_NODE)
        or (kind is MessageType.PRE_VOTE and message.term > raft.term)
    )
    if not free or not raft.log.is_up_to_date(message.index, message.log_term):
        refuse(raft, message)
        return
    # The term of the request: a pre-vote is for a term that this replica is not in.
    raft.say(f"gives {kind.name} to {message.from_}")
    raft.promise(Message(_ANSWERS[kind], message.from_, raft.id, message.term))
    if kind is MessageType.VOTE:
        raft.election_elapsed = 0
        raft.vote = message.from_


def refuse(raft: "Raft", message: Message) -> None:
    """Answer a request for a vote with no, and with the term that this replica is in.

    A replica that is no voter any more adds up to where it knows the log to be committed. It may
    be the only one left that knows that the change which removed it is committed, and have newer
    entries that keep it from voting for anybody, while those who stay still need its vote to
    learn of it. With that knowledge they need it no longer (`count_vote`).
    """
    raft.say(f"refuses {message.type.name} to {message.from_}")
    known_commit = (0, 0)
    if raft.own is None or raft.own.is_learner:
        committed = raft.log.committed
        known_commit = (committed, raft.log.term_or_zero(committed))
    raft.promise(
        Message(
            _ANSWERS[message.type],
            message.from_,
            raft.id,
            raft.term,
            reject=True,
            known_commit=known_commit,
        )
    )


_ANSWERS: Final = {
    MessageType.VOTE: MessageType.VOTE_RESPONSE,
    MessageType.PRE_VOTE: MessageType.PRE_VOTE_RESPONSE,
}


def count_vote(raft: "Raft", message: Message) -> None:
    """VOTE_RESPONSE of a candidate, PRE_VOTE_RESPONSE of a pre-candidate: the majority decides."""
    # What somebody knows to be committed is so for everybody who has the same entry.
    raft.log.maybe_commit(*message.known_commit)
    raft.tracker.record_vote(message.from_, not message.reject)
    _, _, result = raft.tracker.tally_votes()
    if result is VoteResult.LOST:
        # In the old term: the refusal of a pre-vote can come from a term not entered yet.
        raft.become_follower(raft.term, NO_NODE)
    elif result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            campaign(raft, Campaign.ELECTION)
        else:
            raft.become_leader()
            sending.broadcast_append(raft)


# Giving up.


def check_quorum(raft: "Raft", message: Message) -> None:
    """CHECK_QUORUM, of a leader: step down without a majority in reach (dissertation 6.2)."""
    active = raft.tracker.quorum_active()
    if not active:
        raft.say("heard of no majority and steps down")
        raft.become_follower(raft.term, NO_NODE)
    for member, progress in raft.tracker.progress.items():
        if member != raft.id:
            progress.recent_active = False


def forget_leader(raft: "Raft", message: Message) -> None:
    """FORGET_LEADER, of a follower: believe in no leader, so that another may be voted for.

    With lease reads the old leader may still answer from its lease; then nothing is forgotten.
    """
    if raft.lease_reads:
        raft.say("cannot forget its leader, who may have a lease")
    elif raft.leader != NO_NODE:
        raft.say(f"forgets its leader {raft.leader}")
        raft.leader = NO_NODE
