"""What a human, or the host, wants to see of a replica."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from timemachine.raft.messages import ConfState, Role
from timemachine.raft.progress import Progress

if TYPE_CHECKING:
    from timemachine.raft.core import Raft


class Status(msgspec.Struct, frozen=True, gc=False):
    """A replica's vital signs."""

    id: int
    role: Role
    leader: int
    term: int
    vote: int
    commit: int
    applied: int
    first_index: int
    last_index: int
    transferee: int = 0
    """Whom a leader is handing over to; 0 for nobody."""
    conf_state: ConfState = ConfState()
    """The membership in force here."""
    progress: Mapping[int, Progress] = {}
    """On a leader: what it knows of each member, in the order of their ids. A copy."""


def status_of(raft: "Raft") -> Status:
    """The state of `raft` as of now."""
    log = raft.log
    progress = {}
    if raft.role is Role.LEADER:
        progress = {member: each.copy() for member, each in sorted(raft.tracker.progress.items())}
    return Status(
        id=raft.id,
        role=raft.role,
        leader=raft.leader,
        term=raft.term,
        vote=raft.vote,
        commit=log.committed,
        applied=log.applied,
        first_index=log.first_index(),
        last_index=log.last_index(),
        transferee=raft.transferee,
        conf_state=raft.tracker.conf_state(),
        progress=progress,
    )
