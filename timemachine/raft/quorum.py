"""Majorities: what enough voters acknowledged, and who has enough votes.

Two voters' sets can rule together, as in a joint configuration (dissertation 4.3): then each of
them must agree by its own majority. A set without voters agrees to everything, so that a
configuration that is not joint is one whose outgoing half is empty.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import IntEnum
from typing import Final

import msgspec

INFINITE: Final = 2**64 - 1
"""The index that no voters at all have acknowledged: beyond every log."""


class VoteResult(IntEnum):
    """How an election stands. The numbers are etcd's."""

    PENDING = 1
    """Those who did not answer yet decide."""
    LOST = 2
    """A majority can no longer be had."""
    WON = 3
    """A majority said yes."""


def majority_committed(voters: AbstractSet[int], acked: Mapping[int, int]) -> int:
    """The highest index that a majority of `voters` acknowledged; INFINITE without voters.

    `acked` gives the index up to which a voter's log is durable; who is missing has nothing.
    """
    if not voters:
        return INFINITE
    indexes = sorted([acked.get(voter, 0) for voter in voters])
    return indexes[(len(indexes) - 1) // 2]


def majority_vote(voters: AbstractSet[int], votes: Mapping[int, bool]) -> VoteResult:
    """Who wins among `voters`, when `votes` holds what was answered so far; WON without voters."""
    granted = 0
    missing = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            missing += 1
        elif vote:
            granted += 1
    majority = len(voters) // 2 + 1
    if granted >= majority or not voters:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= majority else VoteResult.LOST


class JointVoters(msgspec.Struct, frozen=True, gc=False):
    """Those who decide: a majority of `incoming`, and of `outgoing` unless it is empty."""

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()

    def ids(self) -> frozenset[int]:
        """All voters of both halves."""
        return self.incoming | self.outgoing

    def committed(self, acked: Mapping[int, int]) -> int:
        """The highest index that both halves acknowledged; INFINITE if both are empty."""
        return min(
            majority_committed(self.incoming, acked), majority_committed(self.outgoing, acked)
        )

    def vote(self, votes: Mapping[int, bool]) -> VoteResult:
        """Who wins: lost if it is lost in one half, won if it is won in both."""
        incoming = majority_vote(self.incoming, votes)
        outgoing = majority_vote(self.outgoing, votes)
        if incoming is outgoing:
            return incoming
        if VoteResult.LOST in (incoming, outgoing):
            return VoteResult.LOST
        return VoteResult.PENDING
