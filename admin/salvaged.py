"""What a salvage has found, for people: how much, and what is missing or may be repeated."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType

from admin import shown
from admin.tables import Row, grid

_COUNTED: Final = ("firing", "retrying", "unconfirmed", "unreadable", "damaged", "log_damaged")


def show_salvaged(report: Row) -> Iterator[RenderableType | str]:
    """What was found, and what to know before it is created anew."""
    rows = report["vnodes"]
    yield grid(
        ("file", "vnode", "applied", "jobs", "ended", "unreadable"),
        [
            (
                shown.text(row["file"]),
                "?" if row["vnode"] is None else str(row["vnode"]),
                str(row["applied_index"] + row["entries"]),
                *(str(row[name]) for name in ("jobs", "ended", "unreadable")),
            )
            for row in rows
        ],
        right=("vnode", "applied", "jobs", "ended", "unreadable"),
    )
    yield from _warnings(report, {name: _total(rows, name) for name in _COUNTED})


def _total(rows: Sequence[Row], name: str) -> int:
    return sum(int(row[name]) for row in rows)


def _warnings(report: Row, total: dict[str, int]) -> Iterator[str]:
    yield "Missing: what only the lost replicas had."
    if total["unreadable"]:
        yield f"Missing: jobs that cannot be read: {total['unreadable']}."
    if total["damaged"]:
        yield f"Missing, perhaps: jobs of damaged vnodes that nothing tells of: {total['damaged']}."
    if total["log_damaged"]:
        yield f"Missing: the newest changes of vnodes with damaged logs: {total['log_damaged']}."
    if report["log_damaged"]:
        yield "Missing: writes of any vnode and any time; the log of the store is damaged."
    if report["rebuilt"]:
        yield "Repeated, perhaps: what was deleted; the list of the store's tables was lost."
    yield "Repeated, perhaps: what the lost replicas had ended since."
    if total["firing"] or total["retrying"]:
        yield (
            f"Repeated, perhaps: jobs that were being sent: {total['firing']};"
            f" that were tried: {total['retrying']}."
        )
    if total["unconfirmed"]:
        yield f"Not known to be committed: entries of the log: {total['unconfirmed']}."
