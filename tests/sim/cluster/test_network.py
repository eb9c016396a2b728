"""Frames: cut in one direction or both, kept, lost, doubled, overtaken."""

from collections import Counter

from tests.sim.cluster.clockwork import Clockwork
from tests.sim.cluster.network import SimNetwork, Weather
from tests.sim.cluster.nodeworld import NodeWorld


class _Cluster:
    """Nodes that note what they hear, and from whom."""

    def __init__(self, nodes: int = 3, weather: Weather | None = None) -> None:
        self.clock = Clockwork(1)
        self.network = SimNetwork(self.clock, weather)
        self.worlds = [NodeWorld(self.clock, number) for number in range(1, nodes + 1)]
        self.heard: dict[int, list[bytes]] = {}
        for world in self.worlds:
            port = self.network.attach(world)
            self.heard[world.number] = []
            port.receive = self.heard[world.number].append
            world.start()

    def reached(self) -> set[tuple[int, int]]:
        """Send from each to each, and see who was reached."""
        for heard in self.heard.values():
            heard.clear()
        for sender, port in self.network.ports.items():
            for receiver in port.links:
                port.send(receiver, b"%d" % sender)
        self.clock.run_for(100)
        return {(int(frame), node) for node, heard in self.heard.items() for frame in heard}


def _pairs(*links: tuple[int, int]) -> set[tuple[int, int]]:
    return {pair for one, other in links for pair in ((one, other), (other, one))}


_ALL = _pairs((1, 2), (1, 3), (2, 3))


def test_everybody_reaches_everybody() -> None:
    """Without faults."""
    assert _ALL == _Cluster().reached()


def test_a_cut_is_one_way() -> None:
    """The other direction goes on, and so does what is on the wire."""
    cluster = _Cluster()
    cluster.network.ports[1].send(2, b"1")
    cluster.network.cut(1, 2)
    cluster.clock.run_for(100)
    assert [b"1"] == cluster.heard[2]
    assert _ALL - {(1, 2)} == cluster.reached()
    cluster.network.join(1, 2)
    assert _ALL == cluster.reached()


def test_an_isolated_node_reaches_nobody() -> None:
    """Nor does anybody reach it."""
    cluster = _Cluster()
    cluster.network.isolate(2)
    assert _pairs((1, 3)) == cluster.reached()


def test_a_partition_has_sides_and_a_bridge_has_a_middle() -> None:
    """Five nodes."""
    cluster = _Cluster(5)
    cluster.network.partition([[1, 2], [3, 4, 5]])
    assert _pairs((1, 2), (3, 4), (3, 5), (4, 5)) == cluster.reached()
    cluster.network.heal()
    cluster.network.bridge([1, 2], [4, 5])
    reached = _pairs((1, 2), (4, 5), (1, 3), (2, 3), (3, 4), (3, 5))
    assert reached == cluster.reached()


def test_a_clogged_link_keeps_what_is_sent() -> None:
    """It arrives when the clog goes, once."""
    cluster = _Cluster()
    cluster.network.clog(1, 2)
    assert _ALL - {(1, 2)} == cluster.reached()
    cluster.network.unclog(1, 2)
    cluster.clock.run_for(100)
    assert 1 == cluster.heard[2].count(b"1")
    assert 0 == cluster.network.lost


def test_frames_are_lost_doubled_and_overtaken_as_the_weather_says() -> None:
    """And never when the link is ordered but for losses."""
    foul = Weather(jitter_ms=10, loss=0.25, duplicate=0.25)
    frames = [b"%04d" % number for number in range(1_000)]

    def sent(weather: Weather) -> list[bytes]:
        cluster = _Cluster(2, weather)
        for frame in frames:
            cluster.network.ports[1].send(2, frame)
            cluster.clock.run_for(1)
        cluster.clock.run_for(100)
        return cluster.heard[2]

    heard = sent(foul)
    times = Counter(heard)
    assert 650 < len(times) < 850
    assert 130 < sum(count == 2 for count in times.values()) < 250
    assert heard != sorted(heard)
    heard = sent(Weather(jitter_ms=10, loss=0.25, duplicate=0.25, ordered=True))
    assert heard == sorted(set(heard))
    assert frames == sent(Weather(ordered=True))


def test_frames_to_the_dead_vanish_and_those_to_the_paused_wait() -> None:
    """A frame of a node that died since still arrives."""
    cluster = _Cluster()
    one, two, three = cluster.worlds
    two.crash()
    three.pause(50)
    for receiver in (2, 3):
        cluster.network.ports[1].send(receiver, b"1")
    one.crash()
    cluster.network.ports[1].send(3, b"from the dead")
    cluster.clock.run_for(20)
    two.start()
    assert [] == cluster.heard[3]
    cluster.clock.run_for(40)
    assert ([], [b"1"]) == (cluster.heard[2], cluster.heard[3])


def test_a_process_may_die_between_two_frames() -> None:
    """The first leaves, the second does not."""
    cluster = _Cluster()
    port = cluster.network.ports[1]
    port.die_after(1)

    def cycle() -> None:
        port.send(2, b"1")
        port.send(3, b"1")

    cluster.worlds[0].call_soon(cycle)
    cluster.clock.run_for(20)
    assert ([b"1"], []) == (cluster.heard[2], cluster.heard[3])


def test_one_link_may_have_weather_of_its_own() -> None:
    """Until it is healed."""
    cluster = _Cluster()
    cluster.network.set_weather(Weather(loss=1.1), [cluster.network.link(3, 1)])
    assert _ALL - {(3, 1)} == cluster.reached()
    cluster.network.heal()
    assert _ALL == cluster.reached()
