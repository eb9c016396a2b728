"""A disk that forgets what was not synced, stalls, fills up, fails and loses bits.

It fails as LevelDB does on a real disk. A batch is one record of its log: after a crash it is there
as a whole or not at all, for a torn record is dropped. After a write that failed the handle is
dead, and whether the batch survived is only known at the next start. Damaged rows are never
served: reading one raises StoreDamaged, and writing it anew does not heal the block around it.

Rows that are deleted stay, for those who ask how large it is, until they are compacted. A range is
merged only where something newer lies over all of it: its bounds must have been written since.
Where a block of it is damaged, or the disk takes nothing, that is the end of the handle too.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.sim.cluster.clockwork import DISK
from tests.sim.cluster.nodeworld import NodeWorld
from timemachine.errors import StoreDamaged, StoreError, StoreFailed
from timemachine.storage.api import Row
from timemachine.storage.memory import MemoryStore, MemoryStoreView

_FULL: Final = "A write failed: no space left on device."
_BROKEN: Final = "A write failed: input/output error."
_ASIDE_MS: Final = (0.1, 40.0)
_ROW_BYTES: Final = 64
"""As if all rows were alike: LevelDB does not count them one by one either."""


class DamageableStore(MemoryStore):
    """The rows that are durable. `pressure_files` is what `pressure` says.

    `sequence` counts the batches; `ended` says that a compaction has met damage.

    With `tells`, damage says where it is, as LevelDB's does, so that a node can give up a replica;
    without, a node that meets it ends.
    """

    def __init__(self, rows: dict[bytes, bytes] | None = None, *, tells: bool = False) -> None:
        super().__init__(rows)
        self._tells = tells
        self._unreadable: dict[bytes, None] = {}
        self._blocks: list[bytes] = []
        self.pressure_files = 0
        self.sequence = 0
        self.ended = False
        self._written: dict[bytes, int] = {}
        self._deleted: list[bytes] = []
        self._compacted_bytes = 0

    @property
    def damaged(self) -> bool:
        """Whether any bit was lost."""
        return bool(self._blocks)

    def damage(self, key: bytes) -> None:
        """Lose a bit of the block that holds this row."""
        self._unreadable[key] = None
        self._blocks.append(key)

    def get(self, key: bytes) -> bytes | None:
        """See Store."""
        if self._unreadable and key in self._unreadable:
            raise self._found(key)
        return self._rows.get(key)

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        """See Store."""
        self._check(start, stop)
        return super().scan(start, stop, limit, reverse=reverse)

    def keys_in(self, ranges: Sequence[tuple[bytes, bytes, int]]) -> list[bytes]:
        """See Store."""
        for start, stop, _ in ranges:
            self._check(start, stop)
        return super().keys_in(ranges)

    def near(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """See Store. It steps over no damage."""
        return {} if self._blocks else super().near(keys)

    def view(self) -> MemoryStoreView:
        """See Store. Of one that tells, whoever reads the damage meets it; else whoever reads."""
        if not self._blocks:
            return super().view()
        if not self._tells:
            raise StoreDamaged
        return _DamagedView(super().view(), self)

    def write(self, prepared: Any) -> None:
        """See Store."""
        self.sequence += 1
        for key, value in prepared.items():
            deleted = self._written.get(key) is not None and key not in self._rows
            if value is None and key in self._rows:
                insort(self._deleted, key)
            elif value is not None and deleted:
                self._forget(key)
            self._written[key] = self.sequence
        super().write(prepared)
        for key in [key for key in self._unreadable if key in prepared]:
            # The newer row lies elsewhere; what walks over the block still meets the damage.
            del self._unreadable[key]

    def pressure(self) -> int:
        """See Store."""
        return self.pressure_files

    # --- space -----------------------------------------------------------------------------

    def deleted_in(self, start: bytes, stop: bytes, before: int) -> list[bytes]:
        """The keys of a range that were deleted before that batch, and still take space."""
        found = self._deleted[bisect_left(self._deleted, start) : bisect_left(self._deleted, stop)]
        return [key for key in found if self._written[key] < before]

    def approximate_bytes(self, start: bytes, stop: bytes) -> int:
        """See Store. It looks into no row."""
        count = 0
        for keys in (self._keys, self._deleted):
            count += max(0, bisect_left(keys, stop) - bisect_left(keys, start))
        return count * _ROW_BYTES

    def compact(self, start: bytes, stop: bytes) -> None:
        """See Store."""
        if any(start <= key < stop for key in self._blocks):
            self.ended = True
            return
        self._compacted_bytes += 2 * self.approximate_bytes(start, stop)
        touched = min(self._written.get(start, 0), self._written.get(stop, 0))
        for key in self.deleted_in(start, stop, touched + 1):
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        place = bisect_left(self._deleted, key)
        if place < len(self._deleted) and self._deleted[place] == key:
            del self._deleted[place]

    def compacted_bytes(self) -> int:
        """See Store."""
        return self._compacted_bytes

    def disk_bytes(self) -> int:
        """See Store."""
        return (len(self._keys) + len(self._deleted)) * _ROW_BYTES

    def _check(self, start: bytes, stop: bytes) -> None:
        for key in self._blocks:
            if start <= key < stop:
                raise self._found(key)

    def _found(self, key: bytes) -> StoreDamaged:
        error = StoreDamaged(key=key if self._tells else None)
        if self._tells:
            self.on_damage(error)
        return error


class _DamagedView(MemoryStoreView):
    """A view of a store that has lost bits."""

    def __init__(self, whole: MemoryStoreView, store: DamageableStore) -> None:
        super().__init__(*whole._open())
        self._whole = whole  # which its store knows of
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        """See View."""
        self._store.get(key)
        return super().get(key)

    def scan(
        self,
        start: bytes,
        stop: bytes,
        limit: int = 1000,
        *,
        reverse: bool = False,
        bytes_max: int | None = None,
    ) -> list[Row]:
        """See View."""
        self._store._check(start, stop)
        return super().scan(start, stop, limit, reverse=reverse, bytes_max=bytes_max)

    def close(self) -> None:
        """See View."""
        self._whole.close()
        super().close()


class FaultyDisk:
    """The `Disk` of one node, and its `Aside`, over the image that outlives its processes.

    store        the durable rows, which the engine reads and checks may look at
    sync_ms      a sync takes from the first to the second
    stall_rate   the share of syncs that take from the first to the second of `stall_ms` more
    keep_rate    the share of crashes that the batch under way survives
    full         every write fails, and no process can start on it
    failing      how many of the next writes fail with an input/output error
    writes       batches that were handed over, over all lives
    """

    def __init__(self, world: NodeWorld, rows: dict[bytes, bytes] | None = None) -> None:
        self._world = world
        self._clock = world.clock
        self._rng = world.clock.child(f"disk {world.number}")
        self.store = DamageableStore(rows)
        self.sync_ms = (0.1, 2.0)
        self.stall_rate = 0.0
        self.stall_ms = (500.0, 2_000.0)
        self.keep_rate = 0.5
        self.full = False
        self.failing = 0
        self.writes = 0
        self._flying: dict[bytes, bytes | None] | None = None
        self._done: Callable[[StoreError | None], None] | None = None
        self._dead = False
        self._dies_after_writes = 0
        self._keeps: bool | None = None
        self._aside_dice = world.clock.child(f"aside {world.number}")
        self._aside_until_ms = 0.0
        world.crash_listeners.append(self._crashed)

    @property
    def busy(self) -> bool:
        """Whether a batch is under way."""
        return self._flying is not None

    @property
    def dead(self) -> bool:
        """Whether the process that runs can write nothing more, and ends with its next write."""
        return self._dead

    def open(self, *, verify: bool = True) -> DamageableStore:
        """The store, for a process that starts.

        Raises StoreFailed while the disk is full or fails, and StoreDamaged where `verify` finds
        damage; without it a process finds that when it reads there.
        """
        if self.full or self.failing:
            raise StoreFailed(_FULL if self.full else _BROKEN)
        if verify and self.store.damaged:
            raise StoreDamaged
        self._dead = self.store.ended = False
        return self.store

    def write(
        self,
        prepared: dict[bytes, bytes | None],
        done: Callable[[StoreError | None], None],
    ) -> None:
        """See Disk."""
        world = self._world
        if not world.up:
            return
        assert self._flying is None, "a batch is handed over while another one is being synced"
        self.writes += 1
        clock = self._clock
        clock.work += 1
        clock.note(b"".join(prepared))
        clock.note(b"".join([value for value in prepared.values() if value is not None]))
        self._flying = prepared
        self._done = done
        if self._dies_after_writes:
            self._dies_after_writes -= 1
            if not self._dies_after_writes:
                world.die()
        low_ms, high_ms = self.sync_ms
        rng = self._rng
        delay_ms = low_ms + (high_ms - low_ms) * rng.random()
        if self.stall_rate and rng.random() < self.stall_rate:
            delay_ms += rng.uniform(*self.stall_ms)
        clock.post(clock.now_ms + delay_ms, DISK, world, world.generation, self._synced)

    def _synced(self) -> None:
        prepared, self._flying = self._flying, None
        done, self._done = self._done, None
        assert prepared is not None
        assert done is not None
        if self._dead or self.full or self.failing or self.store.ended:
            reason = _FULL if self.full else _BROKEN
            if self.failing:
                self.failing -= 1
                if not self._dead and self._rng.random() < self.keep_rate:
                    # The sync failed after the platter had it: the next start will find it.
                    self.store.write(prepared)
            self._dead = True
            done(StoreFailed(reason))
            return
        self.store.write(prepared)
        done(None)

    # --- beside ----------------------------------------------------------------------------

    def do(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Aside. The process may die meanwhile: then nothing has come of it."""
        clock, world = self._clock, self._world
        if not world.up:
            return
        clock.work += 1
        took_ms = self._aside_dice.uniform(*_ASIDE_MS)
        self._aside_until_ms = max(clock.now_ms, self._aside_until_ms) + took_ms
        clock.post(
            self._aside_until_ms, DISK, world, world.generation, self._do_aside, (work, done)
        )

    def _do_aside(self, asked: tuple[Callable[[], Any], Callable[[Any], None]]) -> None:
        work, done = asked
        try:
            result = work()
        except StoreError as error:
            result = error
        if self.full or self.failing:
            # What is merged has to be written, and cannot be.
            self._dead = True
        done(result)

    # --- faults ----------------------------------------------------------------------------

    def die_at_write(self, writes: int, *, keep: bool | None = None) -> None:
        """The process dies when it hands over that many batches from now on, before it hears.

        `keep` says whether that batch is durable; drawn when None.
        """
        self._dies_after_writes = writes
        self._keeps = keep

    def flip_bits(self) -> bytes | None:
        """Damage a row that is drawn; the row's key, or None without rows."""
        keys = self.store._keys
        if not keys:
            return None
        key = keys[self._rng.randrange(len(keys))]
        self.store.damage(key)
        return key

    def lose(self) -> None:
        """All that was there is gone."""
        self.store = DamageableStore()

    def mend(self) -> None:
        """Space is back, syncs are fast and succeed. What was damaged stays so."""
        self.full = False
        self.failing = 0
        self.stall_rate = 0.0
        self.store.pressure_files = 0
        self._dies_after_writes = 0

    def _crashed(self) -> None:
        prepared, self._flying = self._flying, None
        self._done = None
        keep, self._keeps = self._keeps, None
        died_at_write = self._dies_after_writes == 0
        self._dies_after_writes = 0
        if prepared is None:
            return
        if keep is None or not died_at_write:
            keep = self._rng.random() < self.keep_rate
        if keep and not (self.full or self.failing or self._dead):
            self.store.write(prepared)
