"""Which replicas should move: plans for a human to confirm, as pure functions of what meta knows.

`timemachine.placement` decides where replicas begin and adds what is missing; it never moves what
is there. Here is what moves: after nodes have joined (`rebalance`), before they leave or when they
are lost (`drain`), and when a collection is to have another count of replicas (`replicate`).

What is reached, in this order:

1. Two replicas of a vnode are never on one node.
2. Each vnode is spread over zones, then over hosts, as well as its nodes allow. One that shares a
   zone or a host though it need not is mended.
3. Each node has its share by weight, over all collections, rounded down or up (`shares`).
4. The fewest replicas move. `lower_bound` says what any plan needs.
5. As far as it costs no move more, each collection is even in itself, and a hash decides which
   vnodes of it move. So what a node has of a collection is no stretch of the ring.

How: the best spread of a vnode is a set of bounds for zones and hosts (`spread`); bounds and
weights give each node its share (`shares`); vnodes that may not stay as they are change by
themselves (`mending`); then replicas are exchanged until all nodes have their shares, as a flow of
least cost (`exchange`, where the hard part is explained).

The same arguments give the same plan, in whatever order they come. A `Move` names the version of
the placement that it starts from, so a plan that was overtaken does nothing. Vnodes whose members
are changing, or cannot change, are left alone (`wishes`).

    spread     zones, hosts and nodes; which sets of nodes are spread best
    shares     how many replicas are due to each node
    wishes     what may move, and what has to
    mending    vnodes that may not stay as they are
    exchange   the flow
    plans      rebalance, drain, replicate
    counting   the lower bound
    drafting   plans as they are asked for
    basis      what plans were made from
    standing   how far the moves of a plan are that runs
"""

from timemachine.rebalancing.basis import basis
from timemachine.rebalancing.counting import lower_bound
from timemachine.rebalancing.drafting import Draft, cut
from timemachine.rebalancing.plans import copies, drain, rebalance, replicate
from timemachine.rebalancing.standing import Standing, is_settled, standings

__all__ = [
    "Draft",
    "Standing",
    "basis",
    "copies",
    "cut",
    "drain",
    "is_settled",
    "lower_bound",
    "rebalance",
    "replicate",
    "standings",
]
