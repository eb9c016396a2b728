"""A leader's lease: until when no other replica can have been elected.

A voter that answers a heartbeat gives no vote for `vote_wait_ms` after it came in (`Promise`). So
from the moment when a leader *sent* a round that a majority answered, nobody else can be elected
for as long, by clocks that drift apart by less than what `lease_ms` stays below `vote_wait_ms`
(dissertation 6.4.1). It is measured by clocks that go on while a machine sleeps, and never by the
time at which an answer came: it may have been on its way for long.

The core's own stickiness (4.2.3) is not enough for that: it forgets its leader, and with it the
patience, as soon as it hears of a newer term.

A leader that asks another replica to campaign has no lease any more: that campaign is for nobody
to refuse. The host asks the core (`RawNode.lease_given_up`).
"""

from collections.abc import Collection, Mapping
from typing import Final

from timemachine.group import node_of

FOREVER_MS: Final = float("inf")
NEVER_MS: Final = float("-inf")


class Lease:
    """What the other voters have answered to this leader, and what follows.

    `until_ms` is the end of the lease on the leader's monotonic clock. In a joint configuration
    both halves have to have answered: neither elects anybody without the other.
    """

    __slots__ = ("_answered_ms", "_halves", "_id", "_lease_ms", "_term", "until_ms")

    def __init__(self, id: int, voters: tuple[int, ...], lease_ms: float) -> None:
        self._id = id
        self._lease_ms = lease_ms
        self._term = 0
        self._answered_ms: dict[int, float] = {}
        self._halves: list[tuple[list[int], int]] = []
        self.until_ms = NEVER_MS
        self.set_voters(voters)

    def set_voters(self, voters: Collection[int], outgoing: Collection[int] = ()) -> None:
        """Another membership is in force: `voters`, and the `outgoing` half of a joint one."""
        before = self._answered_ms
        others = sorted({*voters, *outgoing} - {self._id})
        self._answered_ms = {voter: before.get(voter, NEVER_MS) for voter in others}
        self._halves = [self._half(voters)]
        if outgoing:
            self._halves.append(self._half(outgoing))
        self.until_ms = self._end(self._answered_ms)

    def _half(self, voters: Collection[int]) -> tuple[list[int], int]:
        """The others of a half, and how many of them make a majority with what is here."""
        others = [voter for voter in voters if voter != self._id]
        majority = len(voters) // 2 + 1
        return others, majority - (len(others) < len(voters))

    def answered(self, term: int, voter: int, sent_ms: float) -> None:
        """`voter` follows this leader in `term`, and has answered what was sent at `sent_ms`."""
        if term != self._term:
            self._term = term
            self._answered_ms = dict.fromkeys(self._answered_ms, NEVER_MS)
            self.until_ms = self._end(self._answered_ms)
        known = self._answered_ms.get(voter)
        if known is not None and sent_ms > known:
            self._answered_ms[voter] = sent_ms
            self.until_ms = self._end(self._answered_ms)

    def node_answered(self, term: int, node: int, sent_ms: float) -> None:
        """The same of a node for the voter that it has."""
        for voter in self._answered_ms:
            if node_of(voter) == node:
                self.answered(term, voter, sent_ms)

    def until(self, term: int, nodes: Mapping[int, float]) -> float:
        """The end of the lease if these nodes' voters have answered what was sent then, as well."""
        known = self._answered_ms if term == self._term else {}
        return self._end(
            {
                voter: max(known.get(voter, NEVER_MS), nodes.get(node_of(voter), NEVER_MS))
                for voter in self._answered_ms
            }
        )

    def _end(self, answered_ms: Mapping[int, float]) -> float:
        end_ms = FOREVER_MS
        for others, needed in self._halves:
            if needed > len(others):
                return NEVER_MS  # it belongs to nobody yet
            if needed:
                newest = sorted([answered_ms[voter] for voter in others], reverse=True)
                end_ms = min(end_ms, newest[needed - 1] + self._lease_ms)
        return end_ms


class Promise:
    """What a voter owes the leaders that it has answered: no vote before `until_ms`.

    It is on the voter's monotonic clock. A restart forgets whom it answered, so it begins with
    one.
    """

    __slots__ = ("_vote_wait_ms", "until_ms")

    def __init__(self, vote_wait_ms: float, started_ms: float) -> None:
        self._vote_wait_ms = vote_wait_ms
        self.until_ms = started_ms + vote_wait_ms

    def answer(self, received_ms: float) -> None:
        """A leader's heartbeat, that came in then, is answered."""
        until_ms = received_ms + self._vote_wait_ms
        self.until_ms = max(self.until_ms, until_ms)
