"""A group under any order of duties, faults and crashes, and what must hold at every moment.

Not the simulator: nothing of a node runs here, only the core, its host's duties one by one, and a
network that reorders, repeats and loses. All follows from a seed.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from timemachine.errors import ProposalDropped
from timemachine.raft import (
    Config,
    ConfState,
    Entry,
    EntryType,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    RawNode,
    Ready,
    Role,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    read_conf_change,
)
from timemachine.raft.rawnode import PeerUnknown

BORN_AT = 10
"""Groups are born from a snapshot that ends here, so that a new member needs one too."""


class Disk(MemoryStorage):
    """What outlives a crash: the log, the hard state, and the state machine with its members."""

    __slots__ = ("applied", "applied_term", "image", "members")

    def __init__(self) -> None:
        super().__init__()
        self.applied = 0
        self.applied_term = 0
        self.members = ConfState()
        self.image: list[bytes] = []

    def initial_state(self) -> tuple[HardState, ConfState]:
        """See Storage. The membership is that of the state machine."""
        return super().initial_state()[0], self.members

    def snapshot(self) -> Snapshot:
        """See Storage. A snapshot is the state machine of now."""
        metadata = SnapshotMetadata(self.members, self.applied, self.applied_term)
        return Snapshot(b"\0".join(self.image), metadata)

    def install(self, snapshot: Snapshot) -> None:
        """Start over from a snapshot."""
        self.apply_snapshot(snapshot)
        self.applied = snapshot.metadata.index
        self.applied_term = snapshot.metadata.term
        self.members = snapshot.metadata.conf_state
        self.image = snapshot.data.split(b"\0") if snapshot.data else []


class Host:
    """A replica, and its host in the middle of its duties."""

    def __init__(self, world: "Chaos", id: int, disk: Disk, threaded: bool) -> None:
        self.world = world
        self.id = id
        self.disk = disk
        self.threaded = threaded
        self.ready: Ready | None = None
        self.duty = 0
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []
        self.node = self._start()

    def _start(self) -> RawNode:
        config = Config(
            id=self.id,
            applied=self.disk.applied,
            async_storage_writes=self.threaded,
            draw=self.world.dice.randrange,
            **self.world.settings,
        )
        return RawNode(config, self.disk)

    def crash(self) -> None:
        """Lose all but the disk, and start again."""
        self.ready = None
        self.append_work.clear()
        self.apply_work.clear()
        self.node = self._start()

    # Duties.

    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.ready is not None or self.append_work or self.apply_work or self.node.has_ready()
        )

    def work(self) -> None:
        """Do the next duty of a Ready, or one piece of a thread's work."""
        choices: list[Callable[[], None]] = []
        if self.append_work:
            choices.append(self._append)
        if self.apply_work:
            choices.append(self._apply_one)
        if self.ready is not None:
            choices.append(self._next_duty)
        elif self.node.has_ready():
            choices.append(self._take_ready)
        if choices:
            self.world.dice.choice(choices)()

    def _take_ready(self) -> None:
        ready = self.node.ready()
        for read in ready.read_states:
            self.world.check_read(read.context, read.index)
        if not self.threaded:
            self.ready = ready
            self.duty = 0
            return
        for message in ready.messages:
            if message.to == APPEND_THREAD:
                self.append_work.append(message)
            elif message.to == APPLY_THREAD:
                self.apply_work.append(message)
            else:
                self.world.send(self, message)

    def _next_duty(self) -> None:
        ready = self.ready
        assert ready is not None
        if self.duty == 0:
            self._persist(ready.hard_state, ready.entries, ready.snapshot)
        elif self.duty == 1:
            for message in ready.messages:
                self.world.send(self, message)
        elif self.duty == 2:
            self._apply(ready.committed_entries)
        else:
            self.ready = None
            self.node.advance()
        self.duty += 1

    def _persist(
        self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: Snapshot | None
    ) -> None:
        if snapshot is not None:
            self.disk.install(snapshot)
        self.disk.append(entries)
        if hard_state is not None and hard_state != HardState():
            # The apply thread may have been faster: no disk may say applied > commit.
            commit = max(hard_state.commit, self.disk.applied)
            self.disk.set_hard_state(HardState(hard_state.term, hard_state.vote, commit))

    def _append(self) -> None:
        work = self.append_work.pop(0)
        self._persist(HardState(work.term, work.vote, work.commit), work.entries, work.snapshot)
        self._respond(work)

    def _apply_one(self) -> None:
        work = self.apply_work.pop(0)
        self._apply(work.entries)
        self._respond(work)

    def _respond(self, work: Message) -> None:
        for message in work.responses:
            if message.to == self.id:
                self.world.deliver(message)
            else:
                self.world.send(self, message)

    def _apply(self, entries: Sequence[Entry]) -> None:
        disk = self.disk
        for entry in entries:
            if entry.index <= disk.applied:
                # A snapshot has overtaken what the apply thread still had to do.
                assert self.threaded
                continue
            assert entry.index == disk.applied + 1, "entries are applied in order"
            self.world.check_applied(self, entry)
            if entry.type is not EntryType.NORMAL:
                disk.members = self.node.apply_conf_change(read_conf_change(entry))
            elif entry.data:
                disk.image = [*disk.image, entry.data]
            disk.applied, disk.applied_term = entry.index, entry.term
            durable = disk.initial_state()[0]
            if durable.commit < entry.index:
                disk.set_hard_state(HardState(durable.term, durable.vote, entry.index))


