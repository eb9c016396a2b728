"""Pages cut for the way into a cluster, and the commands that they become there.

The cluster has other vnodes than the one that was backed up: each job goes where its id says. A
page becomes uploads of a bounded size, an upload becomes commands of a bounded size for each vnode.
Both cuts follow from the page alone, and every command has a number that rises through a part: so
whatever is repeated, at whatever place, is done once.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from timemachine import codec, limits
from timemachine.backup.fates import Outcome, fate
from timemachine.backup.pages import Page
from timemachine.errors import CodecError
from timemachine.identifiers import UID_BYTES
from timemachine.model import ClaimMark, HeldUp, JobRecord, Order, Restore, Route
from timemachine.replica import commands as c
from timemachine.replica.records import read_attempt, read_job
from timemachine.replica.states import CANCELLED, FIRING, TERMINAL
from timemachine.ring import vnode_of

_COMMANDS_MAX: Final = 1 << 16
_UPLOADS_MAX: Final = 1 << 12
_SERIAL_BYTES: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TIME_MS_MAX: Final = 1 << 53
"""Retries may be due later than any trigger time."""
_NUMBER_MAX: Final = 1 << 53
"""Rows hold it in eight bytes, and it still rises."""
_COUNT_MAX: Final = 1 << 31
"""Of versions and attempts: rows hold them in four bytes, and they still rise."""
_SERIAL_MAX: Final = 1 << 22
"""A job that is purged has each of its attempts deleted by number, whether it is there or not."""


class UploadedJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job with all that belongs to it: the newest of its attempts, by their serials."""

    id: bytes
    record: bytes
    meta: bytes
    attempts: list[tuple[int, bytes]]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.record) + len(self.meta) + sum([len(row) for _, row in self.attempts])


class Upload(msgspec.Struct, frozen=True, array_like=True):
    """Some jobs of a part of a backup.

    part    the number of the part in the backup
    number  rises through the part; commands have the numbers from it on
    routes  the names of routes by the uids that jobs are bound to
    """

    part: int
    number: int
    routes: dict[int, str]
    jobs: list[UploadedJob]


_read_upload = codec.decoder(Upload)


def written_upload(upload: Upload) -> bytes:
    """An upload as bytes."""
    return codec.encode(upload)


def read_upload(data: bytes) -> Upload:
    """The upload of such bytes. Raises CodecError."""
    upload: Upload = _read_upload(data)
    if not 0 <= upload.number < 1 << 63 or not 0 <= upload.part < 1 << 32:
        raise CodecError("An upload has a number that no backup has.")
    if len(upload.jobs) > limits.RESTORE_UPLOAD_JOBS_MAX:
        raise CodecError("An upload has too many jobs.")
    return upload


def uploads_of(page: Page, part: int, routes: Mapping[int, str]) -> Iterator[Upload]:
    """A page as uploads."""
    metas = dict(page.metas)
    attempts = page.attempts
    at = 0
    jobs: list[UploadedJob] = []
    size = count = 0

    def upload() -> Upload:
        assert count < _UPLOADS_MAX, "each has a megabyte, and a page has not so many"
        number = (page.number * _UPLOADS_MAX + count) * _COMMANDS_MAX
        return Upload(part, number, dict(routes), jobs)

    for raw_id, row in page.jobs:
        start = bisect_left(attempts, raw_id + b"\0", lo=at, key=_key_of)
        at = bisect_left(attempts, raw_id + b"\1", lo=start, key=_key_of)
        kept = _newest(attempts[start:at])
        job = UploadedJob(raw_id, row, metas.get(raw_id, b""), kept)
        full = len(jobs) == limits.RESTORE_UPLOAD_JOBS_MAX
        if jobs and (full or size + job.size > limits.RESTORE_UPLOAD_BYTES):
            yield upload()
            jobs, size, count = [], 0, count + 1
        jobs.append(job)
        size += job.size
    if jobs:
        yield upload()


def _key_of(row: tuple[bytes, bytes]) -> bytes:
    return row[0]


def _newest(rows: list[tuple[bytes, bytes]]) -> list[tuple[int, bytes]]:
    """The newest attempts of a job, as many as may be restored; the oldest first."""
    room = limits.RESTORE_ATTEMPTS_BYTES_MAX
    kept = []
    for key, row in reversed(rows):
        room -= len(row)
        if room < 0:
            break
        kept.append((int.from_bytes(key[-_SERIAL_BYTES:], "big"), row))
    return kept[::-1]


