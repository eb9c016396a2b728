"""The job machine against a dumb twin, and its invariants after every entry."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine import codec
from timemachine.backup.fates import fate
from timemachine.events import EventKind
from timemachine.model import (
    AttemptRecord,
    JobRecord,
    JobState,
    PastDue,
    Queue,
    Restore,
    Route,
)
from timemachine.replica import commands as c
from timemachine.replica import ordering
from timemachine.replica.machine import JobMachine
from timemachine.replica.records import (
    BatchRow,
    RouteCounts,
    read_attempt,
    read_batch,
    read_event,
    read_event_count,
    read_job,
    read_turn,
)
from timemachine.replica.results import BulkProgress, ClaimResult
from timemachine.storage.keys import ReplicaKeys, after_prefix, batch_of_due, u32, u64
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

read_listed = codec.decoder(list[tuple[str, int]])

IDS = ["a", "b", "é/x"]
ORDERED = ["k1", "k2", "k3", "k4"]
"""Ids of jobs that have one ordering key."""
TIMES = st.integers(min_value=0, max_value=40)


class Bench:
    """A machine over a memory store, driven entry by entry."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.keys = ReplicaKeys(7)
        self.machine = JobMachine(self.keys, self.overlay)
        self.machine.load(None, [])
        self.index = 0
        self.term = 1
        self.log: list[bytes] = []
        self.bulk_at = b""
        self.redriven: set[str] = set()
        # What there was to tell, by type, and what was written of it, by its number.
        self.to_tell: Counter[str] = Counter()
        self.written: dict[int, str] = {}

    def apply(self, *batch: Any) -> list[Any]:
        """Apply one entry, and make it durable."""
        self.index += 1
        data = codec.encode(list(batch))
        self.log.append(data)
        before = self.jobs()
        results = self.machine.apply(self.index, self.term, data, None)
        self.machine.flush()
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        for command in batch:
            self.expect_events(command, before)
        for result in results:
            if isinstance(result, BulkProgress):
                self.bulk_at = result.cursor
        for command, result in zip(batch, results, strict=True):
            if isinstance(command, c.RedriveJob | c.Bulk):
                self.redriven |= self.jobs().keys()
            elif isinstance(command, c.Claim | c.ClaimBatch):
                self.check_claims(command, result)
        return results

    def expect_events(self, command: Any, before: dict[str, JobRecord]) -> None:
        """What an entry of one command has made worth telling, as its jobs show it."""
        asked = isinstance(command, c.Settle) and any(each.alert for each in command.items)
        for job_id, after in self.jobs().items():
            was = before.get(job_id)
            if was is None or was.uid != after.uid:
                continue
            ended = was.state != after.state
            if ended and after.state == JobState.DELIVERED and was.alerted is not None:
                self.to_tell["job.recovered"] += 1
            elif asked and ended and after.state == JobState.DEAD:
                self.to_tell["job.dead"] += 1
            elif asked and after.state == JobState.RETRYING and was.tries < 4 == after.tries:
                self.to_tell["job.failing"] += 1

    def check_events(self) -> None:
        """Each is written or counted, once, and kept until it is told."""
        state = self.machine.state
        rows = self.store.scan(self.keys.event, after_prefix(self.keys.event), 1000)
        assert len(rows) == state.events_written - state.events_told
        at = len(self.keys.event)
        for key, value in rows:
            self.written[int.from_bytes(key[at:], "big")] = EventKind(read_event(value).kind).text
        assert len(self.written) == state.events_written, "an event was never to be seen"
        found = Counter(self.written.values())
        counts = self.store.scan(self.keys.event_count, after_prefix(self.keys.event_count), 1000)
        assert len(counts) == state.event_counts
        for key, value in counts:
            found[EventKind(key[-1]).text] += read_event_count(value).suppressed
        assert found == self.to_tell

    def check_claims(self, command: c.Claim | c.ClaimBatch, results: list[ClaimResult]) -> None:
        """Nothing is sent again that has succeeded, whenever that was known, unless redriven."""
        for item, result in zip(command.items, results, strict=True):
            if result.holds and item.job_id not in self.redriven:
                rows = self.attempts(item.job_id)
                done = [row for row in rows if row.version == item.version]
                assert not any(row.status == "succeeded" for row in done)

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """All that is kept of a job's attempts, oldest first."""
        start, stop = self.keys.attempts_range(job_id.encode())
        rows = [row for _, row in self.store.scan(start, stop, 1000)]
        job = self.jobs().get(job_id)
        if job is not None and job.delivering:
            rows.append(job.delivering)
        return [read_attempt(row) for row in rows]

    def jobs(self) -> dict[str, Any]:
        """All job rows."""
        start = self.keys.job
        rows = self.store.scan(start, start[:-1] + b"k", 1000)
        return {key[len(start) :].decode(): read_job(value) for key, value in rows}

    def suffixes(self, prefix: bytes) -> set[bytes]:
        """The keys of a table, without its prefix."""
        stop = prefix[:-1] + bytes((prefix[-1] + 1,))
        return {key[len(prefix) :] for key, _ in self.store.scan(prefix, stop, 1000)}

    def batches(self) -> dict[bytes, BatchRow]:
        """All batches that are kept, by their ids."""
        start = self.keys.batch
        rows = self.store.scan(start, after_prefix(start), 1000)
        return {key[len(start) :]: read_batch(value) for key, value in rows}

    def check_batches(self, jobs: dict[str, Any]) -> None:
        """Who is bound is a member; a member that is not under way is bound; nobody is twice."""
        batches = self.batches()
        for name, job in jobs.items():
            if job.batch and job.claim is None:
                assert name in [each.job_id for each in batches[job.batch].members]
                assert job.queue != Queue.NONE
            if job.queue == Queue.DUE:
                value = self.store.get(self.keys.due + u64(job.due_ms) + name.encode())
                assert value is not None
                assert batch_of_due(value) == job.batch
        for batch, row in batches.items():
            assert row.members
            for each in row.members:
                job = jobs[each.job_id]
                assert (each.uid, each.version) == (job.uid, job.version)
                assert batch == (job.batch if job.claim is None else job.claim.batch)

    def check(self) -> None:
        """Every invariant that the machine's docstring lists."""
        self.check_events()
        jobs = self.jobs()
        self.check_batches(jobs)
        due, waiting, states, routes, tags = set(), set(), set(), set(), set()
        counts = [0] * len(JobState)
        per_route: dict[int, RouteCounts] = {}
        for job_id, job in jobs.items():
            raw = job_id.encode()
            counts[job.state] += 1
            place = job.claim.prior if job.claim is not None else job.state
            states.add(bytes((place,)) + u64(job.trigger_ms) + raw)
            routes.add(u64(job.route_uid) + u64(job.trigger_ms) + raw)
            tags |= {tag.encode() + b"\0" + u64(job.trigger_ms) + raw for tag in job.tags}
            terminal = job.state >= JobState.DELIVERED
            assert terminal == (job.queue == Queue.NONE)
            assert terminal == (job.finished_ms > 0)
            assert (job.claim is not None) == (job.state == JobState.FIRING)
            if job.delivering:
                assert job.state == JobState.DELIVERED
                start, _ = self.keys.attempts_range(raw)
                assert self.store.get(start + u32(job.serial)) is None, "an attempt is kept twice"
            if job.state == JobState.SCHEDULED and job.retry_reason is None and not job.order:
                assert job.due_ms == job.trigger_ms + job.smear_ms, "not when it is smeared to"
            if job.queue == Queue.DUE:
                due.add(u64(job.due_ms) + raw)
            if job.queue == Queue.PARKED:
                assert job.state == JobState.HELD
            if job.queue == Queue.WAITING:
                waiting.add(u64(job.route_uid) + u64(job.due_ms) + raw)
            if not terminal:
                route = per_route.setdefault(job.route_uid, RouteCounts())
                route.pending += 1
                route.waiting += job.queue == Queue.WAITING
        state = self.machine.state
        offset = u64(state.offset_due_ms) + state.offset_job_id.encode()
        assert due == self.suffixes(self.keys.due)
        assert all(row >= offset for row in due), "a due row below the offset"
        assert waiting == self.suffixes(self.keys.waiting)
        assert states == self.suffixes(self.keys.state_listing)
        assert routes == self.suffixes(self.keys.route)
        assert tags == self.suffixes(self.keys.tag)
        assert len(due) == self.machine.due_counts.count(0, 100)
        assert counts == state.counts
        assert per_route == self.machine.routes
        finished = {u64(j.finished_ms) + i.encode() for i, j in jobs.items() if j.finished_ms}
        rows = self.suffixes(self.keys.finished)
        assert rows <= finished
        at = len(self.keys.route_attempts) + 8
        told = {
            key[at : at + 8] + i.encode()
            for key, value in self.store.scan(
                self.keys.route_attempts, after_prefix(self.keys.route_attempts), 1000
            )
            for i, _ in read_listed(value)
        }
        assert finished <= rows | told, "an ended job that no purge would find"
        self.check_order(jobs)

    def check_order(self, jobs: dict[str, JobRecord]) -> None:
        """One after the other, of each route and ordering key; compared with a count of all."""
        groups: dict[bytes, dict[str, JobRecord]] = {}
        for job_id, job in jobs.items():
            if job.order is not None and job.state < JobState.DELIVERED:
                groups.setdefault(ordering.group_of(job), {})[job_id] = job
        rows = {
            g + ordering.place_of(i, j) for g, pending in groups.items() for i, j in pending.items()
        }
        assert rows == self.suffixes(self.keys.order)
        turns = {}
        for group in self.suffixes(self.keys.turn):
            row = self.store.get(self.keys.turn + group)
            assert row is not None
            turns[group] = read_turn(row)
        assert groups.keys() == {group for group, turn in turns.items() if turn.count}
        for group, pending in groups.items():
            turn = turns[group]
            places = {job_id: ordering.place_of(job_id, job) for job_id, job in pending.items()}
            begun = {job_id for job_id, job in pending.items() if ordering.is_begun(job)}
            assert turn.count == len(pending)
            assert turn.low <= min(places.values())
            assert turn.at == places[turn.head]
            assert turn.begun == (turn.head in begun)
            assert turn.begun or turn.at == min(places.values())
            assert {Queue.BEHIND} != {pending[turn.head].queue}, "its turn, and it does not know"
            firing = {job_id for job_id in pending if pending[job_id].state == JobState.FIRING}
            assert firing <= {turn.head}
            assert not begun or turn.begun
            head = pending[turn.head]
            if head.queue in (Queue.DUE, Queue.WAITING) and head.claim is None:
                assert turn.begun or head.due_ms >= turn.free_ms


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, str, int, int]]:
    """A random history: (action, job id, time, choice)."""
    actions = st.sampled_from(
        "put post patch delete purge run redrive claim settle_ok settle_retry settle_dead"
        " unclaim wait release give_up offset purge_old late orphan handover bulk"
        " forget_content forget_contents restore unpark aside claim_batch claim_batch claim_again"
        " settle_batch split told close_hours".split()
    )
    ids = st.sampled_from(draw(st.sampled_from([IDS, ORDERED, IDS + ORDERED])))
    step = st.tuples(actions, ids, TIMES, st.integers(0, 3))
    return draw(st.lists(step, max_size=40))


