"""The invariants themselves: each planted violation is raised at once, and by its name."""

from collections.abc import Callable

import pytest

from tests.checks.invariants import Invariants
from tests.checks.violation import Violation
from timemachine.raft import ConfState, Entry, EntryType, HardState, Message, MessageType

GROUP = (7, 0)
MEMBERS = ConfState(voters=(1, 2, 3))


class FakeDisk:
    """A disk that holds what a test puts there."""

    def __init__(self) -> None:
        self.state = HardState()
        self.begin = (0, 0)
        self.terms: dict[int, int] = {}

    def hard_state(self) -> HardState:
        return self.state

    def base(self) -> tuple[int, int]:
        return self.begin

    def has(self, index: int, term: int) -> bool:
        return index <= self.begin[0] or self.terms.get(index) == term


class Cluster:
    """Three replicas, and the moves that tests need, right unless they are told otherwise."""

    def __init__(self) -> None:
        self.invariants = Invariants()
        self.disks = {node: FakeDisk() for node in (1, 2, 3)}
        for node in self.disks:
            self.start(node)

    def start(self, node: int, entries: tuple[Entry, ...] = (), applied: int = 0) -> None:
        """A replica is taken up from its disk."""
        self.invariants.started(node, GROUP, self.disks[node], entries, applied)

    def enter(self, node: int, term: int, vote: int = 0) -> None:
        """A replica enters a term, durably."""
        disk = self.disks[node]
        self.invariants.knows_term(node, GROUP, term)
        disk.state = HardState(term, vote, disk.state.commit)
        self.invariants.synced(node, GROUP, 0)

    def lead(self, node: int, term: int) -> None:
        """A replica is elected."""
        self.enter(node, term, vote=node)
        self.invariants.became_leader(node, GROUP, term)

    def append(self, node: int, *entries: Entry, durable: bool = True) -> None:
        """Entries are written."""
        self.invariants.appended(node, GROUP, entries)
        if durable:
            disk = self.disks[node]
            first = entries[0].index
            disk.terms = {index: term for index, term in disk.terms.items() if index < first}
            disk.terms.update({entry.index: entry.term for entry in entries})

    def commit(self, node: int, index: int, members: ConfState = MEMBERS) -> None:
        """A replica learns of a commit index."""
        self.invariants.committed(node, GROUP, index, members)

    def apply(self, node: int, entry: Entry) -> None:
        """A replica applies an entry."""
        self.invariants.applied(node, GROUP, entry.index, entry.term, entry.data)

    def say(self, node: int, kind: MessageType, term: int, **fields: int | bool) -> None:
        """A message leaves."""
        message = Message(kind, 3 if node != 3 else 1, node, term, **fields)  # type: ignore[arg-type]
        self.invariants.says_all(node, GROUP, [message])


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    """An entry."""
    return Entry(term, index, data=data)


A1 = entry(1, 1)
A2 = entry(2, 1, b"a")
B2 = entry(2, 2, b"b")
CHANGE = Entry(1, 2, EntryType.CONF_CHANGE_V2, b"")


@pytest.fixture
def cluster() -> Cluster:
    """Node 1 leads term 1; its first entry is committed by nodes 1 and 2."""
    made = Cluster()
    made.enter(2, 1, vote=1)
    made.lead(1, 1)
    made.append(1, A1)
    made.append(2, A1)
    made.commit(1, 1)
    return made


def breaks(rule: str, move: Callable[[], object]) -> str:
    """The sentence with which a move breaks a rule."""
    with pytest.raises(Violation) as caught:
        move()
    assert rule == caught.value.rule
    return str(caught.value)


def test_right_moves_break_nothing(cluster: Cluster) -> None:
    """Replicate, commit, apply, restart, follow a new leader that replaces an entry."""
    cluster.apply(1, A1)
    cluster.append(1, A2, durable=False)
    cluster.say(1, MessageType.APPEND, 1)
    cluster.say(2, MessageType.APPEND_RESPONSE, 1, index=1)
    cluster.commit(2, 1)
    cluster.apply(2, A1)
    cluster.invariants.answers(1, GROUP, 1)
    cluster.disks[1].state = HardState(1, 1, 1)
    cluster.start(1, (A1,), 1)
    cluster.lead(2, 2)
    cluster.append(2, B2)
    cluster.enter(1, 2, vote=2)
    cluster.say(1, MessageType.VOTE_RESPONSE, 2, reject=True)
    cluster.append(1, B2)
    cluster.invariants.counts(2, GROUP, 2)
    cluster.commit(2, 2)
    assert 2 == cluster.invariants.committed_index(GROUP)
    assert [1, 2, 0] == [cluster.invariants.leader_of(GROUP, term) for term in (1, 2, 3)]


