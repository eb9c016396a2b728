"""What the demo makes of what a receiver saw: each promise can be seen to break."""

from collections.abc import Sequence
from typing import Final

import pytest

from node.demo.faults import Fault
from node.demo.judge import Verdict, at_share, cut_off, judge
from node.demo.receiver import Arrival
from timemachine.client import Attempt
from timemachine.ring import vnode_of

DUE_MS: Final = 1_000_000
VNODES: Final = 4


def arrival(job_id: str = "a", *, late_ms: int = 5, webhook_id: str = "w1") -> Arrival:
    """One that was due at DUE_MS."""
    return Arrival(DUE_MS + late_ms, job_id, webhook_id, DUE_MS)


def attempt(number: int, status: str, *, term: int = 1) -> Attempt:
    """The record of one."""
    return Attempt(attempt=number, status=status, term=term)


def verdict_on(
    arrivals: Sequence[Arrival],
    *,
    accepted: str = "a",
    faults: Sequence[Fault] = (),
    attempts: Sequence[Attempt] = (),
) -> Verdict:
    """Of jobs with ids of one letter."""
    return judge(set(accepted), arrivals, faults, lambda _: attempts, num_vnodes=VNODES)


def test_what_came_once_and_in_time() -> None:
    """All is well."""
    verdict = verdict_on([arrival("a"), arrival("b", late_ms=7)], accepted="ab")
    assert (2, 0, 0, 0, 0) == (
        verdict.delivered,
        verdict.lost,
        verdict.early,
        verdict.repeats,
        verdict.unexcused,
    )
    assert [5, 7] == verdict.lateness


def test_what_did_not_come_is_lost() -> None:
    """Only what was accepted counts."""
    verdict = verdict_on([arrival("a"), arrival("x")], accepted="ab")
    assert (1, 1) == (verdict.delivered, verdict.lost)


def test_what_came_before_its_time_is_early() -> None:
    """By a millisecond."""
    assert 1 == verdict_on([arrival(late_ms=-1)]).early


@pytest.mark.parametrize(
    ("attempts", "excused"),
    [
        ([attempt(1, "unknown"), attempt(2, "succeeded", term=2)], True),
        ([attempt(1, "succeeded"), attempt(2, "succeeded", term=2)], True),
        ([attempt(1, "succeeded"), attempt(2, "succeeded")], False),
        ([attempt(1, "succeeded")], False),
        ([], False),
    ],
)
def test_a_repeat_needs_an_attempt_that_was_cut_off(attempts: list[Attempt], excused: bool) -> None:
    """Nobody knew how it ended, or its success was heard of after another leader had sent."""
    verdict = verdict_on([arrival(), arrival(late_ms=900)], attempts=attempts)
    assert (excused, not excused) == (verdict.repeats == 1, verdict.unexcused == 1)
    assert 1 == verdict.repeats + verdict.unexcused


def test_a_repeat_with_another_webhook_id_is_never_excused() -> None:
    """The recipient could not tell that it is the same."""
    attempts = [attempt(1, "unknown"), attempt(2, "succeeded", term=2)]
    twice = [arrival(), arrival(late_ms=900, webhook_id="w2")]
    verdict = verdict_on(twice, attempts=attempts)
    assert (0, 1) == (verdict.repeats, verdict.unexcused)


def test_each_repeat_needs_its_own_excuse() -> None:
    """One attempt that was cut off does not excuse two repeats."""
    attempts = [attempt(1, "unknown"), attempt(2, "succeeded", term=2)]
    three = [arrival(), arrival(late_ms=900), arrival(late_ms=950)]
    verdict = verdict_on(three, attempts=attempts)
    assert (1, 1) == (verdict.repeats, verdict.unexcused)


def test_attempts_are_told_in_any_order() -> None:
    """The list of the API begins with the newest."""
    assert 1 == cut_off([attempt(2, "succeeded", term=2), attempt(1, "succeeded")])


def test_a_fault_and_the_others() -> None:
    """The last of the node's vnodes tells when it fired again; the others tell their lateness."""
    ids = [f"j{number}" for number in range(100)]
    own = [each for each in ids if vnode_of(each, VNODES) == 1][:2]
    other = next(each for each in ids if vnode_of(each, VNODES) == 2)
    begin_ms = DUE_MS - 100
    fault = Fault("killed", "node-1", frozenset({1}), begin_ms, begin_ms + 50, begin_ms + 400)
    arrivals = [
        arrival(other, late_ms=3),
        arrival(own[0], late_ms=1_400),
        arrival(own[1], late_ms=1_450),
    ]
    verdict = judge({*own, other}, arrivals, [fault], lambda _: (), num_vnodes=VNODES)
    assert [] == verdict.lateness, "what a fault delayed counts as usual"
    (recovery,) = verdict.recoveries
    assert (1_500, [3]) == (recovery.fired_again_ms, recovery.others)


def test_nothing_was_due_in_the_vnodes_of_a_node() -> None:
    """Then nobody can say when they fired again."""
    fault = Fault("paused", "node-1", frozenset({1}), DUE_MS + 10_000)
    (recovery,) = verdict_on([arrival()], faults=[fault]).recoveries
    assert recovery.fired_again_ms is None


def test_shares_of_values() -> None:
    """The greatest is the share of 1."""
    values = list(range(1, 101))
    assert [51, 100, 100] == [at_share(values, share) for share in (0.5, 0.99, 1.0)]
