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
has heard of no leader for `election_tick` ticks, and a few more that are drawn by lot, becomes a
candidate: it enters the next term, votes for itself, and asks the other voters
(`election.campaign`). With the votes of a majority it leads (`Raft.become_leader`). A replica
gives one vote a term, and only to a log that is no older than its own; since any two majorities
share a replica, no term gets two leaders, and every leader has all that is committed. That only
holds if a vote outlives a crash, so it is written to disk before anyone hears of it, the
candidate itself included: its own vote travels as a message, VOTE_RESPONSE, that
`RawNode.advance` delivers when the disk has it.

**Not disturbing** (9.6, 6.2, 4.2.3). A replica that was cut off would come back with a newer
term and depose a leader that all others can hear. With `pre_vote` it first asks whether it would
be elected (`Role.PRE_CANDIDATE`). With `check_quorum` nobody votes while a leader was heard of
lately, and a leader that hears no majority steps down (`election.check_quorum`).

**Replication** (3.5, 10.2). The leader takes proposals (`RawNode.propose`, or forwarded by a
follower), gives each the next index and its own term, and appends it (`proposals`). It sends
each follower what it lacks (`sending.send_append`), by what it knows of it (`Progress`): while it
looks for where the two logs agree, one append at a time; from then on one behind the other,
without waiting for answers, as many as the window allows (`Inflights`). A follower takes what
follows an entry that it has, replaces what differs, and says how far its log now agrees, or where
to look instead (`replication.take_append`). What it says it has first written: entries are
*unstable* until the host has stored them (`Unstable`). The leader does not wait for its own disk
before it sends, but counts its own copy, too, only when that is durable, through a message to
itself.

**Commit** (3.6.2). An entry of the leader's own term that is durable on a majority is committed,
and everything before it as well (`replication.count_append`, `Log.maybe_commit`). An entry of an
older term is never committed by counting its copies: a later leader that lacks it could still be
elected and replace it. It has to wait for an entry of the new term on top. That is why a new
leader starts by appending an empty entry. Followers hear of it with the next append or heartbeat.

**Applying.** Committed entries leave in `Ready.committed_entries`, in order, in parcels of at
most `Config.committed_size_per_ready_max` bytes. Three numbers, `applied <= applying <=
committed`, say how far that has got (`Log`).

**Snapshots** (chapter 5). A log cannot grow for ever. The host, whose state machine is its own
snapshot in LevelDB, drops what it has applied from the front of the log; the index and term where
the log was cut off stay known (`MemoryStorage.compact`, `MemoryStorage.create_snapshot`). A
replica restarts from a snapshot, the entries after it, and the hard state. A follower that needs
entries that are gone is sent a snapshot (`sending`, `snapshots`); how its image travels is the
hosts' affair (`Snapshot`).

**Reads** (6.4). A read need not go through the log. The leader notes what is committed, makes
sure that it still leads by a round of heartbeats, and names that index (`RawNode.read_index`,
`reads`): whoever has applied it may answer. With `lease_reads` it trusts its lease instead, until
it hands over.

**Handing over** (3.10). The leader brings another voter up to date, takes no more proposals, and
has it campaign at once (`RawNode.transfer_leader`, `transfer`).

**Members** (chapter 4). Voters decide; learners only get the log. A change of both is an entry of
the log, in force where it is applied. Of one voter at a time, it is a single step; of several, a
joint configuration lies between, in which the old majority and the new one have to agree
(`confchange`, `JointVoters`). `membership` lets only one change at a time into the log, and none
before the leader has applied what it found there.

**Restart** (3.8). What must survive is the `HardState`, the entries, the membership and the
host's applied index. A replica always comes back as a follower, whatever it was, with its old
term and vote; it leads again only by winning a newer term.

**Refusal.** What this replica cannot take, it refuses aloud: ReplicaStopped for a message that is
forged or of no known kind, PeerUnknown for an answer of a stranger, ProposalDropped for a
proposal that it has no room or no right for. It never skips. StoreDamaged says that a storage
contradicts itself, or what this replica told others: one whose disk has lost entries that it
acknowledged is not fed them again but has to be replaced (`Raft.check_promise`).


The caller's duties
===================

The host feeds `tick()`, `propose()`, `step()` and the rest, asks `has_ready()`, and for each
`ready()`:

1. **Persist** `snapshot`, `entries` and `hard_state` in one atomic batch, synced if `must_sync`
   or if there is a snapshot.
2. Only then **send** `messages`.
3. **Apply** `snapshot` and `committed_entries`, each entry once and in order. One that changes
   the membership goes to `apply_conf_change` as well.
4. **Advance**: call `advance()`. Nothing counts before it.

`Ready` has the fine print, and what `async_storage_writes` changes. The whole of a host is this
loop, here with memory for a disk and a list for a state machine:

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


What is left out
================

=============================  ==============  ==================================================
Left out                       Dissertation    Instead
=============================  ==============  ==================================================
one heartbeat for many         -               above the core: one message for each pair of
  groups, groups that sleep                    nodes, and only groups with something due tick
a lease by the clock           6.4.1           above the core; `lease_reads` counts ticks, and
                                               trusts the host's bound on how clocks drift
chunks of a snapshot           5.1             the hosts send the image as they like
sessions of clients            6.3             request ids, in the state machine
catching up before a replica   4.2.1           it comes as a learner; the host makes it a voter
  becomes a voter                              when `Status.progress` says that it is near
replicas of unequal weight     -               all voters are alike
=============================  ==============  ==================================================

It differs from etcd/raft in what its test files cannot see. A replica that lost what it
acknowledged refuses to go on whenever its leader remembers, not only when it is told to commit
it. One that was removed tells candidates what is committed, or a group could wait for its vote
for ever (`election.refuse`). A group of one answers no reads before it has committed in its term.
Reads that wait are dropped with the term, and lease reads end with a transfer.
"""

from timemachine.raft.confchange import ConfChangeRefused
from timemachine.raft.config import Config
from timemachine.raft.messages import (
    NO_NODE,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
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
    conf_change_entry,
    read_conf_change,
)
from timemachine.raft.progress import Progress, ProgressState
from timemachine.raft.rawnode import PeerUnknown, RawNode
from timemachine.raft.ready import Ready
from timemachine.raft.sound import is_sound
from timemachine.raft.status import Status
from timemachine.raft.storage import (
    Compacted,
    EntryUnavailable,
    MemoryStorage,
    SnapshotOutOfDate,
    SnapshotUnavailable,
    Storage,
)

__all__ = [
    "NO_NODE",
    "Compacted",
    "ConfChange",
    "ConfChangeRefused",
    "ConfChangeSingle",
    "ConfChangeTransition",
    "ConfChangeType",
    "ConfChangeV2",
    "ConfState",
    "Config",
    "Entry",
    "EntryType",
    "EntryUnavailable",
    "HardState",
    "MemoryStorage",
    "Message",
    "MessageType",
    "PeerUnknown",
    "Progress",
    "ProgressState",
    "RawNode",
    "ReadState",
    "Ready",
    "Role",
    "Snapshot",
    "SnapshotMetadata",
    "SnapshotOutOfDate",
    "SnapshotUnavailable",
    "SoftState",
    "Status",
    "Storage",
    "conf_change_entry",
    "is_sound",
    "read_conf_change",
]
