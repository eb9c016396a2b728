"""The words of Raft: entries, messages, and the states that are kept and shown.

Names and numbers are those of etcd's `raftpb`, so that its test files can judge this core and so
that a reader who knows the one knows the other. Everything here is frozen: an entry or a message
is shared by the log, the storage, the host and (in a simulation) the network, and none of them
may change it under the others. `gc=False` because none of these values can be part of a cycle;
thousands of groups make enough of them for the garbage collector to notice.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

from timemachine import codec

NO_NODE: Final = 0
"""The id of nobody: no vote, no leader, or a message that the core addresses to itself."""

APPEND_THREAD: Final = 2**64 - 1
"""Stands for the local writer of the log, as sender of storage answers; never a replica's id."""

APPLY_THREAD: Final = 2**64 - 2
"""Stands for the local state machine, as sender of storage answers; never a replica's id."""

ENTRY_OVERHEAD_BYTES: Final = 32
"""What an entry counts beside its data, so that even endless empty entries reach a size limit."""


class EntryType(IntEnum):
    """What the data of an entry is. The numbers are stored."""

    NORMAL = 0
    """Commands of the host; empty in the entry that a new leader starts its term with."""
    CONF_CHANGE = 1
    """A change of one member (dissertation 4.1)."""
    CONF_CHANGE_V2 = 2
    """A change of any number of members through a joint configuration (dissertation 4.3)."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One position of the log: its `index`, the `term` it was written in, and opaque `data`."""

    term: int = 0
    index: int = 0
    type: EntryType = EntryType.NORMAL
    data: bytes = b""


class MessageType(IntEnum):
    """Every kind of message, with etcd's number and, in parentheses, etcd's name."""

    HUP = 0
    """(MsgHup) Local: start an election."""
    BEAT = 1
    """(MsgBeat) Local: the leader is due to send heartbeats."""
    PROPOSE = 2
    """(MsgProp) Append these entries, if you lead. Carries no term: it may be forwarded."""
    APPEND = 3
    """(MsgApp) From a leader: `entries` that follow the one at (`index`, `log_term`)."""
    APPEND_RESPONSE = 4
    """(MsgAppResp) The log is durable up to `index`; or, with `reject`, it does not match."""
    VOTE = 5
    """(MsgVote) A candidate whose log ends at (`index`, `log_term`) asks for a vote in `term`."""
    VOTE_RESPONSE = 6
    """(MsgVoteResp) The vote is given, and durable; or refused."""
    SNAPSHOT = 7
    """(MsgSnap) From a leader whose log no longer holds what this replica needs."""
    HEARTBEAT = 8
    """(MsgHeartbeat) From a leader: it leads in `term`, and the receiver may commit to `commit`."""
    HEARTBEAT_RESPONSE = 9
    """(MsgHeartbeatResp) The answer, with the heartbeat's `context`."""
    UNREACHABLE = 10
    """(MsgUnreachable) Local: the last message to `from_` was not delivered."""
    SNAPSHOT_STATUS = 11
    """(MsgSnapStatus) Local: a snapshot sent to `from_` arrived, or with `reject` did not."""
    CHECK_QUORUM = 12
    """(MsgCheckQuorum) Local: the leader is due to step down if it hears no majority."""
    TRANSFER_LEADER = 13
    """(MsgTransferLeader) The leader should hand over to `from_`."""
    TIMEOUT_NOW = 14
    """(MsgTimeoutNow) From a leader that hands over: campaign at once."""
    READ_INDEX = 15
    """(MsgReadIndex) Ask the leader for an index that a read with `context` has to wait for."""
    READ_INDEX_RESPONSE = 16
    """(MsgReadIndexResp) That index."""
    PRE_VOTE = 17
    """(MsgPreVote) Would you vote for me in `term`? Changes nobody's term or vote."""
    PRE_VOTE_RESPONSE = 18
    """(MsgPreVoteResp) The answer."""
    STORAGE_APPEND = 19
    """(MsgStorageAppend) To the local log writer: persist these entries and this hard state."""
    STORAGE_APPEND_RESPONSE = 20
    """(MsgStorageAppendResp) The log is durable up to the entry at (`index`, `log_term`)."""
    STORAGE_APPLY = 21
    """(MsgStorageApply) To the local state machine: apply these entries."""
    STORAGE_APPLY_RESPONSE = 22
    """(MsgStorageApplyResp) `entries` are applied."""
    FORGET_LEADER = 23
    """(MsgForgetLeader) Local: the leader is believed dead; others may be voted for."""


