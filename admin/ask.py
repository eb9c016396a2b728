"""Questions before what cannot be undone."""

import hashlib
import sys

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


def confirm_planned(cluster_id: str, plan: str, given_plan: str | None) -> None:
    """Have the cluster's id typed, or the id of the plan given, which `--dry-run` has told.

    Raises ClickException.
    """
    if given_plan == plan:
        return
    if given_plan is not None:
        raise click.ClickException(
            f"What is to be done is not the plan {given_plan}, but {plan}: look at it with"
            " --dry-run. Nothing was done."
        )
    if not sys.stdin.isatty():
        raise click.UsageError(
            "Nobody can be asked here: look at it with --dry-run, and add --plan with the id that"
            " it tells."
        )
    confirm_cluster(cluster_id)


plan_option = click.option(
    "--plan", metavar="PLAN", help="Do not ask: what --dry-run has told under this id is wanted."
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
