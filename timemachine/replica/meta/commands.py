"""The closed set of commands that the log of the meta group may carry.

As in `timemachine.replica.commands`: the tags are stored, a number is never reused.
"""

from typing import Final

import msgspec

from timemachine.model import Node, Plan, PlanState, Restore, Route, Settings, Task, TaskState
from timemachine.placement import Move
from timemachine.replica.commands import Command, Request
from timemachine.replica.meta.records import PlanMoves


class _BootstrapOfOne(Command, frozen=True):
    """What a Bootstrap was at first. Fields that are not `kw_only` stand before `now_ms`."""

    node: Node
    settings: Settings


class Bootstrap(_BootstrapOfOne, frozen=True, tag=100, kw_only=True):
    """The first entry of a cluster: its first node, its settings, the database `default`.

    `nodes` are those that belong to it from the beginning beside `node`; each has its number.
    A cluster begins once: a second one changes nothing.
    """

    nodes: list[Node] = msgspec.field(default_factory=list)


class PutDatabase(Command, frozen=True, tag=101):
    """Create a database; one that exists is left as it is."""

    name: str
    request: Request | None = None


class DeleteDatabase(Command, frozen=True, tag=102):
    """Delete a database, its collections and routes."""

    name: str
    request: Request | None = None


AS_ATTEMPTS: Final = -1
"""For a `content_retention_ms`: what recipients answered is kept as long as the attempts."""


class PutCollection(Command, frozen=True, tag=103):
    """Create a collection or change what may change; None keeps the stored or default value."""

    db: str
    name: str
    num_vnodes: int | None = None
    replicas: int | None = None
    history_retention_ms: int | None = None
    request: Request | None = None
    content_retention_ms: int | None = None


class DeleteCollection(Command, frozen=True, tag=104):
    """Delete a collection; its vnodes go with it."""

    db: str
    name: str
    request: Request | None = None


class PutRoute(Command, frozen=True, tag=105):
    """Create or replace a route.

    `expected_version` is the version that the new content was made from, 0 for none: whoever
    merges must look again when it moved. `uid`, `version` and the times of `route` are set here.
    """

    route: Route
    expected_version: int
    request: Request | None = None


class DeleteRoute(Command, frozen=True, tag=106):
    """Delete a route; its pending jobs end as dead."""

    db: str
    name: str
    expected_version: int | None = None
    request: Request | None = None


class DisableRoute(Command, frozen=True, tag=107):
    """The system stops a route, because of what its recipient answered.

    `version` is that of the route by which it was asked. One that was written since is another:
    a repeat that comes late must not stop what an operator has started again.
    """

    uid: int
    version: int
    reason: str


class PutSettings(Command, frozen=True, tag=108):
    """Replace the cluster's settings."""

    settings: Settings
    request: Request | None = None


class PutNode(Command, frozen=True, tag=109):
    """Make known what a node says of itself: addresses, version, formats.

    Its number and its state stay what meta says. A node that meta does not know joins, it is not
    put; one that was removed does not come back.
    """

    node: Node


class ForgetRequests(Command, frozen=True, tag=110):
    """Forget stored answers by (expires_ms, request hash)."""

    requests: list[tuple[int, bytes]]


class PutTask(Command, frozen=True, tag=111):
    """Begin a task."""

    task: Task
    request: Request | None = None


class EndTask(Command, frozen=True, tag=112):
    """A task that runs has ended; one that has ended already is left as it is."""

    id: str
    state: TaskState
    counts: dict[str, int]
    error: str | None = None


class ForgetTasks(Command, frozen=True, tag=113):
    """Forget these tasks, as far as they have ended."""

    ids: list[str]


class IssueToken(Command, frozen=True, tag=114):
    """Let one node join, until `expires_ms`, that knows the secret of this hash (SHA-256).

    Tokens that have expired by `now_ms` are forgotten here.
    """

    id: str
    secret_hash: bytes
    expires_ms: int
    request: Request | None = None


class JoinNode(Command, frozen=True, tag=115):
    """A node joins with a token. It gets its number here; that and the state in `node` are ignored.

    `replaces` names a node whose disk is lost: it is removed, and the new node takes its place in
    every group. A repeat by the same node with the same token gets the same number.
    """

    token_id: str
    secret_hash: bytes
    node: Node
    replaces: str | None = None


class Place(Command, frozen=True, tag=116):
    """What the node leader decided about placement. A move of a placement that moved is void."""

    moves: list[Move]


