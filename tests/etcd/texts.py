"""Our values in the words of etcd's test files."""

from collections.abc import Iterable, Mapping
from typing import Final

from timemachine.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
    Snapshot,
    read_conf_change,
)
from timemachine.raft.progress import Progress, ProgressState
from timemachine.raft.quorum import JointVoters
from timemachine.raft.ready import Ready
from timemachine.raft.tracker import TrackerConfig

MESSAGE_TYPES: Final = {
    MessageType.HUP: "MsgHup",
    MessageType.BEAT: "MsgBeat",
    MessageType.PROPOSE: "MsgProp",
    MessageType.APPEND: "MsgApp",
    MessageType.APPEND_RESPONSE: "MsgAppResp",
    MessageType.VOTE: "MsgVote",
    MessageType.VOTE_RESPONSE: "MsgVoteResp",
    MessageType.SNAPSHOT: "MsgSnap",
    MessageType.HEARTBEAT: "MsgHeartbeat",
    MessageType.HEARTBEAT_RESPONSE: "MsgHeartbeatResp",
    MessageType.UNREACHABLE: "MsgUnreachable",
    MessageType.SNAPSHOT_STATUS: "MsgSnapStatus",
    MessageType.CHECK_QUORUM: "MsgCheckQuorum",
    MessageType.TRANSFER_LEADER: "MsgTransferLeader",
    MessageType.TIMEOUT_NOW: "MsgTimeoutNow",
    MessageType.READ_INDEX: "MsgReadIndex",
    MessageType.READ_INDEX_RESPONSE: "MsgReadIndexResp",
    MessageType.PRE_VOTE: "MsgPreVote",
    MessageType.PRE_VOTE_RESPONSE: "MsgPreVoteResp",
    MessageType.STORAGE_APPEND: "MsgStorageAppend",
    MessageType.STORAGE_APPEND_RESPONSE: "MsgStorageAppendResp",
    MessageType.STORAGE_APPLY: "MsgStorageApply",
    MessageType.STORAGE_APPLY_RESPONSE: "MsgStorageApplyResp",
    MessageType.FORGET_LEADER: "MsgForgetLeader",
}
ROLES: Final = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}
_PROGRESS_STATES: Final = {
    ProgressState.PROBE: "StateProbe",
    ProgressState.REPLICATE: "StateReplicate",
    ProgressState.SNAPSHOT: "StateSnapshot",
}
_ENTRY_TYPES: Final = {
    EntryType.NORMAL: "EntryNormal",
    EntryType.CONF_CHANGE: "EntryConfChange",
    EntryType.CONF_CHANGE_V2: "EntryConfChangeV2",
}
_CHANGES: Final = {
    "v": ConfChangeType.ADD_NODE,
    "l": ConfChangeType.ADD_LEARNER,
    "r": ConfChangeType.REMOVE_NODE,
    "u": ConfChangeType.UPDATE_NODE,
}
_CHANGE_LETTERS: Final = {kind: letter for letter, kind in _CHANGES.items()}
_TARGETS: Final = {
    NO_NODE: "None",
    APPEND_THREAD: "AppendThread",
    APPLY_THREAD: "ApplyThread",
}


def read_changes(text: str) -> tuple[ConfChangeSingle, ...]:
    """`v1 l2 r3 u4`: make 1 a voter and 2 a learner, remove 3, update 4. Raises ValueError."""
    changes = []
    for word in text.split():
        if len(word) < 2:
            raise ValueError(f"unknown token {word}")
        if word[0] not in _CHANGES:
            raise ValueError(f"unknown input: {word}")
        changes.append(ConfChangeSingle(_CHANGES[word[0]], int(word[1:])))
    return tuple(changes)


def _ids(members: Iterable[int]) -> str:
    return f"({' '.join(map(str, sorted(members)))})"


def voters_text(voters: JointVoters) -> str:
    """`(1 2 3)`, or `(1 2 3)&&(1 2)` for a joint configuration."""
    outgoing = f"&&{_ids(voters.outgoing)}" if voters.outgoing else ""
    return _ids(voters.incoming) + outgoing


def config_text(config: TrackerConfig) -> str:
    """A membership: its parts that are not empty."""
    parts = [f"voters={voters_text(config.voters)}"]
    if config.learners:
        parts.append(f"learners={_ids(config.learners)}")
    if config.learners_next:
        parts.append(f"learners_next={_ids(config.learners_next)}")
    if config.auto_leave:
        parts.append("autoleave")
    return " ".join(parts)


def progress_text(progress: Mapping[int, Progress]) -> str:
    """A line for each member."""
    return "".join(f"{member}: {_one_progress(progress[member])}\n" for member in sorted(progress))


