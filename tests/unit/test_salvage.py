"""What is taken out of a replica that nobody runs any more, whole or damaged."""

import json
import zlib
from typing import Any

import pytest
from msgspec.structs import replace

from tests.sim.cluster.disk import DamageableStore
from tests.unit.replica.machines import UID, Driven
from tests.unit.replica.meta.driven import node
from timemachine import codec
from timemachine.logrows import LoggedEntry, LogState
from timemachine.model import AttemptStatus, JobState, Settings
from timemachine.raft import EntryType
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.meta import MetaMachine
from timemachine.salvage import Replica, lines, replicas
from timemachine.storage.keys import ReplicaKeys, damaged_key, erase_key, group_key, u32, u64
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

META = ReplicaKeys(2)
_LARGE = b'{"a":"' + b"x" * 2_000 + b'"}'


def _put(job_id: str, trigger_ms: int = 10, **members: Any) -> c.PutJob:
    values: dict[str, Any] = {"route": "r", "route_uid": 1, "uid": UID, "delay_ms": None}
    values |= {"meta": b"null", **members}
    return c.PutJob(now_ms=1, job_id=job_id, trigger_ms=trigger_ms, **values)


def _log(driven: Driven, index: int, *commands: Any, **changed: Any) -> None:
    """Put an entry into the rows of the log, and do not apply it."""
    data = codec.encode(list(commands)) if commands else b""
    row = LoggedEntry(1, int(EntryType.NORMAL), zlib.crc32(data), data)
    key = driven.keys.log + u64(index)
    driven.store.write(driven.store.prepare({key: codec.encode(replace(row, **changed))}))


def _commit(driven: Driven, index: int) -> None:
    row = codec.encode(LogState(1, 1, index))
    driven.store.write(driven.store.prepare({driven.keys.hard_state: row}))


def _salvaged(store: MemoryStore, **options: bool) -> tuple[list[dict[str, Any]], Replica]:
    replica = Replica(keys=ReplicaKeys(7))
    found = [json.loads(line) for line in lines(store, replica, **options)]
    return found, replica


def _ids(found: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in found]


def test_pending_jobs_as_a_batch_takes_them() -> None:
    """With what a creator has given, and nothing else; the meta keeps its digits."""
    driven = Driven()
    driven.apply(
        _put("b", 20, meta=b'{"n":\r\n1.0,"big":123456789012345678901234}', tags=("x", "y")),
        _put("a/ä", 10),
        _put("c", 30, meta=b""),
    )
    replica = Replica(keys=driven.keys)
    assert [
        b'{"id":"a/\xc3\xa4","trigger_time":10,"route":"r","meta":null}\n',
        (
            b'{"id":"b","trigger_time":20,"route":"r","tags":["x","y"],'
            b'"meta":{"n":  1.0,"big":123456789012345678901234}}\n'
        ),
        b'{"id":"c","trigger_time":30,"route":"r"}\n',
    ] == list(lines(driven.store, replica))
    assert (1, 3, 0, 0) == (replica.applied_index, replica.jobs, replica.ended, replica.unreadable)
    assert not replica.damaged
    assert not replica.log_damaged


def test_what_has_ended_is_left_out_and_what_may_repeat_is_counted() -> None:
    """Of a job that was being sent nobody knows how that ended."""
    driven = Driven()
    for job_id in ("sent", "open", "again", "waits"):
        driven.put(job_id)
    driven.settle("sent", driven.claim("sent"), AttemptStatus.SUCCEEDED)
    driven.settle("again", driven.claim("again"), AttemptStatus.FAILED)
    driven.claim("open")
    found, replica = _salvaged(driven.store)
    assert ["again", "open", "waits"] == _ids(found)
    assert (3, 1, 1, 1) == (replica.jobs, replica.firing, replica.retrying, replica.ended)