def commands_of(
    upload: Upload,
    restore: Restore,
    num_vnodes: int,
    route_named: Callable[[str], Route | None],
    now_ms: int,
) -> tuple[dict[int, list[c.RestoreJobs]], dict[str, int]]:
    """The commands for each vnode, in their order, and jobs by what becomes of them.

    Raises CodecError for jobs that cannot be.
    """
    steps: dict[int, list[list[c.RestoreItem | c.PlacedId]]] = {}
    sizes: dict[int, int] = {}
    counts: dict[str, int] = {}

    def put(vnode: int, item: c.RestoreItem | c.PlacedId, bytes_: int) -> None:
        lists = steps.setdefault(vnode, [[]])
        size = sizes.get(vnode, 0) + bytes_
        full = len(lists[-1]) == limits.RESTORE_COMMAND_JOBS_MAX
        if lists[-1] and (full or size > limits.RESTORE_COMMAND_BYTES):
            lists.append([])
            size = bytes_
        sizes[vnode] = size
        lists[-1].append(item)

    for job in upload.jobs:
        item, outcome = _item(job, upload.routes, restore, route_named)
        key = item.record.ordering_key
        put(vnode_of(item.record.home(item.job_id), num_vnodes), item, job.size)
        if key is not None:
            placed = c.PlacedId(item.job_id, key)
            put(vnode_of(item.job_id, num_vnodes), placed, len(item.job_id) + len(key))
        counts[outcome.value] = counts.get(outcome.value, 0) + 1
    commands = {
        vnode: [
            c.RestoreJobs(
                now_ms=now_ms,
                restore=restore.id,
                part=upload.part,
                number=upload.number + step,
                items=[each for each in items if isinstance(each, c.RestoreItem)],
                placed=[each for each in items if isinstance(each, c.PlacedId)],
            )
            for step, items in enumerate(lists)
        ]
        for vnode, lists in steps.items()
    }
    return commands, counts


def _item(
    job: UploadedJob,
    routes: Mapping[int, str],
    restore: Restore,
    route_named: Callable[[str], Route | None],
) -> tuple[c.RestoreItem, Outcome]:
    before: JobRecord = read_job(job.record)
    try:
        job_id = job.id.decode()
    except UnicodeDecodeError as error:
        raise CodecError("A job of the backup has an id that is no text.") from error
    _check(job_id, job, before)
    name = routes.get(before.route_uid)
    record, outcome, opened = fate(before, None if name is None else route_named(name), restore)
    attempts = job.attempts
    if opened is not None:
        attempts = [*(row for row in attempts if row[0] != opened[0]), opened]
    return c.RestoreItem(job_id, record, job.meta, attempts), outcome


def _check(job_id: str, job: UploadedJob, record: JobRecord) -> None:
    """Refuse what no vnode can have held: it would break what holds of all jobs.

    Above all what cannot be applied: such an entry would stop each replica of its vnode, for ever.
    """
    times = (record.due_ms, record.finished_ms, record.first_claim_ms)
    sound = (
        1 <= len(job.id) <= limits.JOB_ID_BYTES_MAX
        and not _CONTROL.search(job_id)
        and len(job.record) <= limits.COMMAND_BYTES_MAX
        and len(record.uid) == UID_BYTES
        and 0 < record.version < _COUNT_MAX
        and 0 <= record.attempts < _COUNT_MAX
        and 0 <= record.tries < _COUNT_MAX
        and 0 <= record.trigger_ms <= limits.TIME_MS_MAX
        and 0 <= record.smear_ms <= limits.ROUTE_SMEAR_MS_MAX
        and all(0 <= each <= _TIME_MS_MAX for each in times)
        and len(record.alerted or "") <= limits.NAME_CHARACTERS_MAX
        and 0 <= record.state <= CANCELLED
        and (record.state in TERMINAL or not record.finished_ms)
        and 0 <= record.serial < _SERIAL_MAX
        and 0 < len(job.meta if record.meta is None else record.meta) <= limits.META_BYTES_MAX
        and (record.state == FIRING) == (record.claim is not None)
        and (record.claim is None or _is_sound_claim(record.claim, record))
        and len(record.tags) <= limits.TAGS_COUNT_MAX
        and all(tag and len(tag) < 1024 and not _CONTROL.search(tag) for tag in record.tags)
        and (
            record.order is None
            or (_is_sound_order(record.order) and not _CONTROL.search(record.route))
        )
        and (not record.delivering or _is_attempt(record.delivering))
        and all(0 < serial <= record.serial and _is_attempt(row) for serial, row in job.attempts)
        and sum([len(row) for _, row in job.attempts]) <= limits.RESTORE_ATTEMPTS_BYTES_MAX
    )
    if not sound:
        raise CodecError("A job of the backup is none that a vnode can have held.")


def _is_sound_order(order: Order) -> bool:
    return (
        1 <= len(order.key.encode()) <= limits.ORDERING_KEY_BYTES_MAX
        and not _CONTROL.search(order.key)
        and 0 < order.number <= _NUMBER_MAX
        and 0 <= order.turn_ms <= _TIME_MS_MAX
        and len(order.behind.encode()) <= limits.JOB_ID_BYTES_MAX
    )


def _is_sound_claim(claim: ClaimMark, record: JobRecord) -> bool:
    return (
        0 < claim.serial <= record.serial
        and 0 < claim.attempt <= record.attempts
        and 0 <= claim.claimed_ms <= _TIME_MS_MAX
    )


def _is_attempt(row: bytes) -> bool:
    try:
        attempt = read_attempt(row)
    except CodecError:
        return False
    return (
        0 < attempt.version < _COUNT_MAX
        and len(attempt.uid) in (0, UID_BYTES)
        and 0 <= attempt.held_up < len(HeldUp)
    )
