"""What two nodes say to each other while the image of a replica goes from one to the other.

The leader's node sends chunk after chunk, the other one answers each when it is durable. Which
transfer is meant stands in both: (term, number) rises with each new transfer of a group, since a
leader numbers its transfers and there is one leader in a term.
"""

import msgspec

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
