"""Reading over many vnodes, whichever nodes lead them.

The node that is asked asks for each vnode its leader, itself among them, with one call for each
node. Where it leads all of them, no call is made and nothing is encoded.

    questions.py   what may be asked, how a node answers it from its own replicas
    answering.py   the answering side: only for vnodes that are led here, and no older than the call
    asking.py      who is asked, again where need be, until all vnodes are answered for
    paging.py      lists: the pages of several nodes, merged into one
    polling.py     what nodes say of themselves
    gathering.py   the three put together, as the engine has them
"""

from node.gathering.asking import Asking
from node.gathering.gathering import Gathering
from node.gathering.questions import (
    Burdens,
    CountJobs,
    Counts,
    Forecast,
    ListAttempts,
    ListJobs,
    Members,
    Reports,
    RouteCounts,
    RouteSends,
)

__all__ = [
    "Asking",
    "Burdens",
    "CountJobs",
    "Counts",
    "Forecast",
    "Gathering",
    "ListAttempts",
    "ListJobs",
    "Members",
    "Reports",
    "RouteCounts",
    "RouteSends",
]
