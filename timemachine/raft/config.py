"""What a host may choose about one replica."""

import msgspec

from timemachine import limits
from timemachine.errors import ConfigError
from timemachine.raft.messages import APPLY_THREAD, NO_NODE


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one replica. The core reads them once and does not keep them."""

    id: int
    """Who this replica is, within its group and for all time: from 1 to 2**64 - 3.

    An id that was removed, or whose disk was lost, must never come back: others may remember a
    vote that the new replica does not.
    """

    election_tick: int = 10
    """After how many ticks without a leader a replica campaigns.

    A host that does not want to wait after a restart calls `campaign()` instead. Ten ticks of
    100 ms are what etcd runs with.
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

    def validate(self) -> None:
        """Raise ConfigError, naming the field, if a value makes no sense."""
        if not NO_NODE < self.id < APPLY_THREAD:
            raise ConfigError(f"raft id: {self.id} is not between 1 and {APPLY_THREAD - 1}")
        for name in ("election_tick", "committed_size_per_ready_max", "uncommitted_size_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"raft {name}: {getattr(self, name)} is not positive")
        if self.applied < 0:
            raise ConfigError(f"raft applied: {self.applied} is negative")