class ConfState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who belongs to the group, as ids of replicas.

    `voters` decide. `learners` get the log but do not count. While a joint configuration is in
    force, `voters_outgoing` is the old majority that must agree too, `learners_next` become
    learners when it ends, and with `auto_leave` the leader ends it by itself.
    """

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class ConfChangeType(IntEnum):
    """What happens to one replica's membership. The numbers are stored."""

    ADD_NODE = 0
    """It becomes a voter, whatever it was."""
    REMOVE_NODE = 1
    """It leaves the group; removing who is not there changes nothing."""
    UPDATE_NODE = 2
    """Nothing changes for the core; the host may have put news about the replica beside it."""
    ADD_LEARNER = 3
    """It gets the log but does not count; a voter is demoted."""


class ConfChangeTransition(IntEnum):
    """How a change passes through the joint configuration. The numbers are stored."""

    AUTO = 0
    """A single change needs no joint configuration; several use one and leave it by themselves."""
    JOINT_IMPLICIT = 1
    """Always joint; the leader proposes to leave it as soon as it is applied."""
    JOINT_EXPLICIT = 2
    """Always joint; the host proposes to leave it, with a ConfChangeV2 without changes."""


class ConfChangeSingle(msgspec.Struct, frozen=True, gc=False):
    """One replica's part of a change of membership."""

    type: ConfChangeType
    node_id: int


class ConfChangeV2(msgspec.Struct, frozen=True, gc=False):
    """A change of membership: any number of replicas at once (dissertation 4.3).

    Without changes and with AUTO it leaves the joint configuration. `context` is the host's.
    """

    transition: ConfChangeTransition = ConfChangeTransition.AUTO
    changes: tuple[ConfChangeSingle, ...] = ()
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        """Whether this is the way out of a joint configuration."""
        return not self.changes and self.transition is ConfChangeTransition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether a joint configuration is used: when asked for, or when one step cannot do it."""
        return self.transition is not ConfChangeTransition.AUTO or len(self.changes) > 1

    @property
    def auto_leave(self) -> bool:
        """Whether the leader ends the joint configuration by itself."""
        return self.transition is not ConfChangeTransition.JOINT_EXPLICIT

    def as_v2(self) -> "ConfChangeV2":
        """Itself: both kinds of change answer to this."""
        return self


class ConfChange(msgspec.Struct, frozen=True, gc=False):
    """A change of one member (dissertation 4.1). `id` and `context` are the host's."""

    type: ConfChangeType
    node_id: int
    id: int = 0
    context: bytes = b""

    def as_v2(self) -> ConfChangeV2:
        """The same change in the general form."""
        change = ConfChangeSingle(self.type, self.node_id)
        return ConfChangeV2(changes=(change,), context=self.context)


_read_conf_change = codec.decoder(ConfChange)
_read_conf_change_v2 = codec.decoder(ConfChangeV2)


def conf_change_entry(change: ConfChange | ConfChangeV2) -> Entry:
    """The entry that proposes `change`.

    Leaving a joint configuration is proposed with no data at all, so that no limit on the size of
    proposals can keep a group in it.
    """
    if isinstance(change, ConfChange):
        return Entry(type=EntryType.CONF_CHANGE, data=codec.encode(change))
    data = b"" if change == ConfChangeV2() else codec.encode(change)
    return Entry(type=EntryType.CONF_CHANGE_V2, data=data)


