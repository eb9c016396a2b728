"""`timemachine admin salvage`: what a stopped node still holds, when nobody else does."""

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click

from admin import output
from admin.command import HELP
from admin.examples import ExampleCommand
from admin.salvaged import show_salvaged
from timemachine.errors import StoreError
from timemachine.salvage import Replica, lines, replicas
from timemachine.storage.salvaging import Opened, open_stopped

_UNNAMED: Final = "unnamed"
_REPORT: Final = "report.json"


def _places(data: Path, out: Path) -> None:
    """Refuse an OUT that something is in, or that lies in DATA: nothing is written there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"{out} is not empty; name a new directory.")
    resolved = out.resolve()
    if data.resolve() in (resolved, *resolved.parents):
        raise click.UsageError("OUT lies in DATA, and nothing is written there.")


@click.command(
    cls=ExampleCommand,
    context_settings=HELP,
    examples=[
        "timemachine admin salvage data-2 salvaged",
        "timemachine admin salvage data-2 salvaged --db default --collection carts --vnode 0",
    ],
)
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--db", metavar="DB", help="Only collections of this database.")
@click.option("--collection", metavar="NAME", help="Only collections of this name.")
@click.option(
    "--vnode", "vnodes", type=int, multiple=True, metavar="N", help="Only these; repeat it."
)
@click.option(
    "--committed-only", is_flag=True, help="Leave out what was not known to be committed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def salvage(
    data: Path,
    out: Path,
    db: str | None,
    collection: str | None,
    vnodes: tuple[int, ...],
    committed_only: bool,
    as_json: bool,
) -> None:
    """Take out the jobs of a stopped node, for vnodes that have lost their majority for good.

    DATA is the node's data directory; nothing is written there, and all that verifies is read.
    OUT is a new directory: OUT/DB/COLLECTION.ndjson gets the pending jobs, for
    `timemachine job batch COLLECTION FILE` into a collection that works, and OUT/report.json what
    was found. While it runs, OUT also holds a working copy of a part of the store.

    Create the jobs of each vnode from one node only, whose replica is the newest: `applied` tells.
    What only lost nodes had is missing, and what they had sent or changed since is there as it
    was: such jobs are sent again. Jobs that have ended are left out. Jobs created anew have new
    webhook-ids, so recipients cannot tell repeats by them. `report.json` counts what may be
    repeated or is missing.
    """
    _places(data, out)
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = open_stopped(data, out)
        with closing(opened.store):
            wanted = [
                each
                for each in replicas(opened.store, unconfirmed=not committed_only)
                if (db is None or each.db == db)
                and (collection is None or each.collection == collection)
                and (not vnodes or each.index in vnodes)
            ]
            for replica in wanted:
                _write(opened, replica, out, unconfirmed=not committed_only)
            report = _report(opened, wanted)
        text = json.dumps(report, indent=1)
        (out / _REPORT).write_text(text + "\n")
    except StoreError as error:
        raise click.ClickException(error.detail) from None
    except OSError as error:
        raise click.ClickException(f"OUT cannot be written: {error.strerror}.") from None
    if as_json:
        click.echo(text)
    else:
        output.people(show_salvaged(report))


def _file_of(replica: Replica) -> Path:
    name = replica.collection or f"replica-{replica.keys.incarnation}"
    return Path(replica.db or _UNNAMED, f"{name}.ndjson")


def _write(opened: Opened, replica: Replica, out: Path, *, unconfirmed: bool) -> None:
    path = out / _file_of(replica)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("ab") as file:
        for line in lines(opened.store, replica, unconfirmed=unconfirmed):
            file.write(line)


def _report(opened: Opened, found: Iterable[Replica]) -> dict[str, Any]:
    identity = opened.identity
    return {
        "cluster_id": None if identity is None else identity.cluster_id,
        "node_id": None if identity is None else identity.node_id,
        "log_damaged": opened.log_damaged,
        "rebuilt": opened.rebuilt,
        "vnodes": [
            {
                "db": each.db or None,
                "collection": each.collection or None,
                "vnode": each.index,
                "file": str(_file_of(each)),
                "applied_index": each.applied_index,
                "entries": each.entries,
                "unconfirmed": each.unconfirmed,
                "log_damaged": each.log_damaged,
                "jobs": each.jobs,
                "firing": each.firing,
                "retrying": each.retrying,
                "ended": each.ended,
                "unreadable": each.unreadable,
                "damaged": each.damaged,
            }
            for each in found
        ],
    }
