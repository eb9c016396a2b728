"""The plan of faults of one seed, and the hand that carries it out.

The whole plan is drawn before anything runs, and each fault throws dice of its own, so a plan can
be cut down to what a failure needs without changing the rest. A seed uses only some kinds of
faults: many of one kind reach what a mixture never does. Then everything is healed at once, and
what the cluster promised has to come true.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tests.sim.cluster.clockwork import Clockwork
from tests.sim.cluster.disk import FaultyDisk
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.network import SimNetwork
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.recipients import MOODS, SimRecipients
from timemachine import limits

Group = tuple[int, int]

_DISK_SLOW_MS: Final = 4_000.0
_STALL_MS: Final = 2_000.0


class ClusterControl(Protocol):
    """What the nemesis needs of the cluster."""

    @property
    def numbers(self) -> Sequence[int]:
        """All nodes, whether they run or not."""

    def world(self, node: int) -> NodeWorld:
        """A node's world."""

    def disk(self, node: int) -> FaultyDisk:
        """A node's disk."""

    def crash(self, node: int) -> None:
        """The node's process dies; harmless when it is dead."""

    def start(self, node: int, *, rebooted: bool) -> bool:
        """Start the node; False when its disk cannot be used (now, or ever when damaged)."""

    def can_lose(self, node: int) -> bool:
        """Whether every group goes on if what this node has is lost for good."""

    def pause(self, node: int, duration_ms: float) -> None:
        """The node's process stands still for a while."""

    def groups(self) -> Sequence[Group]:
        """The groups that exist, the meta group first."""

    def leader_of(self, group: Group) -> int:
        """The node that leads a group with the highest term, or 0."""

    def transfer(self, group: Group, to: int) -> None:
        """Ask the group's leader to hand over."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan: when, what, and the seed of its own dice."""

    at_ms: float
    kind: str
    dice: int


