"""How one replica takes part in its group: who it is, who else votes, and in which rhythm."""

from collections.abc import Callable
from typing import Final

import msgspec

from timemachine import limits

META_GROUP: Final = (0, 0)
"""The group of what the whole cluster agrees on. Other groups begin with a collection's uid."""

_NODE_BITS: Final = 16


def replica_id(node: int, generation: int = 0) -> int:
    """The id of a replica on a node of that number.

    A replica that has lost what it acknowledged must not vote under its id again, so a node's
    next replica of the same group is of a new generation.
    """
    return generation << _NODE_BITS | node


def node_of(replica: int) -> int:
    """The number of the node that has the replica of this id."""
    return replica & ((1 << _NODE_BITS) - 1)


def generation_of(replica: int) -> int:
    """The generation of the replica of this id."""
    return replica >> _NODE_BITS


def _no_chance(_: int) -> int:
    return 0


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the host decides about one replica of one group.

    id                  this replica: the number of its node
    voters              the members with which the group begins; a replica that has rows keeps
                        those that it has
    draw                chance for time-outs, see `timemachine.raft.Config.draw`
    election_tick, heartbeat_tick
                        see there; a tick is the host's
    vote_wait_ms        how long a voter gives no vote after it has answered a leader
    lease_ms            how long a leader counts on that, from when it asked: less than
                        `vote_wait_ms` by more than clocks drift apart in that time
    started_ms          when this process began, on its monotonic clock
    message_bytes_max, inflight_messages_max, inflight_bytes_max, uncommitted_size_max,
    committed_size_per_ready_max
                        see `timemachine.raft.Config`
    log_entries_max, log_bytes_max
                        beyond this the older half of the applied log is dropped; a follower that
                        still needs it gets a snapshot
    """

    id: int = 1
    voters: tuple[int, ...] = (1,)
    draw: Callable[[int], int] = _no_chance
    election_tick: int = 10
    heartbeat_tick: int = 1
    vote_wait_ms: float = 1_000.0
    lease_ms: float = 900.0
    started_ms: float = 0.0
    message_bytes_max: int = limits.RAFT_MESSAGE_BYTES_MAX
    inflight_messages_max: int = limits.RAFT_INFLIGHT_MESSAGES_MAX
    inflight_bytes_max: int = limits.RAFT_INFLIGHT_BYTES_MAX
    uncommitted_size_max: int = limits.RAFT_UNCOMMITTED_BYTES_MAX
    committed_size_per_ready_max: int = limits.RAFT_COMMITTED_BYTES_PER_READY_MAX
    log_entries_max: int = limits.LOG_ENTRIES_MAX
    log_bytes_max: int = limits.LOG_BYTES_MAX


SOLE = GroupConfig()
"""The only voter of its group."""
