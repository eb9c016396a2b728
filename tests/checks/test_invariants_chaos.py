"""The invariants of consensus find nothing in a right core, and what is planted in it."""

from typing import Any

import pytest

from tests.checks.judgedchaos import JudgedChaos, JudgedHost, JudgedNode, judged
from tests.checks.violation import Violation
from timemachine.raft import (
    ConfChange,
    ConfChangeType,
    HardState,
    Message,
    MessageType,
    RawNode,
    Ready,
)


@pytest.mark.parametrize("seed", range(25))
def test_finds_nothing_in_a_right_core(seed: int) -> None:
    """Whatever happens to it."""
    with judged():
        JudgedChaos(seed).run(2_000)


# --- planted faults ----------------------------------------------------------------------------


class SendsFirst(JudgedHost):
    """Says what it is about to write, before it has written it."""

    def _next_duty(self) -> None:
        duty = self.duty
        self.duty = 1 - duty if duty < 2 else duty
        super()._next_duty()
        self.duty = duty + 1


class ForgetsItsVote(JudgedHost):
    """Stores its term without the vote."""

    def _persist(self, hard_state: HardState | None, entries: Any, snapshot: Any) -> None:
        if hard_state is not None:
            hard_state = HardState(hard_state.term, 0, hard_state.commit)
        super()._persist(hard_state, entries, snapshot)


class KeepsOldEnds(JudgedHost):
    """Overwrites entries, and leaves those behind them on the disk."""

    def _persist(self, hard_state: HardState | None, entries: Any, snapshot: Any) -> None:
        disk = self.disk
        last = disk.last_index()
        tail = disk.entries(entries[-1].index + 1, last + 1, 1 << 62) if entries else []
        super()._persist(hard_state, entries, snapshot)
        disk.append(tail)


class VotesTwice(JudgedNode):
    """Takes every vote for free."""

    __slots__ = ()

    def step(self, message: Message) -> None:
        if message.type is MessageType.VOTE and message.term == self._raft.term:
            self._raft.vote = self._raft.leader = 0
        super().step(message)


class CountsItself(JudgedNode):
    """Counts its own log before it is durable."""

    __slots__ = ()

    def ready(self) -> Ready:
        ready = super().ready()
        for message in self._steps_on_advance or ():
            if message.type is MessageType.APPEND_RESPONSE:
                self._raft.step(message)
        self._watch.look()
        return ready


class CommitsOldTerms(JudgedNode):
    """Commits whatever a majority has, of whichever term."""

    __slots__ = ()

    def step(self, message: Message) -> None:
        super().step(message)
        raft = self._raft
        if self.leads:
            index = raft.tracker.committed()
            raft.log.maybe_commit(index, raft.log.term_or_zero(index))
        self._watch.look()


class ChangesAtOnce(JudgedNode):
    """Proposes changes of membership all the time, without looking at those before."""

    __slots__ = ()

    def propose(self, data: bytes) -> None:
        super().propose(data)
        self._raft.pending_conf_index = 0
        self.propose_conf_change(ConfChange(ConfChangeType.ADD_NODE, self._raft.id))


@pytest.mark.parametrize(
    ("planted", "rules"),
    [
        (SendsFirst, {"S5"}),
        (ForgetsItsVote, {"S1", "S5"}),
        (KeepsOldEnds, {"S2"}),
        (VotesTwice, {"S1"}),
        (CountsItself, {"S5"}),
        (CommitsOldTerms, {"S7"}),
        (ChangesAtOnce, {"S10"}),
    ],
)
def test_finds_what_is_planted(planted: type, rules: set[str]) -> None:
    """In one of the first seeds, at the step where it happens."""
    is_node = issubclass(planted, RawNode)
    with judged(planted) if is_node else judged(host=planted):
        found = (_violation(seed) for seed in range(100))
        violation = next((each for each in found if each is not None), None)
    assert violation is not None
    assert violation.rule in rules


def _violation(seed: int) -> Violation | None:
    """What a seed of a group that crashes often leads to."""
    world = JudgedChaos(seed)
    world.options["crash"] = 0.02
    try:
        world.run(3_000)
    except Violation as violation:
        return violation
    return None
