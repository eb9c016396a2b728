"""The meta machine: what the whole cluster agrees on.

Databases, collections, routes, settings, nodes and tasks. Small, so all of it is kept in memory
beside its rows. Like the job machine it is a pure function of its log, and the only writer of its
rows.

Uids are numbers that are never used again: a re-created route does not inherit the jobs of its
predecessor, a re-created collection not its vnodes.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from timemachine import codec, limits
from timemachine.errors import ReplicaStopped
from timemachine.model import Collection, Database, Node, Route, Settings, Task, TaskState
from timemachine.replica.answers import Answers, StoredAnswer
from timemachine.replica.commands import Command, Request
from timemachine.storage.api import Reading
from timemachine.storage.keys import ReplicaKeys, after_prefix
from timemachine.storage.overlay import Overlay

DEFAULT_DATABASE = "default"
_ROWS_MAX = 1_000_000


class Bootstrap(Command, frozen=True, tag=100):
    """The first entry of a cluster: its first node, its settings, the database `default`."""

    node: Node
    settings: Settings


class PutDatabase(Command, frozen=True, tag=101):
    """Create a database; one that exists is left as it is."""

    name: str
    request: Request | None = None


class DeleteDatabase(Command, frozen=True, tag=102):
    """Delete a database, its collections and routes."""

    name: str
    request: Request | None = None


class PutCollection(Command, frozen=True, tag=103):
    """Create a collection or change what may change; None keeps the stored or default value."""

    db: str
    name: str
    num_vnodes: int | None = None
    replicas: int | None = None
    history_retention_ms: int | None = None
    request: Request | None = None


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
    """The system stops a route, because of what its recipient answered."""

    uid: int
    reason: str


class PutSettings(Command, frozen=True, tag=108):
    """Replace the cluster's settings."""

    settings: Settings
    request: Request | None = None


class PutNode(Command, frozen=True, tag=109):
    """Make a node's addresses and version known."""

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
)


