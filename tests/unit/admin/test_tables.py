"""Tables for people, as they look on a terminal of 100 columns."""

from collections.abc import Iterable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from admin import render, tables

AT = 1_896_076_800_000


def look(parts: Iterable[RenderableType | str], width: int = 100) -> str:
    """What is seen, without the spaces at the ends of lines."""
    file = StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "\n" + "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


JOB: dict[str, Any] = {
    "id": "order-7",
    "trigger_time": AT,
    "route": "hello",
    "meta": '{"cart": 1.0, "note": "\\u001b"}',
    "tags": ["cart", "x"],
    "db": "default",
    "state": "retrying",
    "attempts": 2,
    "next_attempt_time": AT + 60_000,
    "last_error": "it answered 500\x1b[2J",
    "reason": None,
    "previous": {"version": 1, "outcome": "replaced"},
}


def test_a_list_of_jobs() -> None:
    """One line a job; what a recipient answered cannot steer the terminal."""
    dead = {**JOB, "id": "b", "state": "dead", "reason": "exhausted", "tags": [], "attempts": 10}
    assert look(tables.jobs([JOB, dead])) == (
        r"""
id       state     trigger time          route  attempts  tags    last error
order-7  retrying  2030-01-31T08:00:00Z  hello         2  cart,x  it answered 500\x1b[2J
b        dead      2030-01-31T08:00:00Z  hello        10          exhausted: it answered 500\x1b[2J
"""
    )


def test_a_narrow_terminal_loses_nothing() -> None:
    """Where there is no room, cells go on below; they are not cut off."""
    narrow = "".join(look(tables.jobs([{**JOB, "id": "a" * 60}]), width=60).split())
    assert 60 <= narrow.count("a")
    assert "..." not in narrow
    assert "…" not in narrow


def test_one_job() -> None:
    """A member a line; meta as it came."""
    assert look(tables.job(AT - 300_000)(JOB)) == (
        r"""
id                 order-7
state              retrying
trigger_time       2030-01-31T08:00:00Z (in 5m)
next_attempt_time  2030-01-31T08:01:00Z (in 6m)
route              hello
tags               cart, x
db                 default
attempts           2
last_error         it answered 500\x1b[2J
previous.version   1
previous.outcome   replaced
meta               {"cart": 1.0, "note": "\u001b"}
"""
    )


def test_databases_collections_and_routes() -> None:
    """The lists of what jobs need."""
    assert look(tables.databases([{"name": "default", "created_time": AT}])) == (
        """
name     created
default  2030-01-31T08:00:00Z
"""
    )
    collection = {
        "name": "carts",
        "num_vnodes": 12,
        "replicas": 3,
        "history_retention_ms": 604_800_000,
        "created_time": AT,
    }
    assert look(tables.collections([collection])) == (
        """
name   vnodes  replicas  keeps history  created
carts      12         3  7d             2030-01-31T08:00:00Z
"""
    )
    route = {
        "name": "hello",
        "state": "active",
        "delivery": "at_least_once",
        "retry": {"max_attempts": 10},
        "webhook_url": "https://example.com/[red]hook[/]",
    }
    assert look(tables.routes([route])) == (
        """
name   state   delivery       attempts  webhook url
hello  active  at_least_once        10  https://example.com/[red]hook[/]
"""
    )


def test_attempts() -> None:
    """Of a job, and of a route, where each says whose it is."""
    attempt = {
        "attempt": 1,
        "status": "failed",
        "started_time": AT,
        "duration_ms": 12.5,
        "response_status": 500,
        "error_code": "status",
        "error_message": "it said 500",
        "next_attempt_time": AT + 5_000,
    }
    unknown = {"attempt": 2, "status": "unknown", "claimed_time": AT, "response_status": None}
    assert look(tables.attempts([attempt, unknown]), width=120) == (
        """
attempt  started               status   answer  took    next                  error
      1  2030-01-31T08:00:00Z  failed      500  12.5ms  2030-01-31T08:00:05Z  status: it said 500
      2  2030-01-31T08:00:00Z  unknown
"""
    )
    assert (
        look(tables.route_attempts([{**unknown, "job_id": "a/b"}]))
        .splitlines()[1]
        .startswith("job")
    )


