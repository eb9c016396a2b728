"""How a node belongs to its cluster, and in which rhythm its groups live."""

import msgspec

from node.env import Network, World
from node.peers import Peers
from timemachine import limits
from timemachine.group import GroupConfig
from timemachine.storage.api import Store
from timemachine.storage.keys import EPOCH_KEY, u64
from timemachine.storage.overlay import Overlay


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the clocks of consensus go. A follower waits `election_tick` ticks for its leader.

    `drift` is by how much two nodes' monotonic clocks may differ, as a fraction. A group may fall
    asleep after `idle_ticks` ticks with nothing to do.
    """

    tick_ms: float = 100.0
    election_tick: int = 10
    heartbeat_tick: int = 1
    drift: float = 0.01
    idle_ticks: int = 3

    @property
    def vote_wait_ms(self) -> float:
        """How long a voter gives no vote after it has answered a leader."""
        return self.tick_ms * self.election_tick

    @property
    def lease_ms(self) -> float:
        """How long a leader may count on that, whichever of the clocks goes faster."""
        return self.vote_wait_ms * (1.0 - 2.0 * self.drift) - self.tick_ms / 2


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Which node this is, who the others are, and how they talk.

    number   this node's, which its replicas are named by
    members  the numbers of the nodes that the cluster was born with, which is how its meta group
             begins; none for a node that joins
    others   the numbers of all other nodes, as far as they are known before meta is
    log_entries_max, log_bytes_max, message_bytes_max, inflight_messages_max, inflight_bytes_max,
    uncommitted_size_max, committed_size_per_ready_max
             see `timemachine.group.GroupConfig`
    snapshot_chunk_bytes
             about how much of an image is sent at once
    snapshot_bytes_per_s
             how much of all images together is sent
    """

    number: int
    members: tuple[int, ...]
    network: Network
    others: tuple[int, ...] = ()
    rhythm: Rhythm = Rhythm()
    log_entries_max: int = limits.LOG_ENTRIES_MAX
    log_bytes_max: int = limits.LOG_BYTES_MAX
    message_bytes_max: int = limits.RAFT_MESSAGE_BYTES_MAX
    inflight_messages_max: int = limits.RAFT_INFLIGHT_MESSAGES_MAX
    uncommitted_size_max: int = limits.RAFT_UNCOMMITTED_BYTES_MAX
    inflight_bytes_max: int = limits.RAFT_INFLIGHT_BYTES_MAX
    committed_size_per_ready_max: int = limits.RAFT_COMMITTED_BYTES_PER_READY_MAX
    snapshot_chunk_bytes: int = limits.SNAPSHOT_CHUNK_BYTES
    snapshot_bytes_per_s: int = limits.SNAPSHOT_RATE_BYTES_DEFAULT

    def peers(self, store: Store, overlay: Overlay) -> Peers:
        """The way to the others, in a new epoch, which the first batch makes durable."""
        row = store.get(EPOCH_KEY)
        epoch = 1 if row is None else int.from_bytes(row, "big") + 1
        overlay.put(EPOCH_KEY, u64(epoch))
        others = sorted({*self.members, *self.others} - {self.number})
        return Peers(self.network, self.number, others, epoch)

    def group_config(self, world: World) -> GroupConfig:
        """How this node's replicas take part in their groups."""
        return GroupConfig(
            id=self.number,
            voters=self.members,
            draw=lambda count: int(world.random() * count),
            election_tick=self.rhythm.election_tick,
            heartbeat_tick=self.rhythm.heartbeat_tick,
            vote_wait_ms=self.rhythm.vote_wait_ms,
            lease_ms=self.rhythm.lease_ms,
            started_ms=world.mono_ms(),
            message_bytes_max=self.message_bytes_max,
            inflight_messages_max=self.inflight_messages_max,
            inflight_bytes_max=self.inflight_bytes_max,
            uncommitted_size_max=self.uncommitted_size_max,
            committed_size_per_ready_max=self.committed_size_per_ready_max,
            log_entries_max=self.log_entries_max,
            log_bytes_max=self.log_bytes_max,
        )