def _command(bench: Bench, action: str, job_id: str, time: int, choice: int, now: int) -> Any:
    job = bench.jobs().get(job_id)
    uid = bytes((now % 256,)) * 16
    seen = [] if job is None else [c.PendingItem(job_id, job.uid, job.version, job.attempts)]
    match action:
        case "put" | "post":
            return c.PutJob(
                now_ms=now,
                job_id=job_id,
                uid=uid,
                trigger_ms=time,
                delay_ms=None,
                route="r" if job_id in IDS or choice < 3 else "s",
                route_uid=choice,
                meta=b"%d" % choice,
                tags=(("odd",) if time % 2 else ()) + (("even", "few") if choice > 2 else ()),
                create_only=action == "post",
                smear_ms=7 * (choice % 2),
                ordering_key="k" if job_id in ORDERED else None,
                placed_ms=now,
            )
        case "patch":
            tags = ("new",) if choice == 1 else None
            route: dict[str, Any] = {"route": "r", "route_uid": 2, "smear_ms": 3}
            return c.PatchJob(
                now_ms=now,
                job_id=job_id,
                trigger_ms=time,
                tags=tags,
                **(route if choice == 2 else {}),
            )
        case "bulk":
            items = [c.BulkItem(other, job.uid, job.version) for other, job in bench.jobs().items()]
            kind = choice % 3
            cursor = b"%d" % now
            return c.Bulk(
                now_ms=now,
                task="t",
                kind=kind,
                items=items,
                after=bench.bulk_at,
                cursor=cursor,
                trigger_ms=time if choice > 2 else None,
                shift_ms=time - 20,
                route_uid=choice,
            )
        case "restore":
            # Any job as a backup may have it, under this id.
            jobs = sorted(bench.jobs().items())
            before = jobs[time % len(jobs)][1] if jobs else None
            found = [] if before is None else [_restored(job_id, before, time, choice)]
            number = now if choice else bench.index  # sometimes a repeat
            return c.RestoreJobs(now_ms=now, restore="s", part=0, number=number, items=found)
        case "unpark":
            return c.Unpark(now_ms=now, items=seen, drop=choice > 1)
        case "forget_content":
            return c.ForgetContent(now_ms=now, job_id=job_id, attempt=1 + choice % 2)
        case "forget_contents":
            both = [(job_id, 1), (job_id, 2)]
            return c.ForgetContents(now_ms=now, before_ms=time, items=both, until_ms=choice)
        case "delete" | "purge":
            return c.DeleteJob(now_ms=now, job_id=job_id, purge=action == "purge")
        case "run":
            return c.RunJob(now_ms=now, job_id=job_id)
        case "redrive":
            new = uid if choice == 3 else b""
            force = choice > 1
            return c.RedriveJob(now_ms=now, job_id=job_id, route_uid=choice, force=force, uid=new)
        case "claim":
            attempt = 1 if job is None else job.attempts + 1
            item = c.ClaimItem(
                job_id, job.uid if job else uid, job.version if job else 1, attempt, now
            )
            return c.Claim(now_ms=now, term=1, items=[item])
        case "claim_batch" | "claim_again":
            return _claim_batch(bench, action, choice, now)
        case "settle_batch" | "split":
            return _settle_batch(bench, action, time, choice, now)
        case "settle_ok" | "settle_retry" | "settle_dead" | "orphan" | "late":
            verdict = {"settle_retry": 1, "settle_dead": 2, "orphan": 1}.get(action, 0)
            back = choice if action == "late" and job and choice < job.attempts else 0
            attempt = 1 if job is None else max(1, job.attempts - back)
            serial = max(1, job.serial - back) if job else 1
            status = "unknown" if action == "orphan" else "failed" if verdict else "succeeded"
            settle = c.SettleItem(
                job_id,
                job.uid if job else uid,
                job.version if job else 1,
                attempt,
                serial,
                verdict,
                _record(attempt, job.version if job else 1, status, fence=bench.index),
                time,
                "exhausted" if verdict == 2 else None,
                alert="ops" if choice < 3 else None,
            )
            if job is None or not job.attempts:
                settle = msgspec.structs.replace(settle, record=b"")  # there was no such attempt
            return c.Settle(now_ms=now, items=[settle])
        case "told":
            return c.EventsTold(now_ms=now, until=time)
        case "close_hours":
            # None of them is over.
            return c.CloseEventHours(
                now_ms=now, counts=sorted(bench.suffixes(bench.keys.event_count))
            )
        case "unclaim" | "handover":
            attempt = 1 if job is None else job.attempts
            item = c.ClaimItem(
                job_id, job.uid if job else uid, job.version if job else 1, attempt, time
            )
            made = c.Handover if action == "handover" else c.Unclaim
            return made(now_ms=now, items=[item])
        case "wait":
            return c.Wait(now_ms=now, items=seen, held=choice > 1)
        case "release":
            return c.Release(now_ms=now, items=seen)
        case "aside":
            return c.StandAside(now_ms=now, items=seen)
        case "give_up":
            return c.GiveUp(now_ms=now, items=seen, reason="route_deleted", error="gone")
        case "offset":
            # As far as a leader that saw everything but the last `choice` entries may believe.
            due = [j.due_ms for j in bench.jobs().values() if j.queue == Queue.DUE]
            low = min([*due, time]) if choice == 0 else time
            seen_index = bench.index if choice == 0 else max(0, bench.index - choice)
            if choice:
                low = min([*due, low])
            return c.MoveOffset(now_ms=now, due_ms=low, job_id="", seen_index=seen_index)
        case _:
            return c.Purge(now_ms=now, before_ms=now - choice, job_ids=IDS + ORDERED)