def test_tasks() -> None:
    """What is done to many jobs."""
    task = {
        "id": "0190",
        "kind": "cancel",
        "db": "default",
        "state": "done",
        "progress": {"done": 7, "cancelled": 7},
        "created_time": AT,
        "error": None,
    }
    assert look(tables.tasks([task])) == (
        """
id    kind    db       state  jobs  created               error
0190  cancel  default  done      7  2030-01-31T08:00:00Z
"""
    )


def test_a_forecast() -> None:
    """Bars compare the buckets; a single job can be seen."""
    counts = [0, 1, 400, 800]
    rows = [
        {"from": AT + n * 3_600_000, "to": AT + (n + 1) * 3_600_000, "count": count}
        for n, count in enumerate(counts)
    ]
    assert look(tables.forecast(rows)) == (
        """
from                  jobs
2030-01-31T08:00:00Z     0
2030-01-31T09:00:00Z     1  ▏
2030-01-31T10:00:00Z   400  ████████████████████
2030-01-31T11:00:00Z   800  ████████████████████████████████████████
1201 jobs until 2030-01-31T12:00:00Z
"""
    )
    assert "#" * 20 in look(tables.forecast(rows, ascii_only=True))


@pytest.mark.parametrize(("count", "most", "expected"), [(0, 0, ""), (0, 5, ""), (1, 40, "█")])
def test_bars(count: int, most: int, expected: str) -> None:
    """A bar is as long as its share."""
    assert expected == tables.bar(count, most)


def test_a_cluster() -> None:
    """What an admin sees."""
    node = {
        "id": "e1",
        "name": "a",
        "state": "up",
        "http": "127.0.0.1:8001",
        "version": "0.1.0",
        "vnodes": 12,
        "leaders": 12,
        "clock_offset_ms": 0,
    }
    cluster = {"cluster_id": "c1", "node_leader": "e1", "nodes": [node]}
    assert look(render.show_status(cluster)) == (
        """
cluster c1, node leader e1
node  name  state  http            version  vnodes  leaders  clock
e1    a     up     127.0.0.1:8001  0.1.0        12       12   0 ms
"""
    )
    short = cluster | {"node_leader": None, "under_replicated": 4, "no_fault_tolerance": True}
    assert look(render.show_status(short)).startswith(
        """
cluster c1, node leader none
4 vnodes have fewer replicas than they are to have
no fault tolerance: the loss of one node can stop vnodes
node """
    )
    vnode = {
        "db": "default",
        "collection": "carts",
        "index": 3,
        "leader": "e1",
        "term": 1,
        "offset": {"time": AT, "job_id": None},
        "due_backlog": 0,
    }
    assert look(render.show_vnodes([vnode])) == (
        """
db       collection  vnode  leader  term  offset                due backlog
default  carts           3  e1         1  2030-01-31T08:00:00Z            0
"""
    )


def test_a_format_that_may_be_finalised() -> None:
    """It is told as long as it is not; then it is told once."""
    cluster: dict[str, object] = {"cluster_id": "c1", "node_leader": None, "nodes": []}
    upgraded = cluster | {"cluster_version": 1, "known_version": 2}
    told = "format 1; every node knows 2, which may be finalised"
    assert told in look(render.show_status(upgraded))
    assert told not in look(render.show_status(upgraded | {"cluster_version": 2}))
    assert "\ncluster_version  2\n" == look(render.show_finalised({"cluster_version": 2}))


def test_a_join_token() -> None:
    """The token as it is to be typed, and until when."""
    assert look(render.show_join_token({"token": "ab.c-_", "expires_time": AT})) == (
        """
token    ab.c-_
expires  2030-01-31T08:00:00Z
"""
    )