class MetaResult(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The answer to a meta command.

    kind   created, replaced, unchanged, deleted, refused
    code   why it was refused: not_found, database_not_found, immutable_field, version_moved,
           limit_reached, too_many_tasks, idempotency_key_reused
    """

    kind: str
    database: Database | None = None
    collection: Collection | None = None
    route: Route | None = None
    code: str | None = None
    replayed: bool = False
    task: Task | None = None


MetaRecord = Database | Collection | Route | Node | Settings | Task


class MetaState(msgspec.Struct, array_like=True):
    """What the meta machine remembers beside its records."""

    applied_index: int = 0
    applied_term: int = 0
    next_uid: int = 1
    requests: int = 0


read_meta_commands: Callable[[bytes], list[AnyMetaCommand]] = codec.decoder(list[AnyMetaCommand])
_read_state = codec.decoder(MetaState)
_readers: dict[bytes, Callable[[bytes], MetaRecord]] = {
    b"d": codec.decoder(Database),
    b"c": codec.decoder(Collection),
    b"r": codec.decoder(Route),
    b"n": codec.decoder(Node),
    b"s": codec.decoder(Settings),
    b"t": codec.decoder(Task),
}


def _row(record: MetaRecord) -> bytes:
    """The key of a record, behind the table's prefix: its kind and its name."""
    match record:
        case Database(name=name):
            return b"d" + name.encode()
        case Collection(db=db, name=name):
            return b"c" + f"{db}/{name}".encode()
        case Route(db=db, name=name):
            return b"r" + f"{db}/{name}".encode()
        case Node(id=id):
            return b"n" + id.encode()
        case Settings():
            return b"s"
        case Task(id=id):
            return b"t" + id.encode()


def _refused(code: str) -> MetaResult:
    return MetaResult(kind="refused", code=code)


def _kept(result: MetaResult) -> MetaResult | None:
    """What is kept of an answer: nothing where the caller asks again, under the same key."""
    return None if result.code in ("version_moved", "too_many_tasks") else result


_ANSWERS = Answers[MetaResult](codec.decoder(StoredAnswer[MetaResult]), _refused, _kept)


class MetaMachine:
    """The state machine of the meta group.

    `databases`, `collections`, `routes` are by name, `routes_by_uid` by uid. `changes` counts
    applied entries that changed something, so that readers can keep what they derived.
    """

    def __init__(self, keys: ReplicaKeys, overlay: Overlay) -> None:
        self.keys = keys
        self.overlay = overlay
        self.state = MetaState()
        self.databases: dict[str, Database] = {}
        self.collections: dict[tuple[str, str], Collection] = {}
        self.routes: dict[tuple[str, str], Route] = {}
        self.routes_by_uid: dict[int, Route] = {}
        self.nodes: dict[str, Node] = {}
        self.settings = Settings()
        self.tasks: dict[str, Task] = {}
        self.changes = 0
        self._handlers: dict[type, Callable[[Any], MetaResult]] = {
            Bootstrap: self._bootstrap,
            PutDatabase: self._put_database,
            DeleteDatabase: self._delete_database,
            PutCollection: self._put_collection,
            DeleteCollection: self._delete_collection,
            PutRoute: self._put_route,
            DeleteRoute: self._delete_route,
            DisableRoute: self._disable_route,
            PutSettings: self._put_settings,
            PutNode: self._put_node,
            ForgetRequests: self._forget_requests,
            PutTask: self._put_task,
            EndTask: self._end_task,
            ForgetTasks: self._forget_tasks,
        }

    def load(self, state: bytes | None, rows: list[tuple[bytes, bytes]]) -> None:
        """Take up the stored state: the machine's row, and the rows of its records."""
        self.state = _read_state(state) if state is not None else MetaState()
        at = len(self.keys.record)
        for key, value in rows:
            self._hold(_readers[key[at : at + 1]](value))

    def rebase(self, keys: ReplicaKeys, store: Reading) -> None:
        """Go on with the rows of another range: a snapshot was installed there.

        `store` shows all of them. The tables in memory stay the same objects.
        """
        self.keys = keys
        for table in (
            self.databases,
            self.collections,
            self.routes,
            self.routes_by_uid,
            self.nodes,
            self.tasks,
        ):
            table.clear()
        self.settings = Settings()
        rows = store.scan(keys.record, after_prefix(keys.record), _ROWS_MAX)
        self.load(store.get(keys.state), rows)
        self.changes += 1

    @property
    def applied_index(self) -> int:
        """Index of the last entry applied."""
        return self.state.applied_index

    def apply(self, index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]:
        """Apply one entry; one MetaResult per command. See `JobMachine.apply`."""
        state = self.state
        if index != state.applied_index + 1:
            raise ReplicaStopped(f"entry {index} does not follow {state.applied_index}")
        if batch is None:
            batch = read_meta_commands(data) if data else []
        results = [self._once(command) for command in batch]
        state.applied_index = index
        state.applied_term = term
        return results

    def may_come(self, uid: int) -> bool:
        """Whether what has this uid is not known here yet, and not gone: uids are never reused.

        Vnodes know of it before, where this node's meta group is behind.
        """
        return uid >= self.state.next_uid

    def flush(self) -> None:
        """Write the machine's row: once per batch, after its last `apply`."""
        self.overlay.put(self.keys.state, codec.encode(self.state))

    def take_effects(self) -> list[Any]:
        """The meta machine has no effects beyond its state."""
        return []

    # --- once per request ------------------------------------------------------------------

    def _once(self, command: Any) -> MetaResult:
        request: Request | None = getattr(command, "request", None)
        if request is None:
            return self._run(command)
        return _ANSWERS.once(self, request, command, MetaMachine._run)

    def _forget_requests(self, command: ForgetRequests) -> MetaResult:
        _ANSWERS.forget(self, command.requests)
        return MetaResult(kind="unchanged")

    def _run(self, command: Any) -> MetaResult:
        result = self._handlers[type(command)](command)
        if result.kind not in ("unchanged", "refused"):
            self.changes += 1
        return result

    def _new_uid(self) -> int:
        uid = self.state.next_uid
        self.state.next_uid = uid + 1
        return uid

    # --- records ---------------------------------------------------------------------------

    def _hold(self, record: MetaRecord) -> None:
        """Have a record in memory."""
        match record:
            case Database():
                self.databases[record.name] = record
            case Collection():
                self.collections[record.db, record.name] = record
            case Route():
                self.routes[record.db, record.name] = record
                self.routes_by_uid[record.uid] = record
            case Node():
                self.nodes[record.id] = record
            case Settings():
                self.settings = record
            case Task():
                self.tasks[record.id] = record

    def _keep(self, record: MetaRecord) -> None:
        """Have a record in memory and in its row."""
        self._hold(record)
        self.overlay.put(self.keys.record + _row(record), codec.encode(record))

    def _drop(self, record: Database | Collection | Route | Task) -> None:
        """Have a record no more."""
        match record:
            case Database():
                del self.databases[record.name]
            case Collection():
                del self.collections[record.db, record.name]
            case Route():
                del self.routes[record.db, record.name]
                del self.routes_by_uid[record.uid]
            case Task():
                del self.tasks[record.id]
        self.overlay.delete(self.keys.record + _row(record))

    # --- handlers --------------------------------------------------------------------------

    def _bootstrap(self, command: Bootstrap) -> MetaResult:
        self._put_node(PutNode(now_ms=command.now_ms, node=command.node))
        self._put_settings(PutSettings(now_ms=command.now_ms, settings=command.settings))
        return self._put_database(PutDatabase(now_ms=command.now_ms, name=DEFAULT_DATABASE))

    def _put_database(self, command: PutDatabase) -> MetaResult:
        existing = self.databases.get(command.name)
        if existing is not None:
            return MetaResult(kind="unchanged", database=existing)
        if len(self.databases) >= limits.DATABASES_MAX:
            return _refused("limit_reached")
        database = Database(uid=self._new_uid(), name=command.name, created_ms=command.now_ms)
        self._keep(database)
        return MetaResult(kind="created", database=database)

    def _delete_database(self, command: DeleteDatabase) -> MetaResult:
        database = self.databases.get(command.name)
        if database is None:
            return _refused("not_found")
        self._drop(database)
        records: list[Collection | Route] = [*self.collections.values(), *self.routes.values()]
        for record in records:
            if record.db == command.name:
                self._drop(record)
        return MetaResult(kind="deleted", database=database)

    def _put_collection(self, command: PutCollection) -> MetaResult:
        if command.db not in self.databases:
            return _refused("database_not_found")
        existing = self.collections.get((command.db, command.name))
        if existing is None:
            return self._create_collection(command)
        if command.num_vnodes not in (None, existing.num_vnodes):
            return _refused("immutable_field")
        changed = msgspec.structs.replace(
            existing,
            replicas=command.replicas or existing.replicas,
            history_retention_ms=(
                existing.history_retention_ms
                if command.history_retention_ms is None
                else command.history_retention_ms
            ),
        )
        if changed == existing:
            return MetaResult(kind="unchanged", collection=existing)
        changed = msgspec.structs.replace(changed, version=existing.version + 1)
        self._keep(changed)
        return MetaResult(kind="replaced", collection=changed)

    def _create_collection(self, command: PutCollection) -> MetaResult:
        num_vnodes = command.num_vnodes or limits.VNODES_DEFAULT
        vnodes = sum(collection.num_vnodes for collection in self.collections.values())
        if (
            len(self.collections) >= limits.COLLECTIONS_MAX
            or vnodes + num_vnodes > limits.VNODES_PER_CLUSTER_MAX
        ):
            return _refused("limit_reached")
        collection = Collection(
            uid=self._new_uid(),
            db=command.db,
            name=command.name,
            num_vnodes=num_vnodes,
            replicas=command.replicas or limits.REPLICAS_DEFAULT,
            history_retention_ms=(
                limits.HISTORY_RETENTION_MS_DEFAULT
                if command.history_retention_ms is None
                else command.history_retention_ms
            ),
            created_ms=command.now_ms,
        )
        self._keep(collection)
        return MetaResult(kind="created", collection=collection)

    def _delete_collection(self, command: DeleteCollection) -> MetaResult:
        collection = self.collections.get((command.db, command.name))
        if collection is None:
            return _refused("not_found")
        self._drop(collection)
        return MetaResult(kind="deleted", collection=collection)

    def _put_route(self, command: PutRoute) -> MetaResult:
        route = command.route
        if route.db not in self.databases:
            return _refused("database_not_found")
        existing = self.routes.get((route.db, route.name))
        version = existing.version if existing is not None else 0
        if command.expected_version != version:
            return _refused("version_moved")
        if existing is None:
            if len(self.routes) >= limits.ROUTES_MAX:
                return _refused("limit_reached")
            stored = msgspec.structs.replace(
                route,
                uid=self._new_uid(),
                version=1,
                created_ms=command.now_ms,
                updated_ms=command.now_ms,
            )
            kind = "created"
        else:
            same = msgspec.structs.replace(
                route,
                uid=existing.uid,
                version=existing.version,
                created_ms=existing.created_ms,
                updated_ms=existing.updated_ms,
            )
            if same == existing:
                return MetaResult(kind="unchanged", route=existing)
            stored = msgspec.structs.replace(
                same, version=existing.version + 1, updated_ms=command.now_ms
            )
            kind = "replaced"
        self._keep(stored)
        return MetaResult(kind=kind, route=stored)

    def _delete_route(self, command: DeleteRoute) -> MetaResult:
        existing = self.routes.get((command.db, command.name))
        if existing is None:
            return _refused("not_found")
        if command.expected_version not in (None, existing.version):
            return _refused("version_moved")
        self._drop(existing)
        return MetaResult(kind="deleted", route=existing)

    def _disable_route(self, command: DisableRoute) -> MetaResult:
        existing = self.routes_by_uid.get(command.uid)
        if existing is None:
            return _refused("not_found")
        if existing.disabled is not None:
            return MetaResult(kind="unchanged", route=existing)
        route = msgspec.structs.replace(
            existing,
            disabled=command.reason,
            version=existing.version + 1,
            updated_ms=command.now_ms,
        )
        self._keep(route)
        return MetaResult(kind="replaced", route=route)

    def _put_settings(self, command: PutSettings) -> MetaResult:
        if command.settings == self.settings:
            return MetaResult(kind="unchanged")
        self._keep(command.settings)
        return MetaResult(kind="replaced")

    def _put_node(self, command: PutNode) -> MetaResult:
        if self.nodes.get(command.node.id) == command.node:
            return MetaResult(kind="unchanged")
        self._keep(command.node)
        return MetaResult(kind="replaced")

    def _put_task(self, command: PutTask) -> MetaResult:
        ended = [task for task in self.tasks.values() if task.finished_ms is not None]
        if len(self.tasks) - len(ended) >= limits.TASKS_RUNNING_MAX:
            return _refused("too_many_tasks")
        if len(self.tasks) >= limits.TASKS_KEPT_MAX:
            oldest = min(ended, key=lambda task: (task.finished_ms or 0, task.id))
            self._forget_tasks(ForgetTasks(now_ms=command.now_ms, ids=[oldest.id]))
        self._keep(command.task)
        return MetaResult(kind="created", task=command.task)

    def _end_task(self, command: EndTask) -> MetaResult:
        task = self.tasks.get(command.id)
        if task is None:
            return _refused("not_found")
        if task.state is not TaskState.RUNNING:
            return MetaResult(kind="unchanged", task=task)
        ended = msgspec.structs.replace(
            task,
            state=command.state,
            counts=command.counts,
            error=command.error,
            finished_ms=command.now_ms,
        )
        self._keep(ended)
        return MetaResult(kind="replaced", task=ended)

    def _forget_tasks(self, command: ForgetTasks) -> MetaResult:
        for name in command.ids:
            task = self.tasks.get(name)
            if task is not None and task.state is not TaskState.RUNNING:
                self._drop(task)
        return MetaResult(kind="deleted")
