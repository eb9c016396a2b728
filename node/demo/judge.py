"""The promises, computed from what a receiver saw."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import msgspec

from node.demo.faults import Fault
from node.demo.receiver import Arrival
from timemachine.client import Attempt
from timemachine.ring import vnode_of

_CALM_AFTER_MS = 5_000
"""So long after a fault what it delayed has come: lateness later than that is not its doing."""


class Recovery(msgspec.Struct):
    """One fault, as the receiver saw it; `None` where nothing was due."""

    fault: Fault
    fired_again_ms: int | None
    """From the fault until the last of the node's vnodes had fired again."""
    others: list[int]
    """How late the jobs of the other vnodes came in that time, in ms, sorted."""


class Verdict(msgspec.Struct):
    """What came of the promises."""

    delivered: int
    lost: int
    early: int
    repeats: int
    """More than once, with the same webhook-id, and the first send was cut off in flight."""
    unexcused: int
    """More than once without that excuse."""
    lateness: list[int]
    """Of the first arrivals outside of faults, in ms, sorted."""
    recoveries: list[Recovery]


def judge(
    accepted: set[str],
    arrivals: Sequence[Arrival],
    faults: Iterable[Fault],
    attempts: Callable[[str], Sequence[Attempt]],
    *,
    num_vnodes: int,
) -> Verdict:
    """What the arrivals, in order of time, say; `attempts` are the records of a job's attempts."""
    faults = list(faults)
    times: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        times[arrival.job_id].append(arrival)
    repeats = unexcused = 0
    for job_id, seen in times.items():
        more = len(seen) - 1
        if more:
            same = len({arrival.webhook_id for arrival in seen}) == 1
            excused = min(more, cut_off(attempts(job_id))) if same else 0
            repeats += excused
            unexcused += more - excused
    first = [seen[0] for seen in times.values()]
    return Verdict(
        delivered=len(accepted & times.keys()),
        lost=len(accepted - times.keys()),
        early=sum(arrival.at_ms < arrival.trigger_ms for arrival in arrivals),
        repeats=repeats,
        unexcused=unexcused,
        lateness=sorted(
            arrival.at_ms - arrival.trigger_ms
            for arrival in first
            if not any(_under(fault, arrival.trigger_ms) for fault in faults)
        ),
        recoveries=[_recovery(fault, first, num_vnodes) for fault in faults],
    )


def cut_off(attempts: Sequence[Attempt]) -> int:
    """How many attempts were in flight when their node died or lost its vnode.

    Either nobody knows how such a one ended, or its success became known after another leader had
    sent the next one.
    """
    ordered = sorted(attempts, key=lambda attempt: attempt.attempt)
    unknown = sum(attempt.status == "unknown" for attempt in ordered)
    late = sum(
        before.status == "succeeded" and after.term > before.term
        for before, after in pairwise(ordered)
    )
    return unknown + late


def at_share(values: Sequence[int], share: float) -> int:
    """The value that this share of the sorted values does not exceed."""
    return values[min(len(values) - 1, int(len(values) * share))]


def _under(fault: Fault, at_ms: int) -> bool:
    return fault.begin_ms - 1_000 <= at_ms <= max(fault.end_ms, fault.begin_ms) + _CALM_AFTER_MS


def _recovery(fault: Fault, first: Sequence[Arrival], num_vnodes: int) -> Recovery:
    """When the vnodes of the node fired again, and what the others felt of it."""
    again: dict[int, int] = {}
    others = []
    for arrival in first:
        vnode = vnode_of(arrival.job_id, num_vnodes)
        if arrival.trigger_ms < fault.begin_ms:
            continue
        if vnode in fault.vnodes:
            again[vnode] = min(arrival.at_ms, again.get(vnode, arrival.at_ms))
        elif arrival.trigger_ms <= fault.end_ms:
            others.append(arrival.at_ms - arrival.trigger_ms)
    fired = max(again.values()) - fault.begin_ms if again else None
    return Recovery(fault, fired, sorted(others))
