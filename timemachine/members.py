"""The row that says who belongs to a group, beside the state machine that made them so.

Written at the birth of a replica, and with each change of membership in the batch that applies
it: what Raft's log begins with is the membership at the applied index (dissertation 4.1), and the
log before it is gone. It is no row of an image, since the metadata of a snapshot says the same.
"""

import msgspec

from timemachine import codec
from timemachine.raft import ConfState


class Members(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The members row: a ConfState, field by field."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


_read = codec.decoder(Members)


def members_row(members: ConfState) -> bytes:
    """The row that holds `members`."""
    row = Members(
        members.voters,
        members.learners,
        members.voters_outgoing,
        members.learners_next,
        members.auto_leave,
    )
    return codec.encode(row)


def read_members(row: bytes) -> ConfState:
    """What `members_row` wrote. Raises CodecError for foreign bytes."""
    found: Members = _read(row)
    return ConfState(
        found.voters,
        found.learners,
        found.voters_outgoing,
        found.learners_next,
        found.auto_leave,
    )