class Removed(Command, frozen=True, tag=117):
    """A replica that was to leave its group has left it."""

    uid: int
    index: int
    replica: int


class Retire(Command, frozen=True, tag=118):
    """A replica is damaged: the next generation on the same node takes its place."""

    uid: int
    index: int
    replica: int


class Finalise(Command, frozen=True, tag=119):
    """From now on the cluster uses this format: its nodes all know it, and an admin says so."""

    version: int
    request: Request | None = None


class PutPlan(Command, frozen=True, tag=120):
    """A plan was made. It does nothing before it is confirmed; those that expired are forgotten."""

    plan: Plan
    moves: PlanMoves
    request: Request | None = None


class ConfirmPlan(Command, frozen=True, tag=121):
    """Have a plan run."""

    id: str
    request: Request | None = None


class SteerPlan(Command, frozen=True, tag=122):
    """Have a plan be paused, running or cancelled."""

    id: str
    state: PlanState
    request: Request | None = None


class AdvancePlan(Command, frozen=True, tag=123):
    """The node leader begins the next moves of a plan; void if it is not at move `begun`."""

    id: str
    begun: int
    count: int


class CompactionEnd(msgspec.Struct, frozen=True):
    """A node has ended its part of a plan that compacts; `error` says why it came to nothing."""

    node: int
    after_bytes: int | None = None
    steps: int = 0
    compacted_bytes: int = 0
    error: str | None = None


class AdvanceCompaction(Command, frozen=True, tag=125):
    """The node leader has nodes begin their parts of a plan, or heard that some have ended."""

    id: str
    begun: tuple[int, ...] = ()
    ended: tuple[CompactionEnd, ...] = ()


class EndPlan(Command, frozen=True, tag=124):
    """The node leader has seen that all moves of a plan have come to their end."""

    id: str


class RestoredCollection(msgspec.Struct, frozen=True, array_like=True):
    """A collection as a restore makes it."""

    db: str
    name: str
    num_vnodes: int
    replicas: int
    history_retention_ms: int
    content_retention_ms: int | None = None


class BeginRestore(Command, frozen=True, tag=126):
    """Begin a restore: its databases and collections are made, and its epoch begins.

    Refused where one of the collections is there. A repeat of one that runs is answered with that
    one as it is.
    """

    restore: Restore
    databases: list[str]
    collections: list[RestoredCollection]
    request: Request | None = None


class RestoreRoutes(Command, frozen=True, tag=127):
    """Make routes of a restore that runs; those whose names are there are left as they are."""

    id: str
    routes: list[Route]


class EndRestore(Command, frozen=True, tag=128):
    """All of a restore is done."""

    id: str
    request: Request | None = None


class RouteFailed(Command, frozen=True, tag=129):
    """An attempt of a route failed at `at_ms`, and its node has seen none succeed since `since_ms`.

    It may disable the route: see `timemachine.failing`.
    """

    uid: int
    since_ms: int
    at_ms: int


class RouteSucceeded(Command, frozen=True, tag=130):
    """An attempt of a route succeeded at `at_ms`: failures before it do not count any more."""

    uid: int
    at_ms: int


class SealedAgain(msgspec.Struct, frozen=True, array_like=True):
    """A secret of a route, as it was sealed and as it is to be."""

    route_uid: int
    before: bytes
    after: bytes


class Reseal(Command, frozen=True, tag=131):
    """Seal with this master key, which is the first of every node, and have these seals by it.

    `key_check` tells the key from others (`timemachine.sealing`). A change of the key, and what
    was sealed with older ones, come one after the other: some seals at a time.
    """

    key_id: str
    key_check: bytes
    seals: list[SealedAgain]


class RouteEventsTold(Command, frozen=True, tag=132):
    """The jobs that tell of these events are there."""

    ids: list[int]


AnyMetaCommand = (
    Bootstrap
    | PutDatabase
    | DeleteDatabase
    | PutCollection
    | DeleteCollection
    | PutRoute
    | DeleteRoute
    | DisableRoute
    | PutSettings
    | PutNode
    | ForgetRequests
    | PutTask
    | EndTask
    | ForgetTasks
    | IssueToken
    | JoinNode
    | Place
    | Removed
    | Retire
    | Finalise
    | PutPlan
    | ConfirmPlan
    | SteerPlan
    | AdvancePlan
    | AdvanceCompaction
    | EndPlan
    | BeginRestore
    | RestoreRoutes
    | EndRestore
    | RouteFailed
    | RouteSucceeded
    | Reseal
    | RouteEventsTold
)