def test_what_was_deleted_or_delivered_while_it_was_being_sent_does_not_come_back() -> None:
    """Their state tells of the send that is open; no other would have followed it."""
    driven = Driven()
    for job_id in ("deleted", "late", "put-anew", "waits"):
        driven.put(job_id)
    for job_id in ("deleted", "put-anew"):
        driven.claim(job_id)
        driven.apply(c.DeleteJob(now_ms=3, job_id=job_id))
    driven.put("put-anew", 20)
    given_up = driven.claim("late")
    driven.settle("late", given_up, AttemptStatus.UNKNOWN)
    driven.claim("late")
    driven.settle("late", given_up, AttemptStatus.SUCCEEDED)
    assert [JobState.FIRING] * 2 == [driven.job(each).state for each in ("deleted", "late")]
    found, replica = _salvaged(driven.store)
    assert ["put-anew", "waits"] == _ids(found)
    assert (2, 0, 2) == (replica.jobs, replica.firing, replica.ended)


def test_the_log_behind_the_rows_counts_too() -> None:
    """Also what was not known to be committed: the others may have acknowledged it."""
    driven = Driven()
    driven.put("old")
    driven.put("moved")
    _log(driven, 3, _put("m-new"), _put("moved", 99))
    _log(driven, 4)
    _log(driven, 5, _put("z-newest"))
    _commit(driven, 4)
    rows = driven.store.image()
    found, replica = _salvaged(driven.store)
    assert ["m-new", "moved", "old", "z-newest"] == _ids(found)
    assert 99 == found[1]["trigger_time"]
    assert (2, 3, 1) == (replica.applied_index, replica.entries, replica.unconfirmed)
    found, replica = _salvaged(driven.store, unconfirmed=False)
    assert ["m-new", "moved", "old"] == _ids(found)
    assert (2, 2, 0) == (replica.applied_index, replica.entries, replica.unconfirmed)
    assert rows == driven.store.image()


@pytest.mark.parametrize("how", ["gap", "checksum", "foreign", "unknown"])
def test_a_damaged_log_is_read_up_to_the_damage(how: str) -> None:
    """And it is told that there was more."""
    driven = Driven()
    driven.put("a")
    _log(driven, 2, _put("b"))
    _commit(driven, 9)
    if how == "gap":
        _log(driven, 4, _put("d"))
    elif how == "checksum":
        _log(driven, 3, _put("c"), crc=7)
    elif how == "foreign":
        key = driven.keys.log + u64(3)
        driven.store.write(driven.store.prepare({key: b"\xff"}))
    else:
        data = codec.encode([[99, 1]])
        _log(driven, 3, data=data, crc=zlib.crc32(data))
    found, replica = _salvaged(driven.store)
    assert ["a", "b"] == _ids(found)
    assert (1, True) == (replica.entries, replica.log_damaged)


def _damageable(driven: Driven, *tables: bytes) -> DamageableStore:
    """The store with one unreadable row in each of these tables: that of the job `j05`."""
    store = DamageableStore(driven.store.image())
    for key in store.image():
        if key[4:5] in tables and b"j05" in key and key.startswith(driven.keys.prefix):
            store.damage(key)
    return store


def test_jobs_that_cannot_be_read_are_counted_and_the_others_are_found() -> None:
    """Their indexes tell which there were, each as far as it can be read."""
    driven = Driven()
    ids = [f"j{number:02}" for number in range(12)]
    for job_id in ids:
        driven.put(job_id)
    _log(driven, 13, _put("a"), _put("zz"))
    for tables in (b"j",), (b"j", b"i"), (b"j", b"i", b"r"):
        found, replica = _salvaged(_damageable(driven, *tables))
        assert sorted(["a", "zz", *(each for each in ids if each != "j05")]) == _ids(found)
        assert (True, 1) == (replica.damaged, replica.unreadable)
    # A meta that is not small has a row of its own.
    driven.apply(_put("j05", meta=_LARGE), _put("j06", meta=_LARGE))
    found, replica = _salvaged(_damageable(driven, b"m"))
    assert [each for each in ids if each != "j05"] == _ids(found)
    assert (json.loads(_LARGE), 1) == (found[5]["meta"], replica.unreadable)
    # Without its state row nobody knows which entries of the log are in the rows.
    store = DamageableStore(driven.store.image())
    store.damage(driven.keys.state)
    found, replica = _salvaged(store)
    assert (ids, True, True) == (_ids(found), replica.damaged, replica.log_damaged)


