"""C13, C14: what a backup holds, and what a restore makes of it.

Judged from what clients were told and recipients got.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.checks.history import BackedJob, BackedUp, Call, History, Webhook
from tests.checks.jobmodel import Delete, Deleted, Found, Patch, Put, Written
from timemachine.ring import vnode_of


def backed_up(history: History) -> Iterator[str]:
    """C13: a backup has all that was acknowledged before, as it was; and nothing that never was."""
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        calls[call.job].append(call)
    sent: dict[tuple[str, int], float] = {}
    for webhook in history.webhooks:
        key = (webhook.job, webhook.version)
        sent[key] = min(webhook.at_ms, sent.get(key, webhook.at_ms))
    for part in history.backups:
        yield from _whole(part)
        held = {each.job: each for each in part.jobs}
        for job in sorted(calls):
            if vnode_of(history.home_of(job), part.num_vnodes) == part.group[1]:
                yield from _nothing_lacks(part, job, calls[job], held.get(job))
        for each in part.jobs:
            if each.job not in history.probed:
                yield from _true(part, each, calls.get(each.job, []), sent)


def restored(history: History) -> Iterator[str]:
    """C14: what was open is sent by who gets it; what a backup knew as ended is not, nor lost."""
    if history.restoration is None:
        return
    sent: dict[str, list[Webhook]] = defaultdict(list)
    for webhook in history.webhooks:
        sent[webhook.job].append(webhook)
    for each in history.restoration.jobs:
        name = f"{each.job} version {each.version}, which was restored,"
        ending = history.endings.get(each.job)
        if ending is None or ending.version != each.version:
            yield f"{name} is {ending} in the end"
        got = sent.get(each.job, [])
        if got and not each.sent:
            yield f"{name} was sent at {got[0].at_ms:.1f}, and had ended"
        if each.sent and not got:
            yield f"{name} was never sent"
        others = {webhook.webhook_id for webhook in got} - {each.webhook_id}
        if others:
            yield f"{name} was sent as {sorted(others)}, not as {each.webhook_id}"


def _whole(part: BackedUp) -> Iterator[str]:
    """All pages are of one moment."""
    jobs = [each.job.encode() for each in part.jobs]
    if any(after <= before for before, after in pairwise(jobs)):
        yield f"{_name(part)}: its jobs are not in their order"
    if len(jobs) != part.counted:
        yield f"{_name(part)}: it has {len(jobs)} jobs, and says that there were {part.counted}"


def _nothing_lacks(
    part: BackedUp, job: str, calls: list[Call], held: BackedJob | None
) -> Iterator[str]:
    """What somebody was told before it was asked for is in it."""
    told = [call for call in calls if call.returned_ms <= part.asked_ms]
    known = 0
    for call in told:
        if isinstance(call.answered, Written | Deleted | Found):
            known = max(known, call.answered.version)
    if known and (held is None or held.version < known):
        had = "not at all" if held is None else f"as version {held.version}"
        yield f"{_name(part)}: it has {job} {had}; version {known} was known before"
    if held is None:
        return
    for call in told:
        answered = call.answered
        if isinstance(answered, Deleted) and answered.version == held.version:
            if answered.outcome == "cancelled" and held.state != "cancelled":
                yield f"{_name(part)}: {job} is {held.state}, and was cancelled before"
            if answered.outcome == "already_delivered" and held.state != "delivered":
                yield f"{_name(part)}: {job} is {held.state}, and was delivered before"


def _true(
    part: BackedUp, held: BackedJob, calls: list[Call], sent: dict[tuple[str, int], float]
) -> Iterator[str]:
    """Somebody has asked for it, and it came to be what it is, before it was shown."""
    name = f"{_name(part)}: {held.job} version {held.version}"
    asked = [call for call in calls if call.called_ms <= part.shown_ms]
    told = [
        call
        for call in calls
        if isinstance(call.answered, Written) and call.answered.version == held.version
    ]
    makers = [call for call in told if call.called_ms <= part.shown_ms]
    if told and not makers:
        yield f"{name} was asked for after it was shown"
    writes = [call for call in asked if isinstance(call.asked, Put | Patch)]
    if len(writes) < held.version:
        yield f"{name}: only {len(writes)} writes had been asked for"
    if held.content not in [call.asked.content for call in writes]:  # type: ignore[union-attr]
        yield f"{name} has a content that nobody wrote: {held.content!r}"
    for call in makers:
        answered = call.answered
        assert isinstance(answered, Written)
        if answered.due_ms not in (None, held.due_ms):
            yield f"{name} is due at {held.due_ms}, not at {answered.due_ms}"
    if held.state == "cancelled" and not any(isinstance(call.asked, Delete) for call in asked):
        yield f"{name} is cancelled, and nobody has asked for that"
    if held.state == "delivered" and sent.get((held.job, held.version), part.shown_ms) >= (
        part.shown_ms
    ):
        yield f"{name} is delivered, and no recipient had it"


def _name(part: BackedUp) -> str:
    return f"backup {part.name} of vnode {part.group}"
