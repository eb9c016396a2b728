"""A plan as people see it: what moves, what it costs, what it risks, how far it is. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from admin import compacted, shown
from admin.tables import Parts, Row, grid

MOVES_SHOWN: Final = 20
"""Moves of a plan that are shown, unless all are asked for."""

_UNDER_WAY: Final = ("running", "paused")


def plan(cluster: Row, *, every: bool = False) -> Any:
    """How a plan of this cluster is shown; with `every` all its moves."""

    def show(row: Row) -> Parts:
        names = names_of(cluster)
        yield f"plan {shown.text(row['id'])} of cluster {shown.text(cluster['cluster_id'])}"
        yield f"{_aim(row, names)}: {shown.text(row['state'])}"
        if row["error"]:
            yield shown.text(row["error"])
        yield from _cost(row)
        yield from _before_confirming(row)
        if row["state"] in _UNDER_WAY:
            yield progress(row)
            if waits := row["waits_for"]:
                yield f"waits for {_listed(waits, names)}, which does not answer"
        if compaction := row.get("compaction"):
            yield ""
            yield compacted.by_node(compaction, names)
        if row["moves"]["total"]:
            yield ""
            yield from _by_node(row, cluster, names)
        if row["state"] == "proposed":
            yield from _risks(row["risks"])
        if row["moves"]["total"]:
            yield ""
            yield from _moves(row["vnodes"], names, every=every)

    return show


def plans(rows: Sequence[Row]) -> Parts:
    """Plans."""
    yield grid(
        ("id", "kind", "state", "moves", "done", "bytes", "created", "error"),
        [
            (
                *(shown.text(row[name]) for name in ("id", "kind", "state")),
                *_counted(row),
                shown.time(row["created_time"]),
                shown.text(row["error"] or ""),
            )
            for row in rows
        ],
        right=("moves", "done"),
    )


def progress(row: Row) -> str:
    """How far a plan is, in a line."""
    if compaction := row.get("compaction"):
        return compacted.progress(compaction)
    moves = row["moves"]
    void = f", {moves['void']} void" if moves["void"] else ""
    moving = f", {moves['moving']} under way" if moves["moving"] else ""
    return f"{moves['done']} of {moves['total']} moves done{moving}{void}"


def in_a_line(row: Row) -> str:
    """A plan that runs, beside other things."""
    return f"plan {shown.text(row['id'])} ({row['kind']}, {row['state']}): {progress(row)}"


def outcome(row: Row) -> Parts:
    """What became of a plan so far."""
    began, end = row["confirmed_time"], row["finished_time"]
    took = f", took {shown.duration(end - began)}" if began and end else ""
    yield f"plan {shown.text(row['id'])}, {shown.text(row['state'])}: {progress(row)}{took}"
    if row["error"]:
        yield shown.text(row["error"])
    if compaction := row.get("compaction"):
        yield from compacted.given_back(compaction)


def far(row: Row) -> tuple[int, int]:
    """(how much of a plan has ended, of how much): moves, or nodes that compact."""
    if compaction := row.get("compaction"):
        return compacted.ended(compaction), len(compaction["nodes"])
    return int(row["moves"]["done"]) + int(row["moves"]["void"]), int(row["moves"]["total"])


def not_begun(row: Row) -> str:
    """What is to be known of a plan that nobody has confirmed."""
    nothing = "Nothing is compacted yet" if row.get("compaction") else "Nothing moves yet"
    return f"{nothing}. `timemachine admin plan confirm {row['id']}` has it run."


def is_idle(row: Row) -> bool:
    """Whether a plan would change nothing at all."""
    return row["kind"] == "rebalance" and not row["moves"]["total"] and not row["nodes"]


def names_of(cluster: Row) -> Mapping[str, str]:
    """What nodes are called, by their ids: by their names, where these are theirs alone."""
    nodes = cluster["nodes"]
    count = Counter(node["name"] for node in nodes)
    return {
        node["id"]: shown.text(node["name"] if count[node["name"]] == 1 else node["id"])
        for node in nodes
    }


def _name(node: str, names: Mapping[str, str]) -> str:
    return names.get(node) or shown.text(node)


def _listed(nodes: Iterable[str], names: Mapping[str, str]) -> str:
    return ", ".join(_name(each, names) for each in nodes)


def _aim(row: Row, names: Mapping[str, str]) -> str:
    nodes = _listed(row["nodes"], names)
    if row["kind"] == "replicate":
        collection = f"{row['db']}/{row['collection']}" if row["collection"] else "a collection"
        return shown.text(f"replicate {collection}, {row['replicas']} replicas")
    if compaction := row.get("compaction"):
        return shown.text(compacted.aim(row, compaction, nodes))
    if row["kind"] == "rebalance" and nodes:
        return f"rebalance, with {nodes} back"
    return f"{shown.text(row['kind'])} {nodes}".rstrip()


def _cost(row: Row) -> Parts:
    moves = row["moves"]
    if compaction := row.get("compaction"):
        yield compacted.cost(row, compaction)
    elif not moves["total"]:
        yield "nothing has to move"
    else:
        yield (
            f"{_count(moves['total'], 'vnode')} to change, {row['transfers']} at once:"
            f" {_count(moves['copies'], 'replica')} to copy, {shown.size(row['copied_bytes'])},"
            f" about {shown.duration(row['estimate_ms'])}"
        )
    if moves["left"]:
        yield f"{_count(moves['left'], 'further vnode')} for another plan, after this one"


def _before_confirming(row: Row) -> Parts:
    if row["state"] == "proposed":
        busy = row["traffic"]
        yield (
            f"the cluster does {busy['writes_per_s']:g} writes and {busy['fires_per_s']:g} webhooks"
            " a second"
        )
        yield f"to be confirmed before {shown.time(row['expires_time'])}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _counted(row: Row) -> tuple[str, str, str]:
    """Of a plan in a list: all there is to do, what of it is done, and its bytes."""
    if compaction := row.get("compaction"):
        done, total = far(row)
        return str(total), str(done), shown.size(compacted.range_bytes(compaction))
    moves = row["moves"]
    return str(moves["total"]), str(moves["done"]), shown.size(row["copied_bytes"])


def _by_node(row: Row, cluster: Row, names: Mapping[str, str]) -> Parts:
    """What each node has now, gets, gives, and has afterwards."""
    gets: Counter[str] = Counter()
    gives: Counter[str] = Counter()
    size: Counter[str] = Counter()
    change: Counter[str] = Counter()
    for move in row["vnodes"]:
        for node in move["add"]:
            gets[node] += 1
            size[node] += move["copied_bytes"] // len(move["add"])
        for node in move["remove"]:
            gives[node] += 1
        if move["state"] == "waiting":
            # Of one that has begun the cluster counts the replicas that are to be already.
            change.update(move["add"])
            change.subtract(move["remove"])
    now = {node["id"]: node["vnodes"] for node in cluster["nodes"]}
    over = row["state"] not in ("proposed", *_UNDER_WAY)
    told = [each for each in {**now, **gets, **gives} if now.get(each) or gets[each] or gives[each]]
    yield grid(
        ("node", "replicas now", "after", "gets", "gives", "copied to it"),
        [
            (
                _name(node, names),
                str(now.get(node, 0)),
                "" if over else str(now.get(node, 0) + change[node]),
                *(str(count) if count else "" for count in (gets[node], gives[node])),
                shown.size(size[node]) if gets[node] else "",
            )
            for node in told
        ],
        right=("replicas now", "after", "gets", "gives", "copied to it"),
    )


def _risks(risks: Sequence[str]) -> Parts:
    if risks:
        yield ""
        yield "Think of this before you confirm it:"
        for risk in risks:
            yield f"- {shown.text(risk)}"


def _moves(rows: Sequence[Row], names: Mapping[str, str], *, every: bool) -> Parts:
    seen = rows if every else rows[:MOVES_SHOWN]
    yield grid(
        ("db", "collection", "vnode", "to", "from", "bytes", "state"),
        [
            (
                shown.text(row["db"]),
                shown.text(row["collection"]),
                str(row["index"]),
                _listed(row["add"], names),
                _listed(row["remove"], names),
                shown.size(row["copied_bytes"]),
                shown.text(row["state"]),
            )
            for row in seen
        ],
        right=("vnode", "bytes"),
    )
    if len(rows) > len(seen):
        yield f"and {len(rows) - len(seen)} more; --all shows them"
