"""Replicas that have nothing to do sleep: no ticks, no heartbeats of their own.

What two nodes have agreed about that, and why it is safe, is told in `timemachine/liveness.py`;
here it is asked, obeyed and sent. Only replicas that are awake cost anything in a tick.
"""

from collections.abc import Collection

from node.env import World
from node.members import Rhythm
from node.peers import Peers
from node.runtime import Runtime
from timemachine.group import node_of
from timemachine.liveness import Announcement, Answer, Beat, Changes, Group, Liveness
from timemachine.vnode import RESTING_FOLLOWER, RESTING_LEADER, Vnode


class Sleeping:
    """Which replicas are awake, and the beats that stand for those that are not.

    `awake` holds, for each replica that is to be ticked, for how many ticks it has been idle. On a
    node that is `leaving`, none stands for election any more.
    """

    def __init__(self, world: World, runtime: Runtime, peers: Peers, rhythm: Rhythm) -> None:
        self._world = world
        self._runtime = runtime
        self._peers = peers
        self._rhythm = rhythm
        self._liveness = Liveness(peers.epoch, peers.others, rhythm.vote_wait_ms, self._accept)
        self._ticks = 0
        self.awake: dict[Vnode, int] = {}
        self.leaving = False
        runtime.rouse = self.rouse

    # --- replicas --------------------------------------------------------------------------

    def added(self, vnode: Vnode) -> None:
        """A replica was taken up: it begins awake, unless it is alone."""
        vnode.acked_ms = self._liveness.acked_ms
        self.reformed(vnode)

    def reformed(self, vnode: Vnode) -> None:
        """Another membership of its group is in force for a replica.

        Who is the only member, and leads, has nobody to hear of, and none who would have to hear of
        it. One whose leader has gone away has to stand for election first.
        """
        if vnode.resting:
            self.rouse(vnode)
        if vnode.sole and vnode.is_leader():
            self.awake.pop(vnode, None)
        else:
            self.awake[vnode] = 0

    def set_nodes(self, others: Collection[int]) -> None:
        """These are the other nodes of the cluster from now on."""
        self._obey(self._liveness.set_peers(others))

    def removed(self, vnode: Vnode) -> None:
        """A replica is gone."""
        self._liveness.woke(vnode.group)
        self.awake.pop(vnode, None)

    def rouse(self, vnode: Vnode, by: int = 0) -> None:
        """Something happens to a replica that is asleep, or about to fall asleep.

        `by` is the node whose message it was, 0 if it was none's.
        """
        answered = self._liveness.woke(vnode.group, by)
        if vnode.resting == RESTING_LEADER:
            for node, sent_ms in answered.items():
                vnode.lease.node_answered(vnode.term, node, sent_ms)
        self._wake(vnode, elapsed=0)

    def _wake(self, vnode: Vnode, *, elapsed: int) -> None:
        """Tick it again, as if it had last heard of its leader so many ticks ago."""
        if vnode.resting == RESTING_FOLLOWER and not elapsed:
            vnode.promise.answer(self._world.mono_ms())
        vnode.resting = 0
        vnode.core.elapse(elapsed)
        self.awake[vnode] = 0

    def alive(self, peer: int) -> bool:
        """Whether a node has answered a beat lately."""
        return self._liveness.knows(peer) and self._liveness.alive(peer)

    # --- ticks and beats -------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time: tick who is awake, let the idle sleep, beat."""
        mono_ms = self._world.mono_ms()
        self._obey(self._liveness.tick(mono_ms))
        runtime = self._runtime
        awake = self.awake
        for vnode in list(awake):
            if self.leaving and not vnode.is_leader():
                continue
            vnode.tick(mono_ms)
            if vnode.resting and not vnode.is_leader():
                # It heard no majority. Others must not sleep on under the beats of this node.
                self.rouse(vnode)
            runtime.stepped(vnode)
            if vnode.idle():
                idle_ticks = awake[vnode] = awake[vnode] + 1
                if idle_ticks >= self._rhythm.idle_ticks:
                    self._announce(vnode)
            else:
                awake[vnode] = 0
        self._ticks += 1
        if self._ticks % self._rhythm.heartbeat_tick == 0:
            for peer in self._peers.others:
                self._peers.beat(peer, self._liveness.beat(peer, mono_ms))
            self._peers.flush()

    def _announce(self, vnode: Vnode) -> None:
        nodes = [node_of(voter) for voter in vnode.members.voters if voter != vnode.id]
        if not set(nodes).issubset(self._peers.others):
            return  # one is gone and about to be replaced, or not known here yet
        core = vnode.core
        vnode.resting = RESTING_LEADER
        announcement = Announcement(vnode.group, vnode.id, core.term, vnode.last_index)
        self._liveness.announce(announcement, tuple(nodes))

    def _accept(self, leader: int, announcement: Announcement) -> bool:
        """Whether a replica here may sleep under that leader."""
        vnode = self._runtime.vnodes.get(announcement.group)
        if vnode is None or node_of(announcement.leader) != leader:
            return False
        if not vnode.follows(announcement.leader, announcement.term, announcement.index):
            return False
        vnode.resting = RESTING_FOLLOWER
        self.awake.pop(vnode, None)
        return True

    # --- messages --------------------------------------------------------------------------

    def receive_beat(self, peer: int, beat: Beat) -> None:
        """A peer's node leads what sleeps here under it."""
        answer, changes = self._liveness.receive_beat(peer, beat, self._world.mono_ms())
        self._obey(changes)
        if answer is not None:
            self._peers.answer(peer, answer)
            self._peers.flush()

    def receive_answer(self, peer: int, answer: Answer) -> None:
        """A peer's node keeps its promises."""
        self._obey(self._liveness.receive_answer(peer, answer, self._world.mono_ms()))

    def _obey(self, changes: Changes) -> None:
        if not changes:
            return
        for vnode in self._here(changes.released):
            self._wake(vnode, elapsed=0)
        for vnode in self._here(changes.lapsed):
            vnode.core.forget_leader()
            self._wake(vnode, elapsed=self._rhythm.election_tick)
            self._runtime.stepped(vnode)
        for vnode in self._here(changes.awake):
            # What is agreed with others stays agreed: it goes on resting in that sense.
            vnode.core.elapse(0)
            self.awake[vnode] = 0
        for vnode in self._here(changes.asleep):
            self.awake.pop(vnode, None)

    def _here(self, groups: list[Group]) -> list[Vnode]:
        """The replicas of these groups that this node has."""
        vnodes = self._runtime.vnodes
        return [vnodes[group] for group in groups if group in vnodes]
