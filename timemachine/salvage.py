"""What a replica of a stopped node still holds, for a vnode that has lost its majority for good.

A group without a majority decides nothing any more, and no program may decide for it which copy
counts. A human can: what one replica holds is read here, as jobs to be created anew elsewhere.

Read is what verifies. Where a block of the store cannot be read, the ids of the jobs in it are
looked for in the indexes, and each is tried; what is gone is counted. Entries of the log that are
not applied yet are applied to what is read, and nothing is written. Those behind the commit index
are among them unless they are not wanted: the others may have acknowledged them together with this
replica, which had not heard of it.

What comes out may lack what only the lost replicas had, and may hold again what they had ended
since: who salvages says so.
"""

from collections.abc import Generator, Iterator
from typing import Final, NamedTuple

import msgspec

from timemachine.errors import CodecError, ReplicaStopped, StoreDamaged
from timemachine.group import META_GROUP
from timemachine.logrows import Tail, read_tail
from timemachine.model import PENDING_STATES, JobRecord, JobState
from timemachine.replica.machine import JobMachine
from timemachine.replica.meta import MetaMachine
from timemachine.replica.records import find_meta, read_job
from timemachine.storage.api import Store
from timemachine.storage.keys import (
    DAMAGED_START,
    DAMAGED_STOP,
    ERASE_START,
    ERASE_STOP,
    GROUPS_START,
    GROUPS_STOP,
    ReplicaKeys,
    after_prefix,
    group_of_key,
    incarnation_in,
    replica_prefix,
)
from timemachine.storage.overlay import Overlay

Group = tuple[int, int]
"""(collection uid, vnode index)."""

_PAGE: Final = 1_000
_ROWS_MAX: Final = 1_000_000
_BEFORE_ID: Final = {b"i": 9, b"r": 16, b"d": 8, b"w": 16}
"""Indexes of jobs, and how many bytes of their keys stand before the id."""

_NEWLINES: Final = bytes.maketrans(b"\r\n", b"  ")
"""They stand between the tokens of JSON and nowhere else, and would end a line of NDJSON."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job to be created, as a batch takes it."""

    id: str
    trigger_time: int
    route: str
    tags: tuple[str, ...] = ()
    meta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Replica(msgspec.Struct, kw_only=True):
    """One replica, and what became of its jobs. The numbers are there once its jobs are read.

    db, collection    their names; empty when the meta group's rows do not tell
    index             of the vnode, None if that is not known
    applied_index     of the last entry that is in the rows
    entries           of the log that were applied beside, and `unconfirmed` those of them that
                      this replica did not know to be committed
    log_damaged       whether entries behind those were there and could not be read
    jobs              that are pending: they are to be created anew
    firing, retrying  those of them that may have been sent, and those that were
    ended             jobs that were delivered, dead or cancelled: they are left out. So are those
                      that were deleted, or known to be delivered, while they were being sent
    unreadable        jobs that were there and could not be read
    damaged           whether rows could not be read: there may be jobs that nothing tells of
    """

    keys: ReplicaKeys
    db: str = ""
    collection: str = ""
    index: int | None = None
    applied_index: int = 0
    entries: int = 0
    unconfirmed: int = 0
    log_damaged: bool = False
    jobs: int = 0
    firing: int = 0
    retrying: int = 0
    ended: int = 0
    unreadable: int = 0
    damaged: bool = False


def replicas(store: Store, *, unconfirmed: bool = True) -> list[Replica]:
    """The replicas of a node, by the names of their collections.

    Those that were given up for damage come last, without names, as long as the store was not
    written anew without them. Where the rows that say which is which are damaged, none has a name.
    """
    try:
        groups = {
            group_of_key(key): incarnation_in(value)
            for key, value in store.scan(GROUPS_START, GROUPS_STOP, _ROWS_MAX)
        }
    except StoreDamaged:
        return [Replica(keys=keys, damaged=True) for keys in _ranges(store)]
    given_up = [Replica(keys=keys, damaged=True) for keys in _given_up(store)]
    names = _names(store, groups.pop(META_GROUP, None), unconfirmed=unconfirmed)
    found = []
    for (uid, index), incarnation in groups.items():
        db, collection = names.get(uid, ("", f"collection-{uid}"))
        found.append(
            Replica(keys=ReplicaKeys(incarnation), db=db, collection=collection, index=index)
        )
    found.sort(key=lambda each: (each.db, each.collection, each.index))
    return found + given_up


