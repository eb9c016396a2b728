"""What a host may choose about one replica."""

from collections.abc import Callable

import msgspec

from timemachine import limits
from timemachine.errors import ConfigError
from timemachine.raft.messages import APPLY_THREAD, NO_NODE

_POSITIVE = (
    "election_tick",
    "heartbeat_tick",
    "committed_size_per_ready_max",
    "uncommitted_size_max",
    "inflight_messages_max",
)


def _no_chance(_: int) -> int:
    return 0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one replica. The core reads them once and does not keep them."""

    id: int
    """Who this replica is, within its group and for all time: from 1 to 2**64 - 3.

    An id that was removed, or whose disk was lost, must never come back: others may remember a
    vote that the new replica does not.
    """

    election_tick: int = 10
    """After how many ticks without a leader a replica campaigns, at the earliest.

    A host that does not want to wait after a restart calls `campaign()` instead. Ten ticks of
    100 ms are what etcd runs with.
    """

    heartbeat_tick: int = 1
    """Every how many ticks a leader sends heartbeats. A tenth of `election_tick` is advised."""

    draw: Callable[[int], int] = _no_chance
    """The dice: `draw(n)` gives a number from 0 to n - 1.

    The core has none of its own. What it draws is added to `election_tick`, so that replicas do
    not campaign against each other for ever (dissertation 3.4, 9.3). A group of one needs none.
    """

    pre_vote: bool = False
    """Ask whether one would be elected before one enters a new term (dissertation 9.6).

    A replica that was cut off then comes back without deposing anybody.
    """

    check_quorum: bool = False
    """A leader that heard no majority for `election_tick` ticks steps down (dissertation 6.2).

    And a replica that heard its leader within that time refuses to vote (4.2.3).
    """

    lease_reads: bool = False
    """Answer reads from the leader's lease, without a round of heartbeats (dissertation 6.4.1).

    Only with `check_quorum`, and only where clocks drift less than the bound that the host
    assumes: the core cannot check it. Without it, reads are confirmed by a majority (6.4).
    """

    applied: int = 0
    """The index up to which the host has applied the log; 0 for "up to the snapshot".

    Entries after it are handed out again as soon as they are known to be committed. Too low a
    number makes the host apply twice, too high a number makes it miss entries, so the host
    stores this in the batch that holds what applying wrote.
    """

    committed_size_per_ready_max: int = limits.RAFT_COMMITTED_BYTES_PER_READY_MAX
    """At most how many bytes of committed entries one Ready carries, but always at least one entry.

    This bounds how long one replica with much to catch up on keeps the others of its node
    waiting, and how much of its log is in memory meanwhile.
    """

    uncommitted_size_max: int = limits.RAFT_UNCOMMITTED_BYTES_MAX
    """At most how many bytes of proposals a leader holds that are not applied yet.

    Beyond it, proposals are dropped. One proposal is always taken when nothing is waiting, or a
    large one could never be made; empty entries count nothing, or a new leader could not start.
    """

    message_bytes_max: int = limits.RAFT_MESSAGE_BYTES_MAX
    """At most how many bytes of entries one APPEND carries, but always at least one entry."""

    inflight_messages_max: int = limits.RAFT_INFLIGHT_MESSAGES_MAX
    """At most how many APPENDs to one follower are unanswered (dissertation 10.2.1)."""

    inflight_bytes_max: int = limits.RAFT_INFLIGHT_BYTES_MAX
    """At most how many bytes of entries to one follower are unanswered; the last may go beyond."""

    async_storage_writes: bool = False
    """Hand out writes as messages to two local threads instead of waiting for `advance()`.

    STORAGE_APPEND goes to the writer of the log, STORAGE_APPLY to the state machine; each carries
    the responses to deliver when it is done. See `Ready`.
    """

    forward_proposals: bool = True
    """A follower passes proposals on to its leader; otherwise it drops them."""

    step_down_on_removal: bool = False
    """A leader that a configuration change removes or demotes steps down when it applies it."""

    validate_conf_changes: bool = True
    """Replace a proposed configuration change that cannot be applied by an empty entry.

    Without it, the host must propose one change at a time, and only fitting ones: one that cannot
    be applied stops the replica.
    """

    trace: Callable[[str], None] | None = None
    """Gets a sentence for each event that a human would want to read of, or None."""

    def validate(self) -> None:
        """Raise ConfigError, naming the field, if a value makes no sense."""
        if not NO_NODE < self.id < APPLY_THREAD:
            raise ConfigError(f"raft id: {self.id} is not between 1 and {APPLY_THREAD - 1}")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"raft {name}: {getattr(self, name)} is not positive")
        if self.applied < 0:
            raise ConfigError(f"raft applied: {self.applied} is negative")
        if self.election_tick <= self.heartbeat_tick:
            raise ConfigError(
                f"raft election_tick: {self.election_tick} is not more than"
                f" the heartbeat_tick {self.heartbeat_tick}"
            )
        if self.inflight_bytes_max < self.message_bytes_max:
            raise ConfigError(
                f"raft inflight_bytes_max: {self.inflight_bytes_max} is less than"
                f" the message_bytes_max {self.message_bytes_max}"
            )
        if self.lease_reads and not self.check_quorum:
            raise ConfigError("raft lease_reads: a leader has a lease only with check_quorum")
