"""Tables for people. Pure: from decoded answers to something that rich can print."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from admin import shown

Row = Mapping[str, Any]
Parts = Iterable[RenderableType | str]
Cell = Callable[[Row], str]

_STATE_STYLES: Final = {
    "delivered": "green",
    "open": "green",
    "succeeded": "green",
    "done": "green",
    "dead": "red",
    "failed": "red",
    "retrying": "yellow",
    "held": "yellow",
    "paused": "yellow",
    "leaving": "yellow",
    "cancelled": "dim",
}
_BAR_CELLS: Final = 40
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def grid(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> Table:
    """Columns without lines around them; those named in `right` hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(
            title, justify="right" if title in right else "left", overflow="fold", no_wrap=False
        )
    for row in rows:
        table.add_row(*(Text(cell, style=_STATE_STYLES.get(cell, "")) for cell in row))
    return table


def members(pairs: Iterable[tuple[str, str]]) -> Table:
    """One thing, a member a line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, cell in pairs:
        table.add_row(Text(name), Text(cell, style=_STATE_STYLES.get(cell, "")))
    return table


def _flat(row: Row, before: str = "") -> Iterable[tuple[str, Any]]:
    for name, content in row.items():
        if isinstance(content, Mapping) and content:
            yield from _flat(content, f"{before}{shown.text(name)}.")
        elif content is not None and content not in ({}, []):
            yield before + shown.text(name), content


def one(row: Row) -> Parts:
    """One thing with all its members."""
    yield members((name, shown.value(name, content)) for name, content in _flat(row))


def databases(rows: Sequence[Row]) -> Parts:
    """Databases."""
    yield grid(
        ("name", "created"),
        [(shown.text(row["name"]), shown.time(row.get("created_time"))) for row in rows],
    )


def collections(rows: Sequence[Row]) -> Parts:
    """Collections."""
    yield grid(
        ("name", "vnodes", "replicas", "keeps history", "created"),
        [
            (
                shown.text(row["name"]),
                str(row.get("num_vnodes", "")),
                str(row.get("replicas", "")),
                shown.duration(row.get("history_retention_ms")),
                shown.time(row.get("created_time")),
            )
            for row in rows
        ],
        right=("vnodes", "replicas"),
    )


def routes(rows: Sequence[Row]) -> Parts:
    """Routes."""
    yield grid(
        ("name", "state", "delivery", "attempts", "webhook url"),
        [
            (
                shown.text(row["name"]),
                shown.text(shown.route_state(row)),
                shown.text(row.get("delivery", "")),
                str(row.get("retry", {}).get("max_attempts", "")),
                shown.text(row.get("webhook_url", "")),
            )
            for row in rows
        ],
        right=("attempts",),
    )


def jobs(rows: Sequence[Row]) -> Parts:
    """Jobs."""
    yield grid(
        ("id", "state", "trigger time", "route", "attempts", "tags", "last error"),
        [
            (
                shown.text(row["id"]),
                shown.text(row.get("state", "")),
                shown.time(row.get("trigger_time")),
                shown.text(row.get("route", "")),
                str(row.get("attempts", "")),
                shown.text(",".join(row.get("tags") or ())),
                _why(row),
            )
            for row in rows
        ],
        right=("attempts",),
    )


def _why(row: Row) -> str:
    return shown.text(
        ": ".join(part for part in (row.get("reason"), row.get("last_error")) if part)
    )


def job(now_ms: int) -> Callable[[Row], Parts]:
    """One job, as it is at a moment."""

    def show(row: Row) -> Parts:
        rows = [("id", shown.text(row["id"])), ("state", shown.text(row.get("state", "")))]
        for name in ("trigger_time", "next_attempt_time"):
            if row.get(name) is not None:
                there = f"{shown.time(row[name])} ({shown.distance(row[name], now_ms)})"
                rows.append((name, there))
        named = {"id", "state", "trigger_time", "next_attempt_time", "meta"}
        for name, content in _flat({name: row[name] for name in row if name not in named}):
            rows.append((name, shown.value(name, content)))
        if "meta" in row:
            rows.append(("meta", shown.text(row["meta"])))
        yield members(rows)

    return show


def attempts(rows: Sequence[Row]) -> Parts:
    """Attempts of a job."""
    yield _attempts(rows, with_job=False)


def route_attempts(rows: Sequence[Row]) -> Parts:
    """Attempts of a route, each with its job."""
    yield _attempts(rows, with_job=True)


def _attempts(rows: Sequence[Row], *, with_job: bool) -> Table:
    titles = ("attempt", "started", "status", "answer", "took", "next", "error")
    return grid(
        (("job", *titles) if with_job else titles),
        [
            (
                *((shown.text(row.get("job_id", "")),) if with_job else ()),
                str(row.get("attempt", "")),
                shown.time(row.get("started_time") or row.get("claimed_time")),
                shown.text(row.get("status", "")),
                shown.value("", row.get("response_status")),
                shown.duration(row.get("duration_ms")),
                shown.time(row.get("next_attempt_time")),
                _fault(row),
            )
            for row in rows
        ],
        right=("attempt", "answer"),
    )


def tasks(rows: Sequence[Row]) -> Parts:
    """Tasks."""
    yield grid(
        ("id", "kind", "db", "state", "jobs", "created", "error"),
        [
            (
                *(shown.text(row.get(name, "")) for name in ("id", "kind", "db", "state")),
                str(row.get("progress", {}).get("done", "")),
                shown.time(row.get("created_time")),
                shown.text(row.get("error") or ""),
            )
            for row in rows
        ],
        right=("jobs",),
    )


def _fault(row: Row) -> str:
    parts = [str(row[name]) for name in ("error_code", "error_message") if row.get(name)]
    return shown.text(": ".join(parts))


def forecast(rows: Sequence[Row], *, ascii_only: bool = False) -> Parts:
    """How many jobs are due when, as bars."""
    most = max((row["count"] for row in rows), default=0)
    yield grid(
        ("from", "jobs", ""),
        [
            (
                shown.time(row["from"]),
                str(row["count"]),
                bar(row["count"], most, ascii_only=ascii_only),
            )
            for row in rows
        ],
        right=("jobs",),
    )
    if rows:
        total = sum(row["count"] for row in rows)
        yield f"{total} jobs until {shown.time(rows[-1]['to'])}"


def bar(count: int, most: int, *, ascii_only: bool = False) -> str:
    """A bar whose length says how `count` compares with `most`; what is not zero can be seen."""
    if count <= 0 or most <= 0:
        return ""
    if ascii_only:
        return "#" * max(1, count * _BAR_CELLS // most)
    eighths = max(1, count * _BAR_CELLS * 8 // most)
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
