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

from collections.abc import Iterable
from typing import Final

FOREVER_MS: Final = float("inf")
NEVER_MS: Final = float("-inf")


class Lease:
    """What the other voters have answered to this leader, and what follows.

    `until_ms` is the end of the lease on the leader's monotonic clock.
    """

    __slots__ = ("_answered_ms", "_lease_ms", "_needed", "_term", "until_ms")

    def __init__(self, id: int, voters: tuple[int, ...], lease_ms: float) -> None:
        self._answered_ms = {voter: NEVER_MS for voter in voters if voter != id}
        # Of the others: with this replica itself they are a majority.
        self._needed = len(voters) // 2
        self._lease_ms = lease_ms
        self._term = 0
        self.until_ms = NEVER_MS

    def answered(self, term: int, voter: int, sent_ms: float) -> None:
        """`voter` follows this leader in `term`, and has answered what was sent at `sent_ms`."""
        if term != self._term:
            self._term = term
            self._answered_ms = dict.fromkeys(self._answered_ms, NEVER_MS)
            self.until_ms = NEVER_MS
        known = self._answered_ms.get(voter)
        if known is not None and sent_ms > known:
            self._answered_ms[voter] = sent_ms
            self.until_ms = self._end(self._answered_ms.values())

    def until(self, term: int, others: dict[int, float]) -> float:
        """The end of the lease if these voters have answered what was sent then, as well."""
        if term != self._term:
            return self._end([others.get(voter, NEVER_MS) for voter in self._answered_ms])
        return self._end(
            [
                max(sent_ms, others.get(voter, NEVER_MS))
                for voter, sent_ms in self._answered_ms.items()
            ]
        )

    def _end(self, answered_ms: Iterable[float]) -> float:
        newest = sorted(answered_ms, reverse=True)
        return newest[self._needed - 1] + self._lease_ms if self._needed else FOREVER_MS


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