def _claim_batch(bench: Bench, action: str, choice: int, now: int) -> Any:
    jobs = sorted(bench.jobs().items(), reverse=choice % 2 == 1)
    known = sorted(bench.batches().items())
    again = action == "claim_again" and bool(known)
    batch = b"%016d" % now
    if again:
        batch, row = known[choice % len(known)]
        found = dict(jobs)
        jobs = [(each.job_id, found[each.job_id]) for each in row.members]
        if choice == 3:
            jobs = jobs[1:]  # not as it was: void
    items = [c.ClaimItem(name, j.uid, j.version, j.attempts + 1, now) for name, j in jobs]
    return c.ClaimBatch(
        now_ms=now,
        term=1,
        batch=batch,
        items=items,
        max_bytes=2 + 11 * (1 + choice % 3),
        item_bytes=10,
        again=again,
    )


def _settle_batch(bench: Bench, action: str, time: int, choice: int, now: int) -> Any:
    """What is under way in one batch comes back, all of it or, with `choice` 3, the first part."""
    flying: dict[bytes, list[tuple[str, Any]]] = {}
    for name, job in sorted(bench.jobs().items()):
        if job.claim is not None and job.claim.batch:
            flying.setdefault(job.claim.batch, []).append((name, job))
    if not flying:
        return c.Settle(now_ms=now, items=[])
    batch, members = sorted(flying.items())[choice % len(flying)]
    if choice == 3:
        members = members[:1]
    verdict = 0 if action == "settle_batch" and choice == 0 else 1
    items = [
        c.SettleItem(
            name,
            job.uid,
            job.version,
            job.claim.attempt,
            job.claim.serial,
            verdict,
            _record(
                job.claim.attempt,
                job.version,
                "failed" if verdict else "succeeded",
                fence=bench.index,
            ),
            time,
        )
        for name, job in members
    ]
    split = None
    if action == "split":
        ids = [name for name, _ in members]
        parts = [(b"l%015d" % now, ids[:1]), (b"r%015d" % now, ids[1:])]
        split = c.Split(batch, "jobs", "job", [part for part in parts if part[1]])
    return c.Settle(now_ms=now, items=items, split=split)


