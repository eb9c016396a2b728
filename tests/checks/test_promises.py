"""The checks of the promises: each finds what breaks it, and nothing in what keeps it."""

from typing import Any

import pytest

from tests.checks.history import (
    NEVER,
    Ending,
    Fault,
    History,
    Image,
    Membership,
    PlanEnd,
    Probe,
    Reading,
    Webhook,
)
from tests.checks.jobmodel import (
    Absent,
    Answered,
    Asked,
    Bulk,
    Delete,
    Deleted,
    Done,
    Found,
    Get,
    Patch,
    Put,
    Redrive,
    Run,
    Written,
)
from tests.checks.promises import CHECKS, Rules, judge
from timemachine.smearing import smear_of

RULES = Rules(
    drain_ms=100,
    settle_ms=10,
    transit_ms=5,
    timeout_ms=50,
    probe_ms=20,
    lag_ms=30,
    steps_max=1_000,
)
GROUP = (7, 0)
UNTOLD = None


def story(*calls: tuple[float, float, Asked, Answered | None], job: str = "a") -> History:
    """A history of calls about one job: called, returned, asked, answered (None: unknown)."""
    history = History(ended_ms=1_000)
    for called_ms, returned_ms, asked, answered in calls:
        call = history.call(job, called_ms, asked)
        if answered is not None:
            call.answer(returned_ms, answered)
    return history


def hook(at_ms: float, version: int = 1, attempt: int = 1, **fields: Any) -> Webhook:
    """A webhook of job `a`, due at 100."""
    webhook = Webhook(at_ms, f"id-{version}", "a", version, attempt, f"body-{version}", 100, node=1)
    return webhook._replace(**fields)


def found(history: History, check: str, rules: Rules = RULES) -> list[str]:
    """What one check finds; no other check may find anything that this one does not."""
    return list(CHECKS[check](history, rules))


MADE = (0.0, 1.0, Put("x", 100), Written(1))
CHANGED = (2.0, 3.0, Put("y", 100), Written(2, (1, "replaced")))
CANCELLED = (2.0, 3.0, Delete(), Deleted(1, "cancelled"))

# --- C1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls",
    [
        [MADE],
        [MADE, (2, 3, Get(), Found(1, "x", 100))],
        [MADE, (150, 151, Delete(), Deleted(1, "already_delivered"))],
        [CANCELLED, (5, 6, Put("x", 100), Written(1))],
    ],
)
def test_acknowledged_job_that_never_comes_is_lost(
    calls: list[tuple[float, float, Asked, Answered]],
) -> None:
    """Nothing and nobody took it back."""
    history = story(*calls)
    (sentence,) = found(history, "C1")
    assert sentence.startswith("a version 1 ")
    history.webhooks.append(hook(120))
    assert [] == found(history, "C1")


@pytest.mark.parametrize(
    "ended",
    [
        CHANGED,
        CANCELLED,
        (2, 3, Put("y", 100), Written(2, (1, "in_flight"))),
        (2, 3, Delete(), Deleted(1, "in_flight")),
        (2, 3, Delete(), Deleted(2, "cancelled")),
        (2, 3, Put("z", 100), Written(3, (2, "replaced"))),
        (2, NEVER, Delete(), UNTOLD),
        (2, NEVER, Put("y", 100), UNTOLD),
        (2, NEVER, Bulk(), UNTOLD),
    ],
)
def test_job_that_may_have_been_taken_back_is_not_missed(
    ended: tuple[float, float, Asked, Answered],
) -> None:
    """What replaced or deleted it was acknowledged, or nobody knows."""
    assert [] == [s for s in found(story(MADE, ended), "C1") if "version 1" in s]


def test_what_is_read_at_the_end_settles_what_was_unsure() -> None:
    """The delete that was told nothing did not happen: so the job had to be sent."""
    history = story(MADE, (2, NEVER, Delete(), UNTOLD))
    history.endings["a"] = Ending(1, "delivered")
    assert 1 == len(found(history, "C1"))
    history.endings["a"] = Ending(1, "cancelled")
    assert [] == found(history, "C1")


