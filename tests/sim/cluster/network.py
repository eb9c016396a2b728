"""Frames between nodes: late, lost, doubled, overtaken; links that are cut or clogged.

Every ordered pair of nodes has its own link, so that a cut may be one-way. What is on the wire
when a link is cut still arrives; what is sent while it is cut never does. A clogged link loses
nothing: what is sent waits until the clog goes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.sim.cluster.clockwork import ANY_GENERATION, MESSAGE, Clockwork
from tests.sim.cluster.nodeworld import NodeWorld


@dataclass(frozen=True, slots=True)
class Weather:
    """How a link treats frames.

    base_ms, jitter_ms  a frame takes from `base_ms` to `base_ms + jitter_ms`
    loss, duplicate     the share of frames that are lost, and that come twice
    ordered             as over one connection: no frame overtakes another, none comes twice
    """

    base_ms: float = 0.2
    jitter_ms: float = 1.0
    loss: float = 0.0
    duplicate: float = 0.0
    ordered: bool = False


class Link:
    """The way from one node to another. `cut` loses what is sent, `clogged` keeps it."""

    __slots__ = ("arrive", "clogged", "cut", "last_ms", "target", "weather")

    def __init__(
        self, target: NodeWorld, arrive: Callable[[bytes], None], weather: Weather
    ) -> None:
        self.target = target
        self.arrive = arrive
        self.weather = weather
        self.cut = False
        self.clogged: list[bytes] | None = None
        self.last_ms = 0.0


class Port:
    """The `Network` of one node. `receive` is its engine's, set anew in each life."""

    __slots__ = ("_dies_after_frames", "_network", "_world", "links", "receive")

    def __init__(self, network: "SimNetwork", world: NodeWorld) -> None:
        self._network = network
        self._world = world
        self.links: dict[int, Link] = {}
        self.receive: Callable[[bytes], None] = lambda _: None
        self._dies_after_frames = 0
        world.crash_listeners.append(self._crashed)

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        """See Network. All frames go the same way; any may be overtaken."""
        if not self._world.up:
            return
        link = self.links.get(node)
        if link is not None:  # else it has its number and no port yet
            self._network.carry(link, frame)
        if self._dies_after_frames:
            self._dies_after_frames -= 1
            if not self._dies_after_frames:
                self._world.die()

    def arrive(self, frame: bytes) -> None:
        """A frame reached the node."""
        self.receive(frame)

    def die_after(self, frames: int) -> None:
        """The process dies when it has sent so many more frames: the next ones never leave."""
        self._dies_after_frames = frames

    def _crashed(self) -> None:
        self._dies_after_frames = 0


class SimNetwork:
    """All links. What is drawn comes from the network's own dice."""

    def __init__(self, clock: Clockwork, weather: Weather | None = None) -> None:
        self._clock = clock
        self._rng = clock.child("network")
        self.fair = weather or Weather()
        """The weather that `heal` brings back."""
        self.ports: dict[int, Port] = {}
        self.sent = 0
        self.lost = 0
        self.doubled = 0

    def attach(self, world: NodeWorld) -> Port:
        """A node's port, linked with those of all nodes that came before."""
        port = Port(self, world)
        for number, other in self.ports.items():
            port.links[number] = Link(other._world, other.arrive, self.fair)
            other.links[world.number] = Link(world, port.arrive, self.fair)
        self.ports[world.number] = port
        return port

    def link(self, sender: int, receiver: int) -> Link:
        """The way from one node to another."""
        return self.ports[sender].links[receiver]

    def carry(self, link: Link, frame: bytes) -> None:
        """Take a frame: it arrives once, twice or never. For ports."""
        clock = self._clock
        clock.work += 1
        clock.note(frame)
        self.sent += 1
        if link.cut:
            self.lost += 1
            return
        if link.clogged is not None:
            link.clogged.append(frame)
            return
        weather = link.weather
        draw = self._rng.random
        if weather.loss and draw() < weather.loss:
            self.lost += 1
            return
        at_ms = clock.now_ms + weather.base_ms + weather.jitter_ms * draw()
        if weather.ordered:
            link.last_ms = at_ms = max(at_ms, link.last_ms)
        clock.post(at_ms, MESSAGE, link.target, ANY_GENERATION, link.arrive, frame)
        if weather.duplicate and not weather.ordered and draw() < weather.duplicate:
            self.doubled += 1
            at_ms += 4 * weather.jitter_ms * draw()
            clock.post(at_ms, MESSAGE, link.target, ANY_GENERATION, link.arrive, frame)

    # --- cuts ------------------------------------------------------------------------------

    def cut(self, sender: int, receiver: int) -> None:
        """Cut one direction only."""
        self.link(sender, receiver).cut = True

    def join(self, sender: int, receiver: int) -> None:
        """Mend one direction: neither cut nor clogged any more."""
        self.link(sender, receiver).cut = False
        self.unclog(sender, receiver)

    def cut_between(self, some: Iterable[int], others: Iterable[int]) -> None:
        """Cut both directions between any of `some` and any of `others`."""
        others = list(others)
        for one in some:
            for other in others:
                if one != other:
                    self.cut(one, other)
                    self.cut(other, one)

    def isolate(self, node: int) -> None:
        """Cut a node off from all others."""
        self.cut_between([node], list(self.ports))

    def partition(self, sides: Sequence[Sequence[int]]) -> None:
        """Only nodes of one side reach each other."""
        for place, side in enumerate(sides):
            for other in sides[place + 1 :]:
                self.cut_between(side, other)

    def bridge(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Two sides that do not reach each other; a node in neither reaches both."""
        self.cut_between(left, right)

    def join_all(self) -> None:
        """Mend every link that is cut or clogged; the weather stays."""
        for sender, port in self.ports.items():
            for receiver in port.links:
                self.join(sender, receiver)

    # --- clogs and weather -----------------------------------------------------------------

    def clog(self, sender: int, receiver: int) -> None:
        """Keep what is sent from now on."""
        link = self.link(sender, receiver)
        if link.clogged is None:
            link.clogged = []

    def unclog(self, sender: int, receiver: int) -> None:
        """Let go what was kept."""
        link = self.link(sender, receiver)
        kept, link.clogged = link.clogged, None
        for frame in kept or ():
            self.sent -= 1
            self.carry(link, frame)

    def set_weather(self, weather: Weather, links: Iterable[Link] | None = None) -> None:
        """Change how links treat frames: some, or all."""
        if links is None:
            links = [link for port in self.ports.values() for link in port.links.values()]
        for link in links:
            link.weather = weather

    def heal(self) -> None:
        """No cut, no clog, fair weather."""
        self.set_weather(self.fair)
        self.join_all()
