"""The commands of an admin: so far those that look."""

import click

from admin import output
from admin.command import Group
from admin.given import Given
from admin.render import show_status, show_vnodes
from admin.session import Session
from timemachine.client.call import Call, path_of


@click.group(cls=Group, db=False)
def admin() -> None:
    """Look at a cluster."""


@admin.command(db=False, examples=["timemachine admin status"])
@click.pass_obj
def status(given: Given) -> None:
    """Show the nodes of the cluster."""
    with Session(given) as session:
        answer = session.ask(Call("GET", path_of("cluster"), object))
    output.document(answer, show_status, as_json=bool(given.as_json))


@admin.command(db=False, examples=["timemachine admin vnodes"])
@click.pass_obj
def vnodes(given: Given) -> None:
    """Show every vnode: its leader, term, offset and backlog."""
    with Session(given) as session:
        answer = session.ask(Call("GET", path_of("cluster", "vnodes"), object))
    output.items(answer, show_vnodes, as_json=bool(given.as_json))
