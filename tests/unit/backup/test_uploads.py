"""Pages on their way into a cluster: bounded, and refused where they make no sense."""

import pytest
from msgspec.structs import replace

from tests.unit.backup.test_fates import CLAIM, ROUTE, job
from timemachine import codec, limits
from timemachine.backup.pages import Page
from timemachine.backup.uploads import (
    Upload,
    UploadedJob,
    commands_of,
    read_upload,
    uploads_of,
    written_upload,
)
from timemachine.errors import CodecError
from timemachine.model import AttemptRecord, JobRecord, JobState, Order, PastDue, Restore
from timemachine.ring import vnode_of

ATTEMPT = AttemptRecord(
    attempt=1,
    version=1,
    status="failed",
    node="n",
    term=1,
    fence=1,
    url="https://x/",
    claimed_ms=1,
    started_ms=1,
    ended_ms=1,
)
RESTORE = Restore("r", "b", 9, 1_000, PastDue.HOLD)


def _page(count: int, meta: bytes, attempts: int = 0) -> Page:
    record = codec.encode(job(JobState.SCHEDULED, 2_000, meta=None, serial=9))
    ids = [b"%04d" % number for number in range(count)]
    rows = [
        (raw_id + b"\0" + serial.to_bytes(4, "big"), b"a" * 1_000)
        for raw_id in ids
        for serial in range(1, attempts + 1)
    ]
    return Page(3, None, [(each, record) for each in ids], [(each, meta) for each in ids], rows)


def test_uploads_and_commands_are_bounded_and_in_order() -> None:
    """A page may be far larger than what a request, or an entry of the log, carries."""
    page = _page(60, b"1" * 200_000)
    uploads = list(uploads_of(page, 5, {2: "hello"}))
    assert 1 < len(uploads)
    assert [each[0] for each in page.jobs] == [row.id for each in uploads for row in each.jobs]
    numbers = []
    for upload in uploads:
        assert len(written_upload(upload)) < limits.RESTORE_UPLOAD_BYTES + limits.META_BYTES_MAX
        again = read_upload(written_upload(upload))
        commands, counts = commands_of(again, RESTORE, 3, lambda _: ROUTE, 7)
        assert {"pending": len(upload.jobs)} == counts
        for steps in commands.values():
            numbers.append([step.number for step in steps])
            for step in steps:
                assert (5, "r") == (step.part, step.restore)
                assert len(codec.encode([step])) < limits.ENTRY_BYTES_MAX
    assert all(each == sorted(set(each)) for each in numbers)


def test_numbers_rise_from_page_to_page() -> None:
    """Else a step of a later page would be taken for a repeat."""
    first = list(uploads_of(_page(60, b"1" * 200_000), 0, {}))[-1]
    later = next(uploads_of(replace(_page(1, b"1"), number=4), 0, {}))
    assert first.number + (1 << 16) <= later.number


def test_jobs_are_few_at_once() -> None:
    """Named regression: small jobs came 10,000 in a request, and held up all sends of a node."""
    page = _page(5_000, b"1")
    uploads = list(uploads_of(page, 0, {2: "hello"}))
    assert [2_000, 2_000, 1_000] == [len(each.jobs) for each in uploads]
    commands, _ = commands_of(uploads[0], RESTORE, 1, lambda _: ROUTE, 7)
    assert [500] * 4 == [len(step.items) for step in commands[0]]
    assert [each.number for each in uploads] == sorted({each.number for each in uploads})


def test_the_newest_attempts_are_kept() -> None:
    """As many as fit beside the job in one command."""
    page = _page(1, b"1", attempts=9)
    (upload,) = uploads_of(page, 0, {})
    assert list(range(1, 10)) == [serial for serial, _ in upload.jobs[0].attempts]
    many = [(b"0000\0" + n.to_bytes(4, "big"), b"a" * 40_000) for n in range(1, 10)]
    (upload,) = uploads_of(replace(page, attempts=many), 0, {})
    assert [4, 5, 6, 7, 8, 9] == [serial for serial, _ in upload.jobs[0].attempts]


@pytest.mark.parametrize(
    "record",
    [
        job(JobState.SCHEDULED, 5, uid=b"short"),
        job(JobState.FIRING, 5),
        replace(job(JobState.DEAD), state=9),
        job(JobState.SCHEDULED, -1),
        job(JobState.SCHEDULED, 5, trigger_ms=1 << 60),
        job(JobState.SCHEDULED, 5, meta=None),
        job(JobState.SCHEDULED, 5, tags=("\0",)),
        job(JobState.SCHEDULED, 5, serial=-1),
        job(JobState.SCHEDULED, 5, finished_ms=60),
        job(JobState.SCHEDULED, 5, delivering=b"none"),
        job(JobState.SCHEDULED, 5, tags=("t",) * 1_000),
    ],
)
def test_what_no_vnode_can_have_held_is_refused(record: JobRecord) -> None:
    """It would break what holds of all jobs."""
    upload = Upload(0, 0, {}, [UploadedJob(b"a", codec.encode(record), b"", [])])
    with pytest.raises(CodecError):
        commands_of(upload, RESTORE, 3, lambda _: None, 7)