def test_job_that_is_gone_in_the_end_is_lost() -> None:
    """Though it was sent: its record may not vanish, nor go back."""
    history = story(MADE, (2, 3, Put("y", 100), Written(2, (1, "in_flight"))))
    history.webhooks.append(hook(120, version=2))
    history.endings["a"] = Ending(1, "delivered")
    assert "was not there at the end" in found(history, "C1")[0]
    history.endings["a"] = None
    assert "was not there at the end" in found(history, "C1")[0]
    history.endings["a"] = Ending(2, "delivered")
    assert [] == found(history, "C1")


def test_late_is_late_only_after_the_faults() -> None:
    """The time to drain counts from the heal, and from when the job was acknowledged."""
    history = story(MADE)
    history.webhooks.append(hook(320))
    assert "was sent at 320.0, not by 200.0" in found(history, "C1")[0]
    history.healed_ms = 250
    assert [] == found(history, "C1")
    history = story((300, 301, Put("x", 100), Written(1)))
    history.ended_ms = 350
    assert [] == found(history, "C1")


def test_ends_without_a_send_only_where_that_is_expected() -> None:
    """A dead job that nobody got is lost, unless recipients could not be reached."""
    history = story(MADE)
    history.endings["a"] = Ending(1, "dead")
    assert 1 == len(found(history, "C1"))
    assert [] == found(history, "C1", Rules(unsent_states=frozenset({"dead"})))


# --- C2 ------------------------------------------------------------------------------------------


def test_two_ids_of_one_version() -> None:
    """One version is decided once."""
    history = story(MADE)
    history.webhooks += [hook(120), hook(130, attempt=2)]
    assert [] == found(history, "C2")
    history.webhooks.append(hook(140, attempt=3, webhook_id="other"))
    assert ["a version 1 was sent as 2 webhooks: id-1, other"] == found(history, "C2")


def test_two_bodies_of_one_id() -> None:
    """The bytes are the same each time."""
    history = story(MADE)
    history.webhooks += [hook(120), hook(130, attempt=2, body_hash="else")]
    assert ["webhook id-1 (a version 1) came with 2 bodies"] == found(history, "C2")


def test_one_id_of_two_versions() -> None:
    """A receiver would take the second for a repeat."""
    history = story(MADE)
    history.webhooks += [hook(120), hook(130, version=2, webhook_id="id-1")]
    assert any("stands for" in sentence for sentence in found(history, "C2"))


# --- C3 ------------------------------------------------------------------------------------------


def twice(**first: Any) -> History:
    """A webhook that came at 120 (sent at 118, answered at 125) and again at 160."""
    history = story(MADE)
    history.webhooks += [
        hook(120, sent_ms=118, answered_ms=125, **first),
        hook(160, attempt=2),
    ]
    return history


def test_repeat_without_a_reason() -> None:
    """The first was answered, and nothing happened."""
    (sentence,) = found(twice(), "C3")
    assert sentence.startswith("a version 1 came again at 160.0, though attempt 1 of node 1")


@pytest.mark.parametrize("first", [{"status": 500}, {"status": None}])
def test_repeat_after_a_failure(first: dict[str, Any]) -> None:
    """That is what retries are for."""
    assert [] == found(twice(**first), "C3")


def test_repeat_after_a_time_out() -> None:
    """The recipient answered when nobody listened any more."""
    history = twice()
    history.webhooks[0] = history.webhooks[0]._replace(answered_ms=170)
    assert [] == found(history, "C3")


@pytest.mark.parametrize(
    ("fault", "excused"),
    [
        (Fault(119, 119, "crash", frozenset({1})), True),
        (Fault(130, 130, "crash", frozenset({1})), True),
        (Fault(100, 118, "cut"), True),
        (Fault(136, 140, "crash", frozenset({1})), False),
        (Fault(50, 117, "cut"), False),
        (Fault(119, 119, "crash", frozenset({2})), False),
        (Fault(119, 119, "handover", frozenset({1}), planned=True), False),
    ],
)
def test_repeat_after_a_fault(fault: Fault, excused: bool) -> None:
    """Only one that hit its sender, unplanned, while it was in flight."""
    history = twice()
    history.faults.append(fault)
    assert excused is ([] == found(history, "C3"))


