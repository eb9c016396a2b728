"""The commands that ask a node, by name: `timemachine db`, `collection`, `route`, `job`, ..."""

from typing import Final

from admin.lazy import Place

CLIENT: Final = {
    "db": Place("admin.commands.db", "db", "Databases: namespaces of collections and routes."),
    "collection": Place(
        "admin.commands.collection", "collection", "Collections: where jobs are kept."
    ),
    "route": Place("admin.commands.route", "route", "Routes: where jobs are sent, and how."),
    "job": Place("admin.commands.job", "job", "Jobs: what is sent, and when."),
    "task": Place("admin.commands.task", "task", "Tasks: work on many jobs, in the background."),
    "cluster": Place("admin.commands.cluster", "cluster", "The cluster: what holds for all nodes."),
    "completion": Place(
        "admin.commands.completion", "completion", "Print the completion script of a shell."
    ),
}
"""What a user of the database types."""

PLACES: Final = {
    **CLIENT,
    "admin": Place(
        "admin.cli",
        "admin",
        "Look at a cluster, let nodes join it, and help when it cannot help itself.",
    ),
}
"""All commands that `timemachine` takes from here."""
