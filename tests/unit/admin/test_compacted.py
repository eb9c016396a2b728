"""Plans that compact, for people, as they look on a terminal of 100 columns."""

from typing import Any

import pytest

from admin import planned
from tests.unit.admin.test_planned import CLUSTER, PLAN
from tests.unit.admin.test_tables import AT, look

NODE: dict[str, Any] = {
    "node": "e1",
    "state": "waiting",
    "range_bytes": 3 << 20,
    "before_bytes": 5 << 20,
    "disk_bytes": None,
    "steps": 0,
    "steps_done": 0,
    "compacted_bytes": 0,
    "error": None,
}
SILENT: dict[str, Any] = {**NODE, "node": "e2", "range_bytes": 0, "before_bytes": None}
COMPACTION: dict[str, Any] = {"vnodes": [], "bytes_per_s": 64 << 20, "nodes": [NODE, SILENT]}
COMPACT: dict[str, Any] = {
    **PLAN,
    "kind": "compact",
    "nodes": [],
    "transfers": 1,
    "moves": dict.fromkeys(PLAN["moves"], 0),
    "vnodes": [],
    "copied_bytes": 0,
    "compaction": COMPACTION,
}


def with_nodes(*nodes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The plan, with these nodes and other members changed."""
    return {**COMPACT, **changes, "compaction": {**COMPACTION, "nodes": list(nodes)}}


def test_a_compaction_that_is_to_be_confirmed() -> None:
    """What there is to compact on each node, what its store takes, and what it costs."""
    assert look(planned.plan(CLUSTER)(COMPACT)) == (
        r"""
plan p1 of cluster c1
compact all: proposed
2 nodes, 1 at once, 64.0 MiB a second each: 3.0 MiB to go through, about 1m 5s
the cluster does 1234.5 writes and 7 webhooks a second
to be confirmed before 2030-01-31T08:15:00Z

node  to compact   before  now  steps  compacted  state    error
n1       3.0 MiB  5.0 MiB                         waiting
e2           0 B                                  waiting

Think of this before you confirm it:
- n2 does not answer.
- It is \x1b[2Jlate.
"""
    )
    assert not planned.is_idle(COMPACT)
    assert planned.not_begun(COMPACT) == (
        "Nothing is compacted yet. `timemachine admin plan confirm p1` has it run."
    )


def test_a_compaction_that_runs() -> None:
    """How far each node is; steps are of those that are at it."""
    done = {**NODE, "state": "done", "disk_bytes": 2 << 20, "steps": 2, "steps_done": 2}
    at_it = {**SILENT, "state": "compacting", "disk_bytes": 4 << 20, "steps": 8, "steps_done": 3}
    running = with_nodes(done, {**at_it, "compacted_bytes": 9 << 20}, state="running")
    assert look(planned.plan(CLUSTER)(running)) == (
        """
plan p1 of cluster c1
compact all: running
2 nodes, 1 at once, 64.0 MiB a second each: 3.0 MiB to go through, about 1m 5s
1 of 2 nodes done, 1 under way, 3 of 8 steps

node  to compact   before      now   steps  compacted  state       error
n1       3.0 MiB  5.0 MiB  2.0 MiB  2 of 2             done
e2           0 B           4.0 MiB  3 of 8    9.0 MiB  compacting
"""
    )
    assert (1, 2) == planned.far(running)
    assert look(planned.plans([running])) == (
        """
id  kind     state    moves  done  bytes    created               error
p1  compact  running      2     1  3.0 MiB  2030-01-31T08:00:00Z
"""
    )


def test_a_compaction_that_has_ended() -> None:
    """What it gave back, of the nodes that are done; the others do not count as done."""
    done = {**NODE, "state": "done", "disk_bytes": 2 << 20}
    failed = {**SILENT, "state": "failed", "disk_bytes": 9, "error": "It is \x1b[2Jdamaged."}
    times = {"confirmed_time": AT, "finished_time": AT + 61_000}
    over = with_nodes(done, failed, state="failed", error="n2: damaged", **times)
    assert look(planned.outcome(over)) == (
        """
plan p1, failed: 1 of 2 nodes done, 1 failed, took 1m 1s
n2: damaged
their stores took 5.0 MiB before, 2.0 MiB now
"""
    )
    assert r"failed  It is \x1b[2Jdamaged." in look(planned.plan(CLUSTER)(over))
    assert (2, 2) == planned.far(over)


@pytest.mark.parametrize(
    ("changes", "vnodes", "told"),
    [
        ({"nodes": ["e1", "e2"]}, [], "\ncompact all of n1, e2: proposed\n"),
        ({"db": "d", "collection": "c"}, [], "\ncompact d/c: proposed\n"),
        (
            {"db": "d", "collection": "c", "nodes": ["e1"]},
            [0, 3],
            "\ncompact d/c, vnodes 0, 3 of n1: proposed\n",
        ),
    ],
)
def test_what_a_compaction_is_of(changes: dict[str, Any], vnodes: list[int], told: str) -> None:
    """All, a collection, or some vnodes of it; of all nodes or of some."""
    plan = {**COMPACT, **changes, "compaction": {**COMPACTION, "vnodes": vnodes}}
    assert told in look(planned.plan(CLUSTER)(plan))
