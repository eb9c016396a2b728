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


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
