"""Why a job was late: what happened to its version, and where the time since it was due went. Pure.

All of it is told from what is kept: the job, its attempts, and who led its vnode when something was
claimed. Times are by the clocks of the nodes that did it, so what comes out negative counts as 0.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from timemachine.identifiers import batch_id
from timemachine.model import (
    PENDING_STATES,
    AttemptRecord,
    AttemptStatus,
    HeldUp,
    JobRecord,
    JobState,
    Leadership,
    Queue,
)
from timemachine.smearing import first_due_ms

IN_TIME_MS: Final = 100
"""Up to here nothing is to be explained."""

PHASES: Final[dict[str, str]] = {
    "accept": "before this version was created",
    "leader": "while no leader fired for its vnode",
    "wait": "while it waited for its turn",
    "claim": "until its claim was committed and it was sent",
    "connection": "while it waited for a connection to be free",
    "resolve": "resolving the recipient's name",
    "connect": "connecting to the recipient",
    "tls": "shaking hands with the recipient",
    "answer": "until the recipient answered",
    "body": "while the recipient sent its answer",
    "lost": "until an attempt was given up whose leader was lost",
    "settle": "until an outcome was committed",
    "retry": "until the next attempt was due, since one had failed",
    "redrive": "after it had ended, until somebody had it sent again",
}
"""What passed, as it ends a sentence that begins with how long that took."""

HELD_UP_BY: Final[dict[str, str]] = {
    "in_flight": "while its route had as many attempts in flight as it may",
    "rate": "while its route had begun as many attempts as its rate allows",
    "recipient": "while its route waited because its recipient was overloaded",
    "route": "while its route was paused, disabled, failing or far behind",
    "node": "while its node had as many attempts in flight as it may",
    "batch": "while its batch waited for other jobs",
    "missing": "while there was no such route",
    "restore": "while it was held by a restore",
    "order": "while an earlier job of its ordering key had not ended",
}
"""The phase `wait` by its reason."""

_RESTS: Final = {
    "resolve": "resolve",
    "connect": "connect",
    "tls": "tls",
    "send": "answer",
    "headers": "answer",
    None: "connection",
}
"""Where the time went of an attempt that failed there."""
_UNKNOWN: Final = AttemptStatus.UNKNOWN.value


class Phase(msgspec.Struct, frozen=True):
    """Where some time went, of which attempt, and why."""

    phase: str
    attempt: int | None
    from_ms: int
    duration_ms: float
    reason: str | None = None


class Step(msgspec.Struct, frozen=True):
    """Something that happened to the job. `node` is a number, or an id where that was kept."""

    step: str
    time_ms: int
    attempt: int | None = None
    term: int | None = None
    node: int | str | None = None
    detail: str | None = None


class Explanation(msgspec.Struct, frozen=True):
    """What happened, where the time went, and that in one sentence.

    late_ms  how late the first attempt of this version began, or is by now; None where it is not
             due, or somebody asked for it
    """

    sentence: str
    late_ms: int | None
    steps: list[Step]
    phases: list[Phase]


class Facts(NamedTuple):
    """What is kept of a job.

    attempts  of this version, the oldest first
    leaders   the last ones of its vnode, the oldest first
    closed    why nothing is sent by its route: paused, disabled, missing; None if it is open
    ahead     the id of the job whose turn it is among those of its route and ordering key, if that
              is another one
    """

    record: JobRecord
    attempts: Sequence[AttemptRecord]
    leaders: Sequence[Leadership]
    closed: str | None
    now_ms: int
    ahead: str | None = None


def explain(facts: Facts) -> Explanation:
    """Why a job was late, or is."""
    phases = [each for each in _phases(facts) if each.duration_ms > 0]
    late_ms = _late_ms(facts)
    sentence = _sentence(facts, phases)
    # Attempts are claimed a little before they are due: nothing but the times gives the order.
    steps = sorted(_steps(facts), key=lambda each: each.time_ms)
    return Explanation(sentence, late_ms, steps, phases)


def accepted_ms(record: JobRecord) -> int:
    """When this version of a job was taken."""
    # Of one that was deleted the last change is that.
    return record.created_ms if record.outcome is not None else record.updated_ms


def _due_ms(record: JobRecord) -> int:
    """When the first attempt of this version was due."""
    return first_due_ms(record.trigger_ms, record.smear_ms)


def _asked_for(attempt: AttemptRecord) -> bool:
    return attempt.trigger in ("manual", "redrive")


def _late_ms(facts: Facts) -> int | None:
    record = facts.record
    if facts.attempts:
        first = facts.attempts[0]
        if first.attempt != 1 or _asked_for(first):
            return None
        return first.started_ms - _due_ms(record)
    if record.state not in PENDING_STATES or facts.now_ms < _due_ms(record):
        return None
    return facts.now_ms - _due_ms(record)


# --- steps ---------------------------------------------------------------------------------


def _node_of(leaders: Sequence[Leadership], term: int) -> int | None:
    return next((each.node for each in reversed(leaders) if each.term == term), None)


def _steps(facts: Facts) -> Iterator[Step]:
    record, leaders = facts.record, facts.leaders
    term = record.accepted_term or None
    node = None if term is None else _node_of(leaders, term)
    version = None if record.version == 1 else f"version {record.version}"
    yield Step("accepted", accepted_ms(record), None, term, node, version)
    if record.state != JobState.CANCELLED or facts.attempts:
        yield Step("due", _due_ms(record))
    for each in facts.attempts:
        by = each.attempt, each.term, each.node or _node_of(leaders, each.term)
        if each.due_ms != _due_ms(record):
            yield Step("due", each.due_ms, each.attempt, None, None, _why(record, each))
        yield Step("claimed", each.claimed_ms, *by, _in_batch(each.batch, each.batch_size))
        if each.status == _UNKNOWN:
            yield Step("given up", each.ended_ms, *by, each.error_message)
        else:
            yield Step("sent", each.started_ms, *by, each.url)
            step = "failed" if each.response_status is None else "answered"
            yield Step(step, each.ended_ms, *by, _outcome(each))
        if each.settled_ms:
            term = each.settled_term
            settler = by[2] if term == each.term else _node_of(leaders, term)
            yield Step("settled", each.settled_ms, each.attempt, term, settler)
    claim = record.claim
    if claim is not None:
        handed = "handed over by a leader" if claim.handed_over else None
        detail = _joined(_in_batch(claim.batch), handed)
        number = _node_of(leaders, claim.term)
        yield Step("claimed", claim.claimed_ms, claim.attempt, claim.term, number, detail)
    elif record.queue == Queue.BEHIND:
        yield Step("behind", record.due_ms, record.attempts + 1, None, None, _job(facts.ahead))
    elif record.state in PENDING_STATES and record.attempts and record.queue:
        detail = _joined(record.retry_reason, _in_batch(record.batch))
        yield Step("due", record.due_ms, record.attempts + 1, None, None, detail)
    elif record.state == JobState.CANCELLED:
        yield Step("cancelled", record.finished_ms)
    elif record.state == JobState.DEAD:
        yield Step("dead", record.finished_ms, detail=record.reason)


def _why(record: JobRecord, attempt: AttemptRecord) -> str | None:
    if _is_turn(record, attempt):
        assert record.order is not None
        return f"after {_job(record.order.behind)}"
    return None if attempt.trigger == "scheduled" else attempt.trigger


def _in_batch(batch: bytes, size: int = 0) -> str | None:
    """With which request for several jobs."""
    if not batch:
        return None
    of = f" of {size}" if size else ""
    return f"in batch {batch_id(batch)}{of}"


def _joined(*parts: str | None) -> str | None:
    return ", ".join(each for each in parts if each) or None


def _job(job_id: str | None) -> str | None:
    return f"job {job_id}" if job_id else None


def _is_turn(record: JobRecord, attempt: AttemptRecord) -> bool:
    """Whether an attempt was due when the job got its turn, and not before."""
    order = record.order
    return order is not None and bool(order.behind) and order.turn_ms == attempt.due_ms


def _outcome(attempt: AttemptRecord) -> str:
    if attempt.response_status is None:
        told = attempt.error_code, attempt.error_message
        return ": ".join(each for each in told if each)
    return f"{attempt.response_status}, {attempt.status}"


# --- phases --------------------------------------------------------------------------------


def _phases(facts: Facts) -> Iterator[Phase]:
    record = facts.record
    at_ms = _due_ms(record)
    if record.state == JobState.CANCELLED and not facts.attempts:
        return
    accepted = accepted_ms(record)
    if facts.attempts:
        accepted = min(accepted, facts.attempts[0].claimed_ms)
    elif record.state not in PENDING_STATES:
        accepted = min(accepted, record.finished_ms)
    if accepted > at_ms:
        yield Phase("accept", None, at_ms, accepted - at_ms)
        at_ms = accepted
    for each in facts.attempts:
        if each.due_ms > at_ms and _is_turn(record, each):
            yield Phase("wait", each.attempt, at_ms, each.due_ms - at_ms, "order")
            at_ms = each.due_ms
        elif each.due_ms > at_ms:
            yield _pause(each.trigger, each.attempt, at_ms, each.due_ms)
            at_ms = each.due_ms
        yield from _waiting(facts, each, at_ms)
        at_ms = max(at_ms, each.claimed_ms)
        if each.status == _UNKNOWN:
            end_ms = each.settled_ms or each.ended_ms
            yield Phase("lost", each.attempt, at_ms, end_ms - at_ms)
        else:
            yield Phase("claim", each.attempt, at_ms, each.started_ms - at_ms)
            yield from _sending(each)
            end_ms = each.settled_ms or each.ended_ms
        at_ms = max(at_ms, end_ms)
    if record.state in PENDING_STATES:
        yield from _pending(facts, at_ms)


def _pause(trigger: str, attempt: int, from_ms: int, to_ms: int) -> Phase:
    if trigger == "redrive":
        return Phase("redrive", attempt, from_ms, to_ms - from_ms)
    reason = None if trigger in ("scheduled", "manual") else trigger
    return Phase("retry", attempt, from_ms, to_ms - from_ms, reason)


def _waiting(facts: Facts, attempt: AttemptRecord, at_ms: int) -> Iterator[Phase]:
    """From when an attempt was due to its claim."""
    since_ms = max(
        (
            each.since_ms
            for each in facts.leaders
            if each.term == attempt.term and each.since_ms <= attempt.claimed_ms
        ),
        default=0,
    )
    if since_ms > at_ms:
        yield Phase("leader", attempt.attempt, at_ms, since_ms - at_ms)
        at_ms = since_ms
    reason = HeldUp(attempt.held_up).text
    yield Phase("wait", attempt.attempt, at_ms, attempt.claimed_ms - at_ms, reason)


def _sending(attempt: AttemptRecord) -> Iterator[Phase]:
    """What a request did, and how long it took until its outcome was given to the log."""
    at_ms = float(attempt.started_ms)
    parts = {
        "connection": attempt.queue_ms,
        "resolve": attempt.resolve_ms,
        "connect": attempt.connect_ms,
        "tls": attempt.tls_ms,
        "answer": attempt.first_byte_ms,
    }
    known_ms = sum(parts.values())
    rest = "body"
    if attempt.response_status is None:
        rest = _RESTS.get(attempt.error_phase, "answer")
    total_ms = attempt.queue_ms + attempt.total_ms
    parts[rest] = parts.get(rest, 0.0) + max(0.0, total_ms - known_ms)
    for name, took_ms in parts.items():
        yield Phase(name, attempt.attempt, int(at_ms), round(took_ms, 3))
        at_ms += took_ms
    end_ms = attempt.settled_ms or attempt.ended_ms
    yield Phase("settle", attempt.attempt, int(at_ms), round(max(0.0, end_ms - at_ms), 3))


def _pending(facts: Facts, at_ms: int) -> Iterator[Phase]:
    """What the next attempt waits for now."""
    record, now_ms = facts.record, facts.now_ms
    claim, number = record.claim, record.attempts + 1
    due_ms = record.due_ms
    if claim is not None:
        number = claim.attempt
        claimed_ms = max(at_ms, claim.claimed_ms)
        if due_ms > at_ms:
            yield _pause(record.retry_reason or "scheduled", number, at_ms, min(due_ms, now_ms))
        start_ms = max(at_ms, due_ms)
        yield Phase("wait", number, start_ms, claimed_ms - start_ms)
        start_ms = max(start_ms, claimed_ms)
        yield Phase("answer", number, start_ms, now_ms - start_ms, "open")
        return
    if facts.attempts and due_ms > at_ms:
        yield _pause(record.retry_reason or "scheduled", number, at_ms, min(due_ms, now_ms))
        at_ms = due_ms
    if now_ms > at_ms and now_ms > due_ms:
        start_ms = max(at_ms, due_ms)
        yield Phase("wait", number, start_ms, now_ms - start_ms, _held_up(facts))


def _held_up(facts: Facts) -> str | None:
    if facts.record.queue == Queue.PARKED:
        return "restore"
    if facts.record.queue == Queue.BEHIND:
        return "order"
    if facts.closed == "missing":
        return facts.closed
    if (
        facts.closed is not None
        or facts.record.state == JobState.HELD
        or facts.record.queue == Queue.WAITING
    ):
        return "route"
    return None


# --- one sentence --------------------------------------------------------------------------


def duration(ms: float) -> str:
    """A duration as a sentence has it: 42 ms, 5.05 s, 3 min 5 s, 2 h 5 min, 3 d 4 h."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.2f}".rstrip("0").rstrip(".") + " s"
    seconds = int(ms / 1_000)
    for large, small, one, other in (
        (86_400, 3_600, "d", "h"),
        (3_600, 60, "h", "min"),
        (60, 1, "min", "s"),
    ):
        if seconds >= large:
            rest = seconds % large // small
            return f"{seconds // large} {one}" + (f" {rest} {other}" if rest else "")
    raise AssertionError("it is a minute at least")