# --- which replicas there are --------------------------------------------------------------------


def _node_store() -> MemoryStore:
    """A node with a meta group that knows one collection, and replicas of it and of another."""
    store = MemoryStore()
    overlay = Overlay(store)
    machine = MetaMachine(META, overlay)
    machine.load(None, [])
    commands: list[m.AnyMetaCommand] = [
        m.Bootstrap(now_ms=1, node=node(1), settings=Settings()),
        m.PutCollection(now_ms=1, db="default", name="carts", num_vnodes=2),
    ]
    for index, command in enumerate(commands, 1):
        machine.apply(index, 1, codec.encode([command]), None)
    machine.flush()
    (uid,) = machine.collections_by_uid
    overlay.put_all(
        {
            group_key(0, 0): u32(2),
            group_key(uid, 1): u32(3) + u64(1),
            group_key(uid, 0): u32(4),
            group_key(99, 0): u32(5),
            erase_key(6): b"",
            **{ReplicaKeys(each).job + b"x": b"" for each in (3, 4, 5, 6)},
        }
    )
    # A collection that only the log of the meta group tells of.
    late = codec.encode([m.PutCollection(now_ms=1, db="default", name="late", num_vnodes=1)])
    entry = LoggedEntry(1, int(EntryType.NORMAL), zlib.crc32(late), late)
    overlay.put(META.log + u64(3), codec.encode(entry))
    overlay.put(group_key(uid + 1, 0), u32(7))
    store.write(store.prepare(overlay.seal()))
    return store


def _told(store: MemoryStore) -> list[tuple[str, str, int | None, int]]:
    return [
        (each.db, each.collection, each.index, each.keys.incarnation) for each in replicas(store)
    ]


def test_replicas_by_the_names_of_their_collections() -> None:
    """But the meta group's; one whose collection is not known goes by its uid."""
    assert [
        ("", "collection-99", 0, 5),
        ("default", "carts", 0, 4),
        ("default", "carts", 1, 3),
        ("default", "late", 0, 7),
    ] == _told(_node_store())


def test_replicas_that_were_given_up_for_damage_come_last() -> None:
    """Others may have what they had, or not; nobody knows any more which vnodes they are of."""
    store = _node_store()
    store.write(store.prepare({damaged_key(8): b"", damaged_key(9): b""}))
    assert [("", "", None, 8), ("", "", None, 9)] == _told(store)[-2:]
    assert [False] * 4 + [True] * 2 == [each.damaged for each in replicas(store)]


def test_without_the_meta_group_there_are_no_names() -> None:
    """The jobs are there all the same."""
    store = DamageableStore(_node_store().image())
    store.damage(META.state)
    assert {""} == {each.db for each in replicas(store)}
    nameless = MemoryStore(
        {key: row for key, row in _node_store().image().items() if key != group_key(0, 0)}
    )
    assert {""} == {each.db for each in replicas(nameless)}


def test_without_the_nodes_rows_each_range_is_a_replica() -> None:
    """Not those that are to be erased; the meta group's has no jobs."""
    store = DamageableStore(_node_store().image())
    store.damage(group_key(0, 0))
    assert [2, 3, 4, 5] == [incarnation for *_, incarnation in _told(store)]
    assert all(each.damaged for each in replicas(store))
    assert [] == list(lines(store, replicas(store)[0]))