def _restored(job_id: str, before: JobRecord, time: int, choice: int) -> c.RestoreItem:
    route = Route(
        uid=choice,
        db="d",
        name="r",
        version=1,
        webhook_url="http://hook.example/",
        created_ms=1,
        updated_ms=1,
        secrets=(),
        delivery="at_most_once" if choice > 2 else "at_least_once",
    )
    restore = Restore("s", "b", 7, time + 1, list(PastDue)[choice % 3])
    found = fate(before, route if choice else None, restore)
    attempts = [] if found.opened is None else [found.opened]
    record = msgspec.structs.replace(found.record, meta=b"1")
    return c.RestoreItem(job_id, record, b"", attempts)


def _record(attempt: int, version: int, status: str, *, fence: int) -> bytes:
    return codec.encode(
        AttemptRecord(
            attempt=attempt,
            version=version,
            status=status,
            node="n",
            term=1,
            fence=fence,
            url="http://hook.example/",
            claimed_ms=2,
            started_ms=2,
            ended_ms=3,
        )
    )


@settings(max_examples=200, deadline=None)
@given(steps())
def test_invariants_hold_after_every_entry(history: list[tuple[str, str, int, int]]) -> None:
    """Whatever is proposed in whatever order, every index, counter and the offset stay right."""
    bench = Bench()
    now = 100
    for action, job_id, time, choice in history:
        now += 1
        bench.apply(_command(bench, action, job_id, time, choice, now))
        bench.check()


