"""One replica between its rows and its core: what a cycle writes, and what a start takes up."""

import zlib
from typing import Any

import msgspec
import pytest

from timemachine import codec, limits
from timemachine.errors import StoreDamaged
from timemachine.logrows import LoggedEntry, LogState
from timemachine.raft import Entry, EntryType, Message, MessageType
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode

KEYS = ReplicaKeys(5)


def _put(job_id: str) -> c.PutJob:
    return c.PutJob(
        now_ms=1_000,
        job_id=job_id,
        uid=b"u" * 16,
        trigger_ms=9_000,
        delay_ms=None,
        route="r",
        route_uid=7,
        meta=b"{}",
    )


class _Replica:
    """A vnode as a node has it, over a store that outlives it."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.overlay = Overlay(store)
        self.machine = JobMachine(KEYS, self.overlay)
        self.machine.load(store.get(KEYS.state), [])
        self.vnode = Vnode((1, 0), KEYS, self.overlay, self.machine, store)
        self.cycle()

    def cycle(self) -> None:
        """Gather, write and go on until nothing is left."""
        while self.vnode.has_work():
            self.vnode.gather()
            self.store.write(self.store.prepare(self.overlay.seal()))
            self.overlay.settled()
            outcome = self.vnode.persisted()
            for done, result in outcome.answers if outcome is not None else []:
                done(result)

    def put(self, job_id: str) -> Any:
        """Create a job and return the result."""
        results: list[Any] = []
        self.vnode.propose(_put(job_id), results.append)
        self.cycle()
        return results[0]

    def jobs(self) -> set[bytes]:
        """The ids that the store holds."""
        start = KEYS.job
        return {key[len(start) :] for key, _ in self.store.scan(start, start + b"\xff")}

    def log(self) -> list[int]:
        """The indexes of the entries that the store holds."""
        rows = self.store.scan(KEYS.log, KEYS.log_stop)
        return [int.from_bytes(key[len(KEYS.log) :], "big") for key, _ in rows]


def _log_row(index: int, commands: list[Any], *, damaged: bool = False) -> tuple[bytes, bytes]:
    data = codec.encode(commands) if commands else b""
    crc = zlib.crc32(data) ^ damaged
    row = LoggedEntry(1, int(EntryType.NORMAL), crc, data)
    return KEYS.log + u64(index), codec.encode(row)


def test_a_sole_voter_writes_what_entries_do_and_not_the_entries() -> None:
    """Entry and effect would be in one batch, and nobody else reads the log."""
    store = MemoryStore()
    replica = _Replica(store)
    for number in range(3):
        replica.put(f"job{number}")
        assert not replica.log()
    again = _Replica(store)
    assert again.jobs() == {b"job0", b"job1", b"job2"}
    assert again.vnode.term > 1
    assert again.machine.applied_index > replica.machine.applied_index
    again.put("job3")
    assert again.jobs() == {b"job0", b"job1", b"job2", b"job3"}
    assert not again.log()


def test_entries_in_the_store_are_applied_at_a_start_and_then_dropped() -> None:
    """A log that others may have read: committed entries that this replica has yet to apply."""
    store = MemoryStore()
    rows: dict[bytes, bytes | None] = {
        KEYS.hard_state: codec.encode(LogState(term=1, vote=1, commit=3))
    }
    rows.update([_log_row(1, []), _log_row(2, [_put("one")]), _log_row(3, [_put("two")])])
    store.write(store.prepare(rows))
    replica = _Replica(store)
    assert replica.jobs() == {b"one", b"two"}
    replica.put("three")
    assert not replica.log()
    assert _Replica(store).jobs() == {b"one", b"two", b"three"}


@pytest.mark.parametrize("commit", [1, 2])
def test_entries_that_no_row_calls_committed_are_applied_once_at_a_start(commit: int) -> None:
    """The only voter has them. A vnode that skipped them would never answer a write again."""
    store = MemoryStore()
    rows: dict[bytes, bytes | None] = {
        KEYS.hard_state: codec.encode(LogState(term=1, vote=1, commit=commit))
    }
    rows.update([_log_row(1, []), _log_row(2, [_put("one")]), _log_row(3, [_put("two")])])
    store.write(store.prepare(rows))
    replica = _Replica(store)
    assert replica.jobs() == {b"one", b"two"}
    assert "created" == replica.put("three").kind
    assert not replica.log()
    assert _Replica(store).jobs() == {b"one", b"two", b"three"}


def test_a_log_too_large_for_one_cycle_is_applied_in_several() -> None:
    """What is committed and not applied is never taken for applied."""
    store = MemoryStore()
    count = 4 * limits.RAFT_COMMITTED_BYTES_PER_READY_MAX // limits.ENTRY_BYTES_TARGET
    meta = b'"%b"' % (b"m" * limits.ENTRY_BYTES_TARGET)
    puts = [msgspec.structs.replace(_put(f"job{number}"), meta=meta) for number in range(count)]
    rows: dict[bytes, bytes | None] = {
        KEYS.hard_state: codec.encode(LogState(term=1, vote=1, commit=count))
    }
    rows.update(_log_row(number, [put]) for number, put in enumerate(puts, 1))
    store.write(store.prepare(rows))
    replica = _Replica(store)
    assert len(replica.jobs()) == count
    assert "created" == replica.put("one more").kind
    assert not replica.log()


@pytest.mark.parametrize("fault", ["checksum", "gap"])
def test_a_log_that_is_damaged_is_refused(fault: str) -> None:
    """It is never skipped: what it said is lost."""
    store = MemoryStore()
    rows: dict[bytes, bytes | None] = {
        KEYS.hard_state: codec.encode(LogState(term=1, vote=1, commit=2))
    }
    second = 3 if fault == "gap" else 2
    rows.update([_log_row(1, []), _log_row(second, [_put("one")], damaged=fault == "checksum")])
    store.write(store.prepare(rows))
    with pytest.raises(StoreDamaged):
        _Replica(store)


def test_the_only_voter_that_does_not_lead_yet_keeps_commands_and_rests() -> None:
    """It took them for work that could be done, and did nothing else than to look at them."""
    replica = _Replica(MemoryStore())
    replica.vnode.resign()
    replica.cycle()
    results: list[Any] = []
    replica.vnode.propose(_put("a"), results.append)
    assert not replica.vnode.has_work()
    replica.vnode.campaign()
    replica.cycle()
    assert 1 == len(results)


def test_the_only_voter_that_follows_applies_only_what_is_committed() -> None:
    """What it still gets from who led before is committed when it leads itself, and not before.

    Found by the simulator in seed 552380163976047.
    """
    replica = _Replica(MemoryStore())
    replica.put("before")
    core, applied = replica.vnode.core, replica.machine.applied_index
    entry = Entry(core.term + 1, applied + 1, data=codec.encode([_put("after")]))
    append = Message(
        MessageType.APPEND,
        to=replica.vnode.id,
        from_=9,
        term=entry.term,
        log_term=core.term,
        index=applied,
        entries=[entry],
        commit=applied,
    )
    replica.vnode.step(append, 0.0)
    replica.cycle()
    assert (False, applied) == (core.leads, replica.machine.applied_index)
    assert [entry.index] == replica.log()
    replica.vnode.campaign()
    replica.cycle()
    assert core.leads
    assert core.commit == replica.machine.applied_index > entry.index
    assert replica.jobs() == {b"before", b"after"}
    assert "created" == replica.put("more").kind
    assert _Replica(replica.store).jobs() == {b"before", b"after", b"more"}