def test_one_attempt_made_twice() -> None:
    """No fault excuses that."""
    history = twice(attempt=2, status=500)
    history.faults.append(Fault(0, 900, "chaos"))
    assert "was made twice" in found(history, "C3")[0]


def test_repeat_of_at_most_once() -> None:
    """Such a route gets nothing twice, whatever happened."""
    history = twice(status=500, route="once")
    history.webhooks[1] = history.webhooks[1]._replace(route="once")
    rules = Rules(once_routes=frozenset({"once"}))
    assert "at most once" in found(history, "C3", rules)[0]


def test_repeat_that_was_asked_for() -> None:
    """A redrive."""
    history = twice()
    history.call("a", 150, Redrive()).answer(151, Done())
    assert [] == found(history, "C3")


# --- C4 ------------------------------------------------------------------------------------------


def test_early() -> None:
    """Beyond what the clocks may differ."""
    history = story(MADE)
    history.webhooks.append(hook(97))
    assert ["a version 1 came at 97.0, 3.0 ms before 100"] == found(history, "C4")
    assert [] == found(history, "C4", Rules(early_ms=3))
    history.call("a", 90, Run()).answer(91, Done())
    assert [] == found(history, "C4")


def test_early_within_what_its_route_smears() -> None:
    """A smeared job is early before its own part of that time, though after its trigger time."""
    smeared = smear_of("a", 1_000)
    history = story(MADE)
    history.webhooks.append(hook(99 + smeared))
    told = f"a version 1 came at {99.0 + smeared}, 1.0 ms before {100 + smeared}"
    assert [told] == found(history, "C4", Rules(smear_ms=1_000))
    assert [] == found(history, "C4")
    history = story(MADE)
    history.webhooks.append(hook(100 + smeared))
    assert [] == found(history, "C4", Rules(smear_ms=1_000))


def test_time_that_nobody_gave() -> None:
    """What the webhook names is what the job was written with."""
    history = story(MADE)
    history.webhooks.append(hook(97, due_ms=90))
    assert 2 == len(found(history, "C4"))
    assert "names 90 as its time, not 100" in found(history, "C4")[0]


def test_time_of_a_delay_or_of_an_unknown_write() -> None:
    """It is in the answer, or nobody but the webhook knows it."""
    history = story((0, 1, Put("x"), Written(1, due_ms=100)))
    history.webhooks += [hook(100), hook(100, version=2)]
    assert [] == found(history, "C4")


# --- C5 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        CHANGED,
        CANCELLED,
        (2, 3, Put("y", 100), Written(2, (1, "already_delivered"))),
    ],
)
def test_old_content_after_its_end(end: tuple[float, float, Asked, Answered]) -> None:
    """Not even once."""
    history = story(MADE, end)
    history.webhooks.append(hook(120))
    (sentence,) = found(history, "C5")
    assert sentence.startswith("a version 1 came at 120.0 (attempt 1), though its end was known")


@pytest.mark.parametrize("sent_ms", [2.9, None])
def test_old_content_that_was_under_way(sent_ms: float | None) -> None:
    """It began before the answer; or may have, as far as anybody saw."""
    history = story(MADE, CANCELLED)
    history.webhooks.append(hook(7, sent_ms=sent_ms))
    assert [] == found(history, "C5")


@pytest.mark.parametrize(
    "end",
    [
        (2, 3, Put("y", 100), Written(2, (1, "in_flight"))),
        (2, 3, Delete(), Deleted(1, "in_flight")),
        (2, 3, Put("z", 100), Written(3, (2, "replaced"))),
        (2, 3, Get(), Found(2, "y")),
    ],
)
def test_one_attempt_in_flight_may_still_begin(
    end: tuple[float, float, Asked, Answered],
) -> None:
    """But only one."""
    history = story(MADE, end)
    history.webhooks.append(hook(120))
    assert [] == found(history, "C5")
    history.webhooks.append(hook(140, attempt=2))
    assert "(attempt 2)" in found(history, "C5")[0]


