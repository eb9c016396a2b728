"""What this node has for the other nodes of the cluster, gathered into frames."""

from collections.abc import Callable, Sequence

import msgspec

from node.env import Network
from timemachine import limits
from timemachine.frames import CallPart, Forward, Frame, GroupMessage, ReplyPart, write_frame
from timemachine.group import node_of
from timemachine.liveness import Answer, Beat
from timemachine.raft import Message, MessageType
from timemachine.transfers import SnapshotAnswer, SnapshotChunk


class _Outbox:
    """What waits for one peer."""

    __slots__ = (
        "answer",
        "beat",
        "calls",
        "chunk_answers",
        "forwarded",
        "forwards",
        "messages",
        "replies",
    )

    def __init__(self) -> None:
        self.messages: list[GroupMessage] = []
        self.forwards: list[Forward] = []
        self.forwarded: list[int] = []
        self.beat: Beat | None = None
        self.answer: Answer | None = None
        self.chunk_answers: list[SnapshotAnswer] = []
        self.calls: list[CallPart] = []
        self.replies: list[ReplyPart] = []


class Peers:
    """An outbox for each peer that something waits for; `flush` sends each as a frame.

    `number` is this node's, `others` are the other nodes of the cluster that are known, `epoch`
    counts this node's lives. A snapshot is not posted but handed to `send_snapshot`, which sees to
    its image. A frame that would be very large becomes several.
    """

    def __init__(self, network: Network, number: int, others: Sequence[int], epoch: int) -> None:
        self.send_snapshot: Callable[[tuple[int, int], Message], None] = lambda *_: None
        self._network = network
        self.number = number
        self.others = tuple(others)
        self.epoch = epoch
        self._outboxes: dict[int, _Outbox] = {}
        self.frames = 0

    def _outbox(self, to: int) -> _Outbox:
        outbox = self._outboxes.get(to)
        if outbox is None:
            outbox = self._outboxes[to] = _Outbox()
        return outbox

    def post(self, group: tuple[int, int], messages: Sequence[Message]) -> None:
        """Messages of one group, each to the node of the replica that it names."""
        uid, index = group
        for message in messages:
            if message.type is MessageType.SNAPSHOT:
                self.send_snapshot(group, message)
                continue
            to = node_of(message.to)
            if to in self.others:
                self._outbox(to).messages.append(GroupMessage(uid, index, message))

    def forward(self, to: int, forward: Forward) -> None:
        """A command for a leader that is elsewhere."""
        self._outbox(to).forwards.append(forward)

    def forwarded(self, to: int, number: int) -> None:
        """What `to` has forwarded under that number is done."""
        self._outbox(to).forwarded.append(number)

    def beat(self, to: int, beat: Beat) -> None:
        """This node is alive, and leads what it leads."""
        self._outbox(to).beat = beat

    def answer(self, to: int, answer: Answer) -> None:
        """What follows nodes as `to` still does so."""
        if self._outbox(to).answer is not None:
            self.flush()
        self._outbox(to).answer = answer

    def chunk(self, to: int, chunk: SnapshotChunk) -> None:
        """A part of an image, sent at once and alone: it may wait, what else there is may not."""
        frame = Frame(self.number, self.epoch, chunks=(chunk,))
        self.frames += 1
        self._network.send(to, write_frame(frame), bulk=True)

    def chunk_answer(self, to: int, answer: SnapshotAnswer) -> None:
        """How far this node has an image that `to` sends, sent at once."""
        self._outbox(to).chunk_answers.append(answer)
        self.flush()

    def call(self, to: int, call: CallPart) -> None:
        """Something is asked of a node."""
        self._outbox(to).calls.append(call)

    def reply(self, to: int, reply: ReplyPart) -> None:
        """A node is answered."""
        self._outbox(to).replies.append(reply)

    def bulk(self, to: int, part: CallPart | ReplyPart) -> None:
        """A part of something large, in a frame of its own that lets others go first."""
        if isinstance(part, CallPart):
            frame = Frame(self.number, self.epoch, calls=(part,))
        else:
            frame = Frame(self.number, self.epoch, replies=(part,))
        self.frames += 1
        self._network.send(to, write_frame(frame), bulk=True)

    def flush(self) -> None:
        """Send what waits."""
        outboxes, self._outboxes = self._outboxes, {}
        for other, outbox in outboxes.items():
            frame = Frame(
                self.number,
                self.epoch,
                outbox.messages,
                outbox.forwards,
                outbox.forwarded,
                outbox.beat,
                outbox.answer,
                chunk_answers=outbox.chunk_answers,
                calls=outbox.calls,
                replies=outbox.replies,
            )
            self._send(other, frame)

    def _send(self, to: int, frame: Frame) -> None:
        data = write_frame(frame)
        messages = frame.messages
        if len(data) > limits.RPC_FRAME_BYTES_TARGET and len(messages) > 1:
            # Somebody catches up in many groups at once.
            half = len(messages) // 2
            self._send(to, Frame(self.number, self.epoch, messages[:half]))
            self._send(to, msgspec.structs.replace(frame, messages=messages[half:]))
            return
        self.frames += 1
        self._network.send(to, data)