# --- S1 ------------------------------------------------------------------------------------------


def test_two_leaders_of_a_term(cluster: Cluster) -> None:
    """S1."""
    told = breaks("S1", lambda: cluster.invariants.became_leader(2, GROUP, 1))
    assert "S1: node 2, group (7, 0): leads term 1, and so does node 1" == told


def test_two_votes_in_a_term(cluster: Cluster) -> None:
    """S1: the first was for itself, asked for in VOTE."""
    cluster.enter(2, 2, vote=2)
    cluster.say(2, MessageType.VOTE, 2)
    breaks("S1", lambda: cluster.say(2, MessageType.VOTE_RESPONSE, 2))


def test_vote_that_changes_on_the_disk(cluster: Cluster) -> None:
    """S1."""
    cluster.disks[2].state = HardState(1, 3, 0)
    breaks("S1", lambda: cluster.invariants.synced(2, GROUP, 0))


# --- S2 ------------------------------------------------------------------------------------------


def test_entry_that_differs(cluster: Cluster) -> None:
    """S2: the same index and term, other data."""
    breaks("S2", lambda: cluster.append(3, entry(1, 1, b"else")))


def test_entry_whose_past_differs(cluster: Cluster) -> None:
    """S2: the entry is the same, the one before is not."""
    cluster.lead(2, 2)
    cluster.append(2, B2, entry(3, 2))
    cluster.append(1, A2)
    breaks("S2", lambda: cluster.append(1, entry(3, 2)))


def test_log_with_a_gap(cluster: Cluster) -> None:
    """S2."""
    breaks("S2", lambda: cluster.append(3, A2))
    breaks("S2", lambda: cluster.append(1, A2, entry(4, 1)))


def test_term_that_falls_along_a_log(cluster: Cluster) -> None:
    """S2."""
    cluster.lead(2, 2)
    cluster.append(2, B2)
    breaks("S2", lambda: cluster.append(2, entry(3, 1)))


def test_truncation_that_is_lost(cluster: Cluster) -> None:
    """S2: after a restart the old end of a log stands behind the new entry."""
    cluster.append(1, A2, entry(3, 1))
    cluster.enter(2, 2, vote=2)
    cluster.invariants.became_leader(2, GROUP, 2)
    cluster.append(2, B2)
    cluster.append(1, B2)
    breaks("S2", lambda: cluster.start(1, (A1, B2, entry(3, 1)), 0))


# --- S3 ------------------------------------------------------------------------------------------


def test_leader_that_lacks_an_entry(cluster: Cluster) -> None:
    """S3."""
    cluster.enter(3, 2, vote=3)
    told = breaks("S3", lambda: cluster.invariants.became_leader(3, GROUP, 2))
    assert "without entry 1" in told


def test_leader_of_a_term_that_is_over(cluster: Cluster) -> None:
    """Its votes were late: it need not know what a newer leader has committed."""
    cluster.lead(1, 3)
    cluster.append(1, entry(2, 3))
    cluster.append(2, entry(2, 3))
    cluster.commit(1, 2)
    cluster.append(3, A1)
    cluster.invariants.became_leader(3, GROUP, 2)


# --- S4 ------------------------------------------------------------------------------------------


def test_apply_of_something_else(cluster: Cluster) -> None:
    """S4: other data at the same index, or of another term."""
    breaks("S4", lambda: cluster.apply(2, entry(1, 1, b"else")))
    breaks("S4", lambda: cluster.apply(2, entry(1, 2)))


def test_apply_out_of_order(cluster: Cluster) -> None:
    """S4: twice, or with a gap."""
    cluster.append(1, A2)
    cluster.append(2, A2)
    cluster.commit(1, 2)
    breaks("S4", lambda: cluster.apply(1, A2))
    cluster.apply(1, A1)
    breaks("S4", lambda: cluster.apply(1, A1))


def test_apply_before_commit(cluster: Cluster) -> None:
    """S4."""
    cluster.apply(1, A1)
    cluster.append(1, A2)
    breaks("S4", lambda: cluster.apply(1, A2))


