"""Steps of a restore, and jobs that wait for an admin's word."""

from msgspec.structs import replace

from tests.unit.backup.test_fates import job
from tests.unit.replica.machines import Driven
from timemachine import codec
from timemachine.identifiers import webhook_id
from timemachine.model import JobRecord, JobState, Queue
from timemachine.replica import commands as c
from timemachine.replica.results import DueInserted


def _restore(driven: Driven, *items: tuple[str, JobRecord], part: int = 0, number: int = 0) -> str:
    command = c.RestoreJobs(
        now_ms=9,
        restore="r",
        part=part,
        number=number,
        items=[c.RestoreItem(job_id, record) for job_id, record in items],
    )
    (result,) = driven.apply(command)
    return str(result.kind)


PARKED = replace(job(JobState.HELD, 5), queue=int(Queue.PARKED), restored=9)
PENDING = replace(job(JobState.SCHEDULED, 5), restored=9)


def test_a_step_is_done_once() -> None:
    """Of each part the numbers rise; what is not behind the last one is a repeat."""
    driven = Driven()
    assert "restored" == _restore(driven, ("a", PENDING), number=4)
    assert "unchanged" == _restore(driven, ("b", PENDING), number=4)
    assert "unchanged" == _restore(driven, ("b", PENDING), number=3)
    assert "restored" == _restore(driven, ("b", PENDING), part=1, number=0)
    assert driven.machine.read("b") is not None


def test_what_is_there_is_left_alone() -> None:
    """Somebody has made a job of that id since the restore began: it is newer."""
    driven = Driven()
    driven.put("a")
    before = driven.job("a")
    _restore(driven, ("a", PENDING))
    assert before == driven.job("a")


def test_a_parked_job_is_not_due() -> None:
    """The delivery does not hear of it, and a restart does not find it."""
    driven = Driven()
    driven.machine.take_effects()
    _restore(driven, ("a", PARKED))
    assert [] == driven.machine.take_effects()
    assert [] == driven.store.scan(driven.keys.due, driven.keys.due_stop)
    assert 1 == driven.machine.state.counts[JobState.HELD]


def _unpark(driven: Driven, *, drop: bool) -> None:
    record = driven.job("a")
    item = c.PendingItem("a", record.uid, record.version, record.attempts)
    driven.apply(c.Unpark(now_ms=20, items=[item], drop=drop))


def test_a_parked_job_is_sent_under_its_webhook_id() -> None:
    """Recipients recognise it, if the cluster that was backed up has sent it since."""
    driven = Driven()
    _restore(driven, ("a", PARKED))
    driven.machine.take_effects()
    _unpark(driven, drop=False)
    record = driven.job("a")
    assert (JobState.RETRYING, Queue.DUE) == (record.state, record.queue)
    assert (PARKED.uid, PARKED.version) == (record.uid, record.version)
    assert any(isinstance(each, DueInserted) for each in driven.machine.take_effects())


def test_a_parked_job_is_dropped_with_a_reason() -> None:
    """It is dead, listed and redrivable."""
    driven = Driven()
    _restore(driven, ("a", PARKED))
    _unpark(driven, drop=True)
    assert (JobState.DEAD, "expired") == (driven.job("a").state, driven.job("a").reason)


def test_a_job_that_its_route_holds_is_not_unparked() -> None:
    """Only what a restore holds is the admin's to decide."""
    driven = Driven()
    driven.put("a")
    record = driven.job("a")
    seen = c.PendingItem("a", record.uid, record.version, record.attempts)
    driven.apply(c.Wait(now_ms=3, items=[seen], held=True))
    _unpark(driven, drop=True)
    assert JobState.HELD == driven.job("a").state


def test_a_parked_job_can_be_run_cancelled_and_moved() -> None:
    """As any other pending job; its rows go with it."""
    for command in (
        c.RunJob(now_ms=20, job_id="a"),
        c.DeleteJob(now_ms=20, job_id="a"),
        c.DeleteJob(now_ms=20, job_id="a", purge=True),
        c.PatchJob(now_ms=20, job_id="a", trigger_ms=90),
    ):
        driven = Driven()
        _restore(driven, ("a", PARKED))
        driven.apply(command)
        found = driven.machine.read("a")
        assert found is None or found.queue != Queue.PARKED
        assert 0 == driven.machine.state.counts[JobState.HELD] or found is not None


def test_another_version_of_a_restored_job_has_another_webhook_id() -> None:
    """Named regression: two contents under one webhook-id.

    The cluster that was backed up may have made a version 4 of it since, and sent it. A recipient
    would take ours, with another content, for a repeat of that one.
    """
    driven = Driven()
    _restore(driven, ("a", PENDING))
    restored = driven.job("a")
    assert PENDING.uid == restored.uid
    driven.apply(c.PatchJob(now_ms=20, job_id="a", trigger_ms=90))
    changed = driven.job("a")
    assert restored.version + 1 == changed.version
    theirs = webhook_id(restored.uid, changed.version, 0)
    assert theirs != webhook_id(changed.uid, changed.version, 0)
    driven.apply(c.PatchJob(now_ms=21, job_id="a", trigger_ms=91))
    assert changed.uid == driven.job("a").uid
    # Another restore of the same backup makes yet another one.
    other = Driven()
    _restore(other, ("a", replace(PENDING, restored=10)))
    other.apply(c.PatchJob(now_ms=20, job_id="a", trigger_ms=90))
    assert other.job("a").uid != changed.uid


def test_the_bytes_of_the_commands() -> None:
    """As they stand in logs; any change of them is a change of the format."""
    item = c.RestoreItem("a", job(JobState.SCHEDULED, 5), b"m", [(4, b"t")])
    step = c.RestoreJobs(now_ms=1, restore="r", part=2, number=3, items=[item])
    record = (
        "dc0020" + "c410" + "75" * 16 + "030032c0a568656c6c6f029001020501010104"
        "00c0c0c0c0c0000009c40131c400000000c400c0c0"
    )
    expected = "01919714a17202039194a161" + record + "c4016d919204c401749001"
    assert bytes.fromhex(expected) == codec.encode([step])
    seen = c.PendingItem("a", b"u", 2, 3)
    unpark = codec.encode([c.Unpark(now_ms=1, items=[seen], drop=True)])
    assert bytes.fromhex("019194159195a161c40175020300c301") == unpark
