"""What the meta machine stores, how its rows are read, and what it answers."""

from collections.abc import Callable
from typing import Final

import msgspec

from timemachine import codec
from timemachine.events import Event
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
from timemachine.placement import Move
from timemachine.storage.keys import u32, u64


class MetaResult(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The answer to a meta command.

    kind   created, replaced, unchanged, deleted, refused
    code   why it was refused: not_found, database_not_found, immutable_field, version_moved,
           limit_reached, too_many_tasks, idempotency_key_reused; of tokens and nodes:
           too_many_tokens, token_unknown, token_used, token_expired, format_unknown, node_known,
           node_unknown, node_removed; of placement: sole_replica, no_majority; of formats:
           format_finalised, nodes_behind; of plans: plan_ended, plan_expired, plan_running,
           plan_outdated, plan_not_confirmed; of restores: restore_conflict, restore_ended; of
           master keys: keys_differ, key_moved
    node   who joined, with its number
    token  what was issued
    """

    kind: str
    database: Database | None = None
    collection: Collection | None = None
    route: Route | None = None
    code: str | None = None
    replayed: bool = False
    task: Task | None = None
    node: Node | None = None
    token: JoinToken | None = None
    plan: Plan | None = None
    restore: Restore | None = None


class PlanMoves(msgspec.Struct, frozen=True, array_like=True):
    """The moves of the plan `id`, and about how many bytes each copies."""

    id: str
    moves: tuple[Move, ...]
    copied_bytes: tuple[int, ...]


class RouteEvent(msgspec.Struct, frozen=True, array_like=True):
    """Something that is to be told of a route of a database. `id` is a uid like all others."""

    id: int
    db: str
    event: Event


MetaRecord = (
    Database
    | Collection
    | Route
    | Node
    | Settings
    | Task
    | JoinToken
    | Placement
    | Plan
    | PlanMoves
    | Restore
    | RouteEvent
)


class MetaState(msgspec.Struct, array_like=True):
    """What the meta machine remembers beside its records.

    next_number      the number of the node that joins next
    cluster_version  the format that is finalised, see `timemachine.formats`. What is written,
                     logged and sent is of this version, so each node must know it: a node that
                     does not may neither join nor come back after a downgrade
    key_id           the master key that seals secrets, and key_check what tells it from others;
                     empty until one was named, and the key of the first node seals
    """

    applied_index: int = 0
    applied_term: int = 0
    next_uid: int = 1
    requests: int = 0
    next_number: int = 2
    cluster_version: int = codec.VERSION
    key_id: str = ""
    key_check: bytes = b""


read_state: Callable[[bytes], MetaState] = codec.decoder(MetaState)
_READERS: Final[dict[bytes, Callable[[bytes], MetaRecord]]] = {
    b"d": codec.decoder(Database),
    b"c": codec.decoder(Collection),
    b"r": codec.decoder(Route),
    b"n": codec.decoder(Node),
    b"s": codec.decoder(Settings),
    b"t": codec.decoder(Task),
    b"j": codec.decoder(JoinToken),
    b"p": codec.decoder(Placement),
    b"q": codec.decoder(Plan),
    b"m": codec.decoder(PlanMoves),
    b"b": codec.decoder(Restore),
    b"e": codec.decoder(RouteEvent),
}


def row_of(record: MetaRecord) -> bytes:
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
        case JoinToken(id=id):
            return b"j" + id.encode()
        case Placement(uid=uid, index=index):
            return b"p" + u64(uid) + u32(index)
        case Plan(id=id):
            return b"q" + id.encode()
        case PlanMoves(id=id):
            return b"m" + id.encode()
        case Restore(id=id):
            return b"b" + id.encode()
        case RouteEvent(id=number):
            return b"e" + u64(number)


def read_record(row: bytes, value: bytes) -> MetaRecord:
    """The record of a row, whose key is that of `row_of`. Raises CodecError for foreign bytes."""
    return _READERS[row[:1]](value)


def refused(code: str) -> MetaResult:
    """The command was not done, see `MetaResult.code`."""
    return MetaResult(kind="refused", code=code)
