"""`python -m admin`: the admin's commands, and those that ask about databases, routes and jobs."""

from admin.cli import admin
from admin.lazy import LazyGroup
from admin.program import CLIENT

program = LazyGroup(
    "admin",
    commands=dict(admin.commands),
    places=CLIENT,
    params=list(admin.params),
    help=admin.help,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""The program: `timemachine admin`, with the client's commands beside its own."""

if __name__ == "__main__":
    program(prog_name="admin")
