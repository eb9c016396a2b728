"""Several replicas of each group: ticks, and what comes from the other nodes.

What goes to them leaves through `node/peers.py`, out of the cycles of `node/runtime.py`.
"""

from functools import partial
from typing import Any

from node.delivery import Delivery
from node.env import World
from node.forwarding import FORWARDED, Forwarding
from node.handover import Handovers
from node.images import Images
from node.members import Rhythm
from node.peers import Peers
from node.runtime import Runtime
from node.sleeping import Sleeping
from timemachine import codec
from timemachine.errors import (
    CodecError,
    ProposalDropped,
    ReplicaStopped,
    StoreDamaged,
    TimeMachineError,
)
from timemachine.frames import Forward, Frame, read_frame
from timemachine.raft import Message, MessageType, PeerUnknown, is_sound
from timemachine.replica.machine import read_commands
from timemachine.replica.meta import read_meta_commands
from timemachine.vnode import Vnode


class Consensus:
    """Feeds the replicas of a node that has peers."""

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        peers: Peers,
        images: Images,
        delivery: Delivery,
        rhythm: Rhythm,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._peers = peers
        self._images = images
        self._rhythm = rhythm
        self.sleeping = Sleeping(world, runtime, peers, rhythm)
        self.forwarding = Forwarding(
            world, runtime, forward=self._forward, on_dropped=lambda _: None
        )
        self.handovers = Handovers(
            world, runtime, rhythm, prepare=delivery.hand_over, resume=delivery.resume
        )
        # Forwards of others, (node, number), that are proposed here and not committed yet.
        self._taken: set[tuple[int, int]] = set()
        self._started = False
        self.dropped = 0

    def start(self) -> None:
        """Begin to listen and to tick: this life's epoch is durable."""
        self._started = True
        self._tick_later()

    def _tick_later(self) -> None:
        self._world.call_later(self._rhythm.tick_ms, self._tick)

    def added(self, vnode: Vnode, first: int) -> None:
        """A replica was taken up. Of a new group, the one on the node `first` should lead."""
        self.sleeping.added(vnode)
        vnode.kept_from = self._images.kept_from
        if vnode.newborn and first == self._peers.number:
            # A little later, for the others have to hear of the group as well.
            self._world.call_later(self._rhythm.tick_ms, partial(self._campaign, vnode))

    def removed(self, vnode: Vnode) -> None:
        """A replica is gone."""
        self.sleeping.removed(vnode)
        self._images.removed(vnode)

    def moved(self, vnode: Vnode) -> None:
        """A replica began or ceased to serve."""
        if not vnode.is_leader():
            self._images.left(vnode.group)
        self.forwarding.wake(vnode.group)

    def close(self) -> None:
        """The node stops, and its store is about to be closed."""
        self._images.close()

    def _campaign(self, vnode: Vnode) -> None:
        if vnode.newborn and self._runtime.vnodes.get(vnode.group) is vnode:
            vnode.campaign()
            self._runtime.stepped(vnode)

    def _tick(self) -> None:
        """Let one unit of time pass for every replica that is awake.

        One, however late this call is: who has slept through ten of them must not campaign before
        it has read what came in meanwhile.
        """
        runtime = self._runtime
        if not runtime.working:
            return
        self._tick_later()
        self.sleeping.tick()

    def receive(self, data: bytes) -> None:
        """Take a frame of another node. What makes no sense is dropped and counted."""
        if not self._started or not self._runtime.working:
            return
        try:
            frame = read_frame(data)
        except CodecError:
            self.dropped += 1
            return
        if frame.sender not in self._peers.others:
            self.dropped += 1
            return
        self._take_messages(frame)
        if frame.beat is not None:
            self.sleeping.receive_beat(frame.sender, frame.beat)
        if frame.answer is not None:
            self.sleeping.receive_answer(frame.sender, frame.answer)
        for chunk in frame.chunks:
            if chunk.message is None or self._can_be(chunk.message, frame.sender):
                self._images.incoming.take(frame.sender, chunk)
            else:
                self.dropped += 1
        for answer in frame.chunk_answers:
            self._images.outgoing.answered(frame.sender, answer)
        for forward in frame.forwards:
            self._take_forward(frame.sender, forward)
        for number in frame.forwarded:
            self.forwarding.acknowledged(number)

    def _forward(self, group: tuple[int, int], number: int, command: Any) -> None:
        vnode = self._runtime.vnodes.get(group)
        if vnode is not None and vnode.leader in self._peers.others:
            data = codec.encode([command])
            self._peers.forward(vnode.leader, Forward(number, *group, data))
            self._peers.flush()

    def _take_forward(self, sender: int, forward: Forward) -> None:
        taken = (sender, forward.number)
        if taken in self._taken:
            return  # a leader that is slow would only become slower

        def done(error: TimeMachineError | None) -> None:
            self._taken.discard(taken)
            if error is None:
                self._peers.forwarded(sender, forward.number)
                self._peers.flush()

        read = read_commands if forward.uid else read_meta_commands
        try:
            (command,) = read(forward.commands)
        except (CodecError, ValueError):
            command = None
        if not isinstance(command, FORWARDED):
            self.dropped += 1
            return
        self._taken.add(taken)
        if not self.forwarding.receive((forward.uid, forward.index), command, done):
            self._taken.discard(taken)

    def _take_messages(self, frame: Frame) -> None:
        runtime = self._runtime
        mono_ms = self._world.mono_ms()
        for each in frame.messages:
            vnode = runtime.vnodes.get((each.uid, each.index))
            message = each.message
            if (
                # A stray message never makes a replica, and a snapshot comes with its image.
                vnode is None
                or message.type is MessageType.SNAPSHOT
                or not self._can_be(message, frame.sender)
            ):
                self.dropped += 1
                continue
            self._step(vnode, message, mono_ms)

    def _can_be(self, message: Message, sender: int) -> bool:
        """Whether a replica of `sender` can have sent this message to one of this node."""
        return message.from_ == sender and message.to == self._peers.number and is_sound(message)

    def _step(self, vnode: Vnode, message: Message, mono_ms: float) -> None:
        resting = vnode.resting
        before = vnode.position() if resting else (0, 0, 0, 0)
        try:
            vnode.step(message, mono_ms)
        except (ProposalDropped, PeerUnknown, ReplicaStopped):
            self.dropped += 1
            return
        except StoreDamaged as error:
            self._runtime.fail(error)
            return
        if resting and (after := vnode.position()) != before:
            # A leader knows what its entries woke, but not that it is not followed any more.
            self.sleeping.rouse(vnode, message.from_ if after[:2] == before[:2] else 0)
        self._runtime.stepped(vnode)