def test_committed_entry_that_is_replaced(cluster: Cluster) -> None:
    """S4."""
    breaks("S4", lambda: cluster.append(2, entry(1, 2)))


def test_image_of_what_is_not_committed(cluster: Cluster) -> None:
    """S4; what is committed may be installed."""
    breaks("S4", lambda: cluster.invariants.installed(3, GROUP, 2, 1))
    cluster.invariants.installed(3, GROUP, 1, 1)
    cluster.append(3, A2)


# --- S5 ------------------------------------------------------------------------------------------


def test_vote_before_it_is_durable(cluster: Cluster) -> None:
    """S5: the term, or the vote in it, is not on the disk."""
    cluster.invariants.knows_term(2, GROUP, 2)
    breaks("S5", lambda: cluster.say(2, MessageType.VOTE_RESPONSE, 2))
    cluster.disks[2].state = HardState(2, 0, 0)
    told = breaks("S5", lambda: cluster.say(2, MessageType.VOTE_RESPONSE, 2))
    assert "votes for 3 in term 2; durable is no vote" in told
    cluster.disks[2].state = HardState(2, 3, 0)
    cluster.say(2, MessageType.VOTE_RESPONSE, 2)


def test_candidate_that_did_not_vote_for_itself(cluster: Cluster) -> None:
    """S5."""
    cluster.enter(2, 2)
    breaks("S5", lambda: cluster.say(2, MessageType.VOTE, 2))


def test_question_before_a_vote_promises_nothing(cluster: Cluster) -> None:
    """Neither asking nor answering."""
    cluster.say(2, MessageType.PRE_VOTE, 5)
    cluster.say(2, MessageType.PRE_VOTE_RESPONSE, 5)


def test_acknowledgement_before_it_is_durable(cluster: Cluster) -> None:
    """S5: a follower's answer to entries."""
    cluster.append(2, A2, durable=False)
    told = breaks("S5", lambda: cluster.say(2, MessageType.APPEND_RESPONSE, 1, index=2))
    assert "acknowledges entry 2 to node 3; it is not durable" in told
    cluster.say(2, MessageType.APPEND_RESPONSE, 1, index=2, reject=True)
    cluster.disks[2].terms[2] = 1
    cluster.say(2, MessageType.APPEND_RESPONSE, 1, index=2)


def test_term_that_is_not_durable(cluster: Cluster) -> None:
    """S5: whatever is said in it."""
    breaks("S5", lambda: cluster.say(2, MessageType.HEARTBEAT_RESPONSE, 2))


def test_leader_that_counts_its_unsynced_self(cluster: Cluster) -> None:
    """S5."""
    cluster.append(1, A2, durable=False)
    breaks("S5", lambda: cluster.invariants.counts(1, GROUP, 2))
    cluster.invariants.counts(1, GROUP, 1)


# --- S6 ------------------------------------------------------------------------------------------


def test_what_falls_in_a_life(cluster: Cluster) -> None:
    """S6: term and commit."""
    breaks("S6", lambda: cluster.invariants.knows_term(1, GROUP, 0))
    breaks("S6", lambda: cluster.commit(1, 0))


@pytest.mark.parametrize(
    ("state", "applied"),
    [(HardState(0, 0, 1), 1), (HardState(1, 1, 0), 0), (HardState(1, 1, 1), 0)],
)
def test_what_falls_over_a_restart(cluster: Cluster, state: HardState, applied: int) -> None:
    """S6: term, commit, applied; they were durable before."""
    cluster.disks[1].state = HardState(1, 1, 1)
    cluster.invariants.synced(1, GROUP, 1)
    cluster.disks[1].state = state
    breaks("S6", lambda: cluster.start(1, (A1,), applied))


def test_what_falls_on_the_disk(cluster: Cluster) -> None:
    """S6: while it runs; and nothing is applied that is not stored as committed."""
    cluster.disks[1].state = HardState(0, 0, 0)
    breaks("S6", lambda: cluster.invariants.synced(1, GROUP, 0))
    cluster.disks[1].state = HardState(1, 1, 0)
    breaks("S6", lambda: cluster.invariants.synced(1, GROUP, 1))


def test_what_was_not_durable_may_be_forgotten(cluster: Cluster) -> None:
    """A commit index alone need not survive."""
    cluster.start(1, (A1,), 0)
    cluster.commit(1, 1)


