"""One job machine for these tests, driven entry by entry."""

from typing import Any

from timemachine import codec
from timemachine.model import AttemptRecord, AttemptStatus, ClaimMark, JobRecord
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine
from timemachine.replica.records import read_attempt
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

UID = b"u" * 16


class Driven:
    """A machine over a memory store; `term` is that of the entries from now on."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.keys = ReplicaKeys(7)
        self.machine = JobMachine(self.keys, self.overlay)
        self.machine.load(None, [])
        self.index = 0
        self.term = 1

    def apply(self, *batch: Any) -> list[Any]:
        """Apply one entry, make it durable, and return its results."""
        self.index += 1
        data = codec.encode(list(batch))
        results = self.machine.apply(self.index, self.term, data, None)
        self.machine.flush()
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        return results

    def put(self, job_id: str, trigger_ms: int = 10) -> None:
        """Create a job, or make another version of it."""
        self.apply(
            c.PutJob(
                now_ms=1,
                job_id=job_id,
                uid=UID,
                trigger_ms=trigger_ms,
                delay_ms=None,
                route="r",
                route_uid=1,
                meta=b"null",
            )
        )

    def job(self, job_id: str) -> JobRecord:
        """A job as it is."""
        record = self.machine.read(job_id)
        assert record is not None
        return record

    def claim(self, job_id: str) -> ClaimMark:
        """Claim the next attempt of a job."""
        job = self.job(job_id)
        item = c.ClaimItem(job_id, job.uid, job.version, job.attempts + 1, 100)
        ((result,),) = self.apply(c.Claim(now_ms=2, term=self.term, items=[item]))
        assert result.holds
        mark: ClaimMark = result.record.claim
        return mark

    def settle(
        self, job_id: str, mark: ClaimMark, status: AttemptStatus, *, version: int = 1
    ) -> None:
        """Commit what became of an attempt, however late: retries are due at 50."""
        record = AttemptRecord(
            attempt=mark.attempt,
            version=version,
            status=status.value,
            node="n",
            term=mark.term,
            fence=mark.index,
            url="http://hook.example/",
            claimed_ms=2,
            started_ms=2,
            ended_ms=3,
        )
        verdict = c.VERDICT_DELIVERED if status is AttemptStatus.SUCCEEDED else c.VERDICT_RETRY
        item = c.SettleItem(
            job_id, UID, version, mark.attempt, mark.serial, verdict, codec.encode(record), 50
        )
        self.apply(c.Settle(now_ms=4, items=[item]))

    def hand_over(self, job_id: str, mark: ClaimMark, deadline_ms: int) -> None:
        """Mark the open claim of a job."""
        job = self.job(job_id)
        item = c.ClaimItem(job_id, job.uid, job.version, mark.attempt, deadline_ms)
        self.apply(c.Handover(now_ms=3, items=[item]))

    def status(self, job_id: str, serial: int) -> str:
        """What is known of an attempt."""
        row = self.machine.read_attempt(job_id.encode(), self.job(job_id), serial)
        assert row is not None
        return read_attempt(row).status

    def listed(self) -> int:
        """How many attempts are listed with routes."""
        start = self.keys.route_attempts
        stop = start[:-1] + bytes((start[-1] + 1,))
        lists = codec.decoder(list[tuple[str, int]])
        return sum(len(lists(row)) for _, row in self.store.scan(start, stop, 1000))
