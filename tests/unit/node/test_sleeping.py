"""Which replicas of a node are ticked, as its host is told and as it tells."""

from types import SimpleNamespace
from typing import Any

from node.members import Rhythm
from node.sleeping import Sleeping
from timemachine.liveness import NO_SESSION, Answer, Beat
from timemachine.vnode import RESTING_LEADER

GROUP = (7, 0)


class _Vnode:
    """An idle leader, until it ceases to lead."""

    group = GROUP
    term = 3
    last_index = 9

    def __init__(self) -> None:
        self.leads = True
        self.resting = 0
        self.stops = False
        self.core = SimpleNamespace(term=3, elapse=lambda _: None)
        self.lease = SimpleNamespace(answered=lambda *_: None)

    def tick(self, _: float) -> None:
        self.leads = self.leads and not self.stops

    def is_leader(self) -> bool:
        return self.leads

    def idle(self) -> bool:
        return self.leads


class _Node:
    """Node 1 of two, with one replica. `beat` is the newest that it sent to the other."""

    def __init__(self) -> None:
        self.now_ms = 1_000.0
        vnode: Any = _Vnode()
        self.vnode = vnode
        self.beat: Any = None
        self.session = NO_SESSION
        peers: Any = SimpleNamespace(
            epoch=1, others=[2], number=1, flush=lambda: None, beat=self._take_beat
        )
        runtime: Any = SimpleNamespace(vnodes={GROUP: self.vnode}, stepped=lambda _: None)
        world: Any = SimpleNamespace(mono_ms=lambda: self.now_ms)
        self.sleeping = Sleeping(world, runtime, peers, Rhythm())
        self.sleeping.added(vnode)

    def _take_beat(self, peer: int, beat: Beat) -> None:
        self.beat = beat

    def tick(self, *, accepted: tuple[tuple[int, int], ...] = ()) -> Beat:
        """One tick, whose beat is answered."""
        self.now_ms += 100
        self.sleeping.tick()
        answer = Answer(1, self.beat.seq, (1, 1), accepted)
        self.sleeping.receive_answer(2, answer)
        assert isinstance(self.beat, Beat)
        return self.beat


def test_an_idle_leader_is_ticked_until_the_others_sleep() -> None:
    """It is announced after some idle ticks, and asleep when that is accepted."""
    node = _Node()
    while not node.tick().announced:
        assert node.vnode in node.sleeping.awake
    assert RESTING_LEADER == node.vnode.resting
    node.tick(accepted=(GROUP,))
    assert node.vnode not in node.sleeping.awake


def test_a_leader_that_steps_down_in_a_tick_gives_notice() -> None:
    """A follower that slept on under this node's beats would never elect another one."""
    node = _Node()
    while not node.tick().announced:
        pass
    node.vnode.stops = True
    assert (GROUP,) == node.tick(accepted=(GROUP,)).woken
    assert 0 == node.vnode.resting
    assert node.vnode in node.sleeping.awake
