"""Several replicas of each group: ticks, and what comes from the other nodes.

What goes to them leaves through `node/peers.py`, out of the cycles of `node/runtime.py`.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from node.calls import Calls
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
from timemachine.group import META_GROUP, node_of
from timemachine.raft import Message, MessageType, PeerUnknown, is_sound
from timemachine.replica.machine import read_commands
from timemachine.replica.meta import read_meta_commands
from timemachine.vnode import Gate, Vnode


class Consensus:
    """Feeds the replicas of a node that has peers.

    `on_reformed` hears of a group whose members are others from now on. `nodes_of` tells which
    nodes have replicas of a group.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        peers: Peers,
        images: Images,
        delivery: Delivery,
        calls: Calls,
        rhythm: Rhythm,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._peers = peers
        self._images = images
        self._calls = calls
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
        self.gate = Gate()
        self.on_reformed: Callable[[tuple[int, int]], None] = lambda _: None
        self.nodes_of: Callable[[tuple[int, int]], Collection[int]] = lambda _: ()
        # The highest number of a node that is known to have been given.
        self._newest = max((peers.number, *peers.others))
        self.dropped = 0

    @property
    def epoch(self) -> int:
        """Counts the lives of this node."""
        return self._peers.epoch

    def start(self) -> None:
        """Begin to listen and to tick: this life's epoch is durable."""
        self._started = True
        self._tick_later()

    def _tick_later(self) -> None:
        self._world.call_later(self._rhythm.tick_ms, self._tick)

    def set_nodes(self, others: Collection[int], newest: int) -> None:
        """These are the other nodes of the cluster from now on; no higher number is known."""
        self._newest = newest
        self._set_others({*others, *[each for each in self._peers.others if each > newest]})

    def _set_others(self, others: Collection[int]) -> None:
        if set(others) != set(self._peers.others):
            self._peers.others = tuple(sorted(others))
            self.sleeping.set_nodes(others)

    def _knows(self, sender: int) -> bool:
        """Whether it is one of the others; one of a higher number has joined since.

        It may lead the meta group by now, and only its frames can tell this node of it.
        """
        if sender not in self._peers.others:
            if sender <= self._newest:
                return False  # it is gone
            self._set_others({*self._peers.others, sender})
        return True

    def added(self, vnode: Vnode, *, first: bool) -> None:
        """A replica was taken up. Of a new group, the `first` one should lead."""
        self.sleeping.added(vnode)
        vnode.kept_from = self._images.kept_from
        vnode.reformed = self._reformed
        vnode.gate = self.gate
        if vnode.newborn and first and vnode.id in vnode.members.voters:
            # A little later, for the others have to hear of the group as well.
            self._world.call_later(self._rhythm.tick_ms, partial(self._campaign, vnode))

    def removed(self, vnode: Vnode) -> None:
        """A replica is gone."""
        self.sleeping.removed(vnode)
        self._images.removed(vnode)

    def _reformed(self, vnode: Vnode) -> None:
        self.sleeping.reformed(vnode)
        self.on_reformed(vnode.group)

    def moved(self, vnode: Vnode) -> None:
        """A replica began or ceased to serve."""
        if vnode.sole:
            self.sleeping.reformed(vnode)
        if not vnode.is_leader():
            self._images.left(vnode.group)
        self.forwarding.wake(vnode.group)

    def close(self) -> None:
        """The node stops, and its store is about to be closed."""
        self._images.close()

    def _campaign(self, vnode: Vnode) -> None:
        if vnode.newborn and self._runtime.holds(vnode):
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

    def receive(self, data: bytes, sender: int = 0) -> None:
        """Take a frame of another node. What makes no sense is dropped and counted.

        It is that of the number `sender`, where the network can tell: nobody speaks for others.
        """
        if not self._started or not self._runtime.working:
            return
        try:
            frame = read_frame(data)
        except CodecError:
            self.dropped += 1
            return
        if sender not in (0, frame.sender) or not self._knows(frame.sender):
            self.dropped += 1
            return
        self._take_messages(frame)
        if frame.beat is not None:
            self.sleeping.receive_beat(frame.sender, frame.beat)
        if frame.answer is not None:
            self.sleeping.receive_answer(frame.sender, frame.answer)
        for chunk in frame.chunks:
            if chunk.message is None or self._can_be(chunk.message, frame.sender, chunk.group):
                self._images.incoming.take(frame.sender, chunk)
            else:
                self.dropped += 1
        for answer in frame.chunk_answers:
            self._images.outgoing.answered(frame.sender, answer)
        for forward in frame.forwards:
            self._take_forward(frame.sender, forward)
        for number in frame.forwarded:
            self.forwarding.acknowledged(number)
        for call in frame.calls:
            self._calls.take(frame.sender, call)
        for reply in frame.replies:
            self._calls.take_reply(frame.sender, reply)

    def _forward(self, group: tuple[int, int], number: int, command: Any) -> None:
        vnode = self._runtime.vnodes.get(group)
        # Where the replica of this node has moved away, whoever of the others leads takes it. Its
        # replica of meta stays; once this node is about to be removed nobody tells it who leads.
        leader = 0 if vnode is None else vnode.leader
        anybody = vnode is None or (group == META_GROUP and not leader)
        nodes = self.nodes_of(group) if anybody else [leader]
        known = [node for node in nodes if node in self._peers.others]
        if known:
            forward = Forward(number, *group, codec.encode([command]))
            for node in known:
                self._peers.forward(node, forward)
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
                or not self._can_be(message, frame.sender, vnode.group)
                or (self.sleeping.leaving and message.type is MessageType.TIMEOUT_NOW)
            ):
                self.dropped += 1
                continue
            self._step(vnode, message, mono_ms)

    def _can_be(self, message: Message, sender: int, group: tuple[int, int]) -> bool:
        """Whether a replica on the node `sender` can have sent this to one of this node."""
        vnode = self._runtime.vnodes.get(group)
        to = message.to
        return (
            (node_of(to) == self._peers.number if vnode is None else to == vnode.id)
            and node_of(message.from_) == sender
            and is_sound(message)
        )

    def _step(self, vnode: Vnode, message: Message, mono_ms: float) -> None:
        resting = vnode.resting
        before = vnode.position() if resting else (0, 0, 0, 0)
        try:
            vnode.step(message, mono_ms)
        except (ProposalDropped, PeerUnknown, ReplicaStopped):
            self.dropped += 1
            return
        except StoreDamaged as error:
            self._runtime.broken(vnode, error)
            return
        if resting and (after := vnode.position()) != before:
            # A leader knows what its entries woke, but not that it is not followed any more.
            self.sleeping.rouse(vnode, node_of(message.from_) if after[:2] == before[:2] else 0)
        self._runtime.stepped(vnode)