def read_conf_change(entry: Entry) -> ConfChange | ConfChangeV2:
    """What an entry of one of the types CONF_CHANGE holds. Raises CodecError for foreign bytes."""
    change: ConfChange | ConfChangeV2
    if entry.type is EntryType.CONF_CHANGE:
        change = _read_conf_change(entry.data)
    else:
        assert entry.type is EntryType.CONF_CHANGE_V2
        change = _read_conf_change_v2(entry.data) if entry.data else ConfChangeV2()
    return change


class SnapshotMetadata(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a snapshot ends: at the entry (`index`, `term`), with this membership."""

    conf_state: ConfState = ConfState()
    index: int = 0
    term: int = 0


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state machine's image, in place of all entries up to `metadata.index`.

    The core only looks at `metadata`, and never copies `data`. An image of any size is sent in
    chunks by the hosts, on a way of their own (dissertation 5.1): `data` then only names the
    image, the sending host keeps the SNAPSHOT message until the receiving host has said that it
    holds the whole image, and the receiver's core gets the message only then.
    (`metadata.index`, `metadata.term`) tells the image from any other of the group, so a transfer
    that broke off can be resumed. However it ends, the sender calls `report_snapshot`.
    """

    data: bytes = b""
    metadata: SnapshotMetadata = SnapshotMetadata()


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One input of the core, or one output that is to be delivered to the replica `to`.

    What a field means depends on `type`; a field that the type does not use keeps its default.
    """

    type: MessageType
    to: int = NO_NODE
    from_: int = NO_NODE
    term: int = 0
    """The sender's term; 0 marks a message that belongs to no term (local, or forwarded)."""
    log_term: int = 0
    """The term of the entry at `index`."""
    index: int = 0
    entries: Sequence[Entry] = ()
    commit: int = 0
    vote: int = NO_NODE
    """Only in STORAGE_APPEND, where term, vote and commit are the hard state to keep."""
    snapshot: Snapshot | None = None
    reject: bool = False
    reject_hint: int = 0
    """With `reject`: the sender's best guess where the two logs still agree."""
    context: bytes = b""
    """Bytes that come back unchanged in the answer."""
    responses: Sequence["Message"] = ()
    """In STORAGE_APPEND and STORAGE_APPLY: what to deliver once the work is done."""
    acked: int = 0
    """In what a leader sends: up to where the receiver acknowledged its log to this leader.

    A receiver whose log ends before it has lost what it promised; see `Raft.check_promise`. etcd
    does not have this field, nor the next one.
    """
    known_commit: tuple[int, int] = (0, 0)
    """In the refusal of a vote: index and term of an entry that is committed; (0, 0) for none.

    See `election.refuse`.
    """


class HardState(msgspec.Struct, frozen=True, gc=False):
    """What a replica must still know after a crash (dissertation 3.8).

    Losing `term` or `vote` lets a replica vote twice. `commit` is a convenience: without it a
    restarted replica learns again what is committed.
    """

    term: int = 0
    vote: int = NO_NODE
    commit: int = 0


class Role(IntEnum):
    """What a replica is in its term (dissertation 3.3). The numbers are etcd's."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3
    """Asks whether it would be elected, before it disturbs anybody (9.6)."""


class SoftState(msgspec.Struct, frozen=True, gc=False):
    """What a replica may forget in a crash: whom it follows and what it is."""

    leader: int = NO_NODE
    role: Role = Role.FOLLOWER


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """The read with this `context` may be answered once everything up to `index` is applied."""

    index: int
    context: bytes


def entry_bytes(entry: Entry) -> int:
    """What `entry` counts against the limits on entries handed out (`size_max`)."""
    return ENTRY_OVERHEAD_BYTES + len(entry.data)


def limit_size(entries: list[Entry], size_max: int) -> list[Entry]:
    """The longest prefix of `entries` of at most `size_max` bytes, but never less than one entry.

    The exception keeps a log moving whose next entry alone is larger than the limit.
    """
    if len(entries) > 1:
        size = entry_bytes(entries[0])
        for count in range(1, len(entries)):
            size += entry_bytes(entries[count])
            if size > size_max:
                return entries[:count]
    return entries
