"""What a disk keeps over a crash, what it says when it fails, and that damage is never served."""

import pytest

from tests.sim.cluster.clockwork import Clockwork
from tests.sim.cluster.disk import DamageableStore, FaultyDisk
from tests.sim.cluster.nodeworld import NodeWorld
from timemachine.errors import StoreDamaged, StoreError, StoreFailed

_ROWS = {b"a": b"1", b"b": b"2", b"c": b"3"}


def _disk(rows: dict[bytes, bytes] | None = None) -> tuple[NodeWorld, FaultyDisk]:
    world = NodeWorld(Clockwork(1), 1)
    disk = FaultyDisk(world, rows)
    world.start()
    return world, disk


def _write(disk: FaultyDisk, key: bytes = b"k") -> list[StoreError | None]:
    told: list[StoreError | None] = []
    disk.write({key: b"v"}, told.append)
    return told


def test_a_batch_is_seen_when_it_is_durable() -> None:
    """Not when it is handed over, and not from inside the call."""
    world, disk = _disk()
    told = _write(disk)
    assert ([], None) == (told, disk.store.get(b"k"))
    world.clock.run_for(5)
    assert ([None], b"v") == (told, disk.store.get(b"k"))


def test_one_batch_at_a_time() -> None:
    """A second one is a fault of the caller."""
    _, disk = _disk()
    _write(disk)
    with pytest.raises(AssertionError):
        _write(disk)


@pytest.mark.parametrize("keep", [True, False])
def test_a_crash_keeps_the_batch_under_way_or_loses_it(keep: bool) -> None:
    """As a whole; nobody is told, and the next life writes on."""
    world, disk = _disk()
    disk.keep_rate = float(keep)
    told = _write(disk)
    world.crash()
    world.clock.run_for(10)
    world.start()
    store = disk.open()
    assert ([], b"v" if keep else None) == (told, store.get(b"k"))
    later = _write(disk, b"later")
    world.clock.run_for(10)
    assert [None] == later


@pytest.mark.parametrize("keep", [True, False])
def test_a_process_dies_at_the_write_that_was_named(keep: bool) -> None:
    """Its caller never goes on."""
    world, disk = _disk()
    disk.die_at_write(2, keep=keep)
    gone_on = []

    def write(key: bytes) -> None:
        disk.write({key: b"v"}, lambda _: None)
        gone_on.append(key)

    world.call_later(0, lambda: write(b"one"))
    world.call_later(20, lambda: write(b"two"))
    world.clock.run_for(50)
    assert [b"one"] == gone_on
    assert not world.up
    assert (b"v", b"v" if keep else None) == (disk.store.get(b"one"), disk.store.get(b"two"))


def test_a_full_disk_fails_every_write_and_every_start() -> None:
    """Until there is space; what failed is not there."""
    world, disk = _disk()
    disk.full = True
    told = _write(disk)
    world.clock.run_for(5)
    assert isinstance(told[0], StoreFailed)
    world.crash()
    with pytest.raises(StoreFailed):
        disk.open()
    disk.full = False
    assert disk.open().get(b"k") is None


@pytest.mark.parametrize("kept", [True, False])
def test_after_a_write_that_failed_the_handle_is_dead(kept: bool) -> None:
    """Whether that batch is durable, the next start finds out."""
    world, disk = _disk()
    disk.failing = 1
    disk.keep_rate = float(kept)
    first = _write(disk, b"first")
    world.clock.run_for(5)
    second = _write(disk, b"second")
    world.clock.run_for(5)
    assert [StoreFailed, StoreFailed] == [type(first[0]), type(second[0])]
    world.crash()
    world.start()
    store = disk.open()
    assert (b"v" if kept else None, None) == (store.get(b"first"), store.get(b"second"))
    third = _write(disk)
    world.clock.run_for(5)
    assert [None] == third


def test_a_sync_may_stall() -> None:
    """For as long as a bad disk does."""
    world, disk = _disk()
    disk.stall_rate = 1.0
    told = _write(disk)
    world.clock.run_for(400)
    assert [] == told
    world.clock.run_for(2_000)
    assert [None] == told


def test_damage_is_found_and_never_served() -> None:
    """At the start, by a read of the row, and by what walks over it, also when it was rewritten."""
    world, disk = _disk(_ROWS)
    store = disk.store
    store.damage(b"b")
    with pytest.raises(StoreDamaged):
        disk.open()
    assert store is disk.open(verify=False)
    with pytest.raises(StoreDamaged):
        store.get(b"b")
    assert b"1" == store.get(b"a")
    assert [(b"c", b"3")] == store.scan(b"c", b"d")
    with pytest.raises(StoreDamaged):
        store.keys_in([(b"a", b"b", 9), (b"b", b"c", 9)])
    disk.write({b"b": b"new"}, lambda _: None)
    world.clock.run_for(5)
    assert b"new" == store.get(b"b")
    with pytest.raises(StoreDamaged):
        store.scan(b"a", b"z")


def test_bits_flip_in_a_row_that_is_there() -> None:
    """An empty disk has none."""
    _, disk = _disk(_ROWS)
    assert disk.flip_bits() in _ROWS
    assert disk.store.damaged
    assert _disk()[1].flip_bits() is None


def test_mending_leaves_the_damage() -> None:
    """Everything else works again."""
    world, disk = _disk(_ROWS)
    disk.flip_bits()
    disk.full, disk.failing, disk.stall_rate, disk.store.pressure_files = True, 3, 1.0, 9
    disk.mend()
    told = _write(disk)
    world.clock.run_for(5)
    assert ([None], 0, True) == (told, disk.store.pressure(), disk.store.damaged)


def test_what_is_deleted_takes_space_until_it_is_compacted() -> None:
    """A step gives back what is older than both of its bounds, and nothing else."""
    store = DamageableStore({b"a": b"1", b"b": b"2", b"y": b"3"})
    store.write({b"b": None, b"y": None})
    assert [b"b", b"y"] == store.deleted_in(b"", b"z", store.sequence + 1)
    before = store.disk_bytes()
    store.compact(b"a", b"x")
    assert [b"b", b"y"] == store.deleted_in(b"", b"z", store.sequence + 1)
    store.write({b"a": b"1", b"x": None})
    store.compact(b"a", b"x")
    assert [b"y"] == store.deleted_in(b"", b"z", store.sequence + 1)
    assert store.disk_bytes() < before
    store.write({b"y": b"4"})
    assert [] == store.deleted_in(b"", b"z", store.sequence + 1)


def test_a_damaged_block_ends_the_handle_that_compacts_it() -> None:
    """The next write tells; a process that starts may write."""
    store = DamageableStore({b"a": b"1"})
    store.damage(b"a")
    store.compact(b"b", b"c")
    assert not store.ended
    store.compact(b"a", b"c")
    assert store.ended
