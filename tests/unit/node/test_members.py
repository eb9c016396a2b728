"""The rhythm of consensus, and who takes part in it under which epoch."""

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from node.members import Cluster, Rhythm
from tests.sim.world import SimWorld
from timemachine.frames import Frame, read_frame
from timemachine.group import GroupConfig
from timemachine.liveness import NO_SESSION, Beat
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay


class _Wire:
    """A network that remembers what is sent."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, Frame]] = []

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        self.frames.append((node, read_frame(frame)))


def _cluster(**fields: object) -> Cluster:
    values = {"number": 2, "members": (1, 2, 3), "network": _Wire(), **fields}
    return Cluster(**values)  # type: ignore[arg-type]


RHYTHMS = st.builds(
    Rhythm,
    tick_ms=st.sampled_from([1.0, 20.0, 100.0, 1_000.0]),
    election_tick=st.integers(2, 50),
    drift=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.2]),
)


@given(RHYTHMS, st.sampled_from([-1.0, 0.0, 1.0]), st.sampled_from([-1.0, 0.0, 1.0]))
def test_a_lease_ends_before_any_voter_is_free(
    rhythm: Rhythm, leader_drifts: float, voter_drifts: float
) -> None:
    """In true time: whichever clock is fast and whichever slow, as far as they may be."""
    leader_rate = 1.0 + leader_drifts * rhythm.drift / 2
    voter_rate = 1.0 + voter_drifts * rhythm.drift / 2
    lease_true_ms = rhythm.lease_ms / leader_rate
    wait_true_ms = rhythm.vote_wait_ms / voter_rate
    assert lease_true_ms < wait_true_ms
    assert rhythm.lease_ms < rhythm.vote_wait_ms


@given(RHYTHMS)
def test_a_lease_is_safe_where_the_drift_is_meant_of_each_clock(rhythm: Rhythm) -> None:
    """Each may be off by as much, in opposite directions: the sum of both is left out."""
    slow, fast = 1.0 - rhythm.drift, 1.0 + rhythm.drift
    assert rhythm.lease_ms / slow < rhythm.vote_wait_ms / fast


def test_a_lease_lasts_for_several_rounds() -> None:
    """With the settings that nobody changed, a heartbeat or two may be lost."""
    rhythm = Rhythm()
    assert (1_000.0, 930.0) == (rhythm.vote_wait_ms, rhythm.lease_ms)
    assert rhythm.lease_ms > 5 * rhythm.heartbeat_tick * rhythm.tick_ms


def test_every_start_is_a_new_epoch() -> None:
    """It is durable with the first batch; one whose batch never was is used again."""
    store = MemoryStore()
    cluster = _cluster()
    for epoch, written in ((1, False), (1, True), (2, True), (3, False), (3, True)):
        overlay = Overlay(store)
        peers = cluster.peers(store, overlay)
        assert (epoch, 2, (1, 3)) == (peers.epoch, peers.number, tuple(peers.others))
        if written:
            store.write(store.prepare(overlay.seal()))


def test_frames_say_whose_they_are_and_in_which_life() -> None:
    """The other nodes tell by it what is of a process that is dead."""
    cluster = _cluster()
    store = MemoryStore()
    for epoch in (1, 2):
        overlay = Overlay(store)
        peers = cluster.peers(store, overlay)
        store.write(store.prepare(overlay.seal()))
        peers.beat(3, Beat(epoch, 1, NO_SESSION, 0))
        peers.flush()
    wire = cluster.network
    assert isinstance(wire, _Wire)
    assert [(3, 2, 1), (3, 2, 2)] == [(to, each.sender, each.epoch) for to, each in wire.frames]


def test_replicas_take_part_as_the_cluster_says() -> None:
    """Every bound of the cluster that a group has as well is passed on, and so is the rhythm."""
    shared = sorted(
        {field.name for field in msgspec.structs.fields(Cluster)}
        & {field.name for field in msgspec.structs.fields(GroupConfig)}
    )
    bounds = {name: 1_000 + place for place, name in enumerate(shared)}
    rhythm = Rhythm(tick_ms=10.0, election_tick=7, heartbeat_tick=2, drift=0.1)
    world = SimWorld(1)
    world.run_for(123.0)
    config = _cluster(rhythm=rhythm, **bounds).group_config(world)
    assert bounds == {name: getattr(config, name) for name in shared}
    assert "log_entries_max" in shared
    assert (2, (1, 2, 3), 7, 2) == (
        config.id,
        config.voters,
        config.election_tick,
        config.heartbeat_tick,
    )
    assert (70.0, 123.0) == (config.vote_wait_ms, config.started_ms)
    assert math.isclose(51.0, config.lease_ms)
    assert set(range(3)) == {config.draw(3) for _ in range(100)}
