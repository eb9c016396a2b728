"""The records of the meta machine: in memory by name, and in their rows."""

from timemachine import codec
from timemachine.model import (
    Collection,
    Database,
    JoinToken,
    Node,
    Placement,
    Plan,
    Restore,
    Route,
    Settings,
    Task,
)
from timemachine.replica.meta.records import (
    MetaRecord,
    MetaState,
    PlanMoves,
    RouteEvent,
    read_record,
    read_state,
    row_of,
)
from timemachine.storage.api import Reading
from timemachine.storage.keys import ReplicaKeys, after_prefix
from timemachine.storage.overlay import Overlay

_ROWS_MAX = 1_000_000


class Tables:
    """All records. `changes` counts what changed them, so that readers can keep what they derived.

    `placed` counts changes of collections and placements alone.

    `databases`, `collections` and `routes` are by name, the two `..._by_uid` by uid, `nodes` by
    id, `tokens` by the part that is no secret, `placements` by group: (collection uid, index);
    `plans` and `plan_moves` are by the id of the plan, `restores` and `events` by their own.
    """

    def __init__(self, keys: ReplicaKeys, overlay: Overlay) -> None:
        self.keys = keys
        self.overlay = overlay
        self.state = MetaState()
        self.databases: dict[str, Database] = {}
        self.collections: dict[tuple[str, str], Collection] = {}
        self.collections_by_uid: dict[int, Collection] = {}
        self.routes: dict[tuple[str, str], Route] = {}
        self.routes_by_uid: dict[int, Route] = {}
        self.nodes: dict[str, Node] = {}
        self.settings = Settings()
        self.tasks: dict[str, Task] = {}
        self.tokens: dict[str, JoinToken] = {}
        self.placements: dict[tuple[int, int], Placement] = {}
        self.plans: dict[str, Plan] = {}
        self.plan_moves: dict[str, PlanMoves] = {}
        self.restores: dict[str, Restore] = {}
        self.events: dict[int, RouteEvent] = {}
        self.changes = 0
        self.placed = 0

    def load(self, state: bytes | None, rows: list[tuple[bytes, bytes]]) -> None:
        """Take up the stored state: the machine's row, and the rows of its records."""
        self.state = read_state(state) if state is not None else MetaState()
        at = len(self.keys.record)
        for key, value in rows:
            self._hold(read_record(key[at:], value))

    def rebase(self, keys: ReplicaKeys, store: Reading) -> None:
        """Go on with the rows of another range: a snapshot was installed there.

        `store` shows all of them. The tables in memory stay the same objects.
        """
        self.keys = keys
        for table in (
            self.databases,
            self.collections,
            self.collections_by_uid,
            self.routes,
            self.routes_by_uid,
            self.nodes,
            self.tasks,
            self.tokens,
            self.placements,
            self.plans,
            self.plan_moves,
            self.restores,
            self.events,
        ):
            table.clear()
        self.settings = Settings()
        rows = store.scan(keys.record, after_prefix(keys.record), _ROWS_MAX)
        self.load(store.get(keys.state), rows)
        self.changes += 1
        self.placed += 1

    def flush(self) -> None:
        """Write the machine's row: once per batch, after its last `apply`."""
        self.overlay.put(self.keys.state, codec.encode(self.state))

    def new_uid(self) -> int:
        """A uid that nothing ever had."""
        uid = self.state.next_uid
        self.state.next_uid = uid + 1
        return uid

    def may_come(self, uid: int) -> bool:
        """Whether what has this uid is not known here yet, and not gone: uids are never reused.

        Vnodes know of it before, where this node's meta group is behind.
        """
        return uid >= self.state.next_uid

    def placement(self, uid: int, index: int) -> Placement:
        """Which replicas a vnode is to have.

        A collection from before there was placement has all of its vnodes on node 1 alone.
        """
        return self.placements.get((uid, index)) or Placement(uid, index)

    def placements_of(self, collection: Collection) -> list[Placement]:
        """Those of all vnodes of a collection, by index."""
        return [self.placement(collection.uid, index) for index in range(collection.num_vnodes)]

    def all_placements(self) -> list[Placement]:
        """Those of all vnodes of the cluster, by (uid, index)."""
        return [
            placement
            for _, collection in sorted(self.collections_by_uid.items())
            for placement in self.placements_of(collection)
        ]

    def _hold(self, record: MetaRecord) -> None:
        """Have a record in memory."""
        match record:
            case Database():
                self.databases[record.name] = record
            case Collection():
                self.collections[record.db, record.name] = record
                self.collections_by_uid[record.uid] = record
                self.placed += 1
            case Route():
                self.routes[record.db, record.name] = record
                self.routes_by_uid[record.uid] = record
            case Node():
                self.nodes[record.id] = record
            case Settings():
                self.settings = record
            case Task():
                self.tasks[record.id] = record
            case JoinToken():
                self.tokens[record.id] = record
            case Placement():
                self.placements[record.uid, record.index] = record
                self.placed += 1
            case Plan():
                self.plans[record.id] = record
            case PlanMoves():
                self.plan_moves[record.id] = record
            case Restore():
                self.restores[record.id] = record
            case RouteEvent():
                self.events[record.id] = record

    def keep(self, record: MetaRecord) -> None:
        """Have a record in memory and in its row."""
        self._hold(record)
        self.overlay.put(self.keys.record + row_of(record), codec.encode(record))

    def drop(self, record: MetaRecord) -> None:
        """Have a record no more; a collection's placements go with it."""
        match record:
            case Database():
                del self.databases[record.name]
            case Collection():
                del self.collections[record.db, record.name]
                del self.collections_by_uid[record.uid]
                self.placed += 1
                for index in range(record.num_vnodes):
                    placement = self.placements.get((record.uid, index))
                    if placement is not None:
                        self.drop(placement)
            case Route():
                del self.routes[record.db, record.name]
                del self.routes_by_uid[record.uid]
            case Node():
                del self.nodes[record.id]
            case Task():
                del self.tasks[record.id]
            case JoinToken():
                del self.tokens[record.id]
            case Placement():
                del self.placements[record.uid, record.index]
                self.placed += 1
            case Plan():
                del self.plans[record.id]
            case PlanMoves():
                del self.plan_moves[record.id]
            case Restore():
                del self.restores[record.id]
            case RouteEvent():
                del self.events[record.id]
        self.overlay.delete(self.keys.record + row_of(record))
