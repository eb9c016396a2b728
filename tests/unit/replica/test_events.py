"""What a vnode has to tell of its jobs, and how much of it."""

from tests.unit.replica.machines import UID, Driven
from timemachine import codec, limits
from timemachine.events import Event, EventKind
from timemachine.model import AttemptRecord, ClaimMark, JobState
from timemachine.replica import commands as c
from timemachine.replica.records import read_event
from timemachine.storage.keys import after_prefix

HOUR_MS = limits.EVENT_HOUR_MS


class _Failing(Driven):
    """A machine whose attempts fail, for a route that alerts `ops`."""

    def fail(
        self,
        job_id: str,
        *,
        dead: bool = False,
        counts: bool = True,
        alert: str | None = "ops",
        now_ms: int = 4,
    ) -> None:
        """One attempt fails."""
        self.end(job_id, 2 if dead else 1, self.claim(job_id), counts, alert, now_ms)

    def end(
        self,
        job_id: str,
        verdict: int,
        mark: ClaimMark,
        counts: bool = True,
        alert: str | None = "ops",
        now_ms: int = 4,
    ) -> None:
        record = AttemptRecord(
            attempt=mark.attempt,
            version=1,
            status="failed" if verdict else "succeeded",
            node="n",
            term=1,
            fence=mark.index,
            url="http://hook.example/",
            claimed_ms=2,
            started_ms=2,
            ended_ms=3,
            response_status=500 if verdict else 200,
        )
        item = c.SettleItem(
            job_id,
            UID,
            1,
            mark.attempt,
            mark.serial,
            verdict,
            codec.encode(record),
            50,
            "exhausted" if verdict == 2 else "status_500" if verdict else None,
            "no luck" if verdict else None,
            counts,
            1,
            alert,
        )
        self.apply(c.Settle(now_ms=now_ms, items=[item]))

    def deliver(self, job_id: str) -> None:
        """The next attempt succeeds."""
        self.end(job_id, 0, self.claim(job_id), alert=None)

    def waiting(self) -> list[Event]:
        """What is to be told."""
        start = self.keys.event
        rows = self.store.scan(start, after_prefix(start), 10_000)
        state = self.machine.state
        assert state.events_written - state.events_told == len(rows)
        return [read_event(value) for _, value in rows]

    def kinds(self) -> list[tuple[str, str]]:
        """Their types and jobs."""
        return [(EventKind(each.kind).text, each.job_id) for each in self.waiting()]

    def hours(self) -> int:
        """How many hours are open."""
        start = self.keys.event_count
        count = len(self.store.scan(start, after_prefix(start), 10_000))
        assert count == self.machine.state.event_counts
        return count


def test_a_job_is_failing_after_four_attempts_and_told_once() -> None:
    """R56. Attempts that do not count are not the recipient's."""
    log = _Failing()
    log.put("a")
    for _ in range(3):
        log.fail("a")
        log.fail("a", counts=False)
    assert [] == log.waiting()
    log.fail("a")
    (event,) = log.waiting()
    assert ("status_500", "no luck", 500, 7) == (
        event.reason,
        event.error,
        event.status,
        event.attempts,
    )
    assert ("r", "ops", UID, 1) == (event.route, event.alert_route, event.uid, event.version)
    log.fail("a")
    log.fail("a", counts=False)
    assert [("job.failing", "a")] == log.kinds()


def test_a_dead_job_is_told_with_its_reason() -> None:
    """Also where it was not failing before, and again when it was redriven and died again."""
    log = _Failing()
    log.put("a")
    log.fail("a", dead=True)
    (event,) = log.waiting()
    assert ("exhausted", "no luck", 500) == (event.reason, event.error, event.status)
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1))
    log.fail("a", dead=True)
    assert [("job.dead", "a")] * 2 == log.kinds()


def test_who_was_told_that_a_job_fails_is_told_when_it_is_delivered() -> None:
    """Once, also after its death and redrive; a job that was not told as failing is not."""
    log = _Failing()
    log.put("a")
    for _ in range(4):
        log.fail("a")
    log.fail("a", dead=True)
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1))
    log.deliver("a")
    log.put("b")
    log.fail("b")
    log.deliver("b")
    assert [("job.failing", "a"), ("job.dead", "a"), ("job.recovered", "a")] == log.kinds()
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1, force=True))
    log.deliver("a")
    assert 3 == len(log.waiting())


