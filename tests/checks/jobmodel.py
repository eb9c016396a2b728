"""One job as its creators see it: what they ask, what they are told, and what must follow.

The model of `lincheck` for a job. It knows versions, contents and deletions. What only the clock
and the recipients decide (whether an attempt was made, how it ended) it takes as it is told; the
other checks judge that.

What it does not know changes jobs behind its back: bulk tasks, redrives, and the expiry of ended
jobs. A history with those is not judged by it (`promises.linearizable` leaves such jobs out).
"""

from collections.abc import Hashable
from typing import Final, NamedTuple

from tests.checks.lincheck import UNKNOWN, Unknown

# --- what is asked ---------------------------------------------------------------------------


class Put(NamedTuple):
    """PUT, or POST with `create_only`. `due_ms` is None where a delay was given instead.

    `content` is whatever tells one meta, route and tags from others.
    """

    content: Hashable
    due_ms: int | None = None
    create_only: bool = False
    if_match: int | None = None
    if_absent: bool = False


class Patch(NamedTuple):
    """PATCH: None leaves the content or the trigger time as it is."""

    content: Hashable | None = None
    due_ms: int | None = None
    if_match: int | None = None


class Get(NamedTuple):
    """A linearizable read; stale ones are no part of a history."""


class Delete(NamedTuple):
    """DELETE; with `purge` the job is forgotten altogether."""

    purge: bool = False
    if_match: int | None = None


class Run(NamedTuple):
    """Send it now."""


class Redrive(NamedTuple):
    """Send a dead or delivered job again."""


class Bulk(NamedTuple):
    """A bulk task that may move or cancel this job; one that redrives is a `Redrive`."""


Asked = Put | Patch | Get | Delete | Run | Redrive | Bulk

# --- what is answered ------------------------------------------------------------------------


class Written(NamedTuple):
    """A PUT, POST or PATCH was done.

    previous  (version, outcome) of what it replaced; None if it created the job, or changed nothing
    due_ms    the trigger time of the job as it is now, if the answer was kept that far
    """

    version: int
    previous: tuple[int, str] | None = None
    due_ms: int | None = None


class Found(NamedTuple):
    """A job was read. `pending`: attempts may still begin (scheduled, retrying, held)."""

    version: int
    content: Hashable
    due_ms: int | None = None
    pending: bool = False


class Deleted(NamedTuple):
    """A DELETE was done: cancelled, in_flight, already_delivered or already_dead."""

    version: int
    outcome: str


class Refused(NamedTuple):
    """Nothing was done, for a reason that lies in the job itself, not in the cluster's health."""

    code: str


class Absent(NamedTuple):
    """There is no such job."""


class Done(NamedTuple):
    """A run or redrive was accepted."""


Answered = Written | Found | Deleted | Refused | Absent | Done

# --- the model -------------------------------------------------------------------------------

_UNTOLD: Final = "untold"
"""Deleted, but nobody was told the outcome."""


class Job(NamedTuple):
    """A job. `version` 0 is none; `outcome` is what the first DELETE of this version answered."""

    version: int = 0
    content: Hashable = None
    due_ms: int | None = None
    outcome: str | None = None


_NONE: Final = Job()
_EXISTS: Final = Refused("job_exists")
_WITHDRAWN: Final = frozenset({"cancelled", "in_flight"})
"""Outcomes of a DELETE after which no attempt may begin."""


class JobModel:
    """A job that does one thing after the other. See `lincheck.Model`."""

    initial: Final = _NONE

    def step(self, state: Job, asked: Asked, answered: Answered | Unknown) -> Job | None:
        """The job after a call, or None if it could not have got this answer."""
        match asked:
            case Put():
                return _put(state, asked, answered)
            case Patch():
                return _patch(state, asked, answered)
            case Delete():
                return _delete(state, asked, answered)
            case Get():
                return _get(state, answered)
            case _:
                return state


