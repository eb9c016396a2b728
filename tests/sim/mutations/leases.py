"""Mutations of leases, of the promises that they rest on, and of groups that sleep."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from node.sleeping import Sleeping
from tests.sim.mutations.planting import Mutation, swap, swapped
from timemachine.lease import NEVER_MS, Promise
from timemachine.liveness import Answer, LeaderSide, Liveness
from timemachine.raft import Message, MessageType, RawNode
from timemachine.raft.core import Raft
from timemachine.vnode import Vnode


@contextmanager
def _asks_an_old_clock() -> Iterator[None]:
    """What is asked between two ticks is answered by the clock of the last one."""
    clocks: dict[int, float] = {}
    hosts: dict[Vnode, int] = {}
    added, tick, may_fire = Sleeping.added, Sleeping.tick, Vnode.may_fire

    def note(self: Sleeping, vnode: Vnode) -> None:
        hosts[vnode] = id(self)
        added(self, vnode)

    def ticked(self: Sleeping) -> None:
        clocks[id(self)] = self._world.mono_ms()
        tick(self)

    def fires(self: Vnode, mono_ms: float) -> bool:
        return may_fire(self, clocks.get(hosts.get(self, 0), mono_ms))

    with ExitStack() as stack:
        stack.enter_context(swapped(Sleeping, "added", note))
        stack.enter_context(swapped(Sleeping, "tick", ticked))
        stack.enter_context(swapped(Vnode, "may_fire", fires))
        yield


def _never_ends(_: Any) -> Any:
    def may_fire(self: Vnode, mono_ms: float) -> bool:
        return self.serving

    return may_fire


@contextmanager
def _any_beat_counts() -> Iterator[None]:
    """The answers of a node keep the leases of all groups, asleep or not, agreed or not."""
    may_fire = Vnode.may_fire

    def acked_ms(self: Liveness, group: tuple[int, int]) -> dict[int, float]:
        return {peer: side.acked_ms for peer, side in self._followers.items()}

    def fires(self: Vnode, mono_ms: float) -> bool:
        if may_fire(self, mono_ms):
            return True
        acked = self.acked_ms(self.group)
        return (
            self.serving
            and not self.core.lease_given_up
            and mono_ms < self.lease.until(self.term, acked)
        )

    with swapped(Liveness, "acked_ms", acked_ms), swapped(Vnode, "may_fire", fires):
        yield


@contextmanager
def _keeps_it() -> Iterator[None]:
    with swapped(RawNode, "lease_given_up", property(lambda self: False)):
        yield


def _by_arrival(original: Any) -> Any:
    """The lease begins when the answer comes in."""

    def step(self: Vnode, message: Message, mono_ms: float) -> None:
        original(self, message, mono_ms)
        if message.type is MessageType.HEARTBEAT_RESPONSE and self.core.leads:
            self.lease.answered(message.term, message.from_, mono_ms)

    return step


def _forgets(original: Any) -> Any:
    def init(self: Promise, vote_wait_ms: float, started_ms: float) -> None:
        original(self, vote_wait_ms, started_ms)
        self.until_ms = NEVER_MS

    return init


@contextmanager
def _patient_with_nobody() -> Iterator[None]:
    step = Vnode.step

    def steps(self: Vnode, message: Message, mono_ms: float) -> None:
        if message.type in (MessageType.VOTE, MessageType.PRE_VOTE):
            self.core.step(message)
        else:
            step(self, message, mono_ms)

    def has_live_leader(self: Raft) -> bool:
        return False

    with swapped(Vnode, "step", steps), swapped(Raft, "_has_live_leader", has_live_leader):
        yield


def _any_session(original: Any) -> Any:
    def take(self: LeaderSide, answer: Answer, since_ms: float) -> Any:
        if self.alive:
            self.session = answer.session
        return original(self, answer, since_ms)

    return take


MUTATIONS = {
    "lease-after-pause": Mutation(
        "A leader looks at its lease with the time of its last tick, after a pause too.",
        ("S9",),
        _asks_an_old_clock,
    ),
    "lease-never-ends": Mutation(
        "Who leads, as far as it knows, fires.",
        ("S9",),
        swap(Vnode, "may_fire", _never_ends),
    ),
    "lease-from-answer": Mutation(
        "A lease is counted from when an answer came, not from when the question left.",
        ("S9",),
        swap(Vnode, "step", _by_arrival),
    ),
    "lease-by-any-beat": Mutation(
        "A node's answered beat renews the leases of groups that have not agreed to sleep.",
        ("S9",),
        _any_beat_counts,
    ),
    "lease-over-timeout-now": Mutation(
        "A leader keeps its lease though it has asked another replica to campaign.",
        ("S9",),
        _keeps_it,
    ),
    "promise-forgotten-at-restart": Mutation(
        "A voter that restarts votes at once, whatever it has promised before.",
        ("S9",),
        swap(Promise, "__init__", _forgets),
    ),
    "patient-with-nobody": Mutation(
        "A voter votes though it has heard of a leader lately, and has promised it patience.",
        ("S9",),
        _patient_with_nobody,
    ),
    "answer-of-older-session": Mutation(
        "An answer counts for sleeping groups that its node agreed about before it forgot them.",
        ("S9",),
        swap(LeaderSide, "take", _any_session),
    ),
}
