"""What people see of backups."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from admin import output
from admin.tables import grid
from timemachine.backup.manifest import Manifest


def own_bytes(manifest: Manifest) -> int:
    """How many bytes of files a backup has that no earlier one had."""
    parts = [part for each in manifest.collections for part in each.parts]
    start = f"{manifest.id}/"
    return sum(part.size_bytes for part in parts if part.file.startswith(start))


def row(manifest: Manifest) -> dict[str, object]:
    """A backup, for programs."""
    return {
        "id": manifest.id,
        "created_time": manifest.created_ms,
        "cluster_id": manifest.cluster_id,
        "jobs": manifest.jobs,
        "collections": len(manifest.collections),
        "routes": len(manifest.routes),
        "bytes": own_bytes(manifest),
        "base": manifest.base,
    }


def show_backups(manifests: Sequence[Manifest]) -> Iterator[RenderableType | str]:
    """Backups, one a line, the oldest first."""
    yield grid(
        ("id", "created", "jobs", "collections", "routes", "bytes", "base"),
        [
            (
                each.id,
                when(each.created_ms),
                str(each.jobs),
                str(len(each.collections)),
                str(len(each.routes)),
                str(own_bytes(each)),
                each.base or "-",
            )
            for each in manifests
        ],
        right=("jobs", "collections", "routes", "bytes"),
    )


def when(time_ms: int) -> str:
    """A time, to the second, in UTC."""
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; gives what hears of jobs done."""
    console = output.console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    lock = Lock()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)

        def told(count: int) -> None:
            with lock:
                bar.advance(task, count)

        yield told
