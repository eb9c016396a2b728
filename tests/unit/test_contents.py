"""What recipients answered is forgotten in time, all of it, and nothing else."""

import pytest

from tests.unit.replica.machines import Driven
from timemachine import codec, limits
from timemachine.contents import Contents, Step
from timemachine.model import AttemptRecord, AttemptStatus, ClaimMark
from timemachine.replica import commands as c
from timemachine.replica.records import read_attempt, whole

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
PASS_MS = limits.CONTENT_PASS_MS


class Scene:
    """A vnode with attempts of two routes, whose leader looks for old answers."""

    def __init__(self) -> None:
        self.log = Driven()
        self.contents = Contents(self.log.keys)
        self.steps: list[Step] = []

    def attempt(
        self,
        job_id: str,
        at_ms: int,
        body: bytes = b"welcome",
        *,
        route_uid: int = 1,
        verdict: int = c.VERDICT_DELIVERED,
        status: AttemptStatus = AttemptStatus.SUCCEEDED,
        mark: ClaimMark | None = None,
    ) -> ClaimMark:
        """An attempt that was answered and settled at a time."""
        log = self.log
        if mark is None:
            if log.machine.read(job_id) is None:
                log.put(job_id)
            mark = log.claim(job_id)
        job = log.job(job_id)
        record = AttemptRecord(
            attempt=mark.attempt,
            version=1,
            status=status.value,
            node="n",
            term=1,
            fence=mark.index,
            url="http://hook.example/",
            claimed_ms=at_ms,
            started_ms=at_ms,
            ended_ms=at_ms,
            response_status=200,
            response_headers=(("server", "s"),) if body else (),
            response_body=body,
        )
        data = codec.encode(record)
        serial = mark.serial
        item = c.SettleItem(
            job_id, job.uid, 1, mark.attempt, serial, verdict, data, at_ms, route_uid=route_uid
        )
        log.apply(c.Settle(now_ms=at_ms, items=[item]))
        return mark

    def read(self, job_id: str, serial: int = 1) -> AttemptRecord:
        """An attempt as it is stored."""
        job = self.log.job(job_id)
        data = self.log.machine.read_attempt(job_id.encode(), job, serial)
        assert data is not None
        return whole(job, read_attempt(data))

    def kept(self, *job_ids: str) -> list[str]:
        """Those whose answers are there."""
        return [each for each in job_ids if self.read(each).response_body]

    def run(self, before_ms: int, *, steps: int = 1_000, now_ms: int | None = None) -> int:
        """Look and forget until nothing is left, or so often; how many steps it took."""
        taken = 0
        while taken < steps:
            now = before_ms + HOUR_MS if now_ms is None else now_ms
            step = self.contents.look(self.log.store, [1, 2, 3], now, before_ms)
            if step is None and self.contents._pass is None:
                break
            taken += 1
            if step is not None:
                self.steps.append(step)
                command = c.ForgetContents(
                    now_ms=now, before_ms=before_ms, items=step.items, until_ms=step.until_ms
                )
                self.log.apply(command)
                self.contents.done(committed=True)
        return taken


@pytest.mark.parametrize("body", [b"welcome", b"x" * 2_000], ids=["in the row", "beside it"])
def test_old_answers_are_forgotten_and_their_attempts_stay(body: bytes) -> None:
    """R97: of all routes, of attempts that delivered and of those that failed."""
    scene = Scene()
    scene.attempt("old", NOW_MS, body)
    scene.attempt("other", NOW_MS + 1, body, route_uid=2)
    scene.attempt("failed", NOW_MS + 2, body, verdict=c.VERDICT_RETRY)
    scene.attempt("young", NOW_MS + HOUR_MS, body)
    before = {name: scene.read(name) for name in ("old", "other", "failed", "young")}
    scene.run(NOW_MS + HOUR_MS)
    assert ["young"] == scene.kept(*before)
    for name in ("old", "other", "failed"):
        after = scene.read(name)
        assert ((), b"", True) == (
            after.response_headers,
            after.response_body,
            after.content_removed,
        )
        assert (before[name].ended_ms, 200) == (after.ended_ms, after.response_status)
    assert before["young"] == scene.read("young")
    assert [] == [key for key, row in scene.log.store.scan(b"", b"\xff", 999) if body * 2 in row]


def test_what_is_done_is_known_to_the_next_leader() -> None:
    """It goes on behind what was forgotten, and reads nothing of that again."""
    scene = Scene()
    for number in range(20):
        scene.attempt(f"j{number}", NOW_MS + number)
    scene.run(NOW_MS + HOUR_MS)
    scene.contents = Contents(scene.log.keys)
    scene.attempt("late", NOW_MS + HOUR_MS)
    assert 1 == scene.run(NOW_MS + HOUR_MS + PASS_MS)
    assert [("late", 1)] == scene.steps[-1].items
    assert 0 == scene.run(NOW_MS + HOUR_MS + PASS_MS)


def test_a_leader_that_is_lost_in_the_middle_loses_nothing() -> None:
    """What it had forgotten is forgotten; the next one finds the rest."""
    scene = Scene()
    names = [f"j{number}" for number in range(1_200)]
    for number, name in enumerate(names):
        scene.attempt(name, NOW_MS + number)
    scene.run(NOW_MS + HOUR_MS, steps=1)
    assert 0 < len(scene.kept(*names)) < len(names)
    assert [0] == [step.until_ms for step in scene.steps]
    scene.contents = Contents(scene.log.keys)
    scene.run(NOW_MS + HOUR_MS)
    assert [] == scene.kept(*names)
    assert all(len(step.items) <= 600 for step in scene.steps), "some at a time"


def test_a_step_that_is_not_committed_is_found_again() -> None:
    """Whatever became of it."""
    scene = Scene()
    scene.attempt("old", NOW_MS)
    before_ms = NOW_MS + HOUR_MS
    step = scene.contents.look(scene.log.store, [1], before_ms + HOUR_MS, before_ms)
    assert step is not None
    scene.contents.done(committed=False)
    assert step == scene.contents.look(scene.log.store, [1], before_ms + HOUR_MS, before_ms)


def test_nothing_to_forget_is_nothing_to_write() -> None:
    """A vnode that rests is not woken; nor one whose recipients say nothing."""
    scene = Scene()
    assert 0 == scene.run(NOW_MS)
    scene.attempt("silent", NOW_MS, b"")
    scene.run(NOW_MS + HOUR_MS)
    assert [] == scene.steps
    assert not scene.read("silent").content_removed


def test_what_may_still_get_an_older_time_waits() -> None:
    """With no retention at all, too: the leader's clock may be behind that of the next."""
    scene = Scene()
    scene.attempt("now", NOW_MS)
    scene.run(NOW_MS + 1, now_ms=NOW_MS + 1)
    assert ["now"] == scene.kept("now")
    later_ms = NOW_MS + limits.FORGET_MARGIN_MS + PASS_MS
    scene.run(later_ms, now_ms=later_ms)
    assert [] == scene.kept("now")


def test_an_outcome_that_is_told_too_late_comes_without_its_answer() -> None:
    """An attempt that was given up as unknown stands where nobody looks any more."""
    scene = Scene()
    mark = scene.attempt("a", NOW_MS, b"", verdict=c.VERDICT_RETRY, status=AttemptStatus.UNKNOWN)
    scene.attempt("b", NOW_MS)
    scene.run(NOW_MS + HOUR_MS)
    scene.attempt("a", NOW_MS + HOUR_MS, b"welcome", mark=mark)
    late = scene.read("a")
    assert ("succeeded", b"", True) == (late.status, late.response_body, late.content_removed)
