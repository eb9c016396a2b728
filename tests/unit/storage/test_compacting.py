"""How a compaction is cut into steps, and that LevelDB gives space back when it is asked so."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timemachine.storage.compacting import Span, estimate_ms, rest_ms, spans, steps
from timemachine.storage.keys import after_prefix, replica_prefix
from timemachine.storage.leveldb import FORMAT, Identity, LevelDBStore, open_store
from timemachine.storage.overlay import Overlay

IDENTITY = Identity(FORMAT, "cluster", "node", 1, b"check")
ROWS = 20_000
PREFIX = replica_prefix(1)
ALL = Span(replica_prefix(0), replica_prefix(2))


def test_neighbours_share_a_span() -> None:
    """The ranges of replicas that follow each other are one; gaps are left out."""
    one, three = replica_prefix(1), replica_prefix(3)
    assert [Span(one, three), Span(replica_prefix(7), replica_prefix(8))] == spans([2, 7, 1, 2])
    assert [] == spans([])
    assert [Span(replica_prefix(0), replica_prefix(9))] == spans(range(9))


@given(
    keys=st.lists(st.binary(min_size=1, max_size=12), max_size=60, unique=True),
    step_bytes=st.integers(1, 400),
)
def test_steps_cover_all_and_are_bounded(keys: list[bytes], step_bytes: int) -> None:
    """They follow each other without a gap, and none is over 1.5 times as large as was asked.

    Or larger by more than one row.
    """
    rows = sorted(PREFIX + key + b"!" for key in keys)

    def size_of(start: bytes, stop: bytes) -> int:
        return 100 * sum(start <= key < stop for key in rows)

    span = Span(PREFIX, after_prefix(PREFIX))
    found = steps([span], size_of, step_bytes)
    assert span == Span(found[0].start, found[-1].stop)
    assert all(a.stop == b.start for a, b in pairwise(found))
    assert all(step.start < step.stop for step in found)
    for step in found:
        assert size_of(*step) <= max(step_bytes + 100, step_bytes * 3 // 2)


def test_ids_that_cannot_be_told_apart_stay_in_one_step() -> None:
    """It comes to its end where a step cannot be cut any further."""
    rows = sorted(PREFIX + b"j" + b"x" * 60 + b"%04d" % number for number in range(100))

    def size_of(start: bytes, stop: bytes) -> int:
        return sum(start <= key < stop for key in rows)

    found = steps([Span(PREFIX, after_prefix(PREFIX))], size_of, 10)
    assert 100 == max(size_of(*step) for step in found)
    assert len(found) <= 3


def test_rests_keep_the_rate() -> None:
    """What was read and written takes as long as at that rate, the step's own time included."""
    assert 750.0 == rest_ms(1_000_000, 250.0, 1_000_000)
    assert 0.0 == rest_ms(1_000_000, 1_250.0, 1_000_000)
    assert 0.0 == rest_ms(0, 3.0, 1_000_000)


def test_estimates() -> None:
    """One node after the other, or as long as the largest takes where all work at once."""
    assert 12_000 == estimate_ms([1_000, 2_000], 1_000, 1)
    assert 8_000 == estimate_ms([1_000, 2_000], 1_000, 2)
    gib = 1 << 30
    assert 10_000 > estimate_ms([gib], gib, 1) > 2_000
    assert 0 == estimate_ms([], 1_000, 1)


def _write(store: LevelDBStore, keys: list[bytes], value: bytes | None) -> None:
    for at in range(0, len(keys), 500):
        store.write(store.prepare(dict.fromkeys(keys[at : at + 500], value)))


def _touch(store: LevelDBStore, span: Span) -> None:
    overlay = Overlay(store)
    overlay.put_all({key: overlay.get(key) for key in span})
    store.write(store.prepare(overlay.seal()))


@pytest.mark.parametrize("in_tables", [False, True], ids=["from the log", "from tables"])
def test_space_is_returned(tmp_path: Path, in_tables: bool) -> None:
    """After most rows were deleted the directory is as small as what is left, which all is there.

    Also where they were put and deleted before they first came into a table: LevelDB does not
    merge its lowest level by itself, however often it is asked. Without the touch nothing is freed.
    """
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    keys = [PREFIX + b"j%08d" % number for number in range(ROWS)]
    _write(store, keys, b"v" * 400)
    if in_tables:
        store.flush()
    full = store.disk_bytes()
    assert full > ROWS * 400
    _write(store, [key for key in keys if not key.endswith(b"00")], None)
    store.flush()
    if not in_tables:
        store.compact(*ALL)
        store.compact(*ALL)
        assert store.disk_bytes() > full * 0.9, "LevelDB does this by itself now"
    before = store.compacted_bytes()
    for step in steps([ALL], store.approximate_bytes, 2_000_000):
        _touch(store, step)
        store.compact(*step)
    for _ in range(200):
        # What LevelDB has deleted is freed by a thread.
        if store.disk_bytes() < full / 20:
            break
        time.sleep(0.05)
    assert store.disk_bytes() < full / 20
    assert store.compacted_bytes() > before
    assert keys[::100] == [key for key, _ in store.scan(PREFIX + b"j", PREFIX + b"k", ROWS)]
    store.close()
    on_disk = sum(each.stat().st_size for each in (tmp_path / "data/store").iterdir())
    assert on_disk < full / 20, "and so it stays"
    store, _ = open_store(tmp_path / "data")
    assert ROWS // 100 == len(store.scan(PREFIX + b"j", PREFIX + b"k", ROWS))
    store.close()


def test_steps_of_a_real_store(tmp_path: Path) -> None:
    """LevelDB's own sizes are good enough to cut by."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    _write(store, [PREFIX + b"j%08d" % number for number in range(ROWS)], b"v" * 400)
    store.flush()
    found = steps([ALL], store.approximate_bytes, 1_000_000)
    assert 6 <= len(found) <= 12
    assert all(store.approximate_bytes(*step) < 1_600_000 for step in found)
    store.close()


def test_the_compacted_bytes_of_a_new_store(tmp_path: Path) -> None:
    """Nothing was read or written for a compaction yet."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    assert 0 == store.compacted_bytes()
    store.close()
