"""Mutations of changes of membership, in the core alone."""

from collections.abc import Mapping
from typing import Any

from tests.sim.mutations.planting import Mutation, swap
from timemachine.raft import membership
from timemachine.raft.core import Raft
from timemachine.raft.quorum import JointVoters, majority_committed


def _changes_at_once(original: Any) -> Any:
    def become_leader(self: Raft) -> None:
        original(self)
        self.pending_conf_index = 0

    return become_leader


def _changes_never_wait(_: Any) -> Any:
    def objection(raft: Raft, change: Any, pending: int) -> str | None:
        joint = bool(raft.tracker.config.voters.outgoing)
        if joint == bool(change.changes):
            return "it does not fit"
        return None

    return objection


def _commits_by_one_half(_: Any) -> Any:
    def committed(self: JointVoters, acked: Mapping[int, int]) -> int:
        return majority_committed(self.incoming, acked)

    return committed


MUTATIONS = {
    "change-before-own-commit": Mutation(
        "A new leader changes its members before it has applied what it found in its log.",
        ("S10",),
        swap(Raft, "become_leader", _changes_at_once),
        core=True,
    ),
    "changes-overlap": Mutation(
        "A change of members is appended while another one is open.",
        ("S10",),
        swap(membership, "_objection", _changes_never_wait),
        core=True,
    ),
    "joint-commit-by-incoming": Mutation(
        "In a joint configuration entries are committed by the incoming half alone.",
        ("S7",),
        swap(JointVoters, "committed", _commits_by_one_half),
        core=True,
    ),
}
