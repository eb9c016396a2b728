"""S13: all nodes together have no more requests of a route under way than its shares allow.

A request counts from its first byte until its node heard how it ended, or its time-out is over.
That of a node that died counts as well, until then or until a new process of that node runs: then
the old one's connections are closed, and it knows nothing of them.

Shares are what the nodes own by what they know of who belongs to the cluster, dead ones as well.
These may be more than the limit, where that is smaller than the number of nodes, or while a change
of members is not known to all. Who had a larger share before others came may still have it under
way, as itself or by credit; so each node may have the largest that it owned since what was begun
then must have ended, also if the credit for it was older.
"""

from collections.abc import Callable

from tests.checks.violation import Violation
from tests.sim.cluster.recipients import Sending
from timemachine.delivery.credits import blocked_ms


class Owned:
    """What all nodes own of a limit, and have owned. `shares` gives it by node."""

    def __init__(self, shares: Callable[[], dict[int, int]]) -> None:
        self._shares = shares
        self._owned: list[tuple[float, dict[int, int]]] = []

    def look(self, now_ms: float) -> None:
        """The shares may have changed."""
        shares = dict(self._shares())
        if not self._owned or self._owned[-1][1] != shares:
            self._owned.append((now_ms, shares))

    def since(self, since_ms: float) -> int:
        """What the nodes have owned since then, each the most that it did."""
        most: dict[int, int] = {}
        before = [shares for at_ms, shares in self._owned if at_ms <= since_ms][-1:]
        for shares in before + [shares for at_ms, shares in self._owned if at_ms > since_ms]:
            for node, share in shares.items():
                most[node] = max(share, most.get(node, 0))
        return sum(most.values())


class Flight:
    """Counts the requests under way of the one route. `shares` gives what all nodes own of it.

    `generations` gives those of the processes that run, by node. `most` is how many were under way
    at the same time, `lent` says whether a node ever had more than its share.
    """

    def __init__(
        self,
        shares: Callable[[], dict[int, int]],
        generations: Callable[[], dict[int, int]],
    ) -> None:
        self._shares = shares
        self._generations = generations
        self._open: list[Sending] = []
        self._owned = Owned(shares)
        self.most = 0
        self.lent = 0

    def look(self, now_ms: float) -> None:
        """The shares may have changed."""
        self._owned.look(now_ms)

    def leaves(self, sending: Sending, now_ms: float) -> None:
        """The first byte of a request leaves. Raises Violation."""
        generations = self._generations()
        self._open = [
            each
            for each in self._open
            if each.ended_ms is None
            and now_ms < each.asked_ms + each.request.timeout_ms
            and generations.get(each.node, each.generation) == each.generation
        ]
        self._open.append(sending)
        self.look(now_ms)
        own = len([each for each in self._open if each.node == sending.node])
        self.lent = max(self.lent, own - self._shares().get(sending.node, own))
        self.most = max(self.most, len(self._open))
        allowed = self._owned.since(now_ms - 2 * blocked_ms(sending.request.timeout_ms))
        if len(self._open) > allowed:
            by = sorted(each.node for each in self._open)
            told = f"{len(self._open)} requests are under way by nodes {by}, of {allowed}"
            raise Violation("S13", told)