def _sentence(facts: Facts, phases: Sequence[Phase]) -> str:
    """How it stands, and where most of the time went."""
    record, now_ms = facts.record, facts.now_ms
    trigger_ms = _due_ms(record)
    if record.state in PENDING_STATES and now_ms < trigger_ms and not record.attempts:
        return f"It is due in {duration(trigger_ms - now_ms)}."
    if record.state == JobState.CANCELLED:
        if not facts.attempts:
            return "It was cancelled before it was sent."
        return "It was cancelled while it was being sent."
    end_ms = now_ms
    if record.state == JobState.DELIVERED:
        ended = [each.ended_ms for each in facts.attempts if each.status == "succeeded"]
        end_ms = ended[-1] if ended else record.finished_ms
        head = f"Delivered {_after(end_ms - trigger_ms)}"
    elif record.state == JobState.DEAD:
        end_ms = record.finished_ms
        head = f"Given up ({record.reason}) {_after(end_ms - trigger_ms)}"
    elif record.claim is not None:
        head = f"Attempt {record.claim.attempt} is open {_after(now_ms - trigger_ms)}"
    else:
        head = f"Not delivered {_after(now_ms - trigger_ms)}"
        if record.due_ms > now_ms:
            head += f", attempt {record.attempts + 1} is due in {duration(record.due_ms - now_ms)}"
    if end_ms - trigger_ms <= IN_TIME_MS and record.state == JobState.DELIVERED:
        return f"{head}: in time."
    spent: dict[tuple[str, str | None], float] = {}
    for each in phases:
        kind = each.phase, each.reason
        spent[kind] = spent.get(kind, 0.0) + each.duration_ms
    if not spent:
        return f"{head}."
    phase, reason = max(spent, key=lambda kind: spent[kind])
    return f"{head}; {duration(spent[phase, reason])} of it passed {_where(phase, reason)}."


def _after(ms: int) -> str:
    return f"{duration(ms)} after its trigger time" if ms >= 0 else "before its trigger time"


def _where(phase: str, reason: str | None) -> str:
    if phase == "wait" and reason is not None:
        return HELD_UP_BY.get(reason, PHASES[phase])
    if reason == "open":
        return "since it was claimed"
    told = f" ({reason})" if phase == "retry" and reason is not None else ""
    return f"{PHASES[phase]}{told}"
