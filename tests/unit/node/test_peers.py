"""Outboxes: one frame a peer and flush, and what does not go into one."""

from typing import Any

from node.peers import Peers
from timemachine import limits
from timemachine.frames import CallPart, Forward, Frame, ReplyPart, read_frame
from timemachine.liveness import NO_SESSION, Answer, Beat
from timemachine.raft import ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata
from timemachine.transfers import SnapshotAnswer, SnapshotChunk

GROUP = (7, 3)
BEAT = Beat(4, 1, NO_SESSION, 0)
ANSWER = Answer(4, 1, (2, 1))
CHUNK = SnapshotChunk(GROUP, (5, 1), 0, b"rows")
CHUNK_ANSWER = SnapshotAnswer(GROUP, (5, 1), 1)


class _Wired:
    """Node 1 of three, and what it sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Frame]] = []
        self.bulk: list[bool] = []
        self.peers = Peers(self, 1, [2, 3], 4)

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        self.sent.append((node, read_frame(frame)))
        self.bulk.append(bulk)

    def flushed(self) -> list[tuple[int, Frame]]:
        """What a flush sends."""
        self.sent.clear()
        self.peers.flush()
        return self.sent


def _append(to: int, index: int = 1) -> Message:
    return Message(MessageType.APPEND, to, 1, 5, index=index)


def test_a_flush_sends_one_frame_to_each_peer_that_has_something() -> None:
    """With everything that was posted for it since the last one, in order."""
    wired = _Wired()
    peers = wired.peers
    peers.post(GROUP, [_append(2, 1), _append(2, 2)])
    peers.post((8, 0), [_append(2, 3)])
    peers.forward(2, Forward(9, *GROUP, b"command"))
    peers.forwarded(2, 10)
    peers.beat(2, BEAT)
    peers.answer(2, ANSWER)
    assert [] == wired.sent
    ((to, frame),) = wired.flushed()
    assert (2, 1, 4) == (to, frame.sender, frame.epoch)
    posted = [(each.uid, each.index, each.message.index) for each in frame.messages]
    assert [(7, 3, 1), (7, 3, 2), (8, 0, 3)] == posted
    assert [Forward(9, 7, 3, b"command")] == frame.forwards
    assert [10] == frame.forwarded
    assert (BEAT, ANSWER) == (frame.beat, frame.answer)
    assert [] == wired.flushed()
    assert 1 == peers.frames


def test_every_peer_gets_its_own() -> None:
    """Nothing of one leaves with another one's frame."""
    wired = _Wired()
    wired.peers.post(GROUP, [_append(3, 1), _append(2, 2)])
    wired.peers.beat(3, BEAT)
    frames = dict(wired.flushed())
    assert {2, 3} == frames.keys()
    assert [2] == [each.message.index for each in frames[2].messages]
    assert [1] == [each.message.index for each in frames[3].messages]
    assert (None, BEAT) == (frames[2].beat, frames[3].beat)
    wired.peers.post(GROUP, [_append(2, 5)])
    ((_, frame),) = wired.flushed()
    assert [5] == [each.message.index for each in frame.messages]


def test_messages_for_strangers_are_dropped() -> None:
    """A membership may name somebody whom this node cannot reach; nor does it write to itself."""
    wired = _Wired()
    wired.peers.post(GROUP, [_append(9), _append(1), _append(2)])
    assert [2] == [to for to, _ in wired.flushed()]
    wired.peers.post(GROUP, [_append(9)])
    assert [] == wired.flushed()


def test_a_snapshot_is_handed_over_and_not_posted() -> None:
    """Its image goes first, in chunks, on a way of its own."""
    wired = _Wired()
    handed: list[Any] = []
    wired.peers.send_snapshot = lambda *told: handed.append(told)
    metadata = SnapshotMetadata(ConfState((1, 2)), 9, 5)
    message = Message(MessageType.SNAPSHOT, 2, 1, 5, snapshot=Snapshot(metadata=metadata))
    wired.peers.post(GROUP, [message, _append(2, 7)])
    assert [(GROUP, message)] == handed
    ((_, frame),) = wired.flushed()
    assert [7] == [each.message.index for each in frame.messages]


