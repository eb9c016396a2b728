"""Why a job was late, or is: as far as what the API keeps can tell it. Pure."""

from collections.abc import Iterator
from typing import Final

from admin import inspected, shown
from admin.inspected import Facts
from admin.tables import Row

LATE_MS: Final = 100
"""From here on a step took long enough to be explained."""
SLOW_MS: Final = 1_000
"""From here on a recipient is slow."""


def causes(facts: Facts) -> list[str]:
    """Sentences, the first cause first; one that says that there is none, or none is known."""
    late = inspected.late_ms(facts)
    found = [*_of_the_beginning(facts, late), *_of_waiting(facts), *_of_attempts(facts)]
    found.extend(_of_clocks(facts))
    if found:
        return found
    if late is None:
        return ["Nothing that would have to be explained."]
    if late <= LATE_MS:
        return ["It was sent in time."]
    return ["Nothing that is kept tells why."]


def _of_the_beginning(facts: Facts, late: int | None) -> Iterator[str]:
    """What held the first attempt up, which has begun."""
    job = facts.job
    due, accepted = inspected.first_due_ms(job), inspected.accepted_ms(job)
    if accepted > due and job["state"] != "cancelled":
        how = "created" if accepted == job["created_time"] else "changed"
        after_ms = accepted - int(job["trigger_time"])
        yield f"It was {how} {shown.duration(after_ms)} after its trigger time."
    if late is None or not facts.attempts:
        return
    claimed = int(facts.attempts[0]["claimed_time"])
    from_ms = max(due, accepted)
    if claimed - from_ms > LATE_MS:
        yield from _before_the_claim(facts, from_ms, claimed)


def _before_the_claim(facts: Facts, from_ms: int, claimed: int) -> Iterator[str]:
    took, route = shown.duration(claimed - from_ms), facts.route
    yield f"It was due for {took} before it was claimed."
    changed = None if route is None else int(route["updated_time"])
    if route is not None and changed is not None and from_ms < changed <= claimed:
        yield (
            f"Its route `{route['name']}` was created, changed or paused at {shown.time(changed)},"
            " between the two: until then it may have been paused or disabled, or absent."
        )
        return
    yield (
        "What it waited for is not kept: a leader of its vnode, its route that was paused or"
        f" full{_limits(route)}, or jobs that were due before it."
    )


def _limits(route: Row | None) -> str:
    if route is None:
        return ""
    rate = route["rate"]
    told = f" (max_in_flight {route['max_in_flight']}"
    if rate["count"] is not None:
        told += f", {rate['count']} attempts in {shown.duration(rate['period_ms'])}"
    return f"{told})"


def _of_waiting(facts: Facts) -> Iterator[str]:
    """What an attempt that is due waits for now."""
    job, route, stats, vnode = facts.job, facts.route, facts.stats, facts.vnode
    due = job["next_attempt_time"]
    if job["state"] not in inspected.PENDING:
        return
    if route is None:
        yield f"There is no route `{job['route']}` now."
    elif route["state"] == "breaker_half_open":
        yield (
            f"The recipient of its route `{route['name']}` has failed, and is tried with a few"
            " requests: the others wait for one of these to succeed."
        )
    elif route["state"] != "active":
        told = shown.route_state(route)
        yield f"Its route `{route['name']}` is {told}: its jobs wait until that ends."
    elif job["state"] == "held":
        yield (
            "It is held though its route is open: so are jobs that were past due when they were"
            " restored, until `timemachine admin past-due` decides on them."
        )
    if vnode is not None and vnode["leader"] is None:
        yield f"Vnode {vnode['index']} has no leader: its jobs wait until it has one."
    if due is None or int(due) + LATE_MS > facts.now_ms:
        return
    if route is not None and route["state"] == "active" and stats is not None:
        if int(stats["in_flight"]) >= int(route["max_in_flight"]):
            yield (
                f"Its route has {stats['in_flight']} requests under way, of max_in_flight"
                f" {route['max_in_flight']}: the recipient is slow, or the limit low."
            )
        elif stats["waiting"] and route["rate"]["count"] is not None:
            yield f"{stats['waiting']} due jobs wait for its route{_limits(route)}."
    if vnode is not None and int(vnode["due_backlog"]) > 1:
        yield f"{vnode['due_backlog']} due jobs of its vnode wait."


def _of_attempts(facts: Facts) -> Iterator[str]:
    """What went wrong with attempts, and how long that took."""
    failed = [each for each in facts.attempts if each["status"] == "failed"]
    for number, attempt in enumerate(facts.attempts):
        which = f"Attempt {attempt['attempt']}"
        if attempt["trigger"] in inspected.ASKED_FOR:
            yield f"{which} was asked for ({attempt['trigger']}), whenever it was due."
        claimed, due = int(attempt["claimed_time"]), inspected.due_ms(facts, number)
        if number and due is not None and claimed - due > LATE_MS:
            yield f"{which} was due for {shown.duration(claimed - due)} before it was claimed."
        if attempt["status"] == "unknown":
            yield (
                f"{which} was open when its node stopped: its outcome is unknown, and another"
                " leader found that only later."
            )
            continue
        # Claims are made ahead: what lies before it was due is no delay.
        rest = int(attempt["started_time"]) - max(claimed, due or 0)
        if rest > LATE_MS:
            yield f"{which} was sent {shown.duration(rest)} after its claim: its node was busy."
        took = attempt["duration_ms"] or 0
        if took > SLOW_MS:
            told = f" ({parts})" if (parts := inspected.phases(attempt)) else ""
            yield f"The recipient took {shown.duration(took)} for {which.lower()}{told}."
    if failed:
        yield from _of_retries(failed)


def _of_retries(failed: list[Row]) -> Iterator[str]:
    last = failed[-1]
    why = last["error_message"] or last["error_code"] or f"status {last['response_status']}"
    count = len(failed)
    yield (
        f"{count} {'attempt' if count == 1 else 'attempts'} failed, the last of them: {why}"
        f"{'' if str(why).endswith('.') else '.'}"
    )
    waits = [
        int(each["next_attempt_time"]) - int(each["ended_time"])
        for each in failed
        if each["next_attempt_time"] is not None
    ]
    if waits:
        asked = any(each["retry_after"] for each in failed)
        yield (
            f"After them it waited {shown.duration(sum(waits))} by the retry schedule of its route"
            f"{' and what the recipient asked for (Retry-After)' if asked else ''}."
        )


def _of_clocks(facts: Facts) -> Iterator[str]:
    by = {each["node"] for each in facts.attempts}
    for node in facts.cluster["nodes"]:
        offset = int(node["clock_offset_ms"])
        if node["id"] in by and abs(offset) >= LATE_MS:
            yield (
                f"The clock of node {node['name'] or node['id']} is"
                f" {shown.duration(abs(offset))} off that of the node that was asked: its times"
                " are by its own."
            )
