"""What the core wants done: the only way anything leaves it."""

from collections.abc import Sequence

import msgspec

from timemachine.raft.messages import Entry, HardState, Message, ReadState, Snapshot, SoftState


class Ready(msgspec.Struct, frozen=True, gc=False):
    """One parcel of work for the host. Nothing in it may be changed.

    The caller's duties, for each Ready, in this order:

    1. Persist. Write `snapshot`, then `entries`, then `hard_state`, in one atomic batch. Writing
       an entry discards whatever was stored at its index and after. With `must_sync` the batch
       must be on the disk before duty 2; without it, it may wait for the next batch that is.
       From here on the Storage that the core reads has to show what was written.
    2. Send. Only now may `messages` leave, in their order: they promise what duty 1 made
       durable. A message that cannot be sent is dropped; the core repeats what matters.
    3. Apply. Install `snapshot`, then apply `committed_entries` in their order, each of them
       once; an entry that cannot be understood stops the replica, it is never skipped. The
       applied index goes into the batch that stores what applying wrote, and that batch is not
       older than the one with this `hard_state`: no disk may say applied > commit. A read in
       `read_states` is answered when its index is applied.
    4. Advance. Call `advance()`. It says that duties 1 and 3 are done, and it lets the core count
       this replica's own vote and its own log; before it, they count for nothing.

    Between `ready()` and `advance()` the core takes ticks, proposals and messages, but no second
    `ready()`. If duty 1 fails, the host must not advance: the core and all that it said since are
    to be thrown away and rebuilt from storage.

    A group of one voter sends no messages and installs no snapshots, and linearizable reads are
    not offered yet: `messages`, `snapshot` and `read_states` stay empty.
    """

    soft_state: SoftState | None = None
    """The leader or the role, if one of them changed. Not to be stored."""

    hard_state: HardState | None = None
    """Term, vote and commit, if one of them changed."""

    read_states: Sequence[ReadState] = ()
    """Reads whose index is known."""

    entries: Sequence[Entry] = ()
    """New entries of the log, contiguous."""

    snapshot: Snapshot | None = None
    """A snapshot that replaces the log and the state machine."""

    committed_entries: Sequence[Entry] = ()
    """Entries to apply, contiguous, right behind those of the last Ready."""

    messages: Sequence[Message] = ()
    """Messages to other replicas."""

    must_sync: bool = False
    """Whether duty 1 has to be durable before duty 2: there are entries, or a term or vote moved.

    A commit index alone need not be synced: a restarted replica finds it again.
    """
