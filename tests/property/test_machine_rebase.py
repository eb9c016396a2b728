"""A machine that goes on with the rows of an image equals the one that never stopped."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property import test_machine_twin as twin
from timemachine import codec
from timemachine.model import (
    Collection,
    Database,
    JoinToken,
    Node,
    PastDue,
    Placement,
    Restore,
    Route,
    Settings,
    Task,
    TaskKind,
    TaskState,
)
from timemachine.placement import Move
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.meta import MetaMachine
from timemachine.replica.snapshot import ImageEnd, ImageIn, image_out
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

NEW = ReplicaKeys(9)
CHUNK_BYTES = st.sampled_from([1, 300, 100_000])
FAR = 100


def _install(store: Store, old: ReplicaKeys, chunk_bytes: int) -> None:
    """Image out and in again, under other keys."""
    view = store.view()
    taking = ImageIn(NEW)
    for part in image_out(view, old, chunk_bytes=chunk_bytes):
        if isinstance(part, ImageEnd):
            taking.finish(part)
        else:
            store.write(store.prepare({**taking.chunk(part)}))
    view.close()


def _rows(store: MemoryStore, keys: ReplicaKeys) -> dict[bytes, bytes]:
    at = len(keys.prefix)
    return {key[at:]: value for key, value in store.scan(keys.prefix, keys.stop, 100_000)}


def _learn(bench: twin.Bench) -> None:
    """What a node counts anew in the background, see node/learning.py."""
    machine = bench.machine
    for job_id in bench.jobs():
        machine.ids.add(job_id.encode())
    machine.ids.complete = True
    at = len(machine.keys.due)
    rows = bench.store.scan(machine.keys.due, machine.keys.due_stop, 1_000)
    places = [(int.from_bytes(key[at : at + 8], "big"), key[at + 8 :]) for key, _ in rows]
    machine.due_counts.cover(places, None)


@settings(max_examples=150, deadline=None)
@given(twin.steps(), st.integers(0, 40), st.booleans(), CHUNK_BYTES)
def test_a_rebased_job_machine_goes_on_as_if_nothing_had_been(
    history: list[tuple[str, str, int, int]], cut: int, learns: bool, chunk_bytes: int
) -> None:
    """Rows byte for byte, answers, effects and what is kept in memory, wherever the cut is."""
    straight, rebased = twin.Bench(), twin.Bench()
    # What a vote, the log and the membership are at the new place is not the image's affair.
    for key in (rebased.keys.hard_state, rebased.keys.log, rebased.keys.members):
        rebased.store.write(rebased.store.prepare({key: b"own"}))
    assert straight.apply() == rebased.apply() == []
    now = 100
    cut = min(cut, len(history))
    for number, (action, job_id, time, choice) in enumerate(history):
        if number == cut:
            straight.machine.take_effects()
            _rebase(rebased, learns, chunk_bytes)
        now += 1
        command = twin._command(straight, action, job_id, time, choice, now)
        results = straight.apply(command)
        assert results == rebased.apply(command)
    if cut == len(history):
        straight.machine.take_effects()
        _rebase(rebased, learns, chunk_bytes)
    if not learns:
        _learn(rebased)
    rebased.check()
    assert _rows(straight.store, straight.keys) == _rows(rebased.store, NEW)
    one, other = straight.machine, rebased.machine
    assert one.state == other.state
    assert one.routes == other.routes
    assert one.take_effects() == other.take_effects()
    assert one.due_counts.count(0, FAR) == other.due_counts.count(0, FAR)
    for job_id, job in one.firing.items():
        assert job == other.firing.get(job_id, job)
        # What was claimed before is read from its row, as after a start.
        assert job_id in other.firing or (job.claim is not None and job.claim.index <= cut + 1)
    assert other.firing.keys() <= one.firing.keys()
    for job_id in rebased.jobs():
        assert other.ids.add(job_id.encode())


def _rebase(bench: twin.Bench, learns: bool, chunk_bytes: int) -> None:
    _install(bench.store, bench.keys, chunk_bytes)
    doomed = dict.fromkeys(k for k, _ in bench.store.scan(bench.keys.prefix, bench.keys.stop, 9999))
    bench.store.write(bench.store.prepare(doomed))
    bench.machine.rebase(NEW, bench.store)
    bench.keys = NEW
    assert not bench.machine.ids.complete
    assert not bench.machine.due_counts.complete
    if learns:
        _learn(bench)


def test_a_rebase_leaves_nothing_of_the_old_rows() -> None:
    """A follower far behind has other jobs, other counters and effects that nobody took."""
    behind, ahead = twin.Bench(), twin.Bench()
    behind.apply(twin._put("old", b"1" * 16, 10))
    twin._claimed(behind, "old")
    behind.machine.apply(behind.index + 1, 1, codec.encode([twin._put("a", b"3" * 16, 9)]), None)
    for number in range(5):
        ahead.apply(twin._put(f"new-{number}", b"2" * 16, 20))
    behind.store.write(behind.store.prepare(_image_rows(ahead.store, ahead.keys)))
    behind.machine.rebase(NEW, behind.store)
    behind.keys, behind.index = NEW, ahead.index
    assert {} == behind.machine.firing
    assert [] == behind.machine.take_effects()
    _learn(behind)
    command = c.MoveOffset(now_ms=9, due_ms=15, job_id="", seen_index=5)
    ahead.apply(command)
    behind.overlay.discard()
    behind.apply(command)
    behind.check()
    assert _rows(ahead.store, ahead.keys) == _rows(behind.store, NEW)


def _image_rows(store: MemoryStore, keys: ReplicaKeys) -> dict[bytes, bytes | None]:
    return {NEW.prefix + key: value for key, value in _rows(store, keys).items()}


# --- the meta machine --------------------------------------------------------------------------

NAMES = st.sampled_from(["default", "a", "b"])
REQUESTS = st.none() | st.builds(
    c.Request,
    st.sampled_from([b"1" * 16, b"2" * 16, b"3" * 16]),
    st.sampled_from([b"f" * 16, b"g" * 16]),
)
NODE = Node(id="n", name="n", http="h", rpc="r", zone="", version="1")


def _route(db: str, name: str, paused: bool) -> Route:
    return Route(
        uid=0,
        db=db,
        name=name,
        version=0,
        webhook_url="http://h.example/",
        created_ms=0,
        updated_ms=0,
        secrets=(),
        paused=paused,
    )


def _task(name: str) -> Task:
    return Task(id=name, kind=TaskKind.CANCEL, db="a", collections=(1,), states=(0,), created_ms=1)


UIDS = st.integers(1, 5)
NUMBERS = st.tuples(st.integers(1, 4))
META = st.one_of(
    st.just(m.Bootstrap(now_ms=1, node=NODE, settings=Settings())),
    st.builds(m.PutDatabase, now_ms=st.just(2), name=NAMES, request=REQUESTS),
    st.builds(m.DeleteDatabase, now_ms=st.just(3), name=NAMES, request=REQUESTS),
    st.builds(m.PutCollection, now_ms=st.just(4), db=NAMES, name=NAMES, request=REQUESTS),
    st.builds(m.DeleteCollection, now_ms=st.just(5), db=NAMES, name=NAMES, request=REQUESTS),
    st.builds(
        m.PutRoute,
        now_ms=st.just(6),
        route=st.builds(_route, NAMES, NAMES, st.booleans()),
        expected_version=st.integers(0, 1),
        request=REQUESTS,
    ),
    st.builds(m.DeleteRoute, now_ms=st.just(7), db=NAMES, name=NAMES, request=REQUESTS),
    st.builds(
        m.DisableRoute,
        now_ms=st.just(8),
        uid=st.integers(1, 5),
        version=st.integers(1, 3),
        reason=st.just("gone"),
    ),
    st.builds(
        m.RouteFailed,
        now_ms=st.just(8),
        uid=st.integers(1, 5),
        since_ms=st.integers(1, 10**8),
        at_ms=st.integers(1, 10**9),
    ),
    st.builds(
        m.RouteSucceeded, now_ms=st.just(8), uid=st.integers(1, 5), at_ms=st.integers(1, 10**9)
    ),
    st.builds(
        m.PutSettings,
        now_ms=st.just(9),
        settings=st.builds(Settings, restore_epoch=st.integers(1, 3)),
    ),
    st.builds(m.PutTask, now_ms=st.just(10), task=NAMES.map(_task)),
    st.builds(
        m.EndTask, now_ms=st.just(11), id=NAMES, state=st.just(TaskState.DONE), counts=st.just({})
    ),
    st.builds(m.ForgetTasks, now_ms=st.just(12), ids=st.lists(NAMES, max_size=2)),
    st.just(m.ForgetRequests(now_ms=1, requests=[(2 + 86_400_000, b"1" * 16)])),
    st.builds(
        m.IssueToken,
        now_ms=st.just(13),
        id=NAMES,
        secret_hash=st.just(b"h"),
        expires_ms=st.sampled_from([13, 14, 99]),
        request=REQUESTS,
    ),
    st.builds(
        m.JoinNode,
        now_ms=st.just(14),
        token_id=NAMES,
        secret_hash=st.just(b"h"),
        node=NAMES.map(lambda name: msgspec.structs.replace(NODE, id=name)),
        replaces=st.none() | st.just("n") | NAMES,
    ),
    st.builds(
        m.Place,
        now_ms=st.just(15),
        moves=st.lists(
            st.builds(
                Move, UIDS, st.integers(0, 2), st.integers(1, 3), NUMBERS, st.just(()) | NUMBERS
            ),
            max_size=3,
        ),
    ),
    st.builds(m.Removed, now_ms=st.just(16), uid=UIDS, index=st.just(0), replica=st.integers(1, 3)),
    st.builds(m.Retire, now_ms=st.just(17), uid=UIDS, index=st.just(0), replica=st.integers(1, 3)),
    st.builds(m.Finalise, now_ms=st.just(18), version=st.integers(0, 2)),
    st.builds(
        m.BeginRestore,
        now_ms=st.just(19),
        restore=st.builds(
            Restore, NAMES, NAMES, st.integers(1, 9), st.just(19), st.sampled_from(PastDue)
        ),
        databases=st.lists(NAMES, max_size=2),
        collections=st.lists(
            st.builds(
                m.RestoredCollection, NAMES, NAMES, st.integers(1, 3), st.just(1), st.just(9)
            ),
            max_size=1,
        ),
        request=REQUESTS,
    ),
    st.builds(
        m.RestoreRoutes,
        now_ms=st.just(20),
        id=NAMES,
        routes=st.lists(st.builds(_route, NAMES, NAMES, st.booleans()), max_size=2),
    ),
    st.builds(m.EndRestore, now_ms=st.just(21), id=NAMES, request=REQUESTS),
)


class Meta:
    """A meta machine over a memory store, driven entry by entry."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.keys = ReplicaKeys(7)
        self.machine = MetaMachine(self.keys, self.overlay)

    def apply(self, command: Any) -> list[Any]:
        """Apply one entry, and make it durable."""
        index = self.machine.applied_index + 1
        results = self.machine.apply(index, 1, codec.encode([command]), None)
        self.machine.flush()
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        return results

    def memory(self) -> dict[str, Any]:
        """Everything that is read from the machine, and not from its rows."""
        names = (
            "state databases collections collections_by_uid routes routes_by_uid nodes settings"
            " tasks tokens placements restores"
        ).split()
        return {name: getattr(self.machine, name) for name in names}


