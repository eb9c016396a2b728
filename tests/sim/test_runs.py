"""What is told of seeds: of both clusters, with the commit, and with what was not decided."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.checks.promises import Judgement
from tests.sim import __main__ as program
from tests.sim import runs
from tests.sim.runs import Order, Run, commit, run_seed


class _Cluster:
    """Stands for a harness: runs at once, and finds what it is told to."""

    def __init__(self, name: str, events: int, judgement: Judgement, fails: str = "") -> None:
        self.knobs = SimpleNamespace(nodes=3, name=name)
        self.clock = SimpleNamespace(
            events=events,
            trace=f"trace of {name}",
            journal=lambda: [f"journal of {name}"],
            summary=lambda: f"summary of {name}",
        )
        self._judgement = judgement
        self._fails = fails

    def run(self) -> Any:
        if self._fails:
            raise AssertionError(self._fails)
        return SimpleNamespace(calls=1, webhooks=2, faults=3, judgement=self._judgement)


def _run(monkeypatch: pytest.MonkeyPatch, first: _Cluster, second: _Cluster | None) -> Run:
    monkeypatch.setattr(runs, "Harness", lambda _: first)
    monkeypatch.setattr(runs, "restoring", lambda _: second)
    return run_seed(Order(), 5, tell=True)


def test_a_run_is_of_both_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a backup is restored into a second one: events, trace, story, what is undecided."""
    first = _Cluster("one", 10, Judgement([], ["C6: a", "C6: b"]))
    second = _Cluster("two", 7, Judgement(["C1: broken"], ["C6: c"]))
    run = _run(monkeypatch, first, second)
    assert (17, "trace of one+trace of two", 3) == (run.events, run.trace, run.undecided)
    assert ("C1: broken",) == run.found
    for told in ("journal of one", "summary of one", "C6: b", "journal of two", "C6: c"):
        assert told in run.story


def test_a_run_is_of_both_clusters_where_the_second_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its journal tells how it came to that."""
    second = _Cluster("two", 7, Judgement([], []), fails="no leaders")
    run = _run(monkeypatch, _Cluster("one", 10, Judgement([], [])), second)
    assert (17, "trace of one+trace of two") == (run.events, run.trace)
    assert run.found[0].startswith("AssertionError: no leaders")
    assert "journal of two" in run.story


def test_a_run_without_a_restore_is_of_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its trace is that of its clock."""
    run = _run(monkeypatch, _Cluster("one", 10, Judgement([], [])), None)
    assert (10, "trace of one", 0, ()) == (run.events, run.trace, run.undecided, run.found)


def test_an_order_tells_how_to_run_a_seed_again() -> None:
    """With all that is fixed for it."""
    assert "python -m tests.sim --seed 5" == Order().again(5)
    order = Order(3, "late", (("jobs", 7), ("mood", "slow")))
    fixed = "--nodes 3 --mutation late --knob jobs=7 --knob mood='slow'"
    assert f"python -m tests.sim --seed 5 {fixed}" == order.again(5)


@pytest.mark.parametrize("found", [(), ("C1: broken",)])
def test_one_seed_is_told_with_its_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: tuple[str, ...]
) -> None:
    """Whether or not anything is found: a trace means something for one commit only."""
    monkeypatch.setattr("sys.argv", ["tests.sim", "--seed", "5"])
    monkeypatch.setattr(program, "run_seed", lambda *_, **__: Run(5, 3, 10, found, "abc"))
    assert bool(found) == bool(program.main())
    lines = capsys.readouterr().out.splitlines()
    assert "seed 5, 3 nodes, 10 events, trace abc" in lines
    assert f"commit {commit()}" in lines


def test_many_seeds_tell_how_many_searches_were_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At their end, as one number: an undecided job is not one that was found in order."""

    def run_many(_: Order, seeds: Iterable[int], *, jobs: int) -> Iterator[Run]:
        for seed in seeds:
            yield Run(seed, 3, 10 * jobs, (), "", undecided=seed)

    monkeypatch.setattr("sys.argv", ["tests.sim", "--first", "2", "--seeds", "3", "--jobs", "1"])
    monkeypatch.setattr(program, "run_many", run_many)
    assert 0 == program.main()
    assert "searches of C6 given up undecided: 9" == capsys.readouterr().out.splitlines()[-1]