def _put(job: Job, asked: Put, answered: Answered | Unknown) -> Job | None:
    if job.version == 0:
        if asked.if_match is not None:
            return _expect(answered, Refused("precondition_failed"), job)
        return _written(Job(1, asked.content, asked.due_ms), None, answered)
    if asked.if_absent or asked.if_match not in (None, job.version):
        return _expect(answered, Refused("precondition_failed"), job)
    if asked.create_only:
        return _repeated(job, asked, answered)
    return _changed(job, asked.content, asked.due_ms, answered)


def _repeated(job: Job, asked: Put, answered: Answered | Unknown) -> Job | None:
    """A POST for a job that is there repeats the one that made it, or is refused."""
    if answered == _EXISTS:
        same = asked.due_ms is not None and (asked.content, asked.due_ms) == job[1:3]
        return None if same else job
    times = {asked.due_ms, job.due_ms} - {None}
    may_be_same = asked.content == job.content and len(times) < 2
    return _written(job, None, answered) if may_be_same or answered is UNKNOWN else None


def _patch(job: Job, asked: Patch, answered: Answered | Unknown) -> Job | None:
    if job.version == 0:
        return _expect(answered, Absent(), job)
    if asked.if_match not in (None, job.version):
        return _expect(answered, Refused("precondition_failed"), job)
    if answered == Refused("job_finished"):
        return job
    if answered is not UNKNOWN and job.outcome in _WITHDRAWN:
        return None
    content = job.content if asked.content is None else asked.content
    due_ms = job.due_ms if asked.due_ms is None else asked.due_ms
    return _changed(job, content, due_ms, answered)


def _changed(
    job: Job, content: Hashable, due_ms: int | None, answered: Answered | Unknown
) -> Job | None:
    """A job that is there is written: a new version, unless it is what is stored already."""
    if content == job.content and due_ms is not None:
        if due_ms == job.due_ms:
            return _written(job, None, answered)
        if job.due_ms is None and answered == Written(job.version):
            # It was made with a delay, and happened to be due just then.
            return job._replace(due_ms=due_ms)
    return _written(Job(job.version + 1, content, due_ms), job.version, answered)


def _written(after: Job, replaced: int | None, answered: Answered | Unknown) -> Job | None:
    """A write that makes `after` of the job, if it can have been answered so."""
    if answered is UNKNOWN:
        return after
    if not isinstance(answered, Written) or answered.version != after.version:
        return None
    if (answered.previous and answered.previous[0]) != replaced:
        return None
    if answered.due_ms is None:
        return after
    if after.due_ms not in (None, answered.due_ms):
        return None
    return after._replace(due_ms=answered.due_ms)


def _expect(answered: Answered | Unknown, expected: Answered, job: Job) -> Job | None:
    """Nothing is done, and this is what must be said."""
    return job if answered in (UNKNOWN, expected) else None


def _get(job: Job, answered: Answered | Unknown) -> Job | None:
    if job.version == 0:
        return _expect(answered, Absent(), job)
    if answered is UNKNOWN:
        return job
    if not isinstance(answered, Found):
        return None
    if (answered.version, answered.content) != (job.version, job.content):
        return None
    if None not in (job.due_ms, answered.due_ms) and job.due_ms != answered.due_ms:
        return None
    if answered.pending and job.outcome is not None:
        # Also an untold one: whatever that DELETE did, this job would not be pending after it.
        return None
    return job._replace(due_ms=job.due_ms or answered.due_ms)


def _delete(job: Job, asked: Delete, answered: Answered | Unknown) -> Job | None:
    if job.version == 0:
        return _expect(answered, Absent(), job)
    if asked.if_match not in (None, job.version):
        return _expect(answered, Refused("precondition_failed"), job)
    outcome: str | None = job.outcome or _UNTOLD
    if answered is not UNKNOWN:
        if not isinstance(answered, Deleted) or answered.version != job.version:
            return None
        if job.outcome in _WITHDRAWN and answered.outcome != job.outcome:
            return None
        outcome = answered.outcome if answered.outcome in _WITHDRAWN else None
    return _NONE if asked.purge else job._replace(outcome=outcome)
