"""`timemachine admin backup`: taken, listed, checked, deleted."""

import json
from contextlib import suppress

import click

from admin import output
from admin.ask import confirm, yes_option
from admin.backup import calls
from admin.backup.kept import base_of, files_of, kept_in
from admin.backup.places import place_of
from admin.backup.reading import Damaged, check, manifest_of, newest
from admin.backup.shown import own_bytes, progress, row, show_backups
from admin.backup.taking import Taking
from admin.command import Group
from admin.given import Given
from admin.session import Session
from timemachine.backup.manifest import MANIFEST
from timemachine.errors import CodecError

_PLACE = "A directory, or s3://BUCKET/PREFIX."


@click.group(cls=Group, db=False)
def backup() -> None:
    """Backups: take them, look at them, check them."""


@backup.command(
    db=False,
    examples=["timemachine admin backup create backups"],
)
@click.argument("place", metavar="PLACE")
@click.option("--full", is_flag=True, help="Read all vnodes, also those that have not changed.")
@click.option(
    "--max-bytes-per-s",
    type=click.IntRange(1),
    metavar="N",
    help="Read no faster than that, before compression. [no limit]",
)
@click.pass_obj
def create(given: Given, place: str, full: bool, max_bytes_per_s: int | None) -> None:
    """Back up the cluster to PLACE: a directory, or s3://BUCKET/PREFIX.

    All that was acknowledged before is in it: databases, collections, routes and jobs. Of each
    vnode there is one file, which shows one moment. Vnodes that have not changed since the newest
    backup in PLACE are not read again: their files there are used, unless --full.

    The secrets of routes are sealed in it with the master key of the cluster: keep that, too.
    """
    target = place_of(place)
    with Session(given) as session:
        cluster_id = session.carry(calls.describe()).cluster_id
        base = None if full else base_of(target, cluster_id)
        with progress("jobs", None, quiet=bool(given.as_json)) as told:
            taking = Taking(session, target, base, max_bytes_per_s, told)
            try:
                manifest = taking.take()
            except CodecError as error:
                raise click.ClickException(f"A node sent what is no page: {error.detail}") from None
    if given.as_json:
        click.echo(json.dumps({**row(manifest), "read": taking.read, "kept": taking.kept}))
        return
    click.echo(
        f"Backup {manifest.id}: {manifest.jobs} jobs, {own_bytes(manifest)} bytes written;"
        f" vnodes read: {taking.read}, unchanged since {manifest.base or 'before'}: {taking.kept}."
    )


@backup.command("list", db=False, examples=["timemachine admin backup list backups"])
@click.argument("place", metavar="PLACE")
@click.pass_obj
def list_(given: Given, place: str) -> None:
    """List the complete backups in PLACE."""
    found, damaged, partial = kept_in(place_of(place))
    for error in damaged:
        click.echo(error.message, err=True)
    for name in partial:
        # It may be under way. Programs see what is complete.
        click.echo(f"Not complete: {name}; `backup delete` removes what is there of it.", err=True)
    if given.as_json:
        click.echo(json.dumps([row(each) for each in found]))
    elif found:
        output.people(show_backups(found))
    else:
        click.echo("There is no backup.", err=True)


@backup.command("check", db=False, examples=["timemachine admin backup check backups"])
@click.argument("place", metavar="PLACE")
@click.argument("id", required=False, metavar="[ID]")
@click.pass_obj
def check_(given: Given, place: str, id: str | None) -> None:
    """Read all of a backup in PLACE, the newest unless ID names one, against its checksums."""
    target = place_of(place)
    manifest = newest(target, id)
    with progress("jobs", manifest.jobs, quiet=bool(given.as_json)) as told:
        check(target, manifest.collections, told)
    if given.as_json:
        click.echo(json.dumps(row(manifest)))
    else:
        click.echo(f"Backup {manifest.id}: {manifest.jobs} jobs, all of it sound.")


@backup.command("delete", db=False, examples=["timemachine admin backup delete backups ID --yes"])
@click.argument("place", metavar="PLACE")
@click.argument("id", metavar="ID")
@yes_option
@click.pass_obj
def delete(given: Given, place: str, id: str, yes: bool) -> None:
    """Delete a backup from PLACE; files that other backups use stay.

    Also one that broke off, and is not complete.
    """
    target = place_of(place)
    manifest = None
    if id in target.backups():
        with suppress(Damaged):
            manifest = manifest_of(target, id)
        jobs = "whose manifest cannot be read" if manifest is None else f"with {manifest.jobs} jobs"
        confirm(f"Delete the backup {id} {jobs}?", yes=yes)
    elif id in kept_in(target).partial:
        confirm(f"Delete what is there of {id}, which is not complete?", yes=yes)
    else:
        raise Damaged(f"There is no backup {id} in {target.name}.")
    files = files_of(target, id, manifest)
    # The manifest goes first: what is left of a crash is no backup.
    target.delete(f"{id}/{MANIFEST}")
    for name in files:
        target.delete(name)
    if given.as_json:
        click.echo(json.dumps({"id": id} if manifest is None else row(manifest)))
    else:
        click.echo(f"Backup {id} is deleted.")
