"""What has been kept long enough is forgotten: ended jobs, attempts by route, stored answers."""

from timemachine import codec
from timemachine.replica import commands as c
from timemachine.replica.creators import ANSWERS
from timemachine.replica.records import read_attempt, whole, without_content
from timemachine.replica.rows import JobRows
from timemachine.replica.states import TERMINAL
from timemachine.storage.keys import u64


def purge(rows: JobRows, command: c.Purge) -> None:
    """Forget ended jobs and rows of attempts by route, as far as they are older."""
    for job_id in command.job_ids:
        record = rows.read(job_id)
        if record is None or record.state not in TERMINAL:
            continue
        if record.finished_ms < command.before_ms:
            rows.erase(job_id, job_id.encode(), record)
    before = u64(command.before_ms)
    for row in command.attempt_rows:
        if row[8:16] < before:
            rows.overlay.delete(rows.keys.route_attempts + row)


def forget_contents(rows: JobRows, command: c.ForgetContents) -> None:
    """Forget what recipients answered, and remember up to when that is done."""
    for job_id, serial in command.items:
        record = rows.read(job_id)
        if record is None:
            continue
        raw_id = job_id.encode()
        data = rows.read_attempt(raw_id, record, serial)
        if data is None:
            continue
        attempt = read_attempt(data)
        if whole(record, attempt).settled_ms < command.before_ms:
            emptied = codec.encode(without_content(attempt))
            rows.store_attempt(raw_id, record, serial, emptied)
    if command.until_ms:
        rows.overlay.put(rows.keys.contents, u64(command.until_ms))


def forget(rows: JobRows, command: c.Forget) -> None:
    """Forget stored answers."""
    ANSWERS.forget(rows, command.requests)
