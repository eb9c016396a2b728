"""Whether jobs with an ordering key were sent in their order, and can be found by their ids."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.checks.history import Call, History
from tests.checks.jobmodel import Get, Written
from tests.checks.watching import is_batch, items_of
from tests.sim.cluster.clockwork import START_MS
from tests.sim.cluster.members import Members
from tests.sim.cluster.recipients import Sending
from timemachine.replica.records import read_alias, read_job
from timemachine.ring import vnode_of
from timemachine.storage.keys import after_prefix

_JOB_ID: Final = re.compile(rb"\r\nTimeMachine-Job-Id: (.*)\r\n")
_TRIGGER: Final = re.compile(rb"\r\nTimeMachine-Trigger-Time: (.*)\r\n")
_VERSION: Final = re.compile(rb'"version":(\d+)')
_CLAIMED_MS: Final = 5_000.0
"""A claim that was asked for so long before its request, and four elections, is not expected."""
_UNDER_WAY_MS: Final = 2_000.0
"""A request takes a second at most, on its own node's clock."""
_ROWS_MAX: Final = 1_000_000


class _Sent(NamedTuple):
    """A job in a request; true times since the beginning."""

    identity: str
    job: str
    version: int
    trigger_ms: int
    sending: Sending


def disorders(members: Members, history: History) -> Iterator[str]:
    """What of one ordering key was not sent in its order: jobs between each other's attempts."""
    by_key: dict[str, list[_Sent]] = defaultdict(list)
    for sending in members.recipients.sendings:
        together = _sent(sending)
        for sent in together:
            key = members.knobs.ordering_key(sent.job)
            if key is not None:
                by_key[key].append(sent)
                if len(together) > 1:
                    yield f"{key}: {sent.job} was sent together with others"
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        if not isinstance(call.asked, Get):
            calls[call.job].append(call)
    for key, sends in sorted(by_key.items()):
        yield from (f"{key}: {each}" for each in _between(sends))
        yield from (f"{key}: {each}" for each in _beside(sends, calls))
        if history.restoration is None:
            margin_ms = _CLAIMED_MS + 4.0 * members.knobs.election_ms
            yield from (f"{key}: {each}" for each in _before(sends, calls, margin_ms))


def _sent(sending: Sending) -> list[_Sent]:
    """A request, for each of its jobs."""
    request = sending.request
    if is_batch(request):
        found = []
        for item in items_of(request):
            job = item.event.get("data", item.event)
            told = job["id"], job["version"], job["trigger_time"]
            found.append(_Sent(item.webhook_id, *told, sending))
        return found
    job_id, trigger = _JOB_ID.search(request.head), _TRIGGER.search(request.head)
    version = _VERSION.search(request.body)
    if job_id is None or trigger is None or version is None:
        return []  # it tells of an event
    told = job_id[1].decode(), int(version[1]), int(trigger[1])
    return [_Sent(sending.identity.decode(), *told, sending)]


def _left(sends: list[_Sent]) -> list[tuple[float, _Sent]]:
    """Those whose bytes have left, by when they did."""
    left = [(each.sending.left_ms, each) for each in sends if each.sending.left_ms is not None]
    return sorted(left, key=lambda pair: pair[0])


def _between(sends: list[_Sent]) -> Iterator[str]:
    """Nothing leaves between two attempts of a job."""
    ended: set[str] = set()
    last: _Sent | None = None
    for _, each in _left(sends):
        identity = each.identity
        if last is not None and last.identity != identity:
            ended.add(last.identity)
        if identity in ended:
            assert last is not None
            yield f"{last.job} was sent between attempts of {each.job}"
        last = each


def _beside(sends: list[_Sent], calls: dict[str, list[Call]]) -> Iterator[str]:
    """Nothing leaves a process that has not heard yet how the one before ended.

    But for jobs that were changed or deleted meanwhile: those are not waited for, nor those that
    another leader has given up, whose next attempt tells that.
    """
    left = _left(sends)
    for at, (left_ms, each) in enumerate(left):
        for before_ms, other in reversed(left[:at]):
            if left_ms - before_ms > _UNDER_WAY_MS:
                break
            one = other.sending
            if (
                other.identity != each.identity
                and (one.node, one.generation) == (each.sending.node, each.sending.generation)
                and one.under_way(left_ms)
                and before_ms != left_ms
                and not any(_touches(call, one, left_ms) for call in calls[other.job])
                and not any(
                    later.identity == other.identity
                    and one.asked_ms < later.sending.asked_ms <= left_ms
                    for later in sends
                )
            ):
                yield f"{each.job} was sent while an attempt of {other.job} was under way"


def _touches(call: Call, sending: Sending, until_ms: float) -> bool:
    return call.called_ms <= START_MS + until_ms and call.returned_ms >= START_MS + sending.asked_ms


def _before(sends: list[_Sent], calls: dict[str, list[Call]], margin_ms: float) -> Iterator[str]:
    """Nothing is sent while something is there that was to be sent before it."""
    firsts: dict[str, _Sent] = {}
    for each in sends:
        firsts.setdefault(each.identity, each)
    there_ms = {
        (job, call.answered.version): call.returned_ms - START_MS
        for job in calls
        for call in calls[job]
        if isinstance(call.answered, Written)
    }
    for first in firsts.values():
        since_ms = there_ms.get((first.job, first.version))
        if since_ms is None:
            continue
        for other in firsts.values():
            if (
                first.trigger_ms < other.trigger_ms
                and since_ms + margin_ms < other.sending.asked_ms < first.sending.asked_ms
            ):
                yield f"{other.job} was sent before {first.job}, which was due earlier"


def without_alias(members: Members) -> Iterator[str]:
    """Jobs that nobody would find by their ids."""
    for group in members.groups():
        leader = members.leader_of(group)
        vnode = members.members[leader].vnode(group) if leader and group[0] else None
        if vnode is None:
            continue
        store, keys = members.members[leader].disk.store, vnode.keys
        for key, row in store.scan(keys.job, after_prefix(keys.job), _ROWS_MAX):
            raw_id = key[len(keys.job) :]
            record = read_job(row)
            if record.order is None:
                continue
            index = vnode_of(raw_id.decode(), members.knobs.num_vnodes)
            number = members.leader_of((group[0], index))
            place = members.members[number].vnode((group[0], index)) if number else None
            if place is not None:
                found = members.members[number].disk.store.get(place.keys.alias + raw_id)
                if found is None or read_alias(found).key != record.order.key:
                    yield f"{raw_id.decode()} is not found by its id"
