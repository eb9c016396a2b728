"""Lists over vnodes that several nodes lead."""

from typing import Any

import pytest

from node.gathering import ListAttempts, ListJobs
from node.selection import Selection
from tests.unit.node.gathering.made import FIRST_MS, Alone, Spread
from timemachine import limits
from timemachine.errors import TimeMachineError

# Some at the same time: the order is by id then.
JOBS = [(f"job-{number:03}", FIRST_MS + number // 4 * 1_000) for number in range(60)]
PENDING = Selection()


def _pages(spread: Spread, number: int, selection: Selection, limit: int) -> list[list[str]]:
    pages: list[list[str]] = []
    position = None
    while True:
        page = spread.ask(number, ListJobs(selection, position, limit))
        assert not isinstance(page, TimeMachineError), page
        pages.append([job_id for job_id, *_ in page.jobs])
        position = page.position
        if position is None:
            return pages


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 7, 60, 100])
def test_pages_are_those_of_one_node(number: int, limit: int) -> None:
    """Each job once, in trigger order, on the same pages with the same positions."""
    spread, alone = _filled()
    position = None
    while True:
        question = ListJobs(PENDING, position, limit)
        expected, page = alone.ask(question), spread.ask(number, question)
        assert _ids(expected) == _ids(page)
        assert expected.position == page.position
        position = page.position
        if position is None:
            break


def _filled(meta: bytes = b"null") -> tuple[Spread, Alone]:
    spread, alone = Spread(), Alone()
    spread.put(JOBS, meta)
    alone.put(JOBS, meta)
    return spread, alone


def _ids(page: Any) -> list[tuple[str, int, bytes]]:
    return [(job_id, record.trigger_ms, meta) for job_id, record, meta in page.jobs]


def test_a_page_may_come_in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metas do not fit into one answer: the rest is asked for."""
    monkeypatch.setattr(limits, "GATHER_PAGE_BYTES", 3_000)
    spread, alone = _filled(b'"' + b"m" * 1_000 + b'"')
    question = ListJobs(PENDING, None, 50)
    assert _ids(alone.ask(question)) == _ids(spread.ask(2, question))


def test_a_page_ends_where_one_node_has_looked_at_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing behind that place is told: another node may have something before it."""
    monkeypatch.setattr(limits, "LIST_ROWS_LOOKED_AT_MAX", 5)
    spread = _filled()[0]
    selection = Selection(route="r", tag=None)
    pages = _pages(spread, 1, selection, 20)
    assert [job_id for job_id, _ in JOBS] == [job_id for page in pages for job_id in page]
    assert max(len(page) for page in pages) < 20


def test_a_node_that_dies_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vnodes are read on from there by who leads them now."""
    monkeypatch.setattr(limits, "GATHER_PAGE_BYTES", 3_000)
    spread, alone = _filled(b'"' + b"m" * 1_000 + b'"')
    question = ListJobs(PENDING, None, 50)
    answers = spread.begin(1, question)
    spread.world.run_for(1.0)
    assert not answers
    spread.nodes.cut.add(3)
    spread.world.run_until(lambda: bool(answers))
    assert _ids(alone.ask(question)) == _ids(answers[0])


@pytest.mark.parametrize("piece_bytes", [2_000, 1_000_000])
def test_attempts_of_a_route_are_merged_newest_first(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """Page by page, from whichever node: each once, in the order of one long page."""
    monkeypatch.setattr(limits, "GATHER_PAGE_BYTES", piece_bytes)
    spread = Spread()
    route = spread.put_route()
    now_ms = spread.nodes.engines[1].now_ms()
    jobs = [(f"job-{number}", now_ms + 100 + number // 3 * 50) for number in range(30)]
    spread.put(jobs, route=route)
    spread.world.run_for(5_000)
    every = spread.ask(1, ListAttempts(route.uid, None, 100))
    assert every.position is None
    assert sorted(job_id for job_id, _ in jobs) == sorted(each.job_id for each in every.attempts)
    ended = [each.position[0] for each in every.attempts]
    assert sorted(ended, reverse=True) == ended
    for number in (1, 2, 3):
        found, position = [], None
        while True:
            page = spread.ask(number, ListAttempts(route.uid, position, 7))
            found += [each.position for each in page.attempts]
            position = page.position
            if position is None:
                break
        assert [each.position for each in every.attempts] == found
