"""What this node has for the other nodes of the cluster, gathered into frames."""

from collections.abc import Callable, Sequence

from node.env import Network
from timemachine.frames import Forward, Frame, GroupMessage, write_frame
from timemachine.liveness import Answer, Beat
from timemachine.raft import Message, MessageType
from timemachine.transfers import SnapshotAnswer, SnapshotChunk


class _Outbox:
    """What waits for one peer."""

    __slots__ = (
        "answer",
        "beat",
        "chunk_answers",
        "chunks",
        "forwarded",
        "forwards",
        "messages",
    )

    def __init__(self) -> None:
        self.messages: list[GroupMessage] = []
        self.forwards: list[Forward] = []
        self.forwarded: list[int] = []
        self.beat: Beat | None = None
        self.answer: Answer | None = None
        self.chunks: list[SnapshotChunk] = []
        self.chunk_answers: list[SnapshotAnswer] = []


class Peers:
    """An outbox for each peer that something waits for; `flush` sends each as a frame.

    `number` is this node's, `others` are all other members', `epoch` counts this node's lives.
    A snapshot is not posted but handed to `send_snapshot`, which sees to its image.
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
        """Messages of one group, each to the node that it names."""
        uid, index = group
        for message in messages:
            if message.type is MessageType.SNAPSHOT:
                self.send_snapshot(group, message)
                continue
            if message.to in self.others:
                self._outbox(message.to).messages.append(GroupMessage(uid, index, message))

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
        """A part of an image, sent at once."""
        self._outbox(to).chunks.append(chunk)
        self.flush()

    def chunk_answer(self, to: int, answer: SnapshotAnswer) -> None:
        """How far this node has an image that `to` sends, sent at once."""
        self._outbox(to).chunk_answers.append(answer)
        self.flush()

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
                outbox.chunks,
                outbox.chunk_answers,
            )
            self.frames += 1
            self._network.send(other, write_frame(frame))