@settings(max_examples=50, deadline=None)
@given(steps())
def test_same_log_same_rows(history: list[tuple[str, str, int, int]]) -> None:
    """Replaying the log on an empty machine gives the same rows, byte for byte."""
    bench = Bench()
    now = 100
    for action, job_id, time, choice in history:
        now += 1
        bench.apply(_command(bench, action, job_id, time, choice, now))
    twin = Bench()
    for data in bench.log:
        twin.index += 1
        twin.machine.apply(twin.index, 1, data, None)
    if bench.log:
        twin.machine.flush()
    twin.store.write(twin.store.prepare(twin.overlay.seal()))
    assert bench.store.image() == twin.store.image()


def test_an_unseen_insert_holds_the_offset_down() -> None:
    """A leader that has not seen an insert cannot raise the offset over it (named: lost timer)."""
    bench = Bench()
    first = c.PutJob(
        now_ms=1,
        job_id="late",
        uid=b"u" * 16,
        trigger_ms=50,
        delay_ms=None,
        route="r",
        route_uid=1,
        meta=b"null",
    )
    bench.apply(c.MoveOffset(now_ms=1, due_ms=10, job_id="", seen_index=0))
    seen = bench.index
    bench.apply(first)
    bench.apply(c.MoveOffset(now_ms=1, due_ms=90, job_id="", seen_index=seen))
    bench.check()
    assert 50 == bench.machine.state.offset_due_ms


