"""The commands of an admin: so far those that look."""

import click

from admin import answers
from admin.command import Group
from admin.given import Given
from admin.render import show_status, show_vnodes
from timemachine.client import operations


@click.group(cls=Group, db=False)
def admin() -> None:
    """Look at a cluster."""


@admin.command(db=False, examples=["timemachine admin status"])
@click.pass_obj
def status(given: Given) -> None:
    """Show the nodes of the cluster."""
    answers.show(given, operations.cluster(), show_status)


@admin.command(db=False, examples=["timemachine admin vnodes"])
@click.pass_obj
def vnodes(given: Given) -> None:
    """Show every vnode: its leader, term, offset and backlog."""
    answers.show_all(given, operations.vnodes(), show_vnodes)