def test_its_own_end_counts_also_when_a_later_one_was_told_first() -> None:
    """The answer that says `replaced` came late; the version had ended before."""
    history = story(
        MADE, (2, 30, Put("y", 100), Written(2, (1, "replaced"))), (3, 4, Get(), Found(2, "y"))
    )
    history.webhooks.append(hook(10))
    assert 1 == len(found(history, "C5"))


def test_an_end_that_is_told_twice() -> None:
    """In flight first, delivered later, by a write that was asked before: each for its time."""
    history = story(
        MADE,
        (2, 30, Put("y", 100), Written(2, (1, "already_delivered"))),
        (3, 4, Delete(), Deleted(1, "in_flight")),
    )
    history.webhooks.append(hook(10))
    assert [] == found(history, "C5")
    history.webhooks.append(hook(40))
    assert "(outcome: already_delivered)" in found(history, "C5")[0]


def test_delete_that_came_too_late_ends_nothing() -> None:
    """A dead job is redriven, a delivered one with force."""
    history = story(MADE, (2, 3, Delete(), Deleted(1, "already_dead")))
    history.webhooks.append(hook(120))
    assert [] == found(history, "C5")


# --- C6 ------------------------------------------------------------------------------------------


def test_calls_without_an_order() -> None:
    """The job and the answer are named."""
    history = story(MADE, (2, 3, Get(), Absent()))
    (sentence,) = found(history, "C6")
    assert sentence.startswith("a: no order explains Get() -> Absent(), called at 2.0")


def test_jobs_are_judged_one_by_one() -> None:
    """And those left out that the model does not know."""
    history = story(MADE)
    history.call("b", 0, Put("x", 1)).answer(1, Written(1))
    history.call("b", 2, Get())
    history.call("c", 0, Put("x", 1)).answer(1, Written(7))
    history.call("c", 2, Bulk())
    assert [] == found(history, "C6")
    history.call("b", 3, Patch("y")).answer(4, Written(3, (2, "replaced")))
    assert 1 == len(found(history, "C6"))


def test_undecided_is_not_broken() -> None:
    """But it is said."""
    history = story(*[(0, NEVER, Put(number), UNTOLD) for number in range(20)])
    history.call("a", 1, Get()).answer(2, Found(30, "x"))
    judgement = judge(history, RULES)
    assert [] == judgement.broken
    assert ["C6: a: 21 calls, undecided after 1001"] == judgement.undecided


# --- C7, C8, C10 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["epoch", "term", "commit", "applied"])
def test_fall(what: str) -> None:
    """On one replica; others count for themselves."""
    history = History()
    fields: dict[str, Any] = {what: 5}
    first, second = Reading(1, 1, GROUP, **fields), Reading(2, 1, GROUP)
    history.readings += [second._replace(node=2), second._replace(group=(7, 1)), first, second]
    (sentence,) = found(history, "C7")
    assert f"node 1, group (7, 0): {what} fell from 5 (at 1.0) to 0 (at 2.0)" == sentence


def test_offset_that_falls() -> None:
    """Only where somebody inserted below it, not long before."""
    history = story((150, 151, Put("x", 100), Written(1)))
    history.readings += [
        Reading(140, 1, GROUP, offset=(130, "q")),
        Reading(160, 1, GROUP, offset=(100, "a")),
    ]
    assert [] == found(history, "C7")
    history.readings[1] = Reading(160, 1, GROUP, offset=(90, "a"))
    assert "the offset fell" in found(history, "C7")[0]
    history.readings = [
        Reading(190, 1, GROUP, offset=(130, "q")),
        Reading(199, 1, GROUP, offset=(100, "a")),
    ]
    assert "the offset fell" in found(history, "C7")[0]


def test_replicas_that_differ() -> None:
    """At one applied index; at others nothing can be said."""
    history = History()
    history.images += [Image(1, 1, GROUP, 5, "x"), Image(2, 2, GROUP, 6, "y")]
    assert [] == found(history, "C8")
    history.images.append(Image(3, 3, GROUP, 5, "z"))
    assert "nodes 1 and 3 differ after entry 5" in found(history, "C8")[0]


