"""`timemachine admin restore` and `past-due`: a backup into a cluster, and what is past due."""

import json
from collections.abc import Sequence

import click

from admin.ask import confirm, yes_option
from admin.backup.places import place_of
from admin.backup.reading import check, newest
from admin.backup.restoring import Restoring, decide
from admin.backup.shown import progress, when
from admin.command import Command
from admin.given import Given
from admin.session import Session
from timemachine import limits
from timemachine.model import PastDue

_ONLY = click.option(
    "--only", "only", multiple=True, metavar="DB", help="Only this database; repeat it for several."
)


@click.command(
    cls=Command,
    db=False,
    examples=[
        "timemachine admin restore backups --yes",
        "timemachine admin restore backups --num-vnodes 24 --past-due drop --yes",
    ],
)
@click.argument("place", metavar="PLACE")
@click.argument("id", required=False, metavar="[ID]")
@click.option(
    "--past-due",
    type=click.Choice([each.value for each in PastDue]),
    default=PastDue.HOLD.value,
    show_default=True,
    help="What becomes of jobs that are due by now: held until `admin past-due` decides, sent at"
    " once, or dead with the reason expired.",
)
@_ONLY
@click.option(
    "--num-vnodes",
    type=click.IntRange(1, limits.VNODES_PER_COLLECTION_MAX),
    metavar="N",
    help="How many vnodes each collection is to have. [as many as it had]",
)
@click.option("--dry-run", is_flag=True, help="Check the backup, and whether it could be restored.")
@click.option("--no-compare", is_flag=True, help="Do not read all of it again at the end.")
@yes_option
@click.pass_obj
def restore(
    given: Given,
    place: str,
    id: str | None,
    past_due: str,
    only: Sequence[str],
    num_vnodes: int | None,
    dry_run: bool,
    no_compare: bool,
    yes: bool,
) -> None:
    """Restore a backup from PLACE, the newest unless ID names one, into this cluster.

    The cluster may have any number of nodes, and overwrites nothing: none of the collections and
    routes may be there. All files are checked before anything is written. A restore that broke off
    goes on when the same command is typed again; one that is complete is only compared.

    What the backup knows as delivered is never sent again. Jobs keep their webhook-ids, so
    recipients recognise what the cluster that was backed up has sent since.
    """
    quiet = bool(given.as_json)
    target = place_of(place)
    manifest = newest(target, id)
    with Session(given) as session:
        restoring = Restoring(
            session, target, manifest, only=only, num_vnodes=num_vnodes, past_due=past_due
        )
        restoring.begin(dry_run=True)
        with progress("checked", restoring.jobs, quiet=quiet) as told:
            check(target, restoring.collections, told)
        plan = (
            f"backup {manifest.id} of {when(manifest.created_ms)}: {restoring.jobs} jobs,"
            f" {len(restoring.collections)} collections, {len(restoring.routes)} routes;"
            f" what is past due: {past_due}"
        )
        if dry_run:
            click.echo(
                json.dumps({"backup": manifest.id, "jobs": restoring.jobs}) if quiet else plan
            )
            return
        confirm(f"Restore {plan}?", yes=yes)
        begun = restoring.begin(dry_run=False)
        done = begun.finished_time
        with progress("restored" if done is None else "read", restoring.jobs, quiet=quiet) as told:
            restoring.restore(begun, told)
        differ = []
        if not no_compare:
            with progress("compared", restoring.jobs, quiet=quiet) as told:
                differ = restoring.compare(told)
    if quiet:
        report = {
            "restore": begun.id,
            "backup": manifest.id,
            "restore_epoch": begun.restore_epoch,
            "cut_time": begun.cut_time,
            "complete_since": done,
            "jobs": restoring.jobs,
            "counts": restoring.counts,
            "compared": not no_compare,
            "differ": [{"db": db, "collection": name, "vnode": at} for db, name, at in differ],
        }
        click.echo(json.dumps(report))
    else:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(restoring.counts.items()))
        if done is None:
            click.echo(f"Restored {restoring.jobs} jobs: {counts or 'none'}.")
        else:
            click.echo(f"It was restored already, at {when(done)}: nothing was written.")
        if not no_compare and not differ:
            click.echo("Compared: the jobs of every vnode are those of the backup.")
        if restoring.counts.get("held"):
            click.echo("Decide on the held ones with: timemachine admin past-due fire|drop")
    if differ:
        named = ", ".join(f"{db}/{name}/{at}" for db, name, at in differ[:10])
        raise click.ClickException(
            f"{len(differ)} vnodes of the backup are not here as they were: {named}. Jobs may"
            " have been changed since the restore began."
        )


@click.command(
    "past-due",
    cls=Command,
    db=False,
    examples=[
        "timemachine admin past-due fire --yes",
        "timemachine admin past-due drop --only shop --yes",
    ],
)
@click.argument("choice", type=click.Choice(["fire", "drop"]))
@_ONLY
@yes_option
@click.pass_obj
def past_due(given: Given, choice: str, only: Sequence[str], yes: bool) -> None:
    """Decide on the jobs that restores hold: send them now, or give them up as expired.

    What is given up can be redriven. Single jobs are sent by `timemachine job run`, and cancelled
    by `timemachine job delete`.
    """
    what = "Send all jobs that restores hold" if choice == "fire" else "Give up all such jobs"
    confirm(f"{what}{' of ' + ', '.join(only) if only else ''}?", yes=yes)
    with Session(given) as session, progress("jobs", None, quiet=bool(given.as_json)) as told:
        total = decide(session, choice, only, told)
    if given.as_json:
        click.echo(json.dumps({"choice": choice, "jobs": total}))
    else:
        click.echo(f"{'Sent' if choice == 'fire' else 'Given up'}: {total} jobs.")
