"""Which replicas of a node are ticked, as its host is told and as it tells."""

from types import SimpleNamespace
from typing import Any

from node.members import Rhythm
from node.sleeping import Sleeping
from timemachine.liveness import NO_SESSION, Announcement, Answer, Beat
from timemachine.raft import ConfState
from timemachine.vnode import RESTING_FOLLOWER, RESTING_LEADER

GROUP = (7, 0)


class _Vnode:
    """An idle leader, until it ceases to lead."""

    group = GROUP
    id = 1
    members = ConfState(voters=(1, 2))
    sole = False
    term = 3
    last_index = 9

    def __init__(self) -> None:
        self.leads = True
        self.resting = 0
        self.stops = False
        self.core = SimpleNamespace(term=3, elapse=lambda _: None)
        self.lease = SimpleNamespace(node_answered=lambda *_: None)

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
            epoch=1, others=(2,), number=1, flush=lambda: None, beat=self._take_beat
        )
        runtime: Any = SimpleNamespace(vnodes={GROUP: self.vnode}, stepped=lambda _: None)
        world: Any = SimpleNamespace(mono_ms=lambda: self.now_ms)
        self.peers = peers
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


def test_a_group_with_a_voter_on_a_node_that_is_no_peer_stays_awake() -> None:
    """One that was removed and is about to be replaced, or has joined and is not known here yet."""
    node = _Node()
    node.vnode.members = ConfState(voters=(1, 2, 3))
    for _ in range(3 * Rhythm().idle_ticks):
        assert not node.tick().announced
    assert node.vnode in node.sleeping.awake
    assert 0 == node.vnode.resting


def test_a_sleeping_leader_wakes_when_the_node_of_a_voter_is_gone() -> None:
    """Nobody answers for that one any more; it is not announced again while it votes."""
    node = _Node()
    while not node.tick().announced:
        pass
    node.tick(accepted=(GROUP,))
    assert node.vnode not in node.sleeping.awake
    node.peers.others = ()
    node.sleeping.set_nodes(())
    assert node.vnode in node.sleeping.awake
    node.sleeping.tick()
    assert node.vnode in node.sleeping.awake


def test_who_slept_under_a_node_that_is_gone_waits_out_its_lease() -> None:
    """That node may still run, and fire by what it was answered a moment ago."""
    node = _Node()
    elapsed: list[int] = []
    promised: list[float] = []
    node.vnode.leads = False
    node.vnode.follows = lambda *_: True
    node.vnode.promise = SimpleNamespace(answer=promised.append)
    node.vnode.core = SimpleNamespace(elapse=elapsed.append)
    node.sleeping._peers.answer = lambda *_: None  # type: ignore[method-assign]
    node.sleeping.receive_beat(2, Beat(1, 1, (1, 1), 0, (Announcement(GROUP, 2, 3, 9),)))
    assert RESTING_FOLLOWER == node.vnode.resting
    assert node.vnode not in node.sleeping.awake
    node.now_ms += 7.0
    node.sleeping.set_nodes(())
    assert node.vnode in node.sleeping.awake
    assert ([0], [node.now_ms]) == (elapsed, promised)


def test_who_becomes_the_only_member_is_ticked_until_it_leads() -> None:
    """Its leader has gone: nobody else can wake it, and it has to stand for election."""
    node = _Node()
    vnode = node.vnode
    vnode.sole, vnode.leads = True, False
    node.sleeping.reformed(vnode)
    assert vnode in node.sleeping.awake
    vnode.leads = True
    node.sleeping.reformed(vnode)
    assert vnode not in node.sleeping.awake
