"""Sleeping groups on a network that loses, doubles, delays and cuts, among nodes that restart.

The hosts here are as simple as they can be: a replica has a term, a leader and a length of log,
leaders are made by decree, and their messages travel over the same bad network. What is checked
is what a lease rests on: a beat that counts for a group was promised by a replica that slept,
and that stays so for `LAPSE_MS` unless its leader wakes it. At the end everything heals, and
every group that has a leader must fall asleep on all nodes, every other one wake up.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from timemachine.liveness import Announcement, Answer, Beat, Changes, Group, Liveness

NODES = (1, 2, 3)
GROUPS: tuple[Group, ...] = tuple((1, index) for index in range(5))
LAPSE_MS = 1_000
TICK_MS = 100
STEPS = 400


@dataclass
class Replica:
    """What a follower or leader is to its host. A leader that is its own leader leads."""

    term: int = 0
    leader: int = 0
    index: int = 0


@dataclass
class Append:
    """A message of a group's leader; without anything new it is a heartbeat."""

    group: Group
    term: int
    leader: int
    index: int


@dataclass
class Sleep:
    """A time during which a follower slept."""

    leader: int
    epoch: int
    term: int
    since_ms: float
    until_ms: float | None = None
    why: str = ""


@dataclass
class Node:
    """One process, and what of it outlives it."""

    number: int
    clock_ms: float
    epoch: int = 0
    liveness: Any = None
    stopped_until_ms: float = 0
    replicas: dict[Group, Replica] = field(default_factory=dict)
    # Leaders that are not ticked.
    silent: set[Group] = field(default_factory=set)