def test_log_that_begins_behind_what_is_applied(cluster: Cluster) -> None:
    """S6."""
    cluster.disks[1].begin = (1, 1)
    cluster.disks[1].state = HardState(1, 1, 1)
    breaks("S6", lambda: cluster.start(1, (), 0))


def test_image_older_than_what_is_applied(cluster: Cluster) -> None:
    """S6."""
    cluster.append(1, A2)
    cluster.append(2, A2)
    cluster.commit(1, 2)
    cluster.apply(2, A1)
    cluster.apply(2, A2)
    breaks("S6", lambda: cluster.invariants.installed(2, GROUP, 1, 1))


def test_node_without_its_disk_is_another_node(cluster: Cluster) -> None:
    """Its number would have to keep its promises; forgotten, it has none."""
    cluster.invariants.synced(1, GROUP, 0)
    cluster.disks[1] = FakeDisk()
    breaks("S6", lambda: cluster.start(1))
    cluster.invariants.forgotten(1)
    cluster.start(1)


# --- S7 ------------------------------------------------------------------------------------------


def test_commit_without_a_majority(cluster: Cluster) -> None:
    """S7: two of three must have it on their disks."""
    cluster.append(1, A2)
    cluster.append(2, A2, durable=False)
    told = breaks("S7", lambda: cluster.commit(1, 2))
    assert "commits 2 of term 1, durable on [1] of (1, 2, 3)" in told


def test_commit_with_a_majority_of_one_half_only(cluster: Cluster) -> None:
    """S7: in a joint configuration both halves decide."""
    cluster.append(1, A2)
    cluster.append(2, A2)
    joint = ConfState(voters=(1, 2, 3), voters_outgoing=(1, 4, 5))
    breaks("S7", lambda: cluster.commit(1, 2, joint))


def test_commit_of_an_older_term_by_counting(cluster: Cluster) -> None:
    """S7: the dissertation's figure 3.7."""
    cluster.append(1, A2)
    cluster.append(2, A2)
    cluster.lead(1, 2)
    breaks("S7", lambda: cluster.commit(1, 2))
    cluster.append(1, entry(3, 2))
    cluster.append(2, entry(3, 2))
    cluster.commit(1, 3)


def test_commit_by_a_follower(cluster: Cluster) -> None:
    """S7: it learns of it before any leader knew."""
    cluster.append(1, A2)
    cluster.append(2, A2)
    breaks("S7", lambda: cluster.commit(2, 2))


def test_commit_of_nothing(cluster: Cluster) -> None:
    """S7."""
    breaks("S7", lambda: cluster.commit(1, 9))


def test_answer_before_commit(cluster: Cluster) -> None:
    """S7."""
    breaks("S7", lambda: cluster.invariants.answers(1, GROUP, 2))


# --- S10 -----------------------------------------------------------------------------------------


def test_change_while_another_is_open(cluster: Cluster) -> None:
    """S10; when that is committed the next may come."""
    cluster.append(1, CHANGE)
    after = Entry(1, 3, EntryType.CONF_CHANGE_V2, b"")
    breaks("S10", lambda: cluster.append(1, after))
    cluster.append(1, CHANGE)
    cluster.append(2, CHANGE)
    cluster.commit(1, 2)
    cluster.append(1, after)


def test_change_before_what_was_found_is_committed(cluster: Cluster) -> None:
    """S10."""
    cluster.append(1, A2)
    cluster.lead(1, 2)
    change = Entry(2, 4, EntryType.CONF_CHANGE_V2, b"")
    cluster.append(1, entry(3, 2))
    breaks("S10", lambda: cluster.append(1, change))


def test_follower_takes_changes_as_they_come(cluster: Cluster) -> None:
    """It is the leader who judges."""
    cluster.append(1, CHANGE)
    cluster.append(2, CHANGE)
    cluster.append(3, A1, CHANGE)


def test_read_that_is_older_than_an_answer(cluster: Cluster) -> None:
    """What anybody was told is what every reader is shown from then on."""
    invariants = cluster.invariants
    assert 0 == invariants.answered_index(GROUP) == invariants.answered_index("another")
    invariants.answers(1, GROUP, 1)
    assert 1 == invariants.answered_index(GROUP)
    invariants.read(2, GROUP, 0)
    breaks("S11", lambda: invariants.read(2, GROUP, 1))


def test_job_before_the_offset(cluster: Cluster) -> None:
    """Whoever finds one says which."""
    breaks("S12", lambda: cluster.invariants.stands_behind(1, GROUP, "job"))