def _one_progress(progress: Progress) -> str:
    parts = [_PROGRESS_STATES[progress.state], f"match={progress.match}", f"next={progress.next}"]
    if progress.is_learner:
        parts.append("learner")
    if progress.is_paused():
        parts.append("paused")
    if progress.pending_snapshot:
        parts.append(f"pendingSnap={progress.pending_snapshot}")
    if not progress.recent_active:
        parts.append("inactive")
    if count := progress.inflights.count():
        parts.append(f"inflight={count}{'[full]' if progress.inflights.full() else ''}")
    return " ".join(parts)


def quoted(data: bytes) -> str:
    """Bytes as Go quotes them, for the printable ones that scripts use."""
    text = data.decode("ascii", "backslashreplace")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def entry_text(entry: Entry) -> str:
    """`term/index type content`."""
    text = f"{entry.term}/{entry.index} {_ENTRY_TYPES[entry.type]}"
    if entry.type is EntryType.NORMAL:
        return f"{text} {quoted(entry.data)}"
    changes = read_conf_change(entry).as_v2().changes
    return " ".join([text, *(_CHANGE_LETTERS[each.type] + str(each.node_id) for each in changes)])


def entries_text(entries: Iterable[Entry]) -> str:
    """A line for each entry."""
    return "".join(f"{entry_text(entry)}\n" for entry in entries)


def _conf_state(state: ConfState) -> str:
    def ids(members: tuple[int, ...]) -> str:
        return f"[{' '.join(map(str, members))}]"

    return (
        f"Voters:{ids(state.voters)} VotersOutgoing:{ids(state.voters_outgoing)}"
        f" Learners:{ids(state.learners)} LearnersNext:{ids(state.learners_next)}"
        f" AutoLeave:{str(state.auto_leave).lower()}"
    )


def snapshot_text(snapshot: Snapshot) -> str:
    """Where a snapshot ends, and its membership."""
    metadata = snapshot.metadata
    return (
        f"Index:{metadata.index} Term:{metadata.term} ConfState:{_conf_state(metadata.conf_state)}"
    )


def message_text(message: Message, indent: str = "") -> str:
    """A message with all that etcd prints of it; more lines if it holds more than one entry."""

    def target(member: int) -> str:
        return _TARGETS.get(member, f"{member:x}")

    text = (
        f"{indent}{target(message.from_)}->{target(message.to)} {MESSAGE_TYPES[message.type]}"
        f" Term:{message.term} Log:{message.log_term}/{message.index}"
    )
    if message.reject:
        text += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        text += f" Commit:{message.commit}"
    if message.vote:
        text += f" Vote:{message.vote}"
    if len(message.entries) == 1:
        text += f" Entries:[{entry_text(message.entries[0])}]"
    elif message.entries:
        lines = "".join(f"\n{indent}  {entry_text(entry)}" for entry in message.entries)
        text += f" Entries:[{lines}\n{indent}]"
    if message.snapshot is not None and message.snapshot.metadata.index:
        text += f"\n{indent}  Snapshot: {snapshot_text(message.snapshot)}"
    if message.responses:
        lines = "".join(f"\n{message_text(each, indent + '  ')}" for each in message.responses)
        text += f" Responses:[{lines}\n{indent}]"
    return text


def ready_text(ready: Ready) -> str:
    """All that a Ready asks for, in etcd's order."""
    text = ""
    if (soft := ready.soft_state) is not None:
        text += f"Lead:{soft.leader} State:{ROLES[soft.role]}\n"
    if (hard := ready.hard_state) is not None:
        vote = f" Vote:{hard.vote}" if hard.vote else ""
        text += f"HardState Term:{hard.term}{vote} Commit:{hard.commit}\n"
    if ready.read_states:
        states = [
            f"{{{state.index} [{' '.join(map(str, state.context))}]}}"
            for state in ready.read_states
        ]
        text += f"ReadStates [{' '.join(states)}]\n"
    if ready.entries:
        text += f"Entries:\n{entries_text(ready.entries)}"
    if ready.snapshot is not None and ready.snapshot.metadata.index:
        text += f"Snapshot {snapshot_text(ready.snapshot)}\n"
    if ready.committed_entries:
        text += f"CommittedEntries:\n{entries_text(ready.committed_entries)}"
    if ready.messages:
        text += "Messages:\n" + "".join(f"{message_text(each)}\n" for each in ready.messages)
    if not text:
        return "<empty Ready>"
    return f"Ready MustSync={str(ready.must_sync).lower()}:\n{text}"
