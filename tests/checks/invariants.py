"""What must hold at every moment inside the nodes: S1 to S12, checked while they run.

Whoever runs the nodes tells `Invariants` what each replica does, at the moment when it does it;
what is wrong raises Violation at once, with the culprit still on the stack. Nothing here asks the
nodes for their opinion of themselves where it can know better: what is durable is read from the
disk, and what is committed, elected or claimed is remembered over all nodes. Each call costs as
much as what changed.

S1   a term has one leader, and nobody votes twice in it
S2   two logs that hold an entry of one index and term are alike up to there
S3   a new leader has all that was committed in older terms
S4   all replicas apply the same entries, each once, in order, and none before it is committed
S5   what is said is durable: a vote, an answer to entries, the term that a message names
S6   term, commit and applied never fall, and across a restart not below what was durable; a log
     begins behind what is applied at most
S7   what is committed is durable on a majority, by an entry of its leader's own term
S8   an attempt is claimed once, for the version that is live there, and not long before it is due
S9   nothing is sent without a claim that holds, nor before its time, nor by two leaders
S10  a configuration change comes alone: its leader has committed all changes before it, and
     all that it found in its log when it was elected
S11  a read shows all that had been answered to anybody when it was asked for
S12  no job that is to be sent stands before the offset, where no leader would look for it

S10 is etcd's form of the rule that a leader first commits in its own term (Ongaro's correction
of 2015 to 4.1 of his dissertation). It is enough where a configuration is in force from when it is
applied, and weaker by the leader's opening entry.

S8 and S9 are `firing`'s. Groups are known by any name; a replica is known by its id, which names
its node as well (`timemachine.group.node_of`). An id never comes back after what it promised is
gone, so S6 is about ids; whoever begins again on the same node has another one.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from tests.checks.firing import Firing
from tests.checks.violation import Violation
from timemachine.group import node_of
from timemachine.raft import ConfState, Entry, EntryType, HardState, Message, MessageType

Group = Hashable

_PRE_VOTES: Final = frozenset({MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE})


class Durable(Protocol):
    """What the disk of one node would still hold of a replica if the power went now."""

    def hard_state(self) -> HardState:
        """Term, vote and commit; all 0 where there is nothing yet."""

    def base(self) -> tuple[int, int]:
        """(index, term) of the entry behind which the log begins."""

    def has(self, index: int, term: int) -> bool:
        """Whether the log holds the entry, or begins behind it."""


class Remembered:
    """A Durable that is gone: what it had when it was last seen.

    What it has said was true when it said it, and others may have counted on that.
    """

    def __init__(self, durable: Durable, log: Mapping[int, "Logged"]) -> None:
        self._state = durable.hard_state()
        self._base = durable.base()
        self._had = {
            (index, entry.term) for index, entry in log.items() if durable.has(index, entry.term)
        }

    def hard_state(self) -> HardState:
        """See Durable."""
        return self._state

    def base(self) -> tuple[int, int]:
        """See Durable."""
        return self._base

    def has(self, index: int, term: int) -> bool:
        """See Durable."""
        return index <= self._base[0] or (index, term) in self._had


class Logged(NamedTuple):
    """An entry of a log. `chain` stands for it and for all that comes before it."""

    term: int
    chain: int
    data: int


@dataclass(slots=True)
class _Replica:
    """A replica in this life of its node.

    log       what it has written or is about to write, from the entry at `base` to that at `last`
    changes   where configuration changes stand in it
    led_from  where its log ended when it was last elected
    kept, kept_applied
              the highest hard state and applied index that were ever durable here
    """

    durable: Durable
    term: int
    commit: int
    applied: int
    base: int
    log: dict[int, Logged] = field(default_factory=dict)
    last: int = 0
    changes: list[int] = field(default_factory=list)
    led_from: int = 0
    kept: HardState = field(default_factory=HardState)
    kept_applied: int = 0


@dataclass(slots=True)
class _Group:
    """What is known of a group over all its replicas.

    committed      by index
    commit         the highest index that any replica knew to be committed
    committed_in   the highest index committed by the leader of each term
    answered       the highest index of which a caller was told
    """

    leaders: dict[int, int] = field(default_factory=dict)
    votes: dict[tuple[int, int], int] = field(default_factory=dict)
    chains: dict[tuple[int, int], int] = field(default_factory=dict)
    committed: dict[int, Logged] = field(default_factory=dict)
    commit: int = 0
    committed_in: dict[int, int] = field(default_factory=dict)
    answered: int = 0
    replicas: dict[int, _Replica] = field(default_factory=dict)


class Invariants:
    """The judge inside the nodes. `firing` judges claims and sends.

    `clock_bound_ms` is by how much a node's wall clock may be ahead of the true time.
    """

    def __init__(self, *, clock_bound_ms: float = 0.0) -> None:
        self._groups: dict[Group, _Group] = {}
        # What only voters have applied, and nobody knows to be durable yet: for the watcher.
        self.unsaid: dict[tuple[int, Group], list[Any]] = {}
        self.firing = Firing(self.leader_of, clock_bound_ms=clock_bound_ms)

    def leader_of(self, group: Group, term: int) -> int:
        """The node that led a term; 0 if none is known."""
        found = self._groups.get(group)
        return 0 if found is None else node_of(found.leaders.get(term, 0))

    def committed_index(self, group: Group) -> int:
        """The highest index that any replica of a group knew to be committed."""
        found = self._groups.get(group)
        return 0 if found is None else found.commit

    # --- lives -----------------------------------------------------------------------------

    def started(
        self, node: int, group: Group, durable: Durable, entries: Sequence[Entry], applied: int
    ) -> None:
        """A replica was taken up, with the entries and the applied index that it found."""
        known = self._groups.setdefault(group, _Group())
        state = durable.hard_state()
        index, term = durable.base()
        before = known.replicas.get(node)
        commit = max(state.commit, index)
        replica = _Replica(durable, state.term, commit, applied, index)
        if before is not None:
            kept = replica.kept = before.kept
            replica.kept_applied = before.kept_applied
            if state.term < kept.term or state.commit < kept.commit:
                _fail("S6", node, group, f"came back with {state}, though {kept} was durable")
            if applied < before.kept_applied:
                applied_told = f"applied {applied}, though {before.kept_applied} was durable"
                _fail("S6", node, group, f"came back with {applied_told}")
        if not index <= applied <= commit:
            told = f"its log begins behind {index}, applied {applied}, commit {commit}"
            _fail("S6", node, group, told)
        if not known.commit:
            # A group may be born from an image, which nobody has seen committed.
            known.commit = index
        known.replicas[node] = replica
        self._begin_log(known, replica, index, term)
        if entries:
            self.appended(node, group, entries)
        self.synced(node, group, applied)

    def grown(self, node: int, group: Group, commit: int) -> None:
        """The only voter of a group is about to be one of several: what it has is committed.

        Until then it was nobody's business. It was just taken up (`started`); `commit` is what it
        knows, of what is durable here.
        """
        known = self._groups[group]
        replica = known.replicas[node]
        for index in range(replica.base, min(commit, replica.last) + 1):
            known.committed.setdefault(index, replica.log[index])
        replica.commit = max(replica.commit, commit)
        known.commit = max(known.commit, commit)
        known.answered = max(known.answered, replica.kept_applied)

    def lost(self, node: int, group: Group) -> None:
        """A replica is about to be erased, or its disk is gone. Its id must not come back empty."""
        known = self._groups.get(group)
        replica = None if known is None else known.replicas.get(node)
        if replica is not None:
            replica.durable = Remembered(replica.durable, replica.log)

    def replicas_of(self, number: int) -> list[tuple[int, Group]]:
        """The replicas that were ever seen on the node of that number."""
        return [
            (replica, group)
            for group, known in self._groups.items()
            for replica in known.replicas
            if node_of(replica) == number
        ]

    def forgotten(self, node: int) -> None:
        """The disk of a node is lost, or thrown away: it must come back under another number."""
        for known in self._groups.values():
            known.replicas.pop(node, None)

    def _begin_log(self, known: _Group, replica: _Replica, index: int, term: int) -> None:
        """A log that begins behind an entry, which others may know."""
        begin = known.committed.get(index)
        if begin is None or begin.term != term:
            chain = known.chains.setdefault((index, term), hash((index, term)) if index else 0)
            begin = Logged(term, chain, 0)
        replica.log = {index: begin}
        replica.base = replica.last = index
        replica.changes.clear()

    # --- elections -------------------------------------------------------------------------

    def knows_term(self, node: int, group: Group, term: int) -> None:
        """A replica is in a term."""
        replica = self._groups[group].replicas[node]
        if term < replica.term:
            _fail("S6", node, group, f"went back from term {replica.term} to {term}")
        replica.term = term

    def became_leader(self, node: int, group: Group, term: int) -> None:
        """A replica leads a term."""
        known = self._groups[group]
        other = known.leaders.setdefault(term, node)
        if other != node:
            _fail("S1", node, group, f"leads term {term}, and so does node {other}")
        replica = known.replicas[node]
        replica.led_from = replica.last
        index = max(
            (index for older, index in known.committed_in.items() if older < term), default=0
        )
        if index > replica.base and replica.log.get(index) != known.committed[index]:
            told = f"leads term {term} without entry {index}, which is committed"
            _fail("S3", node, group, told)

    # --- the log ---------------------------------------------------------------------------

    def appended(self, node: int, group: Group, entries: Sequence[Entry]) -> None:
        """Entries are about to be written, in place of what was at and after the first."""
        known = self._groups[group]
        replica = known.replicas[node]
        log = replica.log
        first = entries[0].index
        if first > replica.last + 1 or first <= replica.base:
            told = f"appends entry {first} to a log from {replica.base} to {replica.last}"
            _fail("S2", node, group, told)
        old = log.get(first)
        # Not by its own commit index, which may count the entries that come just now.
        if old and old.term != entries[0].term and old == known.committed.get(first):
            _fail("S4", node, group, f"replaces entry {first}, which is committed")
        for index in range(first, replica.last + 1):
            del log[index]
        while replica.changes and replica.changes[-1] >= first:
            replica.changes.pop()
        before = log[first - 1]
        for entry in entries:
            index, term, kind = entry.index, entry.term, entry.type
            if index != replica.last + 1 and index != first:
                _fail("S2", node, group, f"appends entry {index} behind {replica.last}")
            if term < before.term:
                told = f"entry {index} is of term {term}, the one before of {before.term}"
                _fail("S2", node, group, told)
            chain = hash((before.chain, term, int(kind), hash(entry.data)))
            # What a machine sees of it.
            data = hash(entry.data if kind is EntryType.NORMAL else b"")
            if known.chains.setdefault((index, term), chain) != chain:
                _fail("S2", node, group, f"entry {index} of term {term} is not as elsewhere")
            before = log[index] = Logged(term, chain, data)
            replica.last = index
            if kind is not EntryType.NORMAL:
                self._changes_members(node, group, index, term)

    def _changes_members(self, node: int, group: Group, index: int, term: int) -> None:
        known = self._groups[group]
        replica = known.replicas[node]
        if known.leaders.get(term) == node:
            if replica.commit < replica.led_from:
                told = f"changes its members before it has committed entry {replica.led_from}"
                _fail("S10", node, group, f"{told}, which it found when it was elected")
            open_change = next((each for each in replica.changes if each > replica.commit), None)
            if open_change is not None:
                told = f"changes its members at {index} while the change at {open_change} is open"
                _fail("S10", node, group, told)
        replica.changes.append(index)

    def installed(self, node: int, group: Group, index: int, term: int) -> None:
        """A snapshot takes the place of the log up to an entry, and of what was applied."""
        known = self._groups[group]
        replica = known.replicas[node]
        committed = known.committed.get(index)
        if committed is None or committed.term != term:
            _fail("S4", node, group, f"installs entry {index} of term {term}, not committed")
        if index < replica.applied:
            _fail("S6", node, group, f"installs {index}, though it has applied {replica.applied}")
        self._begin_log(known, replica, index, term)
        replica.applied = index
        replica.commit = max(replica.commit, index)

    def counts(self, node: int, group: Group, match: int) -> None:
        """A leader takes its own log for durable up to an index."""
        replica = self._groups[group].replicas[node]
        entry = replica.log.get(match)
        if match <= replica.base:
            return
        if entry is None or not replica.durable.has(match, entry.term):
            _fail("S5", node, group, f"counts its own entry {match}, which is not durable")

    def committed(self, node: int, group: Group, commit: int, members: ConfState) -> None:
        """A replica knows of a commit index; `members` are those by which it counts."""
        known = self._groups[group]
        replica = known.replicas[node]
        if commit < replica.commit:
            _fail("S6", node, group, f"went back from commit {replica.commit} to {commit}")
        replica.commit = commit
        if commit <= known.commit:
            return
        entry = replica.log.get(commit)
        if entry is None:
            _fail("S7", node, group, f"commits {commit}, which its log does not hold")
        if known.leaders.get(replica.term) != node:
            _fail("S7", node, group, f"commits {commit} before any leader did")
        if entry.term != replica.term:
            told = f"commits {commit} of term {entry.term} by counting, in term {replica.term}"
            _fail("S7", node, group, told)
        for voters in (members.voters, members.voters_outgoing):
            have = [each for each in voters if _has(known.replicas.get(each), commit, entry.term)]
            if voters and len(have) * 2 <= len(voters):
                told = f"commits {commit} of term {entry.term}, durable on {have} of {voters}"
                _fail("S7", node, group, told)
        for index in range(known.commit + 1, commit + 1):
            if index in replica.log:
                known.committed[index] = replica.log[index]
        known.commit = commit
        known.committed_in[replica.term] = commit

    def applied(self, node: int, group: Group, index: int, term: int, data: bytes) -> None:
        """A replica applies an entry; of a change of membership its machine sees no data."""
        known = self._groups[group]
        replica = known.replicas[node]
        if index != replica.applied + 1:
            _fail("S4", node, group, f"applies entry {index} behind {replica.applied}")
        committed = known.committed.get(index)
        if committed is None:
            _fail("S4", node, group, f"applies entry {index}, which nobody has committed")
        if (term, hash(data)) != (committed.term, committed.data):
            told = f"applies entry {index} of term {term}, not that of {committed.term}"
            _fail("S4", node, group, f"{told} which is committed")
        replica.applied = index

    # --- the disk --------------------------------------------------------------------------

    def synced(self, node: int, group: Group, applied: int) -> None:
        """A batch is durable, with the rows of all that was applied up to `applied`."""
        known = self._groups[group]
        replica = known.replicas[node]
        state = replica.durable.hard_state()
        kept = replica.kept
        if state.term < kept.term or state.commit < kept.commit:
            _fail("S6", node, group, f"keeps {state} after {kept}")
        if state.term == kept.term and kept.vote not in (0, state.vote):
            _fail("S1", node, group, f"keeps the vote of {state} after that of {kept}")
        if applied > max(state.commit, replica.base):
            _fail("S6", node, group, f"keeps applied {applied} and commit {state.commit}")
        replica.kept = state
        replica.kept_applied = max(replica.kept_applied, applied)

    def answers(self, node: int, group: Group, index: int) -> None:
        """Callers hear of what was applied up to an index."""
        known = self._groups[group]
        if index > known.commit:
            _fail("S7", node, group, f"answers for entry {index}, which is not committed")
        known.answered = max(known.answered, index)

    def answered_index(self, group: Group) -> int:
        """Up to where callers know of a group's log."""
        found = self._groups.get(group)
        return 0 if found is None else found.answered

    def read(self, node: int, group: Group, answered: int) -> None:
        """A client is told what a replica's rows show, and asked when `answered` was known."""
        applied = self._groups[group].replicas[node].kept_applied
        if applied < answered:
            told = f"shows what is applied up to {applied} to a reader"
            _fail("S11", node, group, f"{told} who asked after {answered} was answered")

    def stands_behind(self, node: int, group: Group, job: str) -> None:
        """A job is to be sent, and stands before the offset."""
        _fail("S12", node, group, f"{job} is to be sent and stands before the offset")

    # --- messages --------------------------------------------------------------------------

    def says_all(self, node: int, group: Group, messages: Iterable[Message]) -> None:
        """Messages leave a node."""
        for message in messages:
            self.says(node, group, message)

    def says(self, node: int, group: Group, message: Message) -> None:
        """A message leaves a node: what it promises is durable.

        A vote that was asked for before it is given (PRE_VOTE) promises nothing.
        """
        kind, term = message.type, message.term
        if kind in _PRE_VOTES or not term:
            return
        known = self._groups[group]
        replica = known.replicas[node]
        state = replica.durable.hard_state()
        if state.term < term:
            told = f"says {kind.name} in term {term}; durable is {state.term}"
            _fail("S5", node, group, told)
        if kind is MessageType.VOTE:
            self._votes(node, group, term, node)
        elif message.reject:
            return
        elif kind is MessageType.VOTE_RESPONSE:
            self._votes(node, group, term, message.to)
        elif kind is MessageType.APPEND_RESPONSE and state.term == term:
            # In a later term the leader of that one may have replaced the entries.
            index = message.index
            entry = replica.log.get(index)
            if index > replica.base and (
                entry is None or (entry.term <= term and not replica.durable.has(index, entry.term))
            ):
                told = f"acknowledges entry {index} to node {message.to}; it is not durable"
                _fail("S5", node, group, told)
        elif kind is MessageType.TIMEOUT_NOW:
            self.firing.gave_up(node_of(node), group, term)

    def _votes(self, node: int, group: Group, term: int, candidate: int) -> None:
        """A vote for a candidate leaves."""
        known = self._groups[group]
        other = known.votes.setdefault((node, term), candidate)
        if other != candidate:
            _fail("S1", node, group, f"votes in term {term} for {candidate} and for {other}")
        state = known.replicas[node].durable.hard_state()
        if state.term == term and state.vote != candidate:
            told = f"votes for {candidate} in term {term}; durable is {state.vote or 'no vote'}"
            _fail("S5", node, group, told)


def _has(replica: _Replica | None, index: int, term: int) -> bool:
    return replica is not None and replica.durable.has(index, term)


def _fail(rule: str, node: int, group: Group, sentence: str) -> NoReturn:
    raise Violation(rule, f"node {node}, group {group}: {sentence}")
