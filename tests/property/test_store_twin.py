"""LevelDB against its twin in memory: the same answers to everything, also after reopening."""

import tempfile
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from timemachine.errors import StoreError
from timemachine.storage.leveldb import FORMAT, Identity, LevelDBView, open_store
from timemachine.storage.memory import MemoryStore, MemoryStoreView
from timemachine.storage.overlay import Overlay

IDENTITY = Identity(FORMAT, "c", "n", 1, b"")
# Below the identity row's prefix lies nothing, and `k` lies above it.
KEYS = st.binary(max_size=3).map(lambda key: b"k" + key)
VALUES = st.binary(max_size=20) | st.integers(0, 40_000).map(bytes)
BATCHES = st.dictionaries(KEYS, st.none() | VALUES, max_size=8)
LIMITS = st.integers(-1, 12)


class Twins(RuleBasedStateMachine):
    """Both engines are asked the same, one through an overlay as the node uses it."""

    @initialize()
    def begin(self) -> None:
        """A new database."""
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "data")
        self.real, _ = open_store(self.path, create=IDENTITY)
        self.overlay = Overlay(self.real)
        self.twin = MemoryStore()
        self.views: list[tuple[LevelDBView, MemoryStoreView, dict[bytes, bytes]]] = []

    @rule(batch=BATCHES)
    def write(self, batch: dict[bytes, bytes | None]) -> None:
        """One batch; while it is under way and afterwards the overlay shows its rows."""
        for key, value in batch.items():
            if value is None:
                self.overlay.delete(key)
            else:
                self.overlay.put(key, value)
        sealed = self.overlay.seal()
        self.twin.write(self.twin.prepare(batch))
        for key in batch:
            assert self.twin.get(key) == self.overlay.get(key)
        self.real.write(self.real.prepare(sealed))
        self.overlay.settled()

    @rule(batch=BATCHES)
    def write_in_vain(self, batch: dict[bytes, bytes | None]) -> None:
        """A batch that is discarded leaves no trace."""
        for key, value in batch.items():
            self.overlay.put(key, value or b"")
        self.overlay.discard()
        for key in batch:
            assert self.twin.get(key) == self.overlay.get(key)

    @rule(start=KEYS, stop=KEYS, limit=LIMITS, reverse=st.booleans())
    def scan(self, start: bytes, stop: bytes, limit: int, *, reverse: bool) -> None:
        """Any range, also an empty one or one that is the wrong way round."""
        expected = self.twin.scan(start, stop, limit, reverse=reverse)
        assert expected == self.real.scan(start, stop, limit, reverse=reverse)

    @rule(bounds=st.sets(KEYS, max_size=8), at_most=st.integers(0, 12))
    def keys_in(self, bounds: set[bytes], at_most: int) -> None:
        """Any ranges that rise, empty ones and those that touch among them."""
        ordered = sorted(bounds)
        for ranges in (
            list(zip(ordered[::2], ordered[1::2], strict=False)),
            list(pairwise(ordered)),
        ):
            asked = [(start, stop, at_most) for start, stop in ranges]
            expected = [
                key for start, stop in ranges for key, _ in self.twin.scan(start, stop, at_most)
            ]
            assert expected == self.twin.keys_in(asked) == self.real.keys_in(asked)

    @rule(keys=st.sets(KEYS, max_size=60))
    def near(self, keys: set[bytes]) -> None:
        """Any keys: whatever is told of them is true."""
        for store in (self.real, self.twin):
            for key, value in store.near(sorted(keys)).items():
                assert value == self.twin.get(key)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        """Any key."""
        assert self.twin.get(key) == self.real.get(key) == self.overlay.get(key)

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def view(self) -> None:
        """Views of both, and what they must show for as long as they are open."""
        self.views.append((self.real.view(), self.twin.view(), self.twin.image()))

    @precondition(lambda self: self.views)
    @rule(number=st.integers(0, 2))
    def close_view(self, number: int) -> None:
        """Let go of one view; the others stay."""
        real, twin, _ = self.views.pop(number % len(self.views))
        for view in (real, twin):
            view.close()
            view.close()
            with pytest.raises(StoreError):
                view.get(b"k")

    @precondition(lambda self: self.views)
    @rule(
        start=KEYS,
        stop=KEYS,
        limit=LIMITS,
        reverse=st.booleans(),
        bytes_max=st.none() | st.integers(1, 60_000),
    )
    def scan_views(
        self, start: bytes, stop: bytes, limit: int, *, reverse: bool, bytes_max: int | None
    ) -> None:
        """Any range of what was there when the view was made, and no more than was asked for."""
        for real, twin, image in self.views:
            rows = sorted(((k, v) for k, v in image.items() if start <= k < stop), reverse=reverse)
            rows = rows[: max(0, limit)]
            if bytes_max is not None:
                ends = list(accumulate(len(key) + len(value) for key, value in rows))
                rows = rows[: 1 + sum(end < bytes_max for end in ends)]
            for view in (real, twin):
                assert rows == view.scan(start, stop, limit, reverse=reverse, bytes_max=bytes_max)
                assert image.get(start) == view.get(start)

    @rule()
    def compact(self) -> None:
        """Compaction changes nothing that can be read."""
        self.real.compact(b"k", b"l")

    @rule()
    def reopen(self) -> None:
        """A restart, which closes the views that are open."""
        self.real.close()
        for real, twin, _ in self.views:
            with pytest.raises(StoreError):
                real.scan(b"k", b"l")
            real.close()
            twin.close()
        self.views.clear()
        self.real, identity = open_store(self.path)
        assert IDENTITY == identity
        self.overlay = Overlay(self.real)

    @invariant()
    def all_rows_agree(self) -> None:
        """After each step, forwards and backwards."""
        rows = self.twin.scan(b"k", b"l")
        assert rows == self.real.scan(b"k", b"l")
        assert rows[::-1] == self.real.scan(b"k", b"l", reverse=True)
        for real, twin, image in self.views:
            assert sorted(image.items()) == real.scan(b"k", b"l") == twin.scan(b"k", b"l")

    def teardown(self) -> None:
        """Close and remove it."""
        self.real.close()
        self.folder.cleanup()


Twins.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTwins = Twins.TestCase