def test_answers_to_two_beats_leave_both() -> None:
    """A frame has room for one; the second must not take the place of the first."""
    wired = _Wired()
    second = Answer(4, 2, (2, 1))
    wired.peers.answer(2, ANSWER)
    wired.peers.answer(2, second)
    wired.peers.answer(3, ANSWER)
    wired.peers.flush()
    assert [ANSWER, second] == [frame.answer for to, frame in wired.sent if to == 2]
    assert [ANSWER] == [frame.answer for to, frame in wired.sent if to == 3]


def test_only_the_newest_beat_is_sent() -> None:
    """An older one says nothing more."""
    wired = _Wired()
    newest = Beat(4, 2, NO_SESSION, 0)
    wired.peers.beat(2, BEAT)
    wired.peers.beat(2, newest)
    assert [newest] == [frame.beat for _, frame in wired.flushed()]


def test_a_part_of_an_image_leaves_at_once_and_alone() -> None:
    """It comes from timers and disks, and no cycle need follow; what waits is not held up by it."""
    wired = _Wired()
    wired.peers.post(GROUP, [_append(2)])
    wired.peers.chunk(2, CHUNK)
    ((to, frame),) = wired.sent
    assert (2, [CHUNK], [], [True]) == (to, list(frame.chunks), list(frame.messages), wired.bulk)
    ((_, frame),) = wired.flushed()
    assert ([], 1, False) == (list(frame.chunks), len(frame.messages), wired.bulk[-1])


def test_answers_to_parts_of_images_leave_at_once() -> None:
    """They are small, and what waits goes along."""
    wired = _Wired()
    wired.peers.post(GROUP, [_append(2)])
    wired.peers.chunk_answer(2, CHUNK_ANSWER)
    ((to, frame),) = wired.sent
    assert (2, [CHUNK_ANSWER], 1) == (to, list(frame.chunk_answers), len(frame.messages))
    assert [False] == wired.bulk
    assert [] == wired.flushed()


def test_what_is_very_large_leaves_in_several_frames() -> None:
    """In order, and none larger than a message makes it; the rest goes with the last."""
    wired = _Wired()
    data = bytes(limits.RAFT_MESSAGE_BYTES_MAX)
    messages = [
        Message(MessageType.APPEND, 2, 1, 5, index=index, entries=(Entry(5, index, data=data),))
        for index in range(1, 12)
    ]
    wired.peers.post(GROUP, messages)
    wired.peers.beat(2, BEAT)
    frames = [frame for _, frame in wired.flushed()]
    assert [*range(1, 12)] == [each.message.index for frame in frames for each in frame.messages]
    assert all(len(frame.messages) <= 3 for frame in frames)
    assert [*[None] * (len(frames) - 1), BEAT] == [frame.beat for frame in frames]
    huge = bytes(2 * limits.RPC_FRAME_BYTES_TARGET)
    wired.peers.post(
        GROUP, [Message(MessageType.APPEND, 2, 1, 5, entries=(Entry(5, 1, data=huge),))]
    )
    assert 1 == len(wired.flushed())


def test_calls_and_replies_go_with_what_else_there_is() -> None:
    """In order, one frame for each peer."""
    wired = _Wired()
    calls = [CallPart(number, "k", 5, 0, 1, b"c") for number in (1, 2)]
    reply = ReplyPart(9, False, 0, 1, b"r")
    wired.peers.call(2, calls[0])
    wired.peers.reply(2, reply)
    wired.peers.call(2, calls[1])
    wired.peers.reply(3, reply)
    (to_2, first), (to_3, second) = wired.flushed()
    assert (2, calls, [reply]) == (to_2, first.calls, first.replies)
    assert (3, [], [reply]) == (to_3, second.calls, second.replies)


def test_parts_of_something_large_leave_at_once_and_let_others_go_first() -> None:
    """Each in a frame of its own; what waits goes on waiting."""
    wired = _Wired()
    wired.peers.forward(2, Forward(9, *GROUP, b"command"))
    part = CallPart(1, "k", 5, 0, 2, b"c")
    answer = ReplyPart(1, False, 1, 2, b"r")
    wired.peers.bulk(2, part)
    wired.peers.bulk(3, answer)
    assert [([part], []), ([], [answer])] == [(f.calls, f.replies) for _, f in wired.sent]
    assert [2, 3] == [to for to, _ in wired.sent]
    ((_, waited),) = wired.flushed()
    assert 1 == len(waited.forwards)
    assert [True, True, False] == wired.bulk
