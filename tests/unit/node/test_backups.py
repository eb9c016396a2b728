"""Backups of vnodes whose leaders change: what is shown, and which pages belong together."""

from typing import Any

import pytest

from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine import limits
from timemachine.backup.pages import Page, read_page
from timemachine.errors import NotLeader

_PATIENCE_MS = 30_000


class _Cluster:
    """Three nodes with a vnode that can be asked for pages."""

    def __init__(self, seed: int = 1) -> None:
        self.nodes = ThreeNodes(seed)
        self.group = self.nodes.put_collection()

    @property
    def leader(self) -> int:
        """Who leads the vnode, of those that are heard."""
        return self.nodes.leader(self.group)

    def put(self, job_id: str) -> None:
        """Create a job, and wait until that is acknowledged."""
        answers = self.nodes.put(self.leader, self.group, job_id)
        self.nodes.world.run_until(lambda: bool(answers), _PATIENCE_MS)
        assert "created" == answers[0].kind

    def ask(self, number: int, page: int, position: str | None = None) -> list[Any]:
        """Ask a node for a page; the answer appears in the list."""
        answers: list[Any] = []
        vnode = self.nodes.vnode(number, self.group)
        views = self.nodes.engines[number].backups
        views.page("b", vnode, page, None, position, answers.append)
        return answers

    def page(self, number: int, page: int, position: str | None = None) -> Page:
        """A page that is given."""
        answers = self.ask(number, page, position)
        self.nodes.world.run_until(lambda: bool(answers), _PATIENCE_MS)
        return read_page(answers[0])

    def cut_off(self, number: int) -> None:
        """Have nobody hear a node, until another one leads."""
        self.nodes.cut.add(number)
        self.nodes.world.run_until(lambda: self.leader != 0, _PATIENCE_MS)

    def hand_over(self, to: int) -> None:
        """Have that node lead the vnode."""
        engine = self.nodes.engines[self.leader]
        engine.hand_over(self.nodes.vnode(self.leader, self.group), to, lambda _: None)
        self.nodes.world.run_until(lambda: self.leader == to, _PATIENCE_MS)


def test_who_was_overruled_and_does_not_know_shows_nothing() -> None:
    """Named regression: it gave a backup what it had, without what had been acknowledged since."""
    seen = 0
    for seed in range(8):
        cluster = _Cluster(seed)
        nodes = cluster.nodes
        cluster.put("before")
        old = cluster.leader
        cluster.cut_off(old)
        cluster.put("since")
        if not nodes.vnode(old, cluster.group).serving:
            continue
        seen += 1
        answers = cluster.ask(old, 0)
        nodes.world.run_for(5_000)
        assert all(isinstance(answer, NotLeader) for answer in answers)
    assert seen


def test_pages_of_two_views_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named regression: of a view whose first page came from elsewhere a node gave the second.

    The job that stood between the two was in no page.
    """
    monkeypatch.setattr(limits, "BACKUP_PAGE_JOBS_MAX", 2)
    monkeypatch.setattr(limits, "BACKUP_SCAN_BYTES", 1)
    cluster = _Cluster()
    for job in ("b", "c", "d", "e"):
        cluster.put(job)
    first = cluster.leader
    other = next(each for each in MEMBERS if each != first)
    # The answer is lost, and the question goes to who leads by then.
    assert [b"b", b"c"] == _ids(cluster.page(first, 0))
    cluster.hand_over(other)
    cluster.put("a")
    shown = cluster.page(other, 0)
    assert [b"a", b"b"] == _ids(shown)
    assert shown.head is not None
    cluster.hand_over(first)
    answers = cluster.ask(first, 1, shown.head.position.text)
    assert [None] == answers
    assert [b"c", b"d"] == _ids(cluster.page(other, 1, shown.head.position.text))


def _ids(page: Page) -> list[bytes]:
    return [raw_id for raw_id, _ in page.jobs]