def lines(store: Store, replica: Replica, *, unconfirmed: bool = True) -> Iterator[bytes]:
    """The jobs of a replica that are pending, each as a line of NDJSON; counts into `replica`.

    `unconfirmed`: with what it did not know to be committed.
    """
    overlay = Overlay(store)
    _apply(store, overlay, replica, unconfirmed=unconfirmed)
    encode = msgspec.json.Encoder().encode
    for raw_id in _ids(store, overlay, replica):
        try:
            row = overlay.get(replica.keys.job + raw_id)
            if row is None:
                continue
            record = read_job(row)
            if _has_ended(record):
                replica.ended += 1
                continue
            meta = find_meta(overlay, replica.keys, raw_id, record)
            if meta is None:
                raise StoreDamaged
            line = encode(_line(raw_id.decode(), record, meta))
        except (StoreDamaged, CodecError, UnicodeDecodeError):
            replica.unreadable += 1
            continue
        replica.jobs += 1
        replica.firing += record.state == JobState.FIRING
        replica.retrying += record.state == JobState.RETRYING
        yield line + b"\n"


def _has_ended(record: JobRecord) -> bool:
    """Whether no other attempt was to follow, however one that is open ends."""
    claim = record.claim
    return (
        record.state not in PENDING_STATES
        or record.outcome is not None  # deleted while it was being sent
        or (claim is not None and claim.delivered)
    )


def _line(job_id: str, record: JobRecord, meta: bytes) -> Line:
    return Line(
        job_id,
        record.trigger_ms,
        record.route,
        record.tags,
        msgspec.Raw(meta.translate(_NEWLINES)) if meta else msgspec.UNSET,
    )


# --- which replicas ------------------------------------------------------------------------------


def _given_up(store: Store) -> list[ReplicaKeys]:
    """The ranges of replicas that were given up for damage."""
    try:
        rows = store.scan(DAMAGED_START, DAMAGED_STOP, _ROWS_MAX)
    except StoreDamaged:
        return []
    return [ReplicaKeys(int.from_bytes(key[-4:], "big")) for key, _ in rows]


def _ranges(store: Store) -> Iterator[ReplicaKeys]:
    """All ranges of the store that hold something, but for those that are to be erased."""
    gone: set[int] = set()
    try:
        rows = store.scan(ERASE_START, ERASE_STOP, _ROWS_MAX)
        gone = {int.from_bytes(key[-4:], "big") for key, _ in rows}
    except StoreDamaged:
        pass
    incarnation, misses = 1, 0
    while misses < _PAGE:
        start = replica_prefix(incarnation)
        try:
            rows = store.scan(start, b"\xff" * len(start), 1)
        except StoreDamaged:
            # Something may begin there: whether it does is seen when it is read.
            misses += 1
        else:
            if not rows:
                return
            misses = 0
            incarnation = int.from_bytes(rows[0][0][: len(start)], "big")
        if incarnation not in gone:
            yield ReplicaKeys(incarnation)
        incarnation += 1


class _Names(NamedTuple):
    db: str
    collection: str


def _names(store: Store, incarnation: int | None, *, unconfirmed: bool) -> dict[int, _Names]:
    """The names of collections by their uids, as far as the replica of the meta group tells."""
    if incarnation is None:
        return {}
    keys = ReplicaKeys(incarnation)
    machine = MetaMachine(keys, Overlay(store))
    try:
        machine.load(store.get(keys.state), store.scan(keys.record, keys.prefix + b"d", _ROWS_MAX))
    except (StoreDamaged, CodecError):
        return {}
    _replay(machine, read_tail(store, keys, machine.applied_index), unconfirmed=unconfirmed)
    return {uid: _Names(each.db, each.name) for uid, each in machine.collections_by_uid.items()}