def _put(job_id: str, uid: bytes, trigger_ms: int) -> c.PutJob:
    return c.PutJob(
        now_ms=1,
        job_id=job_id,
        uid=uid,
        trigger_ms=trigger_ms,
        delay_ms=None,
        route="r",
        route_uid=1,
        meta=b"null",
        create_only=False,
    )


def _attempts(bench: Bench, job_id: str) -> list[tuple[int, int]]:
    """(version, fence) of the attempts that are kept of a job."""
    return [(row.version, row.fence) for row in bench.attempts(job_id)]


def _claimed(bench: Bench, job_id: str) -> c.SettleItem:
    """Claim a job as it is; returns its settle."""
    job = bench.jobs()[job_id]
    claim = c.ClaimItem(job_id, job.uid, job.version, job.attempts + 1, 100)
    ((result,),) = bench.apply(c.Claim(now_ms=2, term=1, items=[claim]))
    mark = result.record.claim
    record = AttemptRecord(
        attempt=mark.attempt,
        version=job.version,
        status="succeeded",
        node="n",
        term=1,
        fence=mark.index,
        url="http://hook.example/",
        claimed_ms=2,
        started_ms=2,
        ended_ms=3,
    )
    return c.SettleItem(
        job_id, job.uid, job.version, mark.attempt, mark.serial, 0, codec.encode(record)
    )


@pytest.mark.parametrize("changes", [0, 1])
def test_an_attempt_of_a_purged_job_is_not_its_successors(changes: int) -> None:
    """Purged in flight, a job settles into nobody: also when its id is another job, also claimed.

    (Named: the list of attempts of an id created anew showed the attempt of the purged job.)
    """
    bench = Bench()
    bench.apply(_put("a", b"1" * 16, 10))
    late = _claimed(bench, "a")
    bench.apply(c.DeleteJob(now_ms=3, job_id="a", purge=True))
    for number in range(changes + 1):
        bench.apply(_put("a", b"2" * 16, 20 + number))
    bench.apply(c.Settle(now_ms=4, items=[late]))
    assert [] == _attempts(bench, "a")
    own = _claimed(bench, "a")
    bench.apply(c.Settle(now_ms=5, items=[late]))
    assert [] == _attempts(bench, "a")
    bench.apply(c.Settle(now_ms=5, items=[own]))
    bench.apply(c.Settle(now_ms=6, items=[late]))
    assert [(1 + changes, bench.index - 3)] == _attempts(bench, "a")
    bench.check()


def test_an_attempt_of_an_earlier_life_is_kept() -> None:
    """Deleted in flight and put anew, the id keeps both attempts, whenever the first one ends."""
    bench = Bench()
    bench.apply(_put("a", b"1" * 16, 10))
    first = _claimed(bench, "a")
    bench.apply(c.DeleteJob(now_ms=3, job_id="a"))
    bench.apply(_put("a", b"2" * 16, 20))
    second = _claimed(bench, "a")
    bench.apply(c.Settle(now_ms=5, items=[second]))
    bench.apply(c.Settle(now_ms=6, items=[first]))
    assert [1, 2] == [version for version, _ in _attempts(bench, "a")]
    bench.check()
