"""Plans for people, as they look on a terminal of 100 columns."""

from typing import Any

import pytest

from admin import planned, render
from tests.unit.admin.test_tables import AT, look

NODES = [
    {"id": "e1", "name": "n1", "vnodes": 12, "state": "up"},
    {"id": "e2", "name": "n2", "vnodes": 12, "state": "leaving"},
    {"id": "e3", "name": "n2", "vnodes": 0, "state": "up"},
]
"""Two of one name: these are told by their ids."""

CLUSTER: dict[str, Any] = {"cluster_id": "c1", "node_leader": "e1", "nodes": NODES}
MOVE: dict[str, Any] = {
    "db": "default",
    "collection": "carts",
    "index": 3,
    "add": ["e3"],
    "remove": ["e2"],
    "copied_bytes": 3 << 20,
    "state": "waiting",
}
PLAN: dict[str, Any] = {
    "id": "p1",
    "kind": "drain",
    "state": "proposed",
    "nodes": ["e2"],
    "db": None,
    "collection": None,
    "replicas": None,
    "transfers": 2,
    "moves": {
        "total": 2,
        "copies": 2,
        "waiting": 2,
        "moving": 0,
        "done": 0,
        "void": 0,
        "left": 0,
    },
    "copied_bytes": 6 << 20,
    "estimate_ms": 65_000,
    "traffic": {"writes_per_s": 1234.5, "fires_per_s": 7.0},
    "risks": ["n2 does not answer.", "It is \x1b[2Jlate."],
    "waits_for": [],
    "error": None,
    "created_time": AT,
    "expires_time": AT + 900_000,
    "confirmed_time": None,
    "finished_time": None,
    "vnodes": [MOVE, {**MOVE, "index": 4, "add": ["e3", "e1"]}],
}


def test_a_plan_that_is_to_be_confirmed() -> None:
    """What moves and what it costs; what a node said cannot steer the terminal."""
    assert look(planned.plan(CLUSTER)(PLAN)) == (
        r"""
plan p1 of cluster c1
drain e2: proposed
2 vnodes to change, 2 at once: 2 replicas to copy, 6.0 MiB, about 1m 5s
the cluster does 1234.5 writes and 7 webhooks a second
to be confirmed before 2030-01-31T08:15:00Z

node  replicas now  after  gets  gives  copied to it
n1              12     13     1              1.5 MiB
e2              12     10            2
e3               0      2     2              4.5 MiB

Think of this before you confirm it:
- n2 does not answer.
- It is \x1b[2Jlate.

db       collection  vnode  to      from    bytes  state
default  carts           3  e3      e2    3.0 MiB  waiting
default  carts           4  e3, n1  e2    3.0 MiB  waiting
"""
    )


def test_a_plan_that_runs() -> None:
    """How far it is, and whom it waits for; what has begun is counted by the cluster already."""
    moves = {**PLAN["moves"], "done": 1, "waiting": 1}
    rows = [{**MOVE, "state": "done"}, {**MOVE, "index": 4}]
    running = {**PLAN, "state": "running", "moves": moves, "vnodes": rows, "waits_for": ["e3"]}
    told = look(planned.plan(CLUSTER)(running))
    assert "drain e2: running\n" in told
    assert "\n1 of 2 moves done\nwaits for e3, which does not answer\n" in told
    assert "\ne2              12     11            2\n" in told
    assert "confirm" not in told
    assert look(render.show_status({**CLUSTER, "nodes": []}, running)).startswith(
        "\ncluster c1, node leader e1\nplan p1 (drain, running): 1 of 2 moves done\n"
    )


def test_a_plan_that_has_ended() -> None:
    """What became of it; nodes may have anything by now."""
    moves = {**PLAN["moves"], "done": 1, "void": 1, "waiting": 0}
    times = {"confirmed_time": AT, "finished_time": AT + 61_000}
    failed = {**PLAN, "state": "failed", "moves": moves, "error": "3 replicas are left.", **times}
    assert look(planned.outcome(failed)) == (
        """
plan p1, failed: 1 of 2 moves done, 1 void, took 1m 1s
3 replicas are left.
"""
    )
    told = look(planned.plan(CLUSTER)(failed))
    assert "drain e2: failed\n3 replicas are left.\n" in told
    assert "\ne2              12                   2\n" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "rebalance", "nodes": []}, "\nrebalance: proposed\n"),
        ({"kind": "rebalance"}, "\nrebalance, with e2 back: proposed\n"),
        ({"kind": "remove", "nodes": ["e1", "gone"]}, "\nremove n1, gone: proposed\n"),
        (
            {"kind": "replicate", "nodes": [], "db": "d", "collection": "c", "replicas": 5},
            "\nreplicate d/c, 5 replicas: proposed\n",
        ),
        ({"moves": {**PLAN["moves"], "left": 1}}, "\n1 further vnode for another plan"),
    ],
)
def test_what_a_plan_is_for(changes: dict[str, Any], told: str) -> None:
    """Each kind says what it changes."""
    assert told in look(planned.plan(CLUSTER)({**PLAN, **changes}))


def test_a_plan_without_moves() -> None:
    """Where nothing would happen nothing is asked; a node to be emptied is marked all the same."""
    none = {**PLAN, "moves": {**PLAN["moves"], "total": 0}, "vnodes": [], "risks": []}
    assert look(planned.plan(CLUSTER)(none)).startswith(
        "\nplan p1 of cluster c1\ndrain e2: proposed\nnothing has to move\n"
    )
    assert not planned.is_idle(none)
    assert not planned.is_idle({**none, "kind": "rebalance"})
    assert planned.is_idle({**none, "kind": "rebalance", "nodes": []})


def test_long_plans_are_shortened() -> None:
    """The first moves, and how many more there are; all of them when they are asked for."""
    rows = [{**MOVE, "index": index} for index in range(planned.MOVES_SHOWN + 5)]
    long = {**PLAN, "vnodes": rows}
    told = look(planned.plan(CLUSTER)(long))
    assert (planned.MOVES_SHOWN, True) == (
        told.count("waiting"),
        told.endswith("\nand 5 more; --all shows them\n"),
    )
    assert len(rows) == look(planned.plan(CLUSTER, every=True)(long)).count("waiting")


def test_a_list_of_plans() -> None:
    """A line each."""
    assert look(planned.plans([PLAN])) == (
        """
id  kind   state     moves  done  bytes    created               error
p1  drain  proposed      2     0  6.0 MiB  2030-01-31T08:00:00Z
"""
    )
