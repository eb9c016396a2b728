"""Questions before what cannot be undone."""

import sys

import click


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


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
