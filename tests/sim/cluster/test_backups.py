"""Backups of simulated clusters, and where they are restored."""

from typing import Any

import pytest

from tests.sim.cluster.backups import draw_backups
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs, draw
from tests.sim.cluster.restores import RestoreHarness, restoring
from timemachine.model import PastDue

_QUIET = Knobs(
    seed=1,
    num_vnodes=2,
    backups=2,
    restores=1,
    backup_page_jobs=1,
    backup_page_bytes=400,
    backup_view_ms=10_000,
    safety_ms=6_000.0,
    fault_kinds=0,
)


def _run(**knobs: Any) -> Harness:
    harness = Harness(_QUIET.changed(**knobs))
    result = harness.run()
    assert ([], []) == (result.judgement.broken, result.judgement.undecided)
    return harness


def test_a_backup_is_of_many_pages_and_whole() -> None:
    """Each vnode is in it."""
    harness = _run()
    whole = [backup for backup in harness.backups.taken if backup.whole]
    assert 2 == len(whole)
    assert all(len(pages) > 2 for backup in whole for pages in backup.parts.values())
    assert 4 <= len(harness.history.backups)


def _restored(choice: PastDue) -> RestoreHarness:
    """A cluster that gets a backup, and does this with what is past due."""
    for seed in range(1, 30):
        harness = _run(seed=seed)
        other = restoring(harness)
        assert other is not None
        if other._choice is choice:
            return other
    raise AssertionError(choice)


@pytest.mark.parametrize("choice", list(PastDue))
def test_what_is_restored_is_sent_if_it_is_to_be(choice: PastDue) -> None:
    """With each choice of what becomes of jobs that are past due; what had ended is not."""
    other = _restored(choice)
    assert [] == other.run().judgement.broken
    restoration = other.history.restoration
    assert restoration is not None
    wanted = {each.job for each in restoration.jobs if each.sent}
    assert wanted < {each.job for each in restoration.jobs}
    sent = {webhook.job for webhook in other.history.webhooks if webhook.job.startswith("job-")}
    assert wanted == sent


def test_when_backups_are_taken() -> None:
    """In some seeds; and nothing else is drawn otherwise for that."""
    knobs = _QUIET.changed(backups=3)
    assert 3 == len(draw_backups(knobs))
    assert draw_backups(knobs) == draw_backups(knobs)
    drawn = [draw(seed) for seed in range(300)]
    assert 60 < sum(knobs.backups > 0 for knobs in drawn) < 120
    assert {0, 1, 3, 10} == {knobs.backups for knobs in drawn}
