"""Questions before what cannot be undone."""

import hashlib
import json
import sys
from collections.abc import Mapping

import click
import msgspec


def confirm(question: str, *, yes: bool) -> None:
    """Ask somebody at a terminal; without one `--yes` is needed. Raises Abort after a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: add --yes.")
    click.confirm(question, abort=True, err=True)


def confirm_cluster(cluster_id: str) -> None:
    """Have somebody at a terminal type the cluster's id. Raises ClickException for another."""
    typed = click.prompt(
        "Type the cluster's id to confirm it", default="", show_default=False, err=True
    )
    if typed.strip() != cluster_id:
        raise click.ClickException("That is not the cluster's id; nothing was confirmed.")


def plan_id(*said: object) -> str:
    """The id of what a command is about to do: another one for whatever is said otherwise."""
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:12]


def go_ahead(
    cluster_id: str,
    plan: str,
    given_plan: str | None,
    *,
    shown: str,
    report: Mapping[str, object],
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Show a plan, in words or as a JSON `report`, and unless that is all have it confirmed.

    By the cluster's id that somebody types, or by the id of the plan, which `--dry-run` has told.
    False after a dry run. Raises ClickException.
    """
    if dry_run and as_json:
        click.echo(json.dumps({**report, "plan": plan}))
        return False
    click.echo(f"{shown}: plan {plan}.", err=not dry_run)
    if dry_run:
        return False
    if given_plan is None:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "Nobody can be asked here: look at it with --dry-run, and add --plan with the id"
                " that it tells."
            )
        confirm_cluster(cluster_id)
    elif given_plan != plan:
        raise click.ClickException(
            f"What is to be done is not the plan {given_plan}, but {plan}: look at it with"
            " --dry-run. Nothing was done."
        )
    return True


plan_option = click.option(
    "--plan", metavar="PLAN", help="Do not ask: what --dry-run has told under this id is wanted."
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
