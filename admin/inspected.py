"""A job's way from its creation to its end, in one line of time, and where the time went. Pure.

Both are told by the node that keeps the job, see `explain` of the API; here they become text.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from rich.console import RenderableType

from admin import shown
from admin.tables import Parts, Row, grid

PENDING: Final = ("scheduled", "firing", "retrying", "held")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What nodes told of a job, and of what it depends on; None for what is not there any more.

    job       the job, with its explanation
    earlier   how many attempts earlier versions had
    route     its route; `stats` is how that does
    vnode     the vnode that keeps the job
    cluster   the nodes
    now_ms    when it was asked, by this machine's clock
    """

    job: Row
    earlier: int = 0
    route: Row | None = None
    stats: Row | None = None
    vnode: Row | None = None
    cluster: Row
    now_ms: int


def show(facts: Facts, causes: Sequence[str], names: Mapping[str, str]) -> Parts:
    """One sentence, the line of time, where the time went, and what it waits for now."""
    job = facts.job
    explanation = job["explanation"]
    yield (
        f"job {shown.text(job['id'])} of {shown.text(job['db'])}/{shown.text(job['collection'])}:"
        f" {_state(job)}, version {job['version']}{_place(facts, names)}"
    )
    yield shown.text(explanation["sentence"])
    yield ""
    yield _steps(explanation["steps"], names)
    if facts.earlier:
        yield f"attempts of earlier versions: {facts.earlier}; `timemachine job attempts` has them"
    if explanation["phases"]:
        yield ""
        yield _phases(explanation["phases"])
    if causes:
        yield ""
    for cause in causes:
        yield shown.text(cause)


def _steps(steps: Sequence[Row], names: Mapping[str, str]) -> RenderableType:
    before: int | None = None
    rows = []
    for each in steps:
        rows.append(
            (
                shown.time(each["time"]),
                "" if before is None else _distance(each["time"] - before),
                shown.text(each["step"]),
                _number(each["attempt"]),
                "" if each["node"] is None else names.get(each["node"]) or shown.text(each["node"]),
                _number(each["term"]),
                shown.text(each["detail"] or ""),
            )
        )
        before = int(each["time"])
    return grid(
        ("time", "distance", "step", "attempt", "node", "term", ""),
        rows,
        right=("distance", "attempt", "term"),
    )


def _phases(phases: Sequence[Row]) -> RenderableType:
    return grid(
        ("phase", "attempt", "took", "because"),
        [
            (
                shown.text(each["phase"]),
                _number(each["attempt"]),
                _took(each["duration_ms"]),
                shown.text(each["reason"] or ""),
            )
            for each in phases
        ],
        right=("attempt", "took"),
    )


def _number(value: object) -> str:
    return "" if value is None else str(value)


def _took(ms: float) -> str:
    # Whole seconds would hide what a timer is about.
    return f"{ms / 1_000:.3f}s" if 1_000 <= ms < 60_000 else shown.duration(ms)


def _distance(ms: int) -> str:
    return f"+{_took(ms)}"


def _state(job: Row) -> str:
    reason = f" ({shown.text(job['reason'])})" if job["reason"] else ""
    return f"{shown.text(job['state'])}{reason}"


def _place(facts: Facts, names: Mapping[str, str]) -> str:
    vnode = facts.vnode
    if vnode is None:
        return f", vnode {facts.job['vnode']}"
    leader = vnode["leader"]
    if leader is None:
        return f", vnode {vnode['index']} without a leader"
    named = names.get(leader) or shown.text(leader)
    return f", vnode {vnode['index']}, led by {named} in term {vnode['term']}"
