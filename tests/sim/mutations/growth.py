"""Mutations of who belongs to a group, and of how that is brought about."""

from typing import Any

from node import membership as driving
from node.consensus import Consensus
from node.healing import Healing
from node.membership import Memberships
from tests.sim.mutations.planting import Mutation, nothing, swap
from timemachine.logrows import LogRows
from timemachine.membership import Wanted
from timemachine.raft import ConfState
from timemachine.vnode import Vnode


def _settles_for_learners(original: Any) -> Any:
    def settled(wanted: Wanted, members: ConfState) -> bool:
        return set(wanted.voters) <= {*members.voters, *members.learners}

    return settled


def _looks_never(_: Any) -> Any:
    def look(self: Healing) -> None:
        self._timer = None

    return look


def _keeps_the_first(_: Any) -> Any:
    def drop_first(self: LogRows) -> None:
        """Whoever comes gets the log from its beginning."""

    return drop_first


def _knows_all(_: Any) -> Any:
    def knows(self: Consensus, sender: int) -> bool:
        return sender in self._peers.others

    return knows


def _stays_sole(original: Any) -> Any:
    def follow(self: Vnode, members: ConfState) -> None:
        sole = self.sole
        original(self, members)
        self.sole = sole or self.sole

    return follow


MUTATIONS = {
    "removed-not-told": Mutation(
        "Meta is not told that a replica has left its group.",
        ("C11",),
        swap(Memberships, "_tell", nothing),
    ),
    "settled-with-learners": Mutation(
        "A group is called settled while those who are to vote still learn.",
        ("C11",),
        swap(driving, "settled", _settles_for_learners),
    ),
    "never-healed": Mutation(
        "Replicas that are missing are not added when nodes join.",
        ("C11",),
        swap(Healing, "_look", _looks_never),
    ),
    "newcomer-gets-first-entry": Mutation(
        "A replica that comes later gets the log from its first entry on, and no members.",
        ("crash",),
        swap(LogRows, "drop_first", _keeps_the_first),
    ),
    "newcomer-not-heard": Mutation(
        "A node is not heard by one that was away while it joined.",
        ("C8", "C10", "C11"),
        swap(Consensus, "_knows", _knows_all),
    ),
    "sole-for-ever": Mutation(
        "A replica that was the only one commits alone after others have come.",
        ("S7", "S5", "S4", "S3", "S9", "C8", "C10", "C11", "crash"),
        swap(Vnode, "_follow", _stays_sole),
    ),
}
