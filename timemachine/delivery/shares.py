"""A node's static share of what a route allows, so that limits hold over a cluster.

Every member owns a part of each limit, and nobody asks anybody. The parts of all members add up to
the limit, with two exceptions where a limit is smaller than their number; see ADR 10.
"""

from typing import NamedTuple


class Share(NamedTuple):
    """The place of a node among `members` nodes in the order of their numbers, from 0 on."""

    place: int
    members: int

    def of(self, limit: int) -> int:
        """How much of a limit this node owns, at least 1; what is left over goes to the first."""
        return max(1, (limit - self.place + self.members - 1) // self.members)

    def turn(self, limit: int) -> tuple[int, int]:
        """In which of how many turns this node may do its 1, where not all can have one at once.

        In no turn there are more nodes than `limit`, which is at least 1.
        """
        return self.place // limit, -(-self.members // limit)


SOLE_SHARE = Share(0, 1)
"""Of a node without others: all of it."""
