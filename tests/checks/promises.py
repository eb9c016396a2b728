"""The checks C1 to C8 and C10 to C14: what TimeMachine promises, judged from a history.

Each check takes a history and the rules of the run, and yields one sentence for each promise that
was broken. C9, the invariants inside a node, are `invariants`' affair. A job that was ever purged
begins at version 1 again, so what goes by versions (C1, C5, part of C2) leaves such jobs out; and
C6 those that were redriven or part of a bulk task, which its model does not know.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from tests.checks import backed
from tests.checks.history import NEVER, Call, Fault, History, Reading, Webhook
from tests.checks.jobmodel import (
    Answered,
    Asked,
    Bulk,
    Delete,
    Deleted,
    Found,
    Get,
    JobModel,
    Patch,
    Put,
    Redrive,
    Run,
    Written,
)
from tests.checks.lincheck import BUDGET, UNKNOWN, Operation, Verdict, check
from timemachine.smearing import smear_of


@dataclass(frozen=True, slots=True)
class Rules:
    """The bounds that held in a run, in milliseconds, and what was to be expected of it.

    drain_ms       every job is sent that long after it is due and the faults are over (C1, C10)
    early_ms       how far ahead of the true time a node's clock may be (C4)
    smear_ms       over how long a time after their trigger times the routes smear jobs (C1, C4,
                   C10); `drain_ms` and `late_ms` run from the moment that a job is smeared to
    late_ms        one that is sent later than that after it is due and the faults are over, is
                   late (C1); None for as long as `drain_ms`
    settle_ms      how long after its answer a send may still be in flight, for want of its settle
                   being committed, on nodes that nothing disturbs (C3)
    transit_ms     how long a request may be on its way, where nobody saw it begin (C3, C5)
    timeout_ms     after which a sender gives a request up (C3)
    probe_ms       a write is acknowledged that soon after the faults are over (C10)
    lag_ms         how far a replica may be behind the one that answers clients (C7)
    once_routes    routes that deliver at most once (C3)
    unsent_states  states in which a job may end without having been sent: dead where recipients
                   cannot be reached, held where routes are paused
    steps_max      the budget of the search for one job's order (C6)
    """

    drain_ms: float = 60_000
    late_ms: float | None = None
    early_ms: float = 0
    smear_ms: int = 0
    settle_ms: float = 1_000
    transit_ms: float = 1_000
    timeout_ms: float = 15_000
    probe_ms: float = 10_000
    lag_ms: float = 60_000
    once_routes: frozenset[str] = frozenset()
    unsent_states: frozenset[str] = frozenset()
    steps_max: int = BUDGET


# --- C1 ------------------------------------------------------------------------------------------


def nothing_lost(history: History, rules: Rules) -> Iterator[str]:
    """C1: what was acknowledged and not taken back is sent, in time."""
    deliveries = history.deliveries()
    for job, calls in history.jobs():
        if _purged(calls):
            continue
        ending = history.endings.get(job)
        is_read = job in history.endings
        for version, write in _versions(calls).items():
            fate = _fate(calls, write, version)
            name = f"{job} version {version} (acknowledged at {write.returned_ms:.1f})"
            sent = deliveries.get((job, version), [])
            if fate.outcome == "already_delivered" and not any(
                each.at_ms <= fate.told_ms for each in sent
            ):
                yield f"{name} was called delivered at {fate.told_ms:.1f}; no recipient has it"
            if fate.outcome is not None:
                continue
            if fate.unsure:
                # Somebody asked for a change and was told nothing: believe what was read at last.
                if ending is None or ending.version != version or ending.state == "cancelled":
                    continue
            elif is_read and (ending is None or ending.version < version):
                yield f"{name} was not there at the end, but {ending}"
                continue
            if ending is not None and ending.state in rules.unsent_states:
                continue
            due_ms = _due_ms(write)
            if due_ms is None:
                continue
            due_ms += smear_of(job, rules.smear_ms)
            from_ms = max(due_ms, write.returned_ms, history.healed_ms)
            first_ms = min((each.at_ms for each in sent), default=NEVER)
            patience_ms = rules.drain_ms
            if first_ms != NEVER and rules.late_ms is not None:
                patience_ms = rules.late_ms
            deadline_ms = from_ms + patience_ms
            if first_ms > deadline_ms and history.ended_ms >= deadline_ms:
                told = "was never sent" if first_ms == NEVER else f"was sent at {first_ms:.1f}"
                yield f"{name} was due at {due_ms} and {told}, not by {deadline_ms:.1f}"


class _Fate(NamedTuple):
    """How a version of a job ended, as far as callers know.

    outcome  what the write that ended it was told of it; "untold" if that one was told nothing, but
             a later version was seen; None if nothing of the kind is known
    told_ms  when that was told
    unsure   whether some call may have ended it that was told nothing
    """

    outcome: str | None = None
    told_ms: float = NEVER
    unsure: bool = False


def _fate(calls: list[Call], write: Call, version: int) -> _Fate:
    found: list[tuple[float, str]] = []
    unsure = False
    for call in calls:
        if call is write or call.returned_ms < write.called_ms:
            continue
        answered = call.answered
        if answered is UNKNOWN:
            unsure = unsure or isinstance(call.asked, Put | Patch | Delete | Bulk)
        elif isinstance(answered, Written):
            if answered.previous is not None and answered.previous[0] == version:
                found.append((call.returned_ms, answered.previous[1]))
            elif answered.version > version:
                found.append((NEVER, "untold"))
        elif isinstance(answered, Deleted):
            if answered.version == version:
                found.append((call.returned_ms, answered.outcome))
            elif answered.version > version:
                found.append((NEVER, "untold"))
    if not found:
        return _Fate(unsure=unsure)
    told_ms, outcome = min(found)
    return _Fate(outcome, told_ms, unsure)


def _versions(calls: list[Call]) -> dict[int, Call]:
    """The acknowledged write of each version: of several that were told it, the first."""
    found: dict[int, Call] = {}
    for call in calls:
        if isinstance(call.answered, Written):
            earlier = found.get(call.answered.version)
            # One that was told what it replaced made the version; others found it.
            if earlier is None or call.answered.previous is not None:
                found[call.answered.version] = call
    return found


def _due_ms(write: Call) -> int | None:
    """The trigger time that a write gave its version, if that is known."""
    answered = write.answered
    if isinstance(answered, Written) and answered.due_ms is not None:
        return answered.due_ms
    return write.asked.due_ms if isinstance(write.asked, Put | Patch) else None


def _purged(calls: list[Call]) -> bool:
    return any(isinstance(call.asked, Delete) and call.asked.purge for call in calls)


# --- C2 to C5 ------------------------------------------------------------------------------------


def one_decision(history: History, rules: Rules) -> Iterator[str]:
    """C2: all sends of one version are one webhook: one id, one body; and an id names no other.

    Nor does the id of a batch name two arrays.
    """
    purged = {job for job, calls in history.jobs() if _purged(calls)}
    for (job, version), sent in sorted(history.deliveries().items()):
        ids = sorted({each.webhook_id for each in sent})
        if len(ids) > 1 and job not in purged:
            yield f"{job} version {version} was sent as {len(ids)} webhooks: {', '.join(ids)}"
    for webhook_id, sent in sorted(_by_id(history).items()):
        named = sorted({(each.job, each.version) for each in sent})
        if len(named) > 1:
            yield f"webhook {webhook_id} stands for {named}"
        bodies = len({each.body_hash for each in sent})
        if bodies > 1:
            yield f"webhook {webhook_id} ({_name(sent[0])}) came with {bodies} bodies"
    batches = defaultdict(set)
    for each in history.webhooks:
        if each.batch is not None:
            batches[each.batch[0]].add(each.batch[1])
    for batch, arrays in sorted(batches.items()):
        if len(arrays) > 1:
            yield f"batch {batch} came as {len(arrays)} arrays"


def repeats_excused(history: History, rules: Rules) -> Iterator[str]:
    """C3: a webhook comes again only after a failure, or if a fault hit while it was in flight."""
    redriven = defaultdict(list)
    for call in history.calls:
        if isinstance(call.asked, Redrive):
            redriven[call.job].append(call.called_ms)
    faults = [fault for fault in history.faults if not fault.planned]
    for webhook_id, sent in sorted(_by_id(history).items()):
        for before, after in pairwise(sent):
            name = f"{_name(after)} came again at {after.at_ms:.1f}"
            if before.attempt == after.attempt:
                yield f"{name}: attempt {after.attempt} of {webhook_id} was made twice"
            elif any(asked_ms <= after.at_ms for asked_ms in redriven[after.job]):
                continue
            elif after.route in rules.once_routes:
                yield f"{name}, though its route delivers at most once"
            elif not _excused(before, faults, rules):
                yield (
                    f"{name}, though attempt {before.attempt} of node {before.node} arrived at"
                    f" {before.at_ms:.1f}, was answered {before.status}, and no fault hit it"
                )


def _excused(webhook: Webhook, faults: list[Fault], rules: Rules) -> bool:
    """Whether its sender may not have known, or not have committed, that a send succeeded."""
    began_ms = _began_ms(webhook, rules)
    answered_ms = max(webhook.at_ms, webhook.answered_ms)
    if webhook.failed or answered_ms - began_ms >= rules.timeout_ms:
        return True
    return any(
        fault.touches(webhook.node)
        and fault.at_ms <= answered_ms + rules.settle_ms
        and began_ms <= fault.until_ms
        for fault in faults
    )


def not_early(history: History, rules: Rules) -> Iterator[str]:
    """C4: nothing arrives before it is due, nor names another time than it was given.

    A smeared job is due at its own part of the time after the trigger time that it names.
    """
    run: dict[str, float] = {}
    due: dict[tuple[str, int], set[int]] = defaultdict(set)
    for job, calls in history.jobs():
        run[job] = min((c.called_ms for c in calls if isinstance(c.asked, Run)), default=NEVER)
        for version, write in _versions(calls).items():
            due_ms = _due_ms(write)
            if due_ms is not None and not _purged(calls):
                due[job, version].add(due_ms)
    restored = () if history.restoration is None else history.restoration.jobs
    hurried = {(each.job, each.version) for each in restored if each.hurry}
    for webhook in history.webhooks:
        known = due[webhook.job, webhook.version] or {webhook.due_ms}
        if webhook.due_ms not in known:
            yield f"{_name(webhook)} names {webhook.due_ms} as its time, not {min(known)}"
        due_ms = max(webhook.due_ms, min(known)) + smear_of(webhook.job, rules.smear_ms)
        early_ms = due_ms - rules.early_ms - webhook.at_ms
        if (webhook.job, webhook.version) in hurried:
            continue
        if early_ms > 0 and run.get(webhook.job, NEVER) > webhook.at_ms:
            yield f"{_name(webhook)} came at {webhook.at_ms:.1f}, {early_ms:.1f} ms before {due_ms}"


def nothing_stale(history: History, rules: Rules) -> Iterator[str]:
    """C5: once the end of a version is acknowledged, no send of it begins.

    If the answer says that an attempt is in flight, or nobody was told, that one may still begin.
    """
    deliveries = history.deliveries()
    for job, calls in history.jobs():
        if _purged(calls) or any(isinstance(call.asked, Redrive) for call in calls):
            continue
        for version, ends in _ends(calls, {v for name, v in deliveries if name == job}).items():
            # It may be told twice: in flight, and by another write, later, already delivered.
            for end in ends:
                begun = {
                    each.attempt: each
                    for each in deliveries[job, version]
                    if _began_ms(each, rules) > end.told_ms
                }
                allowed = 1 if end.outcome in ("in_flight", None) else 0
                if len(begun) > allowed:
                    last = max(begun.values(), key=lambda each: each.at_ms)
                    yield (
                        f"{_name(last)} came at {last.at_ms:.1f} (attempt {last.attempt}), though"
                        f" its end was known at {end.told_ms:.1f} (outcome: {end.outcome})"
                    )
                    break


class _End(NamedTuple):
    """When some caller knew that a version had ended, and what was told of how it did."""

    told_ms: float
    outcome: str | None


def _ends(calls: list[Call], versions: set[int]) -> dict[int, list[_End]]:
    """The ends of those of the `versions` that have one, in the order in which they were told.

    Where one was told nothing of how it ended, it ended as the first was told that knew.
    """
    told: dict[int, list[_End]] = defaultdict(list)
    for call in calls:
        answered = call.answered
        outcome: str | None = None
        if isinstance(answered, Written) and answered.previous is not None:
            last, outcome = answered.previous
        elif isinstance(answered, Deleted) and answered.outcome in ("cancelled", "in_flight"):
            last, outcome = answered
        elif isinstance(answered, Written | Deleted | Found):
            last = answered.version - 1
        else:
            continue
        for version in versions:
            if version <= last:
                known = outcome if version == last else None
                told[version].append(_End(call.returned_ms, known))
    return {version: _with_outcomes(sorted(ends, key=_told_ms)) for version, ends in told.items()}


def _told_ms(end: _End) -> float:
    return end.told_ms


def _with_outcomes(ends: list[_End]) -> list[_End]:
    first = next((end.outcome for end in ends if end.outcome is not None), None)
    return [end._replace(outcome=end.outcome or first) for end in ends]


def _began_ms(webhook: Webhook, rules: Rules) -> float:
    """When a send began, at the earliest."""
    return webhook.sent_ms if webhook.sent_ms is not None else webhook.at_ms - rules.transit_ms


def _by_id(history: History) -> dict[str, list[Webhook]]:
    """The webhooks of each id, in the order of their attempts."""
    found: dict[str, list[Webhook]] = defaultdict(list)
    for webhook in history.webhooks:
        found[webhook.webhook_id].append(webhook)
    for sent in found.values():
        sent.sort(key=lambda each: (each.attempt, each.at_ms))
    return found


def _name(webhook: Webhook) -> str:
    return f"{webhook.job} version {webhook.version}"


# --- C6 ------------------------------------------------------------------------------------------


def linearizable(
    history: History, rules: Rules, undecided: list[str] | None = None
) -> Iterator[str]:
    """C6: the calls on each job have an order that explains all answers.

    `undecided` gets a sentence for each job whose search ran out of its budget.
    """
    model = JobModel()
    for job, calls in history.jobs():
        if any(isinstance(call.asked, Redrive | Bulk) for call in calls):
            continue
        operations: list[Operation[Asked, Answered]] = [
            Operation(call.called_ms, call.returned_ms, call.asked, call.answered)
            for call in calls
            if not isinstance(call.asked, Run)
            and not (isinstance(call.asked, Get) and call.answered is UNKNOWN)
        ]
        finding = check(operations, model, rules.steps_max)
        if finding.verdict is Verdict.UNKNOWN and undecided is not None:
            undecided.append(f"{job}: {len(operations)} calls, undecided after {finding.steps}")
        if finding.verdict is Verdict.NOT_LINEARIZABLE:
            assert finding.stuck is not None
            stuck = operations[finding.stuck]
            yield (
                f"{job}: no order explains {stuck.asked} -> {stuck.answered}, called at"
                f" {stuck.called_ms:.1f}, answered at {stuck.returned_ms:.1f}"
            )


# --- C7, C8, C10 ---------------------------------------------------------------------------------


def monotonic(history: History, rules: Rules) -> Iterator[str]:
    """C7: epoch, term, commit, applied and offset of a replica never fall, across restarts too.

    But an insert below the offset moves it back.
    """
    latest: dict[tuple[int, tuple[int, int]], Reading] = {}
    for reading in sorted(history.readings, key=lambda each: each.at_ms):
        place = (reading.node, reading.group)
        before = latest.get(place)
        latest[place] = reading
        if before is None:
            continue
        for what in ("epoch", "term", "commit", "applied"):
            old, new = getattr(before, what), getattr(reading, what)
            if new < old:
                yield (
                    f"node {reading.node}, group {reading.group}: {what} fell from {old}"
                    f" (at {before.at_ms:.1f}) to {new} (at {reading.at_ms:.1f})"
                )
        if (
            reading.offset < before.offset
            and not history.restoration
            and not any(
                _may_insert(call, reading.offset[0])
                and call.called_ms <= reading.at_ms
                and call.returned_ms + rules.lag_ms >= before.at_ms
                for call in history.calls
            )
        ):
            yield (
                f"node {reading.node}, group {reading.group}: the offset fell from {before.offset}"
                f" (at {before.at_ms:.1f}) to {reading.offset} (at {reading.at_ms:.1f}), and"
                " nothing was inserted there"
            )


def _may_insert(call: Call, due_ms: int) -> bool:
    """Whether a call may have put a job into the due index, no later than at `due_ms`."""
    if isinstance(call.asked, Put | Patch):
        given_ms = _due_ms(call)
        return given_ms is None or given_ms <= due_ms
    return isinstance(call.asked, Run | Redrive | Bulk)


def converged(history: History, rules: Rules) -> Iterator[str]:
    """C8: replicas that applied the same entries are the same, and in the end all have all."""
    seen: dict[tuple[tuple[int, int], int], tuple[int | str, int]] = {}
    last: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for image in sorted(history.images, key=lambda each: each.at_ms):
        digest, node = seen.setdefault((image.group, image.applied), (image.digest, image.node))
        if digest != image.digest:
            yield (
                f"group {image.group}: nodes {node} and {image.node} differ after entry"
                f" {image.applied} (at {image.at_ms:.1f})"
            )
        if image.final:
            last[image.group][image.node] = image.applied
    for group, applied in sorted(last.items()):
        if len(set(applied.values())) > 1:
            yield f"group {group}: in the end the nodes had applied {applied}"


def alive(history: History, rules: Rules) -> Iterator[str]:
    """C10: after the faults every group takes a write, and no job is left over."""
    limit_ms = history.healed_ms + rules.probe_ms
    acked: dict[tuple[int, int], float] = {}
    for probe in history.probes:
        acked[probe.group] = min(probe.acked_ms, acked.get(probe.group, NEVER))
    for group in sorted(history.groups | acked.keys()):
        if acked.get(group, NEVER) > limit_ms:
            yield f"group {group} acknowledged no write by {limit_ms:.1f}: {acked.get(group)}"
    for job, calls in history.jobs():
        ending = history.endings.get(job)
        if any(isinstance(call.asked, Bulk) for call in calls):
            continue  # it may be due at any time
        if ending is None or ending.state not in ("scheduled", "firing", "retrying", "held"):
            continue
        dues = [_due_ms(write) for write in _versions(calls).values()]
        due_ms = max((due for due in dues if due is not None), default=NEVER)
        due_ms += smear_of(job, rules.smear_ms)
        over = max(due_ms, history.healed_ms) + rules.drain_ms <= history.ended_ms
        if over and ending.state not in rules.unsent_states:
            yield f"{job} version {ending.version} was due at {due_ms} and is still {ending.state}"


# --- C11 -----------------------------------------------------------------------------------------


def as_asked(history: History, rules: Rules) -> Iterator[str]:
    """C11: in the end every group has just the members that were asked for, and nobody has more."""
    for each in sorted(history.members, key=lambda each: each.group):
        name = f"group {each.group}"
        if (each.voters, each.learning) != (each.wanted, each.learners):
            yield (
                f"{name}: its leader counts {_ids(each.voters)}, learning {_ids(each.learning)};"
                f" asked for were {_ids(each.wanted)}, learning {_ids(each.learners)}"
            )
        if each.missing:
            yield f"{name}: {each.missing} replicas more were asked for, and have a place"
        if each.leaving:
            yield f"{name}: replicas {sorted(each.leaving)} are still to leave"
        if each.replicas != each.wanted | each.learners:
            yield f"{name}: nodes have the replicas {_ids(each.replicas)}, not those asked for"


def _ids(replicas: frozenset[int]) -> list[int]:
    return sorted(replicas)


# --- C12 -----------------------------------------------------------------------------------------


def carried_out(history: History, rules: Rules) -> Iterator[str]:
    """C12: in the end no plan is under way, and nodes that one was to empty are empty."""
    for each in history.plans:
        if each.under_way:
            yield f"plan {each.id} has not ended: it is {each.state}"
        if each.left:
            yield f"plan {each.id} is {each.state}, and left {each.left} replicas"


# --- C13, C14 ------------------------------------------------------------------------------------


def backed_up(history: History, rules: Rules) -> Iterator[str]:
    """C13: a backup has all that was acknowledged before, as it was; and nothing that never was."""
    return backed.backed_up(history)


def restored(history: History, rules: Rules) -> Iterator[str]:
    """C14: what was open is sent by who gets it; what a backup knew as ended is not, nor lost."""
    return backed.restored(history)


# --- all of them ---------------------------------------------------------------------------------

CHECKS: Final[dict[str, Callable[[History, Rules], Iterator[str]]]] = {
    "C1": nothing_lost,
    "C2": one_decision,
    "C3": repeats_excused,
    "C4": not_early,
    "C5": nothing_stale,
    "C6": linearizable,
    "C7": monotonic,
    "C8": converged,
    "C10": alive,
    "C11": as_asked,
    "C12": carried_out,
    "C13": backed_up,
    "C14": restored,
}


class Judgement(NamedTuple):
    """What was broken, each sentence beginning with its check; and what could not be decided."""

    broken: list[str]
    undecided: list[str]


def judge(history: History, rules: Rules) -> Judgement:
    """Run every check."""
    broken = []
    undecided: list[str] = []
    for name, run in CHECKS.items():
        found = (
            linearizable(history, rules, undecided) if run is linearizable else run(history, rules)
        )
        broken += [f"{name}: {sentence}" for sentence in found]
    return Judgement(broken, [f"C6: {sentence}" for sentence in undecided])
