"""timemachine/raft/reads.py: which reads a majority has confirmed."""

from tests.raft.peer import Peer
from timemachine import limits
from timemachine.raft.messages import Message, MessageType
from timemachine.raft.quorum import JointVoters
from timemachine.raft.reads import ReadQueue

VOTERS = JointVoters(frozenset({1, 2, 3}))


def request(number: int) -> Message:
    """A read, told from others by its sender."""
    return Message(MessageType.READ_INDEX, from_=number)


def test_without_reads_heartbeats_carry_nothing() -> None:
    """Not even after reads: then old numbers would be answered."""
    queue = ReadQueue()
    assert b"" == queue.context()
    queue.add(request(1), 5)
    context = queue.context()
    for member in (1, 2):
        queue.acknowledge(member, context)
    assert [(request(1), 5)] == queue.confirmed(VOTERS)
    assert b"" == queue.context()


def test_a_round_confirms_what_came_before_it_in_order() -> None:
    """Each answer counts for all reads up to its number, and for none behind it."""
    queue = ReadQueue()
    contexts = []
    for number in (1, 2, 3):
        queue.add(request(number), 10 + number)
        contexts.append(queue.context())
        queue.acknowledge(1, contexts[-1])
    assert [] == queue.confirmed(VOTERS)
    queue.acknowledge(2, contexts[1])
    assert [(request(1), 11), (request(2), 12)] == queue.confirmed(VOTERS)
    queue.acknowledge(3, contexts[0])
    assert [] == queue.confirmed(VOTERS)
    queue.acknowledge(3, contexts[2])
    assert [(request(3), 13)] == queue.confirmed(VOTERS)


def test_an_old_answer_does_not_take_back_a_newer_one() -> None:
    """Answers may come out of order."""
    queue = ReadQueue()
    queue.add(request(1), 5)
    early = queue.context()
    queue.add(request(2), 5)
    queue.acknowledge(1, queue.context())
    queue.acknowledge(2, queue.context())
    queue.acknowledge(2, early)
    assert 2 == len(queue.confirmed(VOTERS))


def test_only_voters_confirm() -> None:
    """Of both halves, while the configuration is joint."""
    queue = ReadQueue()
    queue.add(request(1), 5)
    for member in (1, 2, 8, 9):
        queue.acknowledge(member, queue.context())
    joint = JointVoters(frozenset({1, 2, 3}), frozenset({4, 5, 6}))
    assert [] == queue.confirmed(joint)
    assert 1 == len(queue.confirmed(VOTERS))


def test_reads_that_are_too_many_are_lost() -> None:
    """A leader that nobody answers does not keep them without end."""
    peer = Peer()
    peer.lead()
    for number in range(limits.RAFT_READS_WAITING_MAX + 5):
        peer.node.read_index(b"%d" % number)
    assert limits.RAFT_READS_WAITING_MAX == len(peer.node._raft.waiting_reads)
