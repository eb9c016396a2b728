"""`timemachine admin restore` and `past-due`: a backup into a cluster, and what is past due."""

import json
from collections.abc import Sequence

import click

from admin.ask import go_ahead, plan_id, plan_option
from admin.backup import calls
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
        "timemachine admin restore backups --num-vnodes 24 --past-due drop --dry-run",
        "timemachine admin restore backups --num-vnodes 24 --past-due drop --plan PLAN",
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
@plan_option
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
    plan: str | None,
) -> None:
    """Restore a backup from PLACE, the newest unless ID names one, into this cluster.

    The cluster may have any number of nodes, and overwrites nothing: none of the collections and
    routes may be there. All files are checked before anything is written. A restore that broke off
    goes on when the same command is typed again; one that is complete is only compared.

    At a terminal it is shown what would be done, and the cluster's id is to be typed; elsewhere it
    takes the id of what a --dry-run with the same options has shown.

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
        cluster = session.carry(calls.describe()).cluster_id
        wanted = plan_id("restore", cluster, manifest.id, past_due, restoring.made)
        shown = (
            f"Backup {manifest.id} of {when(manifest.created_ms)}: {restoring.jobs} jobs,"
            f" {len(restoring.collections)} collections, {len(restoring.routes)} routes;"
            f" what is past due: {past_due}. Into the cluster {cluster}"
        )
        found = {"backup": manifest.id, "jobs": restoring.jobs}
        if not go_ahead(
            cluster, wanted, plan, shown=shown, report=found, dry_run=dry_run, as_json=quiet
        ):
            return
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
        "timemachine admin past-due drop --only shop --dry-run",
        "timemachine admin past-due drop --only shop --plan PLAN",
    ],
)
@click.argument("choice", type=click.Choice(["fire", "drop"]))
@_ONLY
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@plan_option
@click.pass_obj
def past_due(
    given: Given, choice: str, only: Sequence[str], dry_run: bool, plan: str | None
) -> None:
    """Decide on the jobs that restores hold: send them now, or give them up as expired.

    What is given up can be redriven. Single jobs are sent by `timemachine job run`, and cancelled
    by `timemachine job delete`.
    """
    quiet = bool(given.as_json)
    with Session(given) as session:
        cluster = session.carry(calls.describe())
        # With another restore there are other jobs to decide on.
        wanted = plan_id(
            "past-due", cluster.cluster_id, cluster.restore_epoch, choice, sorted(only)
        )
        what = "Send all jobs" if choice == "fire" else "Give up all jobs"
        where = f" of {', '.join(only)}" if only else ""
        if not go_ahead(
            cluster.cluster_id,
            wanted,
            plan,
            shown=f"{what}{where} that restores hold in the cluster {cluster.cluster_id}",
            report={"choice": choice},
            dry_run=dry_run,
            as_json=quiet,
        ):
            return
        with progress("jobs", None, quiet=quiet) as told:
            wanted_of = [each for each in cluster.collections if not only or each.db in only]
            total = decide(session, wanted_of, choice, told)
    if quiet:
        click.echo(json.dumps({"choice": choice, "jobs": total}))
    else:
        click.echo(f"{'Sent' if choice == 'fire' else 'Given up'}: {total} jobs.")
