"""Which replicas a node has: by group and id, across restarts, and until they are erased."""

from types import SimpleNamespace
from typing import Any

import pytest

from node.replicas import Replicas
from tests.sim.world import SimWorld
from timemachine.group import META_GROUP, GroupConfig, replica_id
from timemachine.raft import ConfState
from timemachine.storage.api import Row
from timemachine.storage.keys import (
    ERASE_START,
    ERASE_STOP,
    NODE_FENCE,
    ReplicaKeys,
    group_key,
    u32,
    u64,
)
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode

GROUP = (7, 3)
HERE = 2
LATER = replica_id(HERE, 1)


class _Node:
    """Node 2, over a store that outlives its processes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.world = SimWorld(1)
        self.overlay = Overlay(self.store)
        self.waiting: list[Any] = []
        runtime: Any = SimpleNamespace(
            working=True, write_soon=lambda: None, when_written=self.waiting.append
        )
        config = GroupConfig(id=HERE, voters=(1, 2, 3))
        self.replicas = Replicas(self.world, self.store, self.overlay, runtime, config)

    def write(self) -> None:
        """What is gathered becomes durable."""
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        waiting, self.waiting[:] = self.waiting[:], []
        for each in waiting:
            each()

    def load(self, id: int, born: tuple[int, ...] = (1, 2, 3)) -> Vnode:
        """Take a replica up, and have that durable."""
        vnode = self.replicas.load(GROUP, id, born)
        self.write()
        return vnode

    def erase(self) -> None:
        """Let pass what erasing takes."""
        self.replicas.erase()
        for _ in range(20):
            self.world.run_for(100.0)
            self.write()

    def marks(self) -> int:
        """Ranges that are to be erased."""
        return len(self.store.scan(ERASE_START, ERASE_STOP, 100))

    def rows(self, keys: ReplicaKeys) -> int:
        """How many rows a range has."""
        return len(self.store.scan(keys.prefix, keys.stop, 100))


def test_a_replica_that_a_group_began_with_begins_as_a_voter() -> None:
    """One that comes later knows of nobody, and waits for an image."""
    assert ConfState((1, 2, 3)) == _Node().load(HERE).members
    later = _Node().load(LATER)
    assert (LATER, ConfState()) == (later.id, later.members)
    assert ConfState() == _Node().load(HERE, born=(1, 3)).members


@pytest.mark.parametrize("id", [HERE, LATER])
def test_a_replica_is_taken_up_again_as_what_it_is(id: int) -> None:
    """Its id is in a row of the node."""
    node = _Node()
    assert not node.replicas.has(GROUP, id)
    keys = node.load(id).keys
    node.start()
    assert node.replicas.has(GROUP, id)
    assert not node.replicas.has(GROUP, HERE + LATER - id)
    assert keys.prefix == node.load(id).keys.prefix
    node.erase()
    assert node.rows(keys) > 0
    assert 0 == node.marks()


def test_a_row_without_an_id_is_of_the_first_replica() -> None:
    """As they were written before replicas had generations, and still are for these."""
    node = _Node()
    keys = node.load(HERE).keys
    assert u32(keys.incarnation) == node.store.get(group_key(*GROUP))
    node.store.write({group_key(*GROUP): u32(9)})
    node.start()
    assert node.replicas.has(GROUP, HERE)
    assert 9 == node.load(HERE).keys.incarnation
    later = _Node()
    keys = later.load(LATER).keys
    assert u32(keys.incarnation) + u64(LATER) == later.store.get(group_key(*GROUP))


@pytest.mark.parametrize("crashes", [True, False])
def test_the_next_generation_has_nothing_of_the_one_before(crashes: bool) -> None:
    """A range of its own; the old one is erased, also after a crash."""
    node = _Node()
    before = node.load(HERE)
    node.store.write({before.keys.job + b"x": b"job"})
    after = node.load(LATER)
    assert after.keys.prefix != before.keys.prefix
    assert ConfState() == after.members
    assert (False, True) == (node.replicas.has(GROUP, HERE), node.replicas.has(GROUP, LATER))
    assert 1 == node.marks()
    if crashes:
        node.start()
    node.erase()
    assert (0, 0) == (node.marks(), node.rows(before.keys))
    assert node.rows(after.keys) > 0


def test_what_is_in_no_placement_is_retired() -> None:
    """But the meta group is on every node, and what is kept is kept."""
    node = _Node()
    node.replicas.load_meta()
    keys = node.load(HERE).keys
    other = node.replicas.load((7, 4), HERE, (2,))
    node.write()
    node.replicas.retire_others({(7, 4)})
    node.write()
    node.start()
    assert not node.replicas.has(GROUP, HERE)
    assert node.replicas.has((7, 4), HERE)
    assert node.replicas.has(META_GROUP, HERE)
    node.erase()
    assert 0 == node.rows(keys)
    assert node.rows(other.keys) > 0


def test_retiring_what_is_not_there_changes_nothing() -> None:
    """Meta may say so more than once."""
    node = _Node()
    node.load(HERE)
    node.replicas.retire((9, 9))
    assert not node.overlay.seal()


def test_what_is_erased_is_walked_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named regression: each step began at the front again, and walked over all it had deleted."""
    monkeypatch.setattr("node.replicas._ERASE_ROWS", 3)
    node = _Node()
    keys = node.load(HERE).keys
    for number in range(10):
        node.store.write({keys.job + bytes([number]): b"job"})
    starts: list[bytes] = []
    scan = node.store.scan

    def watched(start: bytes, stop: bytes, limit: int = 1000, **more: bool) -> list[Row]:
        if stop == keys.stop:
            starts.append(start)
        return scan(start, stop, limit, **more)

    monkeypatch.setattr(node.store, "scan", watched)
    node.replicas.retire(GROUP)
    node.erase()
    assert 0 == node.marks()
    assert [] == scan(keys.prefix, keys.stop)
    assert starts == sorted(starts)
    assert 1 == starts.count(keys.prefix)
    assert len(starts) > 4


