"""Sums over vnodes that several nodes lead."""

from node.gathering import CountJobs, Counts, Forecast, RouteCounts
from node.selection import Selection
from tests.unit.node.gathering.made import FIRST_MS, SCHEDULED, Alone, Spread
from timemachine.errors import Unavailable

JOBS = [(f"job-{number}", FIRST_MS + number * 1_000) for number in range(40)]


def test_each_node_gives_the_sum_of_all() -> None:
    """Whoever is asked; the same as one node gives that leads all."""
    spread, alone = Spread(), Alone()
    spread.put(JOBS)
    alone.put(JOBS)
    some = Selection(from_ms=FIRST_MS + 5_000, to_ms=FIRST_MS + 30_000)
    for question in (
        Counts(),
        CountJobs(some),
        Forecast(FIRST_MS, FIRST_MS + 33_000, 7_000),
        RouteCounts((0, 7)),
    ):
        expected = alone.ask(question)
        assert [expected] * 3 == [spread.ask(number, question) for number in (1, 2, 3)]
    assert 40 == spread.ask(1, Counts())[SCHEDULED]


def test_a_sample_is_what_one_node_would_show() -> None:
    """The first jobs, vnode by vnode, with their metas."""
    spread, alone = Spread(), Alone()
    spread.put(JOBS, b'{"a":1}')
    alone.put(JOBS, b'{"a":1}')
    question = CountJobs(Selection(), sample=7)

    def shown(part: object) -> list[object]:
        return [(at, job_id, meta) for at, (job_id, _, meta) in part.sample]  # type: ignore[attr-defined]

    expected = shown(alone.ask(question))
    assert 7 == len(expected)
    assert expected == shown(spread.ask(2, question))


def test_a_vnode_that_moves_meanwhile_is_counted_once() -> None:
    """The node that led it says that it does not, and who does is asked."""
    spread = Spread()
    spread.put(JOBS)
    answers = spread.begin(1, Counts())
    for group in spread.groups:
        spread.move(group, 3)
    spread.world.run_until(lambda: bool(answers))
    assert 40 == answers[0][SCHEDULED]


def test_a_node_that_dies_keeps_nobody_waiting_for_long() -> None:
    """Its vnodes are led by others soon, and these are asked."""
    spread = Spread()
    spread.put(JOBS)
    spread.nodes.cut.add(2)
    began_ms = spread.world.now_ms
    for number in (1, 3):
        assert 40 == spread.ask(number, Counts())[SCHEDULED]
    assert spread.world.now_ms - began_ms < 10_000


def test_without_a_majority_a_read_is_refused_and_a_stale_one_is_not() -> None:
    """Nobody knows what others have acknowledged."""
    spread = Spread()
    spread.put(JOBS)
    spread.world.run_for(2_000)
    spread.nodes.cut |= {2, 3}
    spread.world.run_for(3_000)
    assert isinstance(spread.ask(1, Counts()), Unavailable)
    assert 40 == spread.ask(1, Counts(), stale=True)[SCHEDULED]


def test_what_was_answered_may_be_enough() -> None:
    """Where a part is better than nothing."""
    spread = Spread()
    spread.put(JOBS)
    spread.nodes.cut |= {2, 3}
    part = spread.ask(1, Counts(), partly=True, patience_ms=300)
    assert 0 < part[SCHEDULED] < 40


def test_a_question_that_was_let_go_is_answered_to_nobody() -> None:
    """Who asked is gone."""
    spread = Spread()
    answers: list[object] = []
    gathering = spread.nodes.engines[1].gathering
    gathering.ask(Counts(), spread.groups, answers.append).cancel()
    spread.world.run_for(20_000)
    assert [] == answers


def test_a_vnode_that_nobody_can_lead_is_refused_in_time() -> None:
    """Also where millions of rows might have had to be counted: nobody is at it."""
    spread = Spread()
    spread.world.run_for(2_000)
    spread.nodes.cut |= {2, 3}
    spread.world.run_for(3_000)
    began_ms = spread.world.now_ms
    assert isinstance(spread.ask(1, CountJobs(Selection())), Unavailable)
    assert spread.world.now_ms - began_ms < 12_000
