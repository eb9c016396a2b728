"""Raft: how the replicas of one vnode (or of the meta group) agree on one log.

This package is one replica's part of that, without any I/O: no socket, no disk, no clock, no
dice. Time is a call to `tick()`, a message is an argument, and the only exit is `ready()`: the
same calls give the same results, on a node and in a simulation. Commands are opaque bytes here.
It follows Diego Ongaro's dissertation, "Consensus: Bridging Theory and Practice" (Stanford,
2014), cited by section, and has the interface and the vocabulary of etcd's raft library.


The story
=========

**A log instead of a state.** Replicas that start alike and apply the same commands in the same
order stay alike (2.1). So they need not agree on their state, only on a log of commands: on what
stands at index 1, 2, 3, and so on. An `Entry` is one position of it. An entry is *committed* when
no future can replace it any more; only then may it be applied, and a client be told.

**Terms** (3.3). Time is cut into terms, numbered upwards. Each has at most one leader, and only
the leader appends, so (term, index) names one entry and no other. A replica remembers the newest
term that it knows of, and what an older term still has to say is ignored (`Raft.step`).

**Election** (3.4). A replica is a follower, a candidate or a leader (`Role`). A follower that
has heard of no leader for `election_tick` ticks becomes a candidate: it enters the next term
and votes for itself (`Raft.become_candidate`). With the votes of a majority it leads
(`Raft.become_leader`). A replica gives one vote a term, and since any two majorities share a
replica, no term gets two leaders. That only holds if a vote outlives a crash, so it is written
to disk before anyone hears of it, the candidate itself included: its own vote travels as a
message, VOTE_RESPONSE, that `RawNode.advance` delivers when the disk has it. With one voter,
that vote is the majority.

**Replication** (3.5). The leader takes proposals (`RawNode.propose`), gives each the next index
and its own term, and appends it (`Log.append`). The entry is *unstable* until the host has
written it (`Unstable`); then the leader counts its own copy, through a message to itself again,
APPEND_RESPONSE. It counts nothing that is not on a disk.

**Commit** (3.6.2). An entry of the leader's own term that is durable on a majority is committed,
and everything before it as well (`Log.maybe_commit`). An entry of an older term is never
committed by counting its copies: a later leader that lacks it could still be elected and replace
it. It has to wait for an entry of the new term on top. That is why a new leader starts by
appending an empty entry. For one voter a majority is one durable copy, its own.

**Applying.** Committed entries leave in `Ready.committed_entries`, in order, in parcels of at
most `Config.committed_size_per_ready_max` bytes. Three numbers, `applied <= applying <=
committed`, say how far that has got (`Log`).

**Snapshots** (5.1). A log cannot grow for ever. The host, whose state machine is its own snapshot
in LevelDB, drops what it has applied from the front of the log; the index and term where the log
was cut off stay known (`MemoryStorage.compact`, `MemoryStorage.create_snapshot`). A replica
restarts from a snapshot, the entries after it, and the hard state.

**Restart** (3.8). What must survive is the `HardState`, the entries, and the host's applied
index. A replica always comes back as a follower, whatever it was, with its old term and vote; it
leads again only by winning a newer term.

**Refusal.** What this replica cannot take, it refuses aloud: ReplicaStopped for a message or an
entry that it does not know, StoreDamaged for a storage that contradicts itself, ProposalDropped
for a proposal that it has no room or no right for. It never skips.


The caller's duties
===================

The host feeds `tick()`, `campaign()`, `propose()` and `step()`, asks `has_ready()`, and for each
`ready()`:

1. **Persist** `snapshot`, `entries` and `hard_state` in one atomic batch, synced if `must_sync`.
2. Only then **send** `messages`.
3. **Apply** `snapshot` and `committed_entries`, each entry once and in order.
4. **Advance**: call `advance()`. Nothing counts before it.

`Ready` has the fine print. The whole of a host is this loop, here with memory for a disk and a
list for a state machine:

>>> storage = MemoryStorage()
>>> members = ConfState(voters=(1,))
>>> storage.apply_snapshot(Snapshot(metadata=SnapshotMetadata(conf_state=members)))
>>> node = RawNode(Config(id=1), storage)
>>> machine = []
>>> def settle():
...     while node.has_ready():
...         ready = node.ready()
...         storage.append(ready.entries)  # 1. persist, in one synced batch
...         if ready.hard_state is not None:
...             storage.set_hard_state(ready.hard_state)
...         assert not ready.messages  # 2. send: a single voter has nobody to tell
...         for entry in ready.committed_entries:  # 3. apply; the empty entry is the leader's own
...             if entry.data:
...                 machine.append(entry.data)
...         node.advance()  # 4. advance
>>> node.campaign()
>>> settle()
>>> node.propose(b"first")
>>> node.propose(b"second")
>>> settle()
>>> machine
[b'first', b'second']
>>> storage.initial_state()[0]
HardState(term=1, vote=1, commit=3)

A new group starts like `storage` above: a snapshot at index 0 that names the members.

**One voter, one batch.** Between persisting an entry and applying it lie two Readys, and so two
batches. With one voter the outcome is known beforehand: an entry that is durable here is
committed. The *host* may use that, and only the host, and only while the group has one voter, no
configuration change is pending in its log, and everything before `Ready.entries` is applied. (After
a restart it may not be: the log can hold entries that are not committed yet. Then the host goes
the plain way until it has caught up.) It applies `Ready.entries` right away, in the batch that
stores them, and stores in that batch the hard state with the newest term and vote it was told and
the index of the last entry as `commit`, the same as its applied index: whatever a crash leaves
behind has commit >= applied. No reply leaves before that batch is synced, exactly as before. After
`advance()` the core hands the same entries out as committed; the host knows its applied index,
answers the clients and does not apply them again. The core is not told and does not care: its
rules stay those of any number of voters.


What is left out now
====================

This core runs groups with a single voter, and refuses any other membership when it starts. Types,
message numbers, the `Ready` contract and the semantics of storage are those of the whole; what
follows adds roles, handlers and bookkeeping about peers:

=============================  ==============  ==================================================
Left out                       Dissertation    Until then
=============================  ==============  ==================================================
votes of others                3.4, 3.6.1      one's own vote is the majority
random election time-outs      3.4, 9.3        nobody to collide with; the time-out is fixed
appends to others, repairing   3.5, 10.2       nobody to send to; the log has one writer
  their logs, flow control
installing a snapshot          5.1             a replica starts from one, but receives none
leadership transfer            3.10            nobody to hand over to
members: learners, one by      4.1 to 4.3      a configuration change is refused when proposed
  one, joint consensus
pre-vote                       9.6             an election disturbs nobody
check-quorum, stickiness       6.2, 4.2.3      the majority is always in reach
linearizable reads             6.4             the host reads what it applied, once an entry of
                                               its own term is applied
leases                         6.4.1           likewise
writing while sending          10.2.1          nothing to send
=============================  ==============  ==================================================
"""

from timemachine.raft.config import Config
from timemachine.raft.core import RawNode, Status
from timemachine.raft.messages import (
    NO_NODE,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    Snapshot,
    SnapshotMetadata,
    SoftState,
)
from timemachine.raft.ready import Ready
from timemachine.raft.storage import (
    Compacted,
    EntryUnavailable,
    MemoryStorage,
    SnapshotOutOfDate,
    Storage,
)

__all__ = [
    "NO_NODE",
    "Compacted",
    "ConfState",
    "Config",
    "Entry",
    "EntryType",
    "EntryUnavailable",
    "HardState",
    "MemoryStorage",
    "Message",
    "MessageType",
    "RawNode",
    "ReadState",
    "Ready",
    "Role",
    "Snapshot",
    "SnapshotMetadata",
    "SnapshotOutOfDate",
    "SoftState",
    "Status",
    "Storage",
]