def test_rows_on_their_way_when_a_replica_is_retired_do_not_stay() -> None:
    """Erasing begins behind them."""
    node = _Node()
    keys = node.load(HERE).keys
    node.replicas.retire(GROUP)
    node.write()
    node.overlay.put(keys.job + b"late", b"job")
    node.world.run_for(100.0)
    assert node.store.scan(keys.prefix, keys.stop)
    node.erase()
    assert (0, []) == (node.marks(), node.store.scan(keys.prefix, keys.stop))


def test_a_slow_disk_is_not_given_more_and_more_to_erase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named regression: each step went on, and all that they deleted came to lie in one batch."""
    monkeypatch.setattr("node.replicas._ERASE_ROWS", 3)
    node = _Node()
    keys = node.load(HERE).keys
    for number in range(10):
        node.store.write({keys.job + bytes([number]): b"job"})
    node.replicas.retire(GROUP)
    for _ in range(4):
        node.write()
        node.world.run_for(1_000.0)
        assert len(node.overlay) <= 3
    node.erase()
    assert (0, []) == (node.marks(), node.store.scan(keys.prefix, keys.stop))


def test_scans_end_at_their_own_replica() -> None:
    """Named regression: behind a replica lay an erased one, which every scan to its end walked.

    LevelDB looks for the next row that there is, and over all that was deleted on the way. So there
    is a row at the end of each replica, and behind those of the node.
    """
    node = _Node()
    ranges = [node.load(HERE).keys, node.replicas.stage()]
    node.write()
    for keys in ranges:
        assert (keys.fence, b"") == node.store.scan(keys.prefix, keys.stop)[-1]
        assert keys.route_attempts + b"\xff" * 20 < keys.fence < keys.stop
    assert (NODE_FENCE, b"") == node.store.scan(b"", ranges[0].prefix)[-1]