def test_replica_that_stays_behind() -> None:
    """In the end all have applied all."""
    history = History()
    history.images += [
        Image(9, 1, GROUP, 5, "x", final=True),
        Image(9, 2, GROUP, 4, "w", final=True),
    ]
    assert ["group (7, 0): in the end the nodes had applied {1: 5, 2: 4}"] == found(history, "C8")


def test_group_that_takes_no_write() -> None:
    """Soon enough after the faults."""
    history = History(groups={GROUP}, healed_ms=100)
    assert ["group (7, 0) acknowledged no write by 120.0: None"] == found(history, "C10")
    history.probes += [Probe(GROUP, 101), Probe(GROUP, 102, 121)]
    assert 1 == len(found(history, "C10"))
    history.probes.append(Probe(GROUP, 103, 119))
    assert [] == found(history, "C10")


def test_job_that_is_left_over() -> None:
    """Its time has come and nobody cares."""
    history = story(MADE)
    history.endings["a"] = Ending(1, "retrying")
    assert ["a version 1 was due at 100 and is still retrying"] == found(history, "C10")
    history.ended_ms = 150
    assert [] == found(history, "C10")


# --- C11 -----------------------------------------------------------------------------------------


_NOBODY: frozenset[int] = frozenset()
_ASKED = Membership(
    GROUP, frozenset({1, 2}), _NOBODY, frozenset({1, 2}), _NOBODY, frozenset({1, 2})
)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"voters": frozenset({1})}, "its leader counts [1], learning []; asked for were [1, 2]"),
        ({"learning": frozenset({3})}, "its leader counts [1, 2], learning [3]"),
        ({"missing": 1}, "1 replicas more were asked for, and have a place"),
        ({"leaving": (9, 3)}, "replicas [3, 9] are still to leave"),
        ({"replicas": frozenset({1, 2, 3})}, "nodes have the replicas [1, 2, 3], not those"),
    ],
)
def test_members_that_nobody_asked_for(changed: dict[str, Any], told: str) -> None:
    """What its leader counts, what nodes have, and what is still to be done."""
    history = History(members=[_ASKED])
    assert [] == found(history, "C11")
    history.members = [_ASKED._replace(**changed)]
    (sentence,) = found(history, "C11")
    assert f"group {GROUP}: {told}" in sentence


# --- C12 -----------------------------------------------------------------------------------------


def test_plans_end_and_empty_what_they_are_to_empty() -> None:
    """Whatever has become of them."""
    history = History(plans=[PlanEnd("p", "done", under_way=False)])
    assert [] == found(history, "C12")
    history.plans.append(PlanEnd("q", "paused", under_way=True))
    history.plans.append(PlanEnd("r", "done", under_way=False, left=2))
    assert [
        "plan q has not ended: it is paused",
        "plan r is done, and left 2 replicas",
    ] == [each.removeprefix("C12: ") for each in found(history, "C12")]


# --- all of them ---------------------------------------------------------------------------------


def test_good_day() -> None:
    """Nothing is broken in a run as it should be."""
    history = story(
        MADE,
        (2, 3, Get(), Found(1, "x", 100, pending=True)),
        (4, 5, Put("y", 200), Written(2, (1, "replaced"))),
        (6, NEVER, Get(), UNTOLD),
        (220, 221, Delete(), Deleted(2, "already_delivered")),
    )
    history.webhooks.append(hook(201, version=2, due_ms=200))
    history.endings["a"] = Ending(2, "delivered")
    history.groups.add(GROUP)
    history.probes.append(Probe(GROUP, 1, 2))
    assert ([], []) == judge(history, RULES)


def test_sentences_begin_with_their_check() -> None:
    """So that a list of them can be read."""
    history = story(MADE, (2, 3, Get(), Absent()))
    names = [sentence.split(":")[0] for sentence in judge(history, RULES).broken]
    assert ["C1", "C6"] == names


def test_call_that_did_nothing_is_forgotten() -> None:
    """It is no part of the history."""
    history = story(MADE)
    history.forget(history.call("a", 5, Delete()))
    assert [MADE[2]] == [call.asked for call in history.calls]
