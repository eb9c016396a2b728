"""timemachine/raft/membership.py: a change that a snapshot has overtaken."""

from tests.raft.peer import Peer, log_of
from timemachine.raft import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    HardState,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)


def test_a_change_that_is_overtaken_by_a_snapshot_does_not_change_it() -> None:
    """The snapshot's membership holds it already; the host is told what it was in between."""
    added = ConfChangeV2(changes=(ConfChangeSingle(ConfChangeType.ADD_NODE, 4),))
    peer = Peer(log=log_of(1), hard_state=HardState(1))
    peer.hold = True
    later = ConfState(voters=(1, 2, 3, 4, 5))
    snapshot = Snapshot(metadata=SnapshotMetadata(later, 9, 1))
    peer.hear(MessageType.SNAPSHOT, 2, snapshot=snapshot)
    assert ConfState(voters=(1, 2, 3, 4)) == peer.node.apply_conf_change(added)
    assert later == peer.node.status().conf_state