# --- the log behind the rows ---------------------------------------------------------------------


class _Replayed(NamedTuple):
    """How many entries were applied, and how many of them were not known to be committed.

    `whole`: there are no others that could not be read or applied.
    """

    entries: int
    unconfirmed: int
    whole: bool


def _replay(machine: JobMachine | MetaMachine, tail: Tail, *, unconfirmed: bool) -> _Replayed:
    """Apply entries, up to one that cannot be."""
    applied = beyond = 0
    for entry in tail.entries:
        if entry.index > tail.commit:
            if not unconfirmed:
                break
            beyond += 1
        try:
            machine.apply(entry.index, entry.term, entry.data, None)
        except (StoreDamaged, CodecError, ReplicaStopped):
            # What of it was done stands in the overlay: each job is read as it is then.
            return _Replayed(applied, beyond, whole=False)
        applied += 1
    return _Replayed(applied, beyond, whole=not tail.damaged)


def _apply(store: Store, overlay: Overlay, replica: Replica, *, unconfirmed: bool) -> None:
    """Put into the overlay what the entries of the log make of the rows."""
    keys = replica.keys
    machine = JobMachine(keys, overlay)
    try:
        counters = store.scan(keys.route_counters, after_prefix(keys.route_counters), _ROWS_MAX)
        machine.load(store.get(keys.state), counters)
    except (StoreDamaged, CodecError):
        replica.damaged = replica.log_damaged = True
        return
    replica.applied_index = machine.applied_index
    tail = read_tail(store, keys, machine.applied_index)
    replica.entries, replica.unconfirmed, whole = _replay(machine, tail, unconfirmed=unconfirmed)
    replica.log_damaged = not whole


# --- the jobs ------------------------------------------------------------------------------------


def _ids(store: Store, overlay: Overlay, replica: Replica) -> Iterator[bytes]:
    """The ids of all jobs that something tells of, each once, in order."""
    start = replica.keys.job
    stop = after_prefix(start)
    added = sorted(key[len(start) :] for key in overlay.pending(start, stop))
    last = yield from _merged(_walk(store, start, stop), added, len(start))
    if last is None:
        return
    replica.damaged = True
    found = {key[len(start) :] for key in _walk(store, last or start, stop, reverse=True)}
    for table, before_id in _BEFORE_ID.items():
        begin = replica.keys.prefix + table
        at = len(begin) + before_id
        for reverse in (False, True):
            found.update(
                key[at:] for key in _walk(store, begin, after_prefix(begin), reverse=reverse)
            )
    found.update(added)
    behind = last[len(start) :]
    yield from sorted(each for each in found if each > behind)


def _merged(
    walk: Generator[bytes, None, bool], added: list[bytes], at: int
) -> Generator[bytes, None, bytes | None]:
    """Ids of keys and added ones, in order.

    Returns None once all are told, else the last key before damage, b"" if that was before all.
    """
    last = b""
    place = 0
    while True:
        try:
            key = next(walk)
        except StopIteration as end:
            if not end.value:
                return last
            yield from added[place:]
            return None
        raw_id = key[at:]
        while place < len(added) and added[place] <= raw_id:
            if added[place] < raw_id:
                yield added[place]
            place += 1
        yield raw_id
        last = key


def _walk(
    store: Store, start: bytes, stop: bytes, *, reverse: bool = False
) -> Generator[bytes, None, bool]:
    """The keys of a range, up to what cannot be read; whether that was all of them."""
    limit = _PAGE
    while True:
        try:
            rows = store.scan(start, stop, limit, reverse=reverse)
        except StoreDamaged:
            if limit == 1:
                return False
            limit //= 10
            continue
        for key, _ in rows:
            yield key
        if len(rows) < limit:
            return True
        if reverse:
            stop = rows[-1][0]
        else:
            start = rows[-1][0] + b"\0"