def test_a_late_success_recovers_too() -> None:
    """An attempt that was given up as unknown, and ended the job, did succeed."""
    log = _Failing()
    log.put("a")
    mark = log.claim("a")
    log.end("a", 2, mark)
    assert JobState.DEAD == log.job("a").state
    late = AttemptRecord(
        attempt=1,
        version=1,
        status="succeeded",
        node="n",
        term=1,
        fence=mark.index,
        url="",
        claimed_ms=2,
        started_ms=2,
        ended_ms=3,
    )
    # What was stored of it is known to have failed: told twice, it changes nothing.
    item = c.SettleItem("a", UID, 1, 1, mark.serial, 0, codec.encode(late))
    log.apply(c.Settle(now_ms=6, items=[item]))
    assert [("job.dead", "a")] == log.kinds()
    # Without a record it is nothing but a success.
    log.apply(c.Settle(now_ms=6, items=[c.SettleItem("a", UID, 1, 1, mark.serial, 0, b"")]))
    assert [("job.dead", "a"), ("job.recovered", "a")] == log.kinds()


def test_a_new_version_of_a_failing_job_recovers_it_and_a_new_life_does_not() -> None:
    """Its creator has changed what is sent; what was dead and is created again is another job."""
    log = _Failing()
    for job_id in ("a", "b"):
        log.put(job_id)
        for _ in range(4):
            log.fail(job_id)
    log.put("a", 20)
    log.fail("b", dead=True)
    log.put("b", 20)
    assert ("ops", None) == (log.job("a").alerted, log.job("b").alerted)


def test_without_an_alert_route_nothing_is_written() -> None:
    """Neither an event nor a count."""
    log = _Failing()
    log.put("a")
    for _ in range(4):
        log.fail("a", alert=None)
    log.fail("a", dead=True, alert=None)
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1))
    log.deliver("a")
    assert ([], 0) == (log.waiting(), log.hours())


def _die(log: _Failing, count: int, now_ms: int) -> None:
    for number in range(count):
        job_id = f"{now_ms}/{number}"
        log.put(job_id)
        log.fail(job_id, dead=True, now_ms=now_ms)


def test_a_flood_is_counted_and_told_when_the_hour_is_over() -> None:
    """One dead route with many jobs is ten events and a number, not as many events as jobs."""
    log = _Failing()
    most = limits.EVENTS_PER_HOUR_MAX
    _die(log, most + 7, 1_000)
    assert (most, 1) == (len(log.waiting()), log.hours())
    start = log.keys.event_count
    ((key, _),) = log.store.scan(start, after_prefix(start), 10)
    suffix = key[len(start) :]
    log.apply(c.CloseEventHours(now_ms=HOUR_MS, counts=[suffix]))
    assert 1 == log.hours(), "it is not over yet"
    log.apply(c.CloseEventHours(now_ms=1_000 + HOUR_MS, counts=[suffix, suffix, b"other"]))
    event = log.waiting()[-1]
    assert (EventKind.SUPPRESSED, 7, EventKind.DEAD, "r", "ops") == (
        event.kind,
        event.count,
        event.of,
        event.route,
        event.alert_route,
    )
    assert (most + 1, 0) == (len(log.waiting()), log.hours())


def test_an_hour_that_nobody_closed_ends_with_the_next_event() -> None:
    """Its count comes first, then the event."""
    log = _Failing()
    _die(log, limits.EVENTS_PER_HOUR_MAX + 2, 1_000)
    _die(log, 1, 1_000 + HOUR_MS)
    kinds = [EventKind(each.kind) for each in log.waiting()[-2:]]
    assert [EventKind.SUPPRESSED, EventKind.DEAD] == kinds
    assert (2, 1) == (log.waiting()[-2].count, log.hours())


def test_a_job_whose_failing_was_only_counted_does_not_recover() -> None:
    """Nobody was told of it."""
    log = _Failing()
    _die(log, limits.EVENTS_PER_HOUR_MAX, 1_000)
    log.put("a")
    log.fail("a", dead=True, now_ms=1_000)
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1))
    log.deliver("a")
    assert limits.EVENTS_PER_HOUR_MAX == len(log.waiting())


def test_what_waits_to_be_told_is_bounded() -> None:
    """Where nothing can be told for long, what comes is counted, recoveries too."""
    log = _Failing()
    log.put("a")
    log.fail("a", dead=True)
    log.machine.state.events_told -= limits.EVENTS_WAITING_MAX
    log.apply(c.RedriveJob(now_ms=5, job_id="a", route_uid=1))
    log.deliver("a")
    _die(log, 1, 9)
    log.machine.state.events_told += limits.EVENTS_WAITING_MAX
    assert ([("job.dead", "a")], 2) == (log.kinds(), log.hours())


def test_what_is_told_is_forgotten_once() -> None:
    """A repeat that comes late takes nothing that came since."""
    log = _Failing()
    _die(log, 3, 1_000)
    log.apply(c.EventsTold(now_ms=1, until=2))
    assert [("job.dead", "1000/2")] == log.kinds()
    log.apply(c.EventsTold(now_ms=1, until=2))
    log.apply(c.EventsTold(now_ms=1, until=1))
    assert 1 == len(log.waiting())
    log.apply(c.EventsTold(now_ms=1, until=99))
    _die(log, 1, 2_000)
    assert [("job.dead", "2000/0")] == log.kinds()
