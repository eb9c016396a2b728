"""What replicas say to each other: delivered in order, unless a test cuts it off."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from tests.raft.peer import Peer
from timemachine.errors import ProposalDropped
from timemachine.raft import Message, MessageType, Role
from timemachine.raft.rawnode import PeerUnknown


def group(*ids: int, learners: Iterable[int] = (), **settings: Any) -> "Network":
    """A new group of voters and learners with the same settings."""
    learners = tuple(learners)
    return Network(Peer(each, ids, learners=learners, **settings) for each in (*ids, *learners))


class Network:
    """Carries messages between peers, one at a time and in the order they were sent.

    A peer that is not there takes part as one that never says anything.
    """

    def __init__(self, peers: Iterable[Peer]) -> None:
        self.peers = {peer.id: peer for peer in peers}
        self.delivered: list[Message] = []
        self._cuts: set[tuple[int, int]] = set()
        self._ignored: set[MessageType] = set()
        self.filter: Callable[[Message], bool] | None = None
        """Says of each message whether it is delivered."""

    def __getitem__(self, id: int) -> Peer:
        return self.peers[id]

    # Faults.

    def cut(self, one: int, other: int) -> None:
        """Nothing passes between these two."""
        self._cuts |= {(one, other), (other, one)}

    def isolate(self, id: int) -> None:
        """Nothing passes between this one and anybody else."""
        for other in self.peers:
            if other != id:
                self.cut(id, other)

    def ignore(self, *kinds: MessageType) -> None:
        """No message of these kinds passes."""
        self._ignored |= set(kinds)

    def heal(self) -> None:
        """Everything passes again."""
        self._cuts.clear()
        self._ignored.clear()
        self.filter = None

    # Inputs; each lets the group talk until it has nothing more to say.

    def run(self, sent: Iterable[Message] = ()) -> None:
        """Deliver `sent`, and what is said because of it."""
        queue = deque(sent)
        for peer in self.peers.values():
            queue.extend(peer.settle())
        while queue:
            message = queue.popleft()
            receiver = self.peers.get(message.to)
            if receiver is None or not self._passes(message):
                continue
            self.delivered.append(message)
            try:
                queue.extend(receiver.step(message))
            except (ProposalDropped, PeerUnknown):
                queue.extend(receiver.settle())

    def campaign(self, id: int) -> None:
        """Have a peer campaign."""
        self.run(self[id].campaign())

    def propose(self, id: int, data: bytes = b"data") -> None:
        """Have a peer propose. Raises ProposalDropped."""
        self.run(self[id].propose(data))

    def tick(self, id: int, count: int = 1) -> None:
        """Let a peer's time pass."""
        for _ in range(count):
            self.run(self[id].tick())

    def transfer(self, leader: int, to: int) -> None:
        """Ask `leader` to hand over."""
        self[leader].node.transfer_leader(to)
        self.run()

    def read(self, id: int, context: bytes) -> None:
        """Have a peer ask for a read index."""
        self[id].node.read_index(context)
        self.run()

    # What there is to see.

    def roles(self) -> list[Role]:
        """Of each peer, in the order of their ids."""
        return [peer.role() for _, peer in sorted(self.peers.items())]

    def terms(self) -> list[int]:
        """Of each peer, in the order of their ids."""
        return [peer.term for _, peer in sorted(self.peers.items())]

    def kinds(self) -> list[MessageType]:
        """What was delivered since the beginning, or since `delivered` was cleared."""
        return [message.type for message in self.delivered]

    def _passes(self, message: Message) -> bool:
        if (message.from_, message.to) in self._cuts or message.type in self._ignored:
            return False
        return self.filter is None or self.filter(message)
