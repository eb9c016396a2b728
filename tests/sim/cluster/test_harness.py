"""Whole clusters: a quiet one, one with faults, and one history for one seed."""

import os
import subprocess
import sys

import pytest

from node.engine import Engine
from tests.checks.jobmodel import Get
from tests.checks.lincheck import UNKNOWN
from tests.sim.cluster.clients import Conversation
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs, draw
from tests.sim.cluster.members import PUMPS, TICKS
from tests.sim.runs import ROOT
from timemachine.errors import StoreDamaged, StoreFailed, Unavailable
from timemachine.group import META_GROUP
from timemachine.vnode import Done

_QUIET = Knobs(seed=1, safety_ms=3_000.0, fault_pace_ms=1e9, due_ms_max=1_000.0)


def test_a_quiet_cluster_keeps_its_word() -> None:
    """Jobs are written, read, cancelled and sent; nothing is unsure and nothing is repeated."""
    harness = Harness(_QUIET)
    result = harness.run()
    assert ([], []) == (result.judgement.broken, result.judgement.undecided)
    assert result.calls > 50
    assert result.webhooks > 20
    assert 0 == result.faults
    assert all(call.returned_ms < harness.history.ended_ms for call in harness.history.calls)


def test_a_cluster_with_faults_keeps_its_word() -> None:
    """And what happened to it is in the journal."""
    harness = Harness(_QUIET.changed(seed=2, safety_ms=6_000.0, fault_pace_ms=700.0))
    result = harness.run()
    assert [] == result.judgement.broken
    assert result.faults > 3
    assert any("nemesis" in line for line in harness.clock.journal())


_SEEDS_OF_ALL_KINDS = (16, 51, 140)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", _SEEDS_OF_ALL_KINDS)
def test_a_seed_is_one_history_under_every_hash_seed(seed: int) -> None:
    """Of production's code: nothing in it depends on hashes of strings or on addresses."""
    command = [sys.executable, "-m", "tests.sim", "--seed", str(seed)]
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "77")
    ]
    one, other = [process.communicate()[0].splitlines() for process in running]
    traces = next(line for line in one if ", trace " in line).rpartition(" ")[2].split("+")
    assert bool(draw(seed).restores) == (len(traces) == 2)
    # With the traces, and what is told of how it came to them.
    assert one == other


def test_those_seeds_have_what_there_is() -> None:
    """Draws move with each change of the knobs: then others are to be named."""
    drawn = [draw(seed) for seed in _SEEDS_OF_ALL_KINDS]
    for has in (
        lambda knobs: knobs.sleeps,
        lambda knobs: knobs.plans,
        lambda knobs: knobs.restores,
        lambda knobs: knobs.batch_jobs > 1,
        lambda knobs: knobs.alerts,
        lambda knobs: knobs.ordering_keys,
        lambda knobs: knobs.breaker_open_ms,
        lambda knobs: knobs.net_jitter_ms and not knobs.net_ordered,
    ):
        assert any(map(has, drawn))


def test_a_conversation_goes_on_until_somebody_answers() -> None:
    """A node that is down or refuses is left for another one; without any, it is given up."""
    harness = Harness(_QUIET)
    harness.boot()
    members = harness.members
    ended: list[object] = []

    def ask(engine: Engine, answer: Done) -> None:
        answer("yes" if engine.number == 3 else Unavailable())

    def talk() -> None:
        dice = harness.clock.child("test")
        Conversation(members, dice, ask, ended.append, patience_ms=5_000.0)

    talk()
    harness.clock.run_for(5_000.0)
    assert ["yes"] == ended
    members.crash(3)
    talk()
    harness.clock.run_for(6_000.0)
    assert ["yes", None] == ended


def test_the_groups_and_their_leaders_are_known() -> None:
    """To whoever injects faults; a leader can be asked to hand over."""
    harness = Harness(_QUIET)
    harness.boot()
    members = harness.members
    assert META_GROUP == members.groups()[0]
    assert 1 + _QUIET.num_vnodes == len(members.groups())
    leader = members.leader_of(META_GROUP)
    to = leader % 3 + 1
    members.transfer(META_GROUP, to)
    harness.clock.run_for(3_000.0)
    assert to == members.leader_of(META_GROUP)


def test_every_node_is_asked_for_what_was_written_last() -> None:
    """Where a seed has somebody who trusts nobody; who does not lead has nothing to say."""
    asked = []
    for audit_ms in (0.0, 50.0):
        harness = Harness(_QUIET.changed(read_share=0.0, audit_ms=audit_ms))
        result = harness.run()
        assert [] == result.judgement.broken
        reads = [call for call in harness.history.calls if isinstance(call.asked, Get)]
        asked.append({call.node for call in reads})
        if audit_ms:
            answered = [call for call in reads if call.answered is not UNKNOWN]
            assert 20 < len(answered) < len(reads)
    assert [set(), {1, 2, 3}] == asked


def test_what_is_planned_excuses_nothing() -> None:
    """A cluster of which leaderships are handed over, and nothing else is done to it."""
    harness = Harness(_QUIET.changed(fault_kinds=0, fault_pace_ms=300.0, mood="slow"))
    result = harness.run()
    assert [] == result.judgement.broken
    assert result.faults > 5
    moves = [fault for fault in harness.history.faults if "moved" in fault.what]
    assert any(fault.planned for fault in moves)
    assert {"hand_over"} == {each.kind for each in harness.nemesis.plan}


def test_a_node_ends_itself_for_its_disk_alone() -> None:
    """Whatever else it may have to say for itself is a finding."""
    members = Harness(_QUIET).members
    member = members.members[1]
    member.check_reason(StoreFailed("full"))
    with pytest.raises(AssertionError, match="its disk is whole"):
        member.check_reason(StoreDamaged("a gap"))
    member.disk.store.write({b"key": b"value"})
    member.disk.flip_bits()
    member.check_reason(StoreDamaged("a row"))


@pytest.mark.parametrize("name", sorted(TICKS | PUMPS))
def test_timers_that_do_not_count_as_events_are_there(name: str) -> None:
    """They are known by name: one that was renamed would be counted as work."""
    sources = [path.read_text() for path in (ROOT / "node").rglob("*.py")]
    owner, method = name.split(".")
    assert any(f"class {owner}" in each and f"def {method}(self" in each for each in sources)