class World:
    """Three nodes, a network, and what has been promised and counted on it."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.now_ms = 0.0
        self.loss = dice.choice((0.0, 0.1, 0.4))
        self.doubling = dice.choice((0.0, 0.2))
        self.delay_ms = dice.choice((10, 300, 3_000))
        self.cut: dict[tuple[int, int], float] = {}
        self.flying: list[tuple[float, int, int, int, Any]] = []
        self.sent = 0
        self.terms = dict.fromkeys(GROUPS, 0)
        self.busy_until_ms: dict[Group, float] = {}
        # Of the leader's node whose beat is being taken.
        self.epoch_heard = 0
        # By (node, group): what slept there, in order; the last one may still do so.
        self.sleeps: dict[tuple[int, Group], list[Sleep]] = {}
        # By (leader, epoch, group, term, follower): the newest time that was counted.
        self.counted_ms: dict[tuple[int, int, Group, int, int], float] = {}
        self.nodes = {number: Node(number, dice.uniform(0, 1e6)) for number in NODES}
        for node in self.nodes.values():
            node.replicas = {group: Replica() for group in GROUPS}
            self.start(node)

    # --- a node ----------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """Begin anew, with nothing but what is on the disk."""
        node.epoch += 1
        node.silent = set()
        node.clock_ms = self.dice.uniform(0, 1e6)
        for group, replica in node.replicas.items():
            replica.leader = 0
            self.ends(node, group, "restart")
        peers = [number for number in NODES if number != node.number]

        def accept(leader: int, announcement: Announcement) -> bool:
            return self.accepts(node, leader, announcement)

        node.liveness = Liveness(node.epoch, peers, LAPSE_MS, accept)

    def own_ms(self, node: Node) -> float:
        """The node's monotonic clock."""
        return node.clock_ms + self.now_ms

    def accepts(self, node: Node, leader: int, announcement: Announcement) -> bool:
        """What the host of a follower says; the replica sleeps if so."""
        group = announcement.group
        replica = node.replicas[group]
        wanted = (announcement.term, announcement.leader, announcement.index)
        if (replica.term, replica.leader, replica.index) != wanted:
            return False
        self.ends(node, group, "leader")
        slept = self.sleeps.setdefault((node.number, group), [])
        slept.append(Sleep(leader, self.epoch_heard, announcement.term, self.now_ms))
        return True

    def sleeps_now(self, node: Node, group: Group) -> Sleep | None:
        """What the replica sleeps under, as follower."""
        slept = self.sleeps.get((node.number, group))
        return slept[-1] if slept and slept[-1].until_ms is None else None

    def ends(self, node: Node, group: Group, why: str) -> None:
        """The replica sleeps no more."""
        slept = self.sleeps_now(node, group)
        if slept is None:
            return
        slept.until_ms, slept.why = self.now_ms, why
        if why == "lapse" and self.nodes[slept.leader].epoch == slept.epoch:
            key = (slept.leader, slept.epoch, group, slept.term, node.number)
            assert self.now_ms >= self.counted_ms.get(key, -LAPSE_MS) + LAPSE_MS - 1e-6

    def woke(self, node: Node, group: Group, by: int = 0) -> None:
        """Tell the node of an event; its follower's promise ends."""
        acked = node.liveness.acked_ms(group)
        assert node.liveness.woke(group, by) == acked
        assert node.liveness.acked_ms(group) == {}
        slept = self.sleeps_now(node, group)
        known = slept is not None and slept.leader == by
        self.ends(node, group, "leader" if known else "other")
        node.silent.discard(group)

    def does(self, node: Node, changes: Changes) -> None:
        """Do what the liveness says."""
        for group in changes.released:
            self.ends(node, group, "leader")
        for group in changes.lapsed:
            self.ends(node, group, "lapse")
            if self.dice.random() < 0.3:
                node.replicas[group].leader = 0  # it campaigns
        for group in changes.awake:
            assert group in node.silent
            node.silent.discard(group)
        for group in changes.asleep:
            assert group not in node.silent
            assert self.leads(node, group)
            node.silent.add(group)
        for group in GROUPS:
            asleep = group in node.silent or self.sleeps_now(node, group) is not None
            assert asleep == node.liveness.sleeps(group)

    def leads(self, node: Node, group: Group) -> bool:
        """Whether it believes so."""
        return node.replicas[group].leader == node.number

    # --- the network -----------------------------------------------------------------------

    def send(self, sender: int, to: int, what: Any) -> None:
        """Put it on its way, or not."""
        if self.cut.get((sender, to), 0) > self.now_ms:
            return
        for _ in range(1 + (self.dice.random() < self.doubling)):
            if self.dice.random() >= self.loss:
                delay_ms = self.dice.uniform(1, self.delay_ms)
                self.sent += 1
                self.flying.append((self.now_ms + delay_ms, self.sent, sender, to, what))

    def deliver(self) -> None:
        """What has arrived by now is taken, by nodes that run."""
        arrived = [each for each in self.flying if each[0] <= self.now_ms]
        for each in sorted(arrived):
            _, _, sender, to, what = each
            node = self.nodes[to]
            if node.stopped_until_ms <= self.now_ms:
                self.flying.remove(each)
                self.receive(node, sender, what)

    def receive(self, node: Node, sender: int, what: Any) -> None:
        """One message."""
        if isinstance(what, Append):
            self.follow(node, sender, what)
        elif isinstance(what, Beat):
            self.epoch_heard = what.epoch
            answer, changes = node.liveness.receive_beat(sender, what, self.own_ms(node))
            self.does(node, changes)
            if answer is not None:
                self.send(node.number, sender, answer)
        else:
            assert isinstance(what, Answer)
            self.does(node, node.liveness.receive_answer(sender, what, self.own_ms(node)))

    def follow(self, node: Node, sender: int, message: Append) -> None:
        """What a leader says in its own term, or a newer one."""
        replica = node.replicas[message.group]
        stale = message.term < replica.term
        if stale or (message.term == replica.term and self.leads(node, message.group)):
            return
        # A new leader has what its followers have beyond it taken away.
        same = message.term == replica.term
        index = max(replica.index, message.index) if same else message.index
        if message.term > replica.term or replica.leader != message.leader:
            self.woke(node, message.group)
        elif index > replica.index:
            self.woke(node, message.group, by=sender)
        replica.term, replica.leader, replica.index = message.term, message.leader, index

    # --- what happens ----------------------------------------------------------------------

    def append(self, node: Node, group: Group) -> None:
        """A leader says where its log ends."""
        replica = node.replicas[group]
        message = Append(group, replica.term, node.number, replica.index)
        for peer in NODES:
            if peer != node.number:
                self.send(node.number, peer, message)

    def work(self, node: Node) -> None:
        """Beats, heartbeats of what is awake, and announcements of what is idle."""
        self.does(node, node.liveness.tick(self.own_ms(node)))
        for group in GROUPS:
            if self.leads(node, group) and group not in node.silent:
                self.append(node, group)
                replica = node.replicas[group]
                peers = tuple(number for number in NODES if number != node.number)
                announcement = Announcement(group, node.number, replica.term, replica.index)
                if self.now_ms >= self.busy_until_ms.get(group, 0):
                    node.liveness.announce(announcement, peers)
        for peer in NODES:
            if peer != node.number:
                self.send(node.number, peer, node.liveness.beat(peer, self.own_ms(node)))

    def disturb(self) -> None:
        """Something bad, or a user."""
        dice = self.dice
        node = self.nodes[dice.choice(NODES)]
        group = dice.choice(GROUPS)
        what = dice.random()
        if what < 0.35:
            if self.leads(node, group):  # a proposal
                self.woke(node, group)
                node.replicas[group].index += 1
                self.append(node, group)
                self.busy_until_ms[group] = self.now_ms + dice.choice((0, 200, 2_000))
        elif what < 0.5:
            if self.leads(node, group):  # a read
                self.woke(node, group)
        elif what < 0.65:
            self.elect(node, group)
        elif what < 0.72:
            if self.leads(node, group):  # it steps down, and nobody follows
                self.woke(node, group)
                node.replicas[group].leader = 0
        elif what < 0.78:
            node.stopped_until_ms = self.now_ms + dice.choice((300, 900, 2_500))
        elif what < 0.84:
            self.start(node)
        elif what < 0.94:
            sender, to = dice.sample(NODES, 2)
            self.cut[sender, to] = self.now_ms + dice.choice((300, 1_200, 5_000))
            if dice.random() < 0.5:
                self.cut[to, sender] = self.cut[sender, to]

    def elect(self, node: Node, group: Group) -> None:
        """The node leads the group from now on."""
        self.woke(node, group)
        self.terms[group] += 1
        replica = node.replicas[group]
        replica.term, replica.leader = self.terms[group], node.number
        replica.index = max(each.replicas[group].index for each in self.nodes.values()) + 1
        self.append(node, group)

    def check(self) -> None:
        """Whatever counts was promised after it was sent, and no promise was broken."""
        for node in self.nodes.values():
            for group in GROUPS:
                acked = node.liveness.acked_ms(group)
                assert not acked or self.leads(node, group)
                for peer, own_ms in acked.items():
                    self.check_count(node, group, peer, own_ms - node.clock_ms)

    def check_count(self, node: Node, group: Group, peer: int, sent_ms: float) -> None:
        """The one that is counted as of `sent_ms`, in everybody's time."""
        term = node.replicas[group].term
        key = (node.number, node.epoch, group, term, peer)
        self.counted_ms[key] = max(sent_ms, self.counted_ms.get(key, sent_ms))
        kept = False
        for slept in self.sleeps.get((peer, group), []):
            if (slept.leader, slept.epoch, slept.term) != (node.number, node.epoch, term):
                continue
            if slept.until_ms is None or slept.until_ms >= sent_ms:
                # One that its leader woke does not count: the leader knew that before.
                kept |= slept.why != "leader"
                if slept.why == "lapse" and slept.until_ms is not None:
                    assert slept.until_ms >= sent_ms + LAPSE_MS - 1e-6
        assert kept, f"node {node.number} counts {group} of {peer} as of {sent_ms}"

    def run(self) -> None:
        """The bad time, and then the good one."""
        unrest = self.dice.choice((0.02, 0.1, 0.3))
        for _ in range(STEPS):
            self.step()
            if self.dice.random() < unrest:
                self.disturb()
                self.check()
        self.heal()

    def step(self) -> None:
        """Some time passes; of the nodes that run, most work, before or after they read."""
        self.now_ms += self.dice.choice((10, 50, 100))
        order = list(self.nodes.values())
        self.dice.shuffle(order)
        if self.dice.random() < 0.8:
            self.deliver()
        for node in order:
            if node.stopped_until_ms <= self.now_ms and self.dice.random() < 0.6:
                self.work(node)
        self.deliver()
        self.check()

    def heal(self) -> None:
        """A fair network: what both sides want asleep sleeps, and nothing else."""
        self.loss = self.doubling = 0.0
        self.delay_ms = 90
        self.cut.clear()
        self.busy_until_ms.clear()
        leaders: dict[Group, int] = {}
        for group in GROUPS[1:]:
            # The newest leader prevails, as in Raft; if there is none, one is elected.
            candidates = [
                node
                for node in self.nodes.values()
                if self.leads(node, group) and node.replicas[group].term == self.terms[group]
            ]
            if candidates:
                leaders[group] = candidates[0].number
            else:
                leaders[group] = self.dice.choice(NODES)
                self.elect(self.nodes[leaders[group]], group)
        for node in self.nodes.values():  # and of the first group, nobody is the leader any more
            node.stopped_until_ms = 0
            if self.leads(node, GROUPS[0]):
                self.woke(node, GROUPS[0])
                node.replicas[GROUPS[0]].leader = 0
        for _ in range(80):
            self.now_ms += TICK_MS
            self.deliver()
            for node in self.nodes.values():
                self.work(node)
            self.check()
        for group, leader in leaders.items():
            acked = self.nodes[leader].liveness.acked_ms(group)
            assert sorted(acked) == [number for number in NODES if number != leader]
            assert all(node.liveness.sleeps(group) for node in self.nodes.values())
        assert not any(node.liveness.sleeps(GROUPS[0]) for node in self.nodes.values())
        self.kill(self.nodes[self.dice.choice(NODES)])

    def kill(self, dead: Node) -> None:
        """A node falls silent: its groups wake where they may elect, those of others sleep on."""
        dead.stopped_until_ms = self.now_ms + 1e9
        others = [node for node in self.nodes.values() if node is not dead]
        for _ in range(LAPSE_MS // TICK_MS + 3):
            self.now_ms += TICK_MS
            self.deliver()
            for node in others:
                self.work(node)
        for node in others:
            assert not node.liveness.alive(dead.number)
            for group in GROUPS[1:]:
                led = any(self.leads(each, group) for each in others)
                assert node.liveness.sleeps(group) == led


@given(st.integers(0, 2**32 - 1))
def test_what_is_counted_was_promised(seed: int) -> None:
    """For every history; and after it, sleep comes to those who want it."""
    World(random.Random(seed)).run()
