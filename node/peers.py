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
    """One outbox a peer; `flush` sends a frame to each that has something in it.

    `number` is this node's, `others` are all other members', `epoch` counts this node's lives.
    A snapshot is not posted but handed to `send_snapshot`, which sees to its image.
    """

    def __init__(self, network: Network, number: int, others: Sequence[int], epoch: int) -> None:
        self.send_snapshot: Callable[[tuple[int, int], Message], None] = lambda *_: None
        self._network = network
        self.number = number
        self.epoch = epoch
        self._outboxes = {other: _Outbox() for other in others}
        self._full: dict[int, None] = {}
        self.frames = 0

    @property
    def others(self) -> Sequence[int]:
        """The numbers of all other members."""
        return tuple(self._outboxes)

    def post(self, group: tuple[int, int], messages: Sequence[Message]) -> None:
        """Messages of one group, each to the node that it names."""
        uid, index = group
        for message in messages:
            if message.type is MessageType.SNAPSHOT:
                self.send_snapshot(group, message)
                continue
            outbox = self._outboxes.get(message.to)
            if outbox is not None:
                outbox.messages.append(GroupMessage(uid, index, message))
                self._full[message.to] = None

    def forward(self, to: int, forward: Forward) -> None:
        """A command for a leader that is elsewhere."""
        self._outboxes[to].forwards.append(forward)
        self._full[to] = None

    def forwarded(self, to: int, number: int) -> None:
        """What `to` has forwarded under that number is done."""
        self._outboxes[to].forwarded.append(number)
        self._full[to] = None

    def beat(self, to: int, beat: Beat) -> None:
        """This node is alive, and leads what it leads."""
        self._outboxes[to].beat = beat
        self._full[to] = None

    def answer(self, to: int, answer: Answer) -> None:
        """What follows nodes as `to` still does so."""
        outbox = self._outboxes[to]
        if outbox.answer is not None:
            self.flush()
            outbox = self._outboxes[to]
        outbox.answer = answer
        self._full[to] = None

    def chunk(self, to: int, chunk: SnapshotChunk) -> None:
        """A part of an image, sent at once."""
        self._outboxes[to].chunks.append(chunk)
        self._full[to] = None
        self.flush()

    def chunk_answer(self, to: int, answer: SnapshotAnswer) -> None:
        """How far this node has an image that `to` sends, sent at once."""
        self._outboxes[to].chunk_answers.append(answer)
        self._full[to] = None
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if not self._full:
            return
        full, self._full = self._full, {}
        for other in full:
            outbox = self._outboxes[other]
            self._outboxes[other] = _Outbox()
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
