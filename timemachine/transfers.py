"""What two nodes say to each other while the image of a replica goes from one to the other.

The leader's node sends chunk after chunk, the other one answers each when it is durable. Which
transfer is meant stands in both: (term, number) rises with each new transfer of a group, since a
leader numbers its transfers and there is one leader in a term.
"""

import msgspec

from timemachine import limits
from timemachine.raft import Message
from timemachine.replica.snapshot import ImageEnd

Group = tuple[int, int]
"""(collection uid, vnode index)."""

TransferId = tuple[int, int]
"""(term of the leader, number that it gave)."""


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One step of a transfer.

    number   of this step, from 0
    data     a chunk of the image; empty in the last step
    message  the core's SNAPSHOT, in the first step only: what the image is, and for whom
    end      what the image adds up to, in the last step only
    """

    group: Group
    transfer: TransferId
    number: int
    data: bytes
    message: Message | None = None
    end: ImageEnd | None = None


class SnapshotAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far the receiver is.

    following  the step that is due next: whatever was before it is durable
    refused    nothing of this transfer is kept, and no more of it is taken
    """

    group: Group
    transfer: TransferId
    following: int
    refused: bool = False


def may_resume(sent: Message, wanted: Message, log_base: int) -> bool:
    """Whether an image that was announced by `sent` still serves who is to get `wanted`.

    It does if it is for the same replica, from a leader of the same term, and the leader's log,
    which begins behind `log_base`, goes on from where it ends. `wanted` names what is applied now,
    which is more as soon as anything was written meanwhile.
    """
    if sent.snapshot is None or wanted.snapshot is None:
        return False
    return (sent.to, sent.term) == (
        wanted.to,
        wanted.term,
    ) and sent.snapshot.metadata.index >= log_base


def pause_after_failures_ms(failures: int) -> float:
    """How long a transfer waits that has failed so often in a row: not at all after the first."""
    if failures < 2:
        return 0.0
    doubled = limits.SNAPSHOT_BACKOFF_MS_MIN * 2.0 ** min(failures - 2, 30)
    return min(doubled, limits.SNAPSHOT_BACKOFF_MS_MAX)
