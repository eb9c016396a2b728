"""The judge of `interaction`: whole groups, step by step, every message and every Ready.

The commands are those of etcd's test environment; each method `_do_*` says what its one does. An
answer is what the command shows, or `ok`; the log level `none` silences all but errors.
"""

from collections.abc import Callable
from typing import Final

from tests.etcd.blocks import Block, Command, read_command
from tests.etcd.group import UNLIMITED, Group, Replica
from tests.etcd.texts import (
    MESSAGE_TYPES,
    ROLES,
    entries_text,
    message_text,
    progress_text,
    read_changes,
)
from timemachine.errors import ProposalDropped, TimeMachineError
from timemachine.raft import Config
from timemachine.raft.messages import (
    ConfChange,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.raft.rawnode import PeerUnknown
from timemachine.raft.storage import Compacted, EntryUnavailable, SnapshotOutOfDate

_KINDS: Final = {name: kind for kind, name in MESSAGE_TYPES.items()}
_LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")
_TRANSITIONS: Final = {
    "auto": ConfChangeTransition.AUTO,
    "implicit": ConfChangeTransition.JOINT_IMPLICIT,
    "explicit": ConfChangeTransition.JOINT_EXPLICIT,
}
_REFUSALS: Final[dict[type[TimeMachineError], str]] = {
    ProposalDropped: "raft proposal dropped",
    PeerUnknown: "raft: cannot step as peer not found",
    Compacted: "requested index is unavailable due to compaction",
    EntryUnavailable: "requested entry at index is unavailable",
    SnapshotOutOfDate: "requested index is older than the existing snapshot",
}
"""Our errors that are answers, in etcd's words; all others are faults."""


class Refused(Exception):
    """A command that cannot be done; the text is the answer, whatever the log level."""


class Interaction:
    """One file: a group that begins without replicas."""

    def __init__(self) -> None:
        self._group = Group()
        self._level = "DEBUG"
        self._shown = ""

    def answer(self, block: Block) -> str:
        """What the commands of a block show: the one of its first line, and one a line of input.

        Only a change of membership takes its input otherwise, as the changes. Several commands a
        block are what etcd's pull request 141 (still open) adds to its handler, and as there an
        error of the first line ends the block. One of a later line is shown, and the next line is
        done, unless nothing is shown but errors: then it ends the block and is the whole answer.
        """
        self._shown = ""
        commands = [block.command]
        changes = ""
        if block.command.name == "propose-conf-change":
            changes = block.input
        else:
            commands += [read_command(line) for line in block.input.split("\n") if line.strip()]
        for place, command in enumerate(commands):
            error = self._error_of(command, changes)
            if error is None:
                continue
            if self._level == "NONE":
                return error
            self._shown += error
            if place == 0:
                break
        return self._shown or "ok"

    def _error_of(self, command: Command, changes: str) -> str | None:
        """Do a command; why it cannot be done, in etcd's words."""
        try:
            self._do(command, changes)
        except Refused as refusal:
            return str(refusal)
        except tuple(_REFUSALS) as refusal:
            return _REFUSALS[type(refusal)]
        return None

    def _do(self, command: Command, changes: str) -> None:
        if command.name == "propose-conf-change":
            self._do_propose_conf_change(command, changes)
            return
        method = getattr(self, "_do_" + command.name.replace("-", "_"), None)
        if method is None:
            raise Refused("unknown command")
        method(command)

    def _show(self, text: str) -> None:
        if self._level != "NONE":
            self._shown += text

    def _replica(self, command: Command, place: int = 0) -> Replica:
        return self._group.replica(int(command.words[place]))

    def _replicas(self, command: Command) -> list[Replica]:
        return [self._group.replica(int(word)) for word in command.words]

    # The group.

    def _do_add_nodes(self, command: Command) -> None:
        """Start some replicas, from a snapshot or from nothing."""
        options = command.options
        index = int(command.option("index", "0"))
        members = ConfState(
            voters=tuple(map(int, options.get("voters", []))),
            learners=tuple(map(int, options.get("learners", []))),
        )
        data = command.option("content").encode()
        snapshot = None
        if members != ConfState() or index or data:
            if index <= 1:
                raise Refused("index must be specified as > 1 due to bootstrap")
            snapshot = Snapshot(data, SnapshotMetadata(members, index, 1))
        reads = command.option("read-only", "safe")
        if reads not in {"safe", "lease-based"}:
            raise Refused(f'invalid read-only option "{reads}"')
        config = Config(
            id=1,
            election_tick=3,
            heartbeat_tick=1,
            # The longest time-out, unless a script asks for another one: etcd's are random, so no
            # script may depend on it.
            draw=lambda count: count - 1,
            applied=index,
            committed_size_per_ready_max=int(
                command.option("max-committed-size-per-ready", str(UNLIMITED))
            ),
            uncommitted_size_max=UNLIMITED,
            message_bytes_max=UNLIMITED,
            inflight_messages_max=int(command.option("inflight", str(UNLIMITED))),
            inflight_bytes_max=UNLIMITED,
            async_storage_writes=command.flag("async-storage-writes"),
            pre_vote=command.flag("prevote"),
            check_quorum=command.flag("checkquorum"),
            lease_reads=reads == "lease-based",
            validate_conf_changes=not command.flag("disable-conf-change-validation"),
            step_down_on_removal=command.flag("step-down-on-removal"),
        )
        for _ in range(int(command.words[0])):
            self._group.add(config, snapshot)

    def _do_stabilize(self, command: Command) -> None:
        """Let some replicas, or all, work and talk until nothing is left to do."""
        before = self._level
        if "log-level" in command.options:
            self._set_level(command.option("log-level"))
        replicas = self._replicas(command) or self._group.replicas
        try:
            while self._stabilize_once(replicas):
                pass
        finally:
            self._level = before

    def _stabilize_once(self, replicas: list[Replica]) -> bool:
        """Whether there was anything to do."""
        group = self._group
        busy = False
        for replica in replicas:
            if replica.node.has_ready():
                busy = True
                self._show_step(replica, "handling Ready", group.process_ready(replica))
        for replica in replicas:
            if group.waiting_for(replica.id):
                busy = True
                self._show_step(replica, "receiving messages", self._deliver(replica.id, None))
        for replica in replicas:
            if replica.append_work:
                busy = True
                text = ""
                while replica.append_work:
                    text += group.process_append_thread(replica)
                self._show_step(replica, "processing append thread", text)
        for replica in replicas:
            if replica.apply_work:
                busy = True
                text = ""
                while replica.apply_work:
                    text += group.process_apply_thread(replica)
                self._show_step(replica, "processing apply thread", text)
        return busy

    def _show_step(self, replica: Replica, what: str, text: str) -> None:
        lines = "".join(f"  {line}\n" for line in text.splitlines())
        self._show(f"> {replica.id} {what}\n{lines}")

    def _each(self, command: Command, what: str, work: Callable[[Replica], str]) -> None:
        """Have each replica that is named do `work`; with a heading if there are several."""
        replicas = self._replicas(command)
        for replica in replicas:
            if len(replicas) > 1:
                self._show_step(replica, what, work(replica))
            else:
                self._show(work(replica))

    def _do_process_ready(self, command: Command) -> None:
        """One Ready for each."""
        self._each(command, "handling Ready", self._group.process_ready)

    def _do_process_append_thread(self, command: Command) -> None:
        """One write for each."""
        self._each(command, "processing append thread", self._group.process_append_thread)

    def _do_process_apply_thread(self, command: Command) -> None:
        """One apply for each."""
        self._each(command, "processing apply thread", self._group.process_apply_thread)

    def _do_deliver_msgs(self, command: Command) -> None:
        """Deliver what waits for some replicas, drop what waits for others."""
        kind = None
        if "type" in command.options:
            kind = _KINDS[command.option("type")]
        text = ""
        for key, values in command.arguments:
            if not values:
                text += self._deliver(int(key), kind)
            for value in values if key == "drop" else ():
                dropped = self._group.waiting_for(int(value), kind, lossy=True)
                self._group.take(dropped)
                text += "".join(f"dropped: {message_text(message)}\n" for message in dropped)
        self._show(text or "no messages\n")

    def _deliver(self, number: int, kind: MessageType | None) -> str:
        messages = self._group.waiting_for(number, kind)
        self._group.take(messages)
        text = ""
        for message in messages:
            text += f"{message_text(message)}\n"
            try:
                self._group.replica(number).node.step(message)
            except tuple(_REFUSALS) as refusal:
                text += f"{_REFUSALS[type(refusal)]}\n"
        return text

    # One replica.

    def _do_campaign(self, command: Command) -> None:
        """Start an election."""
        self._replica(command).node.campaign()

    def _do_propose(self, command: Command) -> None:
        """Propose a word."""
        self._replica(command).node.propose(command.words[1].encode())

    def _do_propose_conf_change(self, command: Command, text: str) -> None:
        """Propose a change of membership."""
        try:
            changes = read_changes(text)
        except ValueError as error:
            raise Refused(str(error)) from error
        transition = command.option("transition", "auto")
        if transition not in _TRANSITIONS:
            raise Refused(f"unknown transition {transition}")
        node = self._replica(command).node
        if not command.flag("v1"):
            node.propose_conf_change(ConfChangeV2(_TRANSITIONS[transition], changes))
        elif len(changes) > 1 or transition != "auto":
            raise Refused("v1 conf change can only have one operation and no transition")
        else:
            node.propose_conf_change(ConfChange(changes[0].type, changes[0].node_id))

    def _do_tick_election(self, command: Command) -> None:
        """Let an election time-out pass: the shortest, not the one that was drawn."""
        self._tick(self._replica(command), self._replica(command).config.election_tick)

    def _do_tick_heartbeat(self, command: Command) -> None:
        """Let the interval between two heartbeats pass."""
        self._tick(self._replica(command), self._replica(command).config.heartbeat_tick)

    def _do_tick(self, command: Command) -> None:
        """Let some ticks pass."""
        self._tick(self._replica(command), int(command.words[1]))

    @staticmethod
    def _tick(replica: Replica, count: int) -> None:
        for _ in range(count):
            replica.node.tick()

    def _do_set_randomized_election_timeout(self, command: Command) -> None:
        """Set the time-out that chance has set, until the replica draws again."""
        core = self._replica(command).node._raft
        core.election_timeout = int(command.option("timeout"))

    def _do_transfer_leadership(self, command: Command) -> None:
        """Ask a leader to hand over."""
        leader = self._group.replica(int(command.option("from")))
        leader.node.transfer_leader(int(command.option("to")))

    def _do_forget_leader(self, command: Command) -> None:
        """Have a follower forget whom it follows."""
        self._replica(command).node.forget_leader()

    def _do_report_unreachable(self, command: Command) -> None:
        """Tell the first that the second was not reached."""
        self._replica(command).node.report_unreachable(self._replica(command, 1).id)

    def _do_send_snapshot(self, command: Command) -> None:
        """Send the first one's snapshot to the second one, behind the leader's back."""
        sender = self._replica(command)
        message = Message(
            MessageType.SNAPSHOT,
            self._replica(command, 1).id,
            sender.id,
            sender.node.status().term,
            snapshot=sender.storage.snapshot(),
        )
        self._group.messages.append(message)
        self._show(message_text(message))

    def _do_compact(self, command: Command) -> None:
        """Drop the log up to an index, and show what is left."""
        self._replica(command).storage.compact(int(command.words[1]))
        self._do_raft_log(command)

    # What there is to see.

    def _do_log_level(self, command: Command) -> None:
        """How much is shown."""
        self._set_level(command.words[0])

    def _set_level(self, name: str) -> None:
        if name.upper() not in _LEVELS:
            raise Refused(f"log levels must be either of [{' '.join(_LEVELS)}]")
        self._level = name.upper()

    def _do_raft_log(self, command: Command) -> None:
        """The entries on the disk."""
        storage = self._replica(command).storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            self._show(f"log is empty: first index={first}, last index={last}")
        else:
            self._show(entries_text(storage.entries(first, last + 1, UNLIMITED)))

    def _do_raft_state(self, command: Command) -> None:
        """Each replica's own view of its role, term and leader."""
        for replica in self._group.replicas:
            status = replica.node.status()
            members = status.conf_state
            voter = replica.id in (*members.voters, *members.voters_outgoing)
            self._show(
                f"{replica.id}: {ROLES[status.role]} {'(Voter)' if voter else '(Non-Voter)'}"
                f" Term:{status.term} Lead:{status.leader}\n"
            )

    def _do_status(self, command: Command) -> None:
        """How far a leader knows each member to be; nothing of others."""
        self._show(progress_text(self._replica(command).node.status().progress))

    def _do__breakpoint(self, command: Command) -> None:
        """Nothing: a place to stop in a debugger."""