class Nemesis:
    """Carries a plan out between `start` and `heal`.

    A node whose disk is damaged stays down for good, so damage is done to a minority at most.
    `damaged` names them.
    """

    def __init__(
        self,
        clock: Clockwork,
        network: SimNetwork,
        recipients: SimRecipients,
        control: ClusterControl,
        knobs: Knobs,
        plan: Sequence[Fault] | None = None,
    ) -> None:
        self._clock = clock
        self._network = network
        self._recipients = recipients
        self._control = control
        self._knobs = knobs
        self.plan = list(draw_plan(knobs) if plan is None else plan)
        self.active = False
        self.done = 0
        self.damaged: list[int] = []
        self._ambush: tuple[Callable[[int, random.Random], None], random.Random] | None = None
        self._hunt: random.Random | None = None

    # --- the two phases --------------------------------------------------------------------

    def start(self) -> None:
        """The safety phase begins: every fault of the plan gets its time."""
        self.active = True
        began_ms = self._clock.now_ms
        for fault in self.plan:
            self._clock.later(began_ms + fault.at_ms - self._clock.now_ms, self._strike, fault)

    def heal(self) -> None:
        """The liveness phase begins: no fault is left but damaged disks and drifting clocks."""
        self.active = False
        self._ambush = self._hunt = None
        self._clock.say("heal")
        self._network.heal()
        self._recipients.heal()
        for node in self._control.numbers:
            disk, world = self._control.disk(node), self._control.world(node)
            disk.mend()
            self._network.ports[node].die_after(0)
            disk.sync_ms = (0.1, max(0.2, self._knobs.sync_ms_max))
            world.set_wall(0.0)
            if world.held is not None:
                world.resume()
            if world.up and disk.dead:
                # It would end soon, and has nobody then who starts it again.
                self._control.crash(node)
            if not world.up:
                self._control.start(node, rebooted=False)

    def proposed(self, node: int) -> None:
        """A client's command was handed to a node that leads: for those who lie in wait."""
        if self._ambush is not None:
            (strike, dice), self._ambush = self._ambush, None
            self._later(12.0 * dice.random(), lambda: strike(node, dice))

    def overruled(self, node: int) -> None:
        """Entries of a node's log are replaced by fewer others."""
        if self._hunt is not None:
            dice, self._hunt = self._hunt, None
            self._later(20.0 * dice.random(), lambda: self._blink(node, dice))

    # --- helpers ---------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        if self.active:
            self.done += 1
            _KINDS[fault.kind](self, random.Random(fault.dice))

    def _later(self, delay_ms: float, function: Callable[[], None]) -> None:
        """A part of a fault that comes later, unless everything was healed meanwhile."""

        def still() -> None:
            if self.active:
                function()

        self._clock.later(delay_ms, still)

    def _say(self, text: str) -> None:
        self._clock.say(f"nemesis: {text}")

    def _nodes(self) -> list[int]:
        return list(self._control.numbers)

    def _up(self) -> list[int]:
        return [node for node in self._control.numbers if self._control.world(node).up]

    def _restart_ms(self, dice: random.Random) -> float:
        return 1.0 + self._knobs.restart_ms_max * dice.random()

    def _down(self, node: int, dice: random.Random) -> None:
        """Crash a node, and start it after a while."""
        self._say(f"crash {node}")
        self._control.crash(node)
        self._back(node, dice)

    def _back(self, node: int, dice: random.Random) -> None:
        """Start a node after a while, and try again while its disk is full."""
        rebooted = dice.random() < 0.5
        again_ms = self._restart_ms(dice)

        def start() -> None:
            if self._control.world(node).up:
                return
            self._say(f"start {node}")
            started = self._control.start(node, rebooted=rebooted)
            if not started and not self._control.disk(node).store.damaged:
                self._later(again_ms, start)

        self._later(self._restart_ms(dice), start)

    def _leader(self, dice: random.Random) -> tuple[Group, int]:
        """The leader of a group that is drawn; any node when it has none."""
        group = dice.choice(list(self._control.groups()) or [(0, 0)])
        leader = self._control.leader_of(group)
        return group, leader or dice.choice(self._nodes())

    def _halves(self, dice: random.Random) -> tuple[list[int], list[int]]:
        """All nodes in two sides, each with one node at least."""
        nodes = self._nodes()
        if len(nodes) < 2:
            return nodes, []
        side = sorted(dice.sample(nodes, dice.randrange(1, len(nodes))))
        return side, [node for node in nodes if node not in side]

    def _mend_links(self, dice: random.Random, at_least_ms: float = 0.0) -> None:
        delay_ms = at_least_ms + dice.choice([0.5, 3.0, 10.0]) * self._knobs.election_ms
        self._later(delay_ms * dice.random() + 1.0, self._network.join_all)

    # --- processes -------------------------------------------------------------------------

    def _crash(self, dice: random.Random) -> None:
        self._down(dice.choice(self._nodes()), dice)

    def _crash_at_sync(self, dice: random.Random) -> None:
        node = dice.choice(self._up() or self._nodes())
        keep = dice.choice([True, False])
        self._say(f"{node} dies at a write, the batch is {'kept' if keep else 'lost'}")
        self._control.disk(node).die_at_write(dice.randrange(1, 6), keep=keep)
        self._back(node, dice)

    def _crash_mid_send(self, dice: random.Random) -> None:
        node = dice.choice(self._up() or self._nodes())
        self._say(f"{node} dies between two frames")
        self._network.ports[node].die_after(dice.randrange(1, 8))
        self._back(node, dice)

    def _crash_all(self, dice: random.Random) -> None:
        for node in self._nodes():
            self._down(node, dice)

    def _crash_proposer(self, dice: random.Random) -> None:
        self._ambush = self._down, dice

    def _mute_proposer(self, dice: random.Random) -> None:
        """It still hears that its entry is durable elsewhere, and can tell nobody but callers."""
        self._ambush = self._mute, dice

    def _mute(self, node: int, dice: random.Random) -> None:
        self._say(f"nobody hears {node}")
        for other in self._nodes():
            if other != node:
                self._network.cut(node, other)
        self._mend_links(dice, 2.0 * self._knobs.election_ms)

    def _crash_leader(self, dice: random.Random) -> None:
        self._down(self._leader(dice)[1], dice)

    def _kill_electors(self, dice: random.Random) -> None:
        """Without its leader a group votes; then a majority dies, for moments only."""
        _, leader = self._leader(dice)
        nodes = self._nodes()
        self._down(leader, dice)
        within_ms = self._knobs.election_ms * (1.0 + dice.random())

        def kill() -> None:
            for node in sorted(dice.sample(nodes, len(nodes) // 2 + 1)):
                self._later(20.0 * dice.random(), lambda node=node: self._blink(node, dice))  # type: ignore[misc]

        self._later(within_ms, kill)

    def _blink(self, node: int, dice: random.Random) -> None:
        self._say(f"blink {node}")
        self._control.crash(node)

        def start() -> None:
            if not self._control.world(node).up:
                self._control.start(node, rebooted=False)

        self._later(1.0 + 20.0 * dice.random(), start)

    def _pause(self, dice: random.Random) -> None:
        self._stop_for(dice.choice(self._nodes()), dice)

    def _pause_leader(self, dice: random.Random) -> None:
        self._stop_for(self._leader(dice)[1], dice)

    def _stop_for(self, node: int, dice: random.Random) -> None:
        duration_ms = 10.0 * 2_000.0 ** dice.random()
        self._say(f"pause {node} for {duration_ms:.0f} ms")
        self._control.pause(node, duration_ms)

    def _transfer(self, dice: random.Random) -> None:
        group, leader = self._leader(dice)
        to = dice.choice(self._nodes())
        self._say(f"transfer {group} from {leader} to {to}")
        self._control.transfer(group, to)
        # Asked of a leader that is about to stand still or die, or on behalf of one that is.
        fate = dice.choice([self._down, self._stop_for])
        whom = dice.choice([leader, to])
        self._later(dice.choice([10.0, 50.0]) * dice.random(), lambda: fate(whom, dice))

    def _hand_over(self, dice: random.Random) -> None:
        """One group, or all that a node leads, as before it is stopped."""
        one, leader = self._leader(dice)
        groups = [one] if dice.random() < 0.5 else list(self._control.groups())
        for group in groups:
            if self._control.leader_of(group) == leader:
                to = dice.choice(self._nodes())
                self._say(f"hand {group} over from {leader} to {to}")
                self._control.transfer(group, to)

    # --- network ---------------------------------------------------------------------------

    def _split(self, dice: random.Random) -> None:
        left, right = self._halves(dice)
        self._say(f"split {left} {right}")
        self._network.join_all()
        self._network.partition([left, right])
        self._mend_links(dice)

    def _isolate_leader(self, dice: random.Random) -> None:
        """Alone, or with a minority; with what it has just proposed. Perhaps its successor dies."""
        group, leader = self._leader(dice)
        others = [node for node in self._nodes() if node != leader]
        friends = sorted(dice.sample(others, dice.randrange(0, len(others) // 2 + 1)))
        self._say(f"isolate {leader} with {friends}")
        rest = [node for node in others if node not in friends]
        self._network.cut_between([leader, *friends], rest)
        if dice.random() < 0.5:
            self._mend_links(dice)
            return

        def successor_dies() -> None:
            successor = self._control.leader_of(group)
            if successor in rest:
                self._blink(successor, dice)

        self._later((1.5 + 2.0 * dice.random()) * self._knobs.election_ms, successor_dies)
        self._mend_links(dice, 4.0 * self._knobs.election_ms)

    def _crash_overruled(self, dice: random.Random) -> None:
        """Whoever has more in its log than the next leader dies when it has been set right.

        So what its disk has then is read while the log is still shorter than it was.
        """
        _, leader = self._leader(dice)
        others = [node for node in self._nodes() if node != leader]
        self._say(f"isolate {leader}, whose log is to be overruled")
        self._hunt = dice
        self._network.cut_between([leader], others)
        self._mend_links(dice, 1.5 * self._knobs.election_ms)

    def _late_answers(self, dice: random.Random) -> None:
        """What a leader is told is of long ago, and then it is cut off."""
        _, leader = self._leader(dice)
        others = [node for node in self._nodes() if node != leader]
        late_ms = (0.2 + 1.3 * dice.random()) * self._knobs.election_ms
        self._say(f"{leader} hears the others {late_ms:.0f} ms late, then not at all")
        fair = self._network.fair
        links = [self._network.link(node, leader) for node in others]
        self._network.set_weather(replace(fair, base_ms=late_ms), links)

        def cut() -> None:
            self._network.cut_between([leader], others)

        self._later((0.5 + 2.0 * dice.random()) * self._knobs.election_ms, cut)
        self._mend_links(dice, 4.0 * self._knobs.election_ms)
        end_ms = 6.0 * self._knobs.election_ms
        self._later(end_ms, lambda: self._network.set_weather(fair, links))

    def _blink_voters(self, dice: random.Random) -> None:
        """One does not hear its leader, and those who could vote for it die for moments."""
        leader = self._control.leader_of((0, 0)) if dice.random() < 0.5 else 0
        # The meta group rests, so that whoever follows in it has all that may be asked of a leader.
        leader = leader or self._leader(dice)[1]
        others = [node for node in self._nodes() if node != leader]
        if not others:
            return
        deaf = dice.choice(others)
        election_ms = self._knobs.election_ms
        self._say(f"{deaf} does not hear {leader}, others blink")
        self._network.cut_between([leader], [deaf])
        # As often as they can, and still answer a heartbeat now and then, for many are lost.
        links = [self._network.link(leader, node) for node in others]
        self._network.set_weather(replace(self._network.fair, loss=0.6), links)
        step_ms = 25.0 + 4.0 * self._knobs.heartbeat_tick * self._knobs.tick_ms
        for turn in range(12):
            for node in others:
                if node != deaf:
                    at_ms = 0.9 * election_ms + step_ms * (turn + 0.3 * dice.random())
                    self._later(at_ms, lambda node=node: self._blink(node, dice))  # type: ignore[misc]
        end_ms = 0.9 * election_ms + 12.0 * step_ms
        self._later(end_ms, lambda: self._network.set_weather(self._network.fair, links))
        self._mend_links(dice, end_ms)

    def _one_way(self, dice: random.Random) -> None:
        nodes = self._nodes()
        if len(nodes) < 2:
            return
        sender, receiver = dice.sample(nodes, 2)
        deaf = dice.random() < 0.3
        self._say(f"one way: {sender} does not reach {'anybody' if deaf else receiver}")
        for other in nodes if deaf else [receiver]:
            if other != sender:
                self._network.cut(sender, other)
        self._mend_links(dice)

    def _bridge(self, dice: random.Random) -> None:
        nodes = self._nodes()
        dice.shuffle(nodes)
        middle, rest = nodes[0], nodes[1:]
        left, right = sorted(rest[: len(rest) // 2]), sorted(rest[len(rest) // 2 :])
        self._say(f"bridge {left} {middle} {right}")
        self._network.join_all()
        self._network.bridge(left, right)
        self._mend_links(dice)

    def _flap(self, dice: random.Random) -> None:
        nodes = self._nodes()
        if len(nodes) < 2:
            return
        one, other = dice.sample(nodes, 2)
        period_ms = dice.choice([0.1, 0.5, 1.5]) * self._knobs.election_ms
        self._say(f"flap {one} {other} every {period_ms:.0f} ms")
        for turn in range(dice.randrange(2, 12)):
            change = self._part if turn % 2 == 0 else self._rejoin
            self._later(
                turn * period_ms,
                lambda change=change: change(one, other),  # type: ignore[misc]
            )
        self._mend_links(dice, 12 * period_ms)

    def _part(self, one: int, other: int) -> None:
        self._network.cut_between([one], [other])

    def _rejoin(self, one: int, other: int) -> None:
        self._network.join(one, other)
        self._network.join(other, one)

    def _swizzle(self, dice: random.Random) -> None:
        """Links of some nodes go one by one, and come back in another order."""
        nodes = self._nodes()
        some = dice.sample(nodes, dice.randrange(1, len(nodes) + 1))
        pairs = [(a, b) for a in nodes for b in nodes if a != b and (a in some or b in some)]
        clogs = dice.random() < 0.5
        within_ms = dice.choice([0.2, 1.0, 4.0]) * self._knobs.election_ms
        self._say(f"{'clog' if clogs else 'cut'} the links of {sorted(some)} one by one")
        spoil = self._network.clog if clogs else self._network.cut
        for action, from_ms in ((spoil, 0.0), (self._network.join, within_ms)):
            dice.shuffle(pairs)
            for sender, receiver in pairs:
                self._later(
                    from_ms + within_ms * dice.random(),
                    lambda action=action, a=sender, b=receiver: action(a, b),  # type: ignore[misc]
                )
        self._later(2 * within_ms + 1.0, self._network.join_all)

    def _figure_eight(self, dice: random.Random) -> None:
        """Another majority each time, quickly: section 5.4.2 of the Raft paper."""
        nodes = self._nodes()
        step_ms = (0.5 + 2.0 * dice.random()) * self._knobs.election_ms

        def turn() -> None:
            some = sorted(dice.sample(nodes, len(nodes) // 2 + 1))
            self._say(f"split off {some}")
            self._network.join_all()
            self._network.partition([some, [node for node in nodes if node not in some]])

        for number in range(4):
            self._later(number * step_ms, turn)
        self._mend_links(dice, 4 * step_ms)

    def _foul_weather(self, dice: random.Random) -> None:
        knobs, fair = self._knobs, self._network.fair
        weather = replace(
            fair,
            jitter_ms=dice.choice([fair.jitter_ms, 5.0, knobs.net_slow_ms]),
            loss=knobs.loss_max * dice.random(),
            duplicate=knobs.duplicate_max * dice.random(),
            ordered=fair.ordered and dice.random() < 0.5,
        )
        links = None
        if dice.random() < 0.5:
            node = dice.choice(self._nodes())
            links = list(self._network.ports[node].links.values())
        self._say(f"{weather}")
        self._network.set_weather(weather, links)
        self._later(
            10.0 * knobs.election_ms * dice.random(), lambda: self._network.set_weather(fair)
        )

    # --- disks -----------------------------------------------------------------------------

    def _slow_disk(self, dice: random.Random) -> None:
        node = dice.choice(self._nodes())
        disk = self._control.disk(node)
        self._say(f"the disk of {node} is slow")
        disk.stall_rate = dice.choice([0.05, 0.3, 1.0])
        disk.stall_ms = dice.choice([(5.0, 50.0), (50.0, 500.0), (500.0, _STALL_MS)])
        disk.store.pressure_files = dice.choice([0, 0, 8])

        def fast() -> None:
            disk.stall_rate = self._knobs.stall_rate
            disk.stall_ms = (500.0, _STALL_MS)
            disk.store.pressure_files = 0

        self._later(_DISK_SLOW_MS * dice.random(), fast)

    def _disk_full(self, dice: random.Random) -> None:
        node = dice.choice(self._nodes())
        disk = self._control.disk(node)
        self._say(f"the disk of {node} is full")
        disk.full = True

        def space() -> None:
            self._say(f"the disk of {node} has space")
            disk.full = False
            self._back(node, dice)

        self._later(self._restart_ms(dice), space)

    def _disk_error(self, dice: random.Random) -> None:
        node = dice.choice(self._nodes())
        disk = self._control.disk(node)
        self._say(f"the next write of {node} fails")
        disk.failing = 1

        def works() -> None:
            disk.failing = 0
            self._back(node, dice)

        self._later(self._restart_ms(dice), works)

    def _flip_bits(self, dice: random.Random) -> None:
        nodes = self._nodes()
        # Of the meta group not all nodes are voters.
        if len(self.damaged) >= (min(len(nodes), limits.META_VOTERS_MAX) - 1) // 2:
            return
        node = dice.choice([node for node in nodes if node not in self.damaged])
        # Where nothing moves all nodes are in all groups, but for those of a collection of events.
        some = self._knobs.moves or self._knobs.alerts
        if some and not self._control.can_lose(node):
            return
        key = self._control.disk(node).flip_bits()
        if key is None:
            return
        self.damaged.append(node)
        self._say(f"the disk of {node} is damaged at {key.hex()}")
        if dice.random() < 0.5:
            self._later(self._restart_ms(dice), lambda: self._down(node, dice))

    # --- clocks, recipients ----------------------------------------------------------------

    def _wall_jump(self, dice: random.Random) -> None:
        node = dice.choice(self._nodes())
        by_ms = self._knobs.wall_jump_ms_max * dice.uniform(-1.0, 1.0)
        self._say(f"the wall clock of {node} jumps by {by_ms:.0f} ms")
        self._control.world(node).jump_wall(by_ms)

    def _drift(self, dice: random.Random) -> None:
        node = dice.choice(self._nodes())
        drift = self._knobs.drift_max * dice.choice([-1.0, 0.0, 1.0])
        self._say(f"the clock of {node} drifts by {drift}")
        self._control.world(node).set_drift(drift)

    def _moody(self, dice: random.Random) -> None:
        name = dice.choice(list(MOODS))
        self._say(f"recipients are {name}")
        self._recipients.fair = MOODS[name]
        self._later(5_000.0 * dice.random(), self._cheer_up)

    def _cheer_up(self) -> None:
        self._recipients.fair = MOODS[self._knobs.mood]


_KINDS: Final[dict[str, Callable[[Nemesis, random.Random], None]]] = {
    "crash": Nemesis._crash,
    "crash_at_sync": Nemesis._crash_at_sync,
    "crash_mid_send": Nemesis._crash_mid_send,
    "crash_all": Nemesis._crash_all,
    "crash_proposer": Nemesis._crash_proposer,
    "mute_proposer": Nemesis._mute_proposer,
    "crash_leader": Nemesis._crash_leader,
    "kill_electors": Nemesis._kill_electors,
    "pause": Nemesis._pause,
    "pause_leader": Nemesis._pause_leader,
    "transfer": Nemesis._transfer,
    "hand_over": Nemesis._hand_over,
    "split": Nemesis._split,
    "isolate_leader": Nemesis._isolate_leader,
    "late_answers": Nemesis._late_answers,
    "blink_voters": Nemesis._blink_voters,
    "one_way": Nemesis._one_way,
    "bridge": Nemesis._bridge,
    "flap": Nemesis._flap,
    "swizzle": Nemesis._swizzle,
    "figure_eight": Nemesis._figure_eight,
    "foul_weather": Nemesis._foul_weather,
    "slow_disk": Nemesis._slow_disk,
    "disk_full": Nemesis._disk_full,
    "disk_error": Nemesis._disk_error,
    "flip_bits": Nemesis._flip_bits,
    "wall_jump": Nemesis._wall_jump,
    "drift": Nemesis._drift,
    "moody": Nemesis._moody,
    "crash_overruled": Nemesis._crash_overruled,
}
FAULT_KINDS: Final = tuple(_KINDS)
_RARE: Final = frozenset({"crash_overruled"})
"""Drawn for a few seeds, which get many of them: among many kinds it would find nothing."""
_PLANNED: Final = ("hand_over",)
"""What is done to healthy clusters every day."""


def draw_plan(knobs: Knobs) -> list[Fault]:
    """The faults of a seed, in order of time."""
    rng = random.Random(f"{knobs.seed}/plan")
    often = [kind for kind in FAULT_KINDS if kind not in _RARE]
    kinds = rng.sample(often, min(knobs.fault_kinds, len(often)))
    if not knobs.fault_kinds:
        kinds = list(_PLANNED)
    if knobs.overruled:
        kinds[: len(kinds) // 2 + 1] = sorted(_RARE)
    plan: list[Fault] = []
    at_ms = 0.0
    while True:
        at_ms += knobs.fault_pace_ms * (0.3 + 1.4 * rng.random())
        if at_ms >= knobs.safety_ms:
            return plan
        plan.append(Fault(at_ms, rng.choice(kinds), rng.getrandbits(63)))
