"""The invariants of consensus beside a real core, in the chaos of `tests.raft.chaos`."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from tests.checks.invariants import Invariants
from tests.checks.violation import Violation
from tests.checks.watching import CoreWatch
from tests.raft import chaos
from timemachine.raft import (
    ConfChange,
    ConfChangeType,
    Config,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    RawNode,
    Ready,
)
from timemachine.raft.storage import Compacted, EntryUnavailable

GROUP = "chaos"


class DurableDisk:
    """See Durable: the disks of the chaos are durable at once."""

    def __init__(self, disk: chaos.Disk) -> None:
        self.disk = disk

    def hard_state(self) -> HardState:
        return self.disk.initial_state()[0]

    def base(self) -> tuple[int, int]:
        index = self.disk.first_index() - 1
        return index, self.disk.term(index)

    def has(self, index: int, term: int) -> bool:
        try:
            return self.disk.term(index) == term
        except Compacted:
            return True
        except EntryUnavailable:
            return False


class JudgedNode(RawNode):
    """A core whose every step is judged."""

    __slots__ = ("_disk", "_watch")

    world: ClassVar["JudgedChaos"]

    def __init__(self, config: Config, storage: chaos.Disk) -> None:
        super().__init__(config, storage)
        self._disk = storage
        self._watch = CoreWatch(
            self.world.invariants, config.id, GROUP, self._raft, DurableDisk(storage)
        )

    def _looked(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        finally:
            self._watch.look()

    def tick(self) -> None:
        self._looked(super().tick)

    def campaign(self) -> None:
        self._looked(super().campaign)

    def step(self, message: Message) -> None:
        self._looked(super().step, message)

    def apply_conf_change(self, change: Any) -> ConfState:
        state = super().apply_conf_change(change)
        self._watch.look()
        return state

    def advance(self) -> None:
        self._looked(super().advance)
        self.world.invariants.synced(self._raft.id, GROUP, self._disk.applied)

    def ready(self) -> Ready:
        ready = super().ready()
        self._watch.handed_out(ready.snapshot, ready.entries)
        return ready


class JudgedHost(chaos.Host):
    """Without threads: the host of the chaos that has them lets a VOTE leave early."""

    def __init__(self, world: chaos.Chaos, id: int, disk: chaos.Disk, threaded: bool) -> None:
        super().__init__(world, id, disk, threaded=False)


class JudgedChaos(chaos.Chaos):
    """A group that is judged. `world` of its nodes is set before any of them is made."""

    def __init__(self, seed: int) -> None:
        self.invariants = Invariants()
        JudgedNode.world = self
        super().__init__(seed)

    def send(self, host: chaos.Host, message: Message) -> None:
        self.invariants.says(host.id, GROUP, message)
        super().send(host, message)

    def check_applied(self, host: chaos.Host, entry: Entry) -> None:
        self.invariants.applied(host.id, GROUP, entry.index, entry.term, entry.data)
        super().check_applied(host, entry)


@pytest.fixture
def _judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "RawNode", JudgedNode)
    monkeypatch.setattr(chaos, "Host", JudgedHost)


@pytest.mark.usefixtures("_judged")
@pytest.mark.parametrize("seed", range(25))
def test_finds_nothing_in_a_right_core(seed: int) -> None:
    """Whatever happens to it."""
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
def test_finds_what_is_planted(
    planted: type, rules: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one of the first seeds, at the step where it happens."""
    monkeypatch.setattr(chaos, "RawNode", planted if issubclass(planted, RawNode) else JudgedNode)
    monkeypatch.setattr(chaos, "Host", JudgedHost if issubclass(planted, RawNode) else planted)
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
