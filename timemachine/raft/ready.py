"""What the core wants done: the only way anything leaves it."""

from collections.abc import Sequence

import msgspec

from timemachine.raft.messages import Entry, HardState, Message, ReadState, Snapshot, SoftState


class Ready(msgspec.Struct, frozen=True, gc=False):
    """One parcel of work for the host. Nothing in it may be changed.

    The caller's duties, for each Ready, in this order:

    1. Persist. Write `snapshot`, then `entries`, then `hard_state`, in one atomic batch. Writing
       an entry discards whatever was stored at its index and after. With `must_sync`, or with a
       snapshot, the batch must be on the disk before duty 2; without them, it may wait for the
       next batch that is. From here on the Storage that the core reads has to show what was
       written.
    2. Send. Only now may `messages` leave, in their order: they promise what duty 1 made
       durable. A message that cannot be sent is dropped, and `report_unreachable` says so; the
       core repeats what matters. Only what a leader sends (APPEND, HEARTBEAT) promises nothing
       and may leave during duty 1 (dissertation 10.2.1). A SNAPSHOT may take its time, see
       Snapshot; `report_snapshot` says how it ended.
    3. Apply. Install `snapshot`, then apply `committed_entries` in their order, each of them
       once; an entry that cannot be understood stops the replica, it is never skipped. A change
       of membership is given to `apply_conf_change`, and the membership that comes back is kept
       with the state machine: a restart begins with it. The applied index goes into the batch
       that stores what applying wrote, and that batch is not older than the one with this
       `hard_state`: no disk may say applied > commit. A read in `read_states` is answered when
       its index is applied.
    4. Advance. Call `advance()`. It says that duties 1 and 3 are done, and it lets the core count
       this replica's own vote and its own log; before it, they count for nothing.

    Between `ready()` and `advance()` the core takes ticks, proposals and messages, but no second
    `ready()`. If duty 1 fails, the host must not advance: the core and all that it said since are
    to be thrown away and rebuilt from storage.

    With `async_storage_writes` there is no `advance()`, and the next `ready()` may follow at
    once. Then `messages` also holds the duties, as orders to two local threads: STORAGE_APPEND
    is duty 1, with the hard state in its `term`, `vote` and `commit` unless they are all 0, and
    STORAGE_APPLY is duty 3 without the snapshot, which goes with the append. Each thread does its
    orders one after the other; the two do not wait for each other. When an order is done, for
    STORAGE_APPEND durably, its `responses` are delivered: those to this replica with `step()`,
    the others to the network. Everything else in `messages` may leave at once, with one
    exception: a VOTE waits for the STORAGE_APPEND behind it. Otherwise a crash could take back
    the term and the entries with which the candidate asks, and an answer that comes late could
    elect it in the same term with a shorter log.
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
    """Messages to other replicas; with `async_storage_writes` also to the local threads."""

    must_sync: bool = False
    """Whether duty 1 has to be durable before duty 2: there are entries, or a term or vote moved.

    A commit index alone need not be synced: a restarted replica finds it again. A snapshot is not
    counted here, as it is not in etcd, but always has to be durable: the answer says that it is.
    """
