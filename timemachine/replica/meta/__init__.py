"""What the whole cluster agrees on: databases, collections, routes, settings, nodes, placement.

Small, so all of it is kept in memory beside its rows. Like the job machine the meta machine is a
pure function of its log, and the only writer of its rows.

Uids are numbers that are never used again: a re-created route does not inherit the jobs of its
predecessor, a re-created collection not its vnodes. The numbers of nodes are such, too.

    commands    what the log may carry
    records     what rows hold, and what a command is answered
    tables      the records in memory and in their rows
    content     databases, collections, routes, settings
    nodes       the first nodes, nodes that join, their tokens, the format of all
    placing     which replicas each vnode is to have
    plans       moves of replicas that admins have confirmed
    compactions plans that compact: who has begun, who has ended
    tasks       bulk tasks, as far as meta remembers them
    restores    backups that are restored here
    sealing     which master key seals secrets
    machine     applies the log
"""

from timemachine.replica.meta.commands import (
    AS_ATTEMPTS,
    AdvanceCompaction,
    AdvancePlan,
    AnyMetaCommand,
    BeginRestore,
    Bootstrap,
    CompactionEnd,
    ConfirmPlan,
    DeleteCollection,
    DeleteDatabase,
    DeleteRoute,
    DisableRoute,
    EndPlan,
    EndRestore,
    EndTask,
    Finalise,
    ForgetRequests,
    ForgetTasks,
    IssueToken,
    JoinNode,
    Place,
    PutCollection,
    PutDatabase,
    PutNode,
    PutPlan,
    PutRoute,
    PutSettings,
    PutTask,
    Removed,
    Reseal,
    RestoredCollection,
    RestoreRoutes,
    Retire,
    RouteEventsTold,
    RouteFailed,
    RouteSucceeded,
    SealedAgain,
    SteerPlan,
)
from timemachine.replica.meta.machine import MetaMachine, read_meta_commands
from timemachine.replica.meta.nodes import DEFAULT_DATABASE
from timemachine.replica.meta.plans import basis_of, going
from timemachine.replica.meta.records import MetaResult, MetaState, PlanMoves, RouteEvent
from timemachine.replica.meta.sealing import sealed_by, with_seals

__all__ = [
    "AS_ATTEMPTS",
    "DEFAULT_DATABASE",
    "AdvanceCompaction",
    "AdvancePlan",
    "AnyMetaCommand",
    "BeginRestore",
    "Bootstrap",
    "CompactionEnd",
    "ConfirmPlan",
    "DeleteCollection",
    "DeleteDatabase",
    "DeleteRoute",
    "DisableRoute",
    "EndPlan",
    "EndRestore",
    "EndTask",
    "Finalise",
    "ForgetRequests",
    "ForgetTasks",
    "IssueToken",
    "JoinNode",
    "MetaMachine",
    "MetaResult",
    "MetaState",
    "Place",
    "PlanMoves",
    "PutCollection",
    "PutDatabase",
    "PutNode",
    "PutPlan",
    "PutRoute",
    "PutSettings",
    "PutTask",
    "Removed",
    "Reseal",
    "RestoreRoutes",
    "RestoredCollection",
    "Retire",
    "RouteEvent",
    "RouteEventsTold",
    "RouteFailed",
    "RouteSucceeded",
    "SealedAgain",
    "SteerPlan",
    "basis_of",
    "going",
    "read_meta_commands",
    "sealed_by",
    "with_seals",
]