@pytest.mark.parametrize(
    "record",
    [
        job(JobState.SCHEDULED, 5, version=1 << 32),
        job(JobState.SCHEDULED, 5, version=0),
        job(JobState.SCHEDULED, 5, attempts=1 << 32),
        job(JobState.SCHEDULED, 5, attempts=-1),
        job(JobState.SCHEDULED, 5, tries=(1 << 64) - 1),
        job(JobState.SCHEDULED, 5, serial=(1 << 31) - 1),
        job(JobState.SCHEDULED, 5, first_claim_ms=(1 << 64) - 1),
        job(JobState.FIRING, 5, claim=replace(CLAIM, serial=1 << 32)),
        job(JobState.FIRING, 5, claim=replace(CLAIM, serial=-1)),
    ],
)
def test_what_cannot_be_applied_does_not_get_into_a_log(record: JobRecord) -> None:
    """Named regression: the rows have no room for such numbers, and no replica got past it."""
    upload = Upload(0, 0, {}, [UploadedJob(b"a", codec.encode(record), b"", [])])
    with pytest.raises(CodecError):
        commands_of(upload, RESTORE, 3, lambda _: None, 7)


KEYED = Order("cart", 7, 3, "before")


def test_a_job_with_an_ordering_key_goes_to_the_vnode_of_the_key() -> None:
    """And its alias to that of its id, in whatever number of vnodes."""
    ids = [f"job-{number}" for number in range(40)]
    row = codec.encode(job(JobState.SCHEDULED, 2_000, order=KEYED))
    plain = codec.encode(job(JobState.SCHEDULED, 2_000))
    jobs = [UploadedJob(each.encode(), row, b"", []) for each in ids]
    jobs.append(UploadedJob(b"plain", plain, b"", []))
    commands, counts = commands_of(Upload(0, 0, {}, jobs), RESTORE, 5, lambda _: ROUTE, 7)
    assert 41 == sum(counts.values())
    items = {each.job_id: vnode for vnode, s in commands.items() for c in s for each in c.items}
    placed = {each.job_id: vnode for vnode, s in commands.items() for c in s for each in c.placed}
    assert {each: vnode_of("cart", 5) for each in ids} | {"plain": vnode_of("plain", 5)} == items
    assert {each: vnode_of(each, 5) for each in ids} == placed


@pytest.mark.parametrize(
    "order",
    [
        replace(KEYED, key=""),
        replace(KEYED, key="x" * 257),
        replace(KEYED, key="a\0b"),
        replace(KEYED, number=0),
        replace(KEYED, number=1 << 62),
        replace(KEYED, turn_ms=-1),
        replace(KEYED, behind="x" * 129),
    ],
)
def test_an_order_that_cannot_be_is_refused(order: Order) -> None:
    """Rows of the order would not hold it."""
    row = codec.encode(job(JobState.SCHEDULED, 5, order=order))
    with pytest.raises(CodecError):
        commands_of(
            Upload(0, 0, {}, [UploadedJob(b"a", row, b"", [])]), RESTORE, 3, lambda _: None, 7
        )


@pytest.mark.parametrize(
    "attempt",
    [
        b"none",
        codec.encode(replace(ATTEMPT, held_up=99)),
        codec.encode(replace(ATTEMPT, version=1 << 40)),
        codec.encode(replace(ATTEMPT, uid=b"short")),
    ],
)
def test_attempts_are_read_before_they_are_restored(attempt: bytes) -> None:
    """Named regression: whoever asked for the job's attempts would have got an error for ever."""
    row = codec.encode(job(JobState.DEAD, serial=1))
    sound = Upload(0, 0, {}, [UploadedJob(b"a", row, b"", [(1, codec.encode(ATTEMPT))])])
    commands_of(sound, RESTORE, 3, lambda _: None, 7)
    upload = Upload(0, 0, {}, [UploadedJob(b"a", row, b"", [(1, attempt)])])
    with pytest.raises(CodecError):
        commands_of(upload, RESTORE, 3, lambda _: None, 7)


def test_ids_and_tags_may_hold_any_characters_but_control_characters() -> None:
    """Named regression: a job whose id has a no-break space could not be restored."""
    row = codec.encode(job(JobState.SCHEDULED, 5, tags=("a\u00a0b", "\u200b")))
    upload = Upload(0, 0, {}, [UploadedJob("x\u00a0/\u2028é".encode(), row, b"", [])])
    _, counts = commands_of(upload, RESTORE, 3, lambda _: ROUTE, 7)
    assert 1 == sum(counts.values())


@pytest.mark.parametrize("raw_id", [b"", b"\xff", b"a\n", b"x" * 200])
def test_an_id_that_cannot_be_is_refused(raw_id: bytes) -> None:
    """Ids are text without control characters, of a bounded length."""
    row = codec.encode(job(JobState.SCHEDULED, 5))
    upload = Upload(0, 0, {}, [UploadedJob(raw_id, row, b"", [])])
    with pytest.raises(CodecError):
        commands_of(upload, RESTORE, 3, lambda _: None, 7)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02\x90", codec.encode((-1, 0, {}, []))])
def test_bytes_that_are_no_upload(data: bytes) -> None:
    """They are refused as such."""
    with pytest.raises(CodecError):
        read_upload(data)