class Chaos:
    """Some replicas, what is on its way, and what is known to be true."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        dice = self.dice
        self.options = {
            "voters": dice.choice([1, 2, 3, 3, 3, 5]),
            "threaded": dice.random() < 0.5,
            "members_change": dice.random() < 0.5,
            "loss": dice.choice([0.0, 0.02, 0.1, 0.3]),
            "repeat": dice.choice([0.0, 0.05, 0.2]),
            "reorder": dice.choice([0.0, 0.1, 0.5]),
            "crash": dice.choice([0.0, 0.002, 0.02]),
            "compact": dice.choice([0.0, 0.01, 0.05]),
            "cut": dice.choice([0.0, 0.005, 0.02]),
            "stall": dice.choice([0.0, 0.01, 0.04]),
            "campaign": dice.choice([0.0, 0.01, 0.1]),
        }
        self.settings: dict[str, Any] = {
            "election_tick": dice.choice([3, 10]),
            "pre_vote": dice.random() < 0.5,
            "check_quorum": dice.random() < 0.5,
            "step_down_on_removal": dice.random() < 0.5,
            "message_bytes_max": dice.choice([1, 64, 2**20]),
            "inflight_messages_max": dice.choice([1, 3, 256]),
            "inflight_bytes_max": 2**30,
            "committed_size_per_ready_max": dice.choice([1, 64, 2**20]),
            "uncommitted_size_max": dice.choice([32, 2**20]),
        }
        ids = range(1, 7 if self.options["members_change"] else int(self.options["voters"]) + 1)
        born = Snapshot(
            metadata=SnapshotMetadata(
                ConfState(tuple(range(1, int(self.options["voters"]) + 1))), BORN_AT, 1
            )
        )
        self.applied: dict[int, Entry] = {}
        self.commit = BORN_AT
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.reads: dict[bytes, int] = {}
        self.number = 0
        self.network: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        self.stalled: set[int] = set()
        """Hosts that do no duties for a while: their disk hangs."""
        self.calm = False
        self.hosts: dict[int, Host] = {}
        for each in ids:
            disk = Disk()
            if each in born.metadata.conf_state.voters:
                disk.install(born)
            self.hosts[each] = Host(self, each, disk, bool(self.options["threaded"]))

    # The network.

    def send(self, host: Host, message: Message) -> None:
        """Take a message from a host that says that it may be sent."""
        self._check_promise(host, message)
        lost = message.to not in self.hosts or (host.id, message.to) in self.cuts
        if lost or (not self.calm and self.dice.random() < self.options["loss"]):
            self._report(message, failed=True)
        else:
            self.network.append(message)

    def _report(self, message: Message, *, failed: bool) -> None:
        """Tell the sender how a message fared: always of a snapshot, sometimes of another."""
        node = self.hosts[message.from_].node
        if message.type is MessageType.SNAPSHOT:
            node.report_snapshot(message.to, failed=failed)
        elif failed and self.dice.random() < 0.3:
            node.report_unreachable(message.to)

    def deliver(self, message: Message) -> None:
        """Give a message to its receiver."""
        host = self.hosts[message.to]
        try:
            host.node.step(message)
        except (ProposalDropped, PeerUnknown):
            pass
        self.check(host)

    def _deliver_one(self) -> None:
        dice = self.dice
        place = 0
        if not self.calm and dice.random() < self.options["reorder"]:
            place = dice.randrange(len(self.network))
        message = self.network[place]
        if self.calm or dice.random() >= self.options["repeat"]:
            del self.network[place]
        cut = (message.from_, message.to) in self.cuts
        if not cut:
            self.deliver(message)
        self._report(message, failed=cut)

    # What happens.

    def run(self, steps: int) -> None:
        """Let things happen, then calm down and see that all is well."""
        for step in range(steps):
            self.happen()
            if step % 50 == 0:
                self.check_logs()
        self.settle()
        self.check_logs()

    def happen(self) -> None:
        """One thing."""
        dice = self.dice
        host = dice.choice(list(self.hosts.values()))
        chance = dice.random()
        if chance < 0.45:
            busy = [
                each for each in self.hosts.values() if each.busy() and each.id not in self.stalled
            ]
            if busy:
                dice.choice(busy).work()
        elif chance < 0.80:
            if self.network:
                self._deliver_one()
        elif chance < 0.90:
            host.node.tick()
        elif chance < 0.95:
            self._ask(host)
        else:
            self._disturb(host)
        self.check(host)

    def _ask(self, host: Host) -> None:
        dice = self.dice
        self.number += 1
        label = b"%d" % self.number
        if dice.random() < self.options["campaign"]:
            host.node.campaign()
        what = dice.random()
        try:
            if what < 0.6:
                host.node.propose(label)
            elif what < 0.8:
                self.reads[label] = self.commit
                host.node.read_index(label)
            elif what < 0.85:
                host.node.transfer_leader(dice.choice(list(self.hosts)))
            elif what < 0.87:
                host.node.forget_leader()
            elif self.options["members_change"]:
                host.node.propose_conf_change(self._change())
        except ProposalDropped:
            pass

    def _change(self) -> ConfChange | ConfChangeV2:
        dice = self.dice
        kinds = (ConfChangeType.ADD_NODE, ConfChangeType.ADD_LEARNER, ConfChangeType.REMOVE_NODE)

        def single() -> ConfChangeSingle:
            return ConfChangeSingle(dice.choice(kinds), dice.choice(list(self.hosts)))

        one = single()
        # A change that leaves nobody stops the replicas, so the first voter always stays.
        keep = ConfChangeSingle(ConfChangeType.ADD_NODE, 1)
        if dice.random() < 0.3:
            return ConfChangeV2()
        if dice.random() < 0.5 and one.node_id != 1:
            return ConfChange(one.type, one.node_id)
        how = dice.choice(list(ConfChangeTransition))
        if dice.random() < 0.5:
            return ConfChangeV2(how, (one, single(), keep))
        # From one majority to another one that it has nobody in common with but the first voter.
        removed, *added = dice.sample([host for host in self.hosts if host != 1], 3)
        changes = [ConfChangeSingle(ConfChangeType.REMOVE_NODE, removed)]
        changes += [ConfChangeSingle(ConfChangeType.ADD_NODE, each) for each in added]
        return ConfChangeV2(how, (*changes, keep))

    def _disturb(self, host: Host) -> None:
        dice = self.dice
        if dice.random() < 20 * self.options["crash"]:
            host.crash()
        if dice.random() < 20 * self.options["compact"]:
            self._compact(host)
        if dice.random() < 20 * self.options["cut"]:
            other = dice.choice(list(self.hosts))
            ways = {(host.id, other), (other, host.id)}
            if dice.random() < 0.3:
                ways.pop()
            self.cuts |= ways
        elif dice.random() < 0.1:
            self.cuts.clear()
        if dice.random() < 20 * self.options["stall"]:
            self.stalled ^= {host.id}

    def _compact(self, host: Host) -> None:
        disk = host.disk
        low = disk.first_index()
        # Nothing that the core was not told of: it may be reading what it gave out.
        high = min(disk.applied, host.node.status().applied)
        if low <= high:
            disk.compact(self.dice.randint(low, high))

    def settle(self) -> None:
        """Without faults, and given time, a leader is there and everybody has everything."""
        self.calm = True
        self.cuts.clear()
        for _ in range(400):
            for _ in range(2_000):
                busy = [host for host in self.hosts.values() if host.busy()]
                if self.network:
                    self._deliver_one()
                elif busy:
                    busy[0].work()
                else:
                    break
            if self._settled():
                return
            for host in self.hosts.values():
                host.node.tick()
                self.check(host)
        raise AssertionError(f"no peace: {[host.node.status() for host in self.hosts.values()]}")

    def _settled(self) -> bool:
        leaders = [host for host in self.hosts.values() if host.node.leads]
        if not leaders:
            return False
        leader = max(leaders, key=lambda host: host.node.status().term)
        members = leader.disk.members
        everybody = {*members.voters, *members.learners, *members.voters_outgoing}
        last = leader.node.status().last_index
        return all(
            self.hosts[member].disk.applied == last
            and self.hosts[member].disk.image == leader.disk.image
            and self.hosts[member].disk.members == members
            for member in everybody
        )

    # What must hold.

    def check(self, host: Host) -> None:
        """One leader a term, who has all that is committed; commit is known to all alike."""
        status = host.node.status()
        self.commit = max(self.commit, status.commit)
        if status.role is Role.LEADER and status.term not in self.leaders:
            self.leaders[status.term] = host.id
            log = host.node._raft.log
            for index, entry in self.applied.items():
                if index >= status.first_index:
                    assert log.term(index) == entry.term, f"leader {host.id} lacks entry {index}"
                assert index <= status.last_index
        if status.role is Role.LEADER:
            assert self.leaders[status.term] == host.id, f"two leaders in term {status.term}"
        assert status.applied <= status.commit <= status.last_index

    def check_logs(self) -> None:
        """If two logs hold an entry of one index and term, they are alike up to there (3.5)."""
        known: dict[tuple[int, int], tuple[int, bytes]] = {}
        for host in self.hosts.values():
            log = host.node._raft.log
            before = log.term_or_zero(log.first_index() - 1)
            for entry in log.entries_from(log.first_index(), 2**62):
                told = (before, entry.data)
                assert known.setdefault((entry.index, entry.term), told) == told, "logs differ"
                before = entry.term

    def check_applied(self, host: Host, entry: Entry) -> None:
        """Everybody applies the same entry at an index, and it is durable on a majority."""
        known = self.applied.setdefault(entry.index, entry)
        assert known == entry, f"{host.id} applies {entry}, others have applied {known}"

    def check_read(self, context: bytes, index: int) -> None:
        """A read sees all that was committed when it was asked for."""
        assert index >= self.reads[context], f"read {context!r} at {index} is stale"

    def _check_promise(self, host: Host, message: Message) -> None:
        """What is said is durable."""
        durable = host.disk.initial_state()[0]
        if message.type is MessageType.VOTE_RESPONSE and not message.reject:
            assert (message.term, message.to) == (durable.term, durable.vote) or (
                message.term < durable.term
            )
            promised = self.votes.setdefault((host.id, message.term), message.to)
            assert promised == message.to, f"{host.id} votes twice in term {message.term}"
        if message.type is MessageType.APPEND_RESPONSE and not message.reject:
            assert message.index <= max(host.disk.last_index(), host.disk.applied) or (
                message.term < durable.term
            )
        if message.type in {MessageType.VOTE, MessageType.APPEND} and not host.threaded:
            assert message.term <= durable.term