@settings(max_examples=150, deadline=None)
@given(st.lists(META, max_size=25), st.lists(META, min_size=1, max_size=25), CHUNK_BYTES)
def test_a_rebased_meta_machine_goes_on_as_if_nothing_had_been(
    before: list[Any], after: list[Any], chunk_bytes: int
) -> None:
    """Rows byte for byte, answers, and all tables; readers notice that something changed."""
    straight, rebased = Meta(), Meta()
    for command in before:
        assert straight.apply(command) == rebased.apply(command)
    _install(rebased.store, rebased.keys, chunk_bytes)
    tables, changes = rebased.memory(), rebased.machine.changes
    rebased.machine.rebase(NEW, rebased.store)
    assert changes < rebased.machine.changes
    assert all(
        tables[name] is table for name, table in rebased.memory().items() if isinstance(table, dict)
    )
    for command in after:
        assert straight.memory() == rebased.memory()
        assert straight.apply(command) == rebased.apply(command)
    assert straight.memory() == rebased.memory()
    assert _rows(straight.store, straight.keys) == _rows(rebased.store, NEW)


def test_a_rebased_meta_machine_forgets_what_the_image_does_not_have() -> None:
    """Settings too, which have a default and no row until somebody puts them."""
    behind = Meta()
    behind.apply(m.Bootstrap(now_ms=1, node=NODE, settings=Settings(restore_epoch=7)))
    behind.apply(m.PutRoute(now_ms=2, route=_route("default", "r", False), expected_version=0))
    behind.apply(m.PutCollection(now_ms=3, db="default", name="jobs"))
    behind.apply(m.PutTask(now_ms=4, task=_task("t")))
    behind.apply(m.IssueToken(now_ms=5, id="t", secret_hash=b"h", expires_ms=9))
    kinds = {type(record) for table in behind.memory().values() for record in _values(table)}
    assert {Database, Collection, Route, Node, Task, JoinToken, Placement} == kinds
    behind.machine.rebase(NEW, behind.store)
    assert Meta().memory() == behind.memory()


def _values(table: Any) -> list[Any]:
    return list(table.values()) if isinstance(table, dict) else []
