"""Mutations of backups: which moment their pages show."""

from typing import Any

import msgspec

from node.backups import BackupViews
from node.runtime import Runtime
from tests.sim.mutations.planting import Mutation, swap
from timemachine.backup import uploads
from timemachine.model import JobRecord, Restore, Route
from timemachine.replica.states import DELIVERED, SCHEDULED
from timemachine.storage.memory import MemoryStore, MemoryStoreView
from timemachine.vnode import Vnode


def _live(original: Any) -> Any:
    def begin(self: BackupViews, world: Any, runtime: Any, view: Any) -> None:
        store: MemoryStore = runtime._store
        original(self, world, runtime, lambda: _Live(store))

    return begin


class _Live(MemoryStoreView):
    """The rows as they are when they are asked for."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__({}, [])
        self._store = store

    def _open(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        super()._open()
        return self._store._rows, self._store._keys


class _Unasked:
    """A runtime that takes whoever leads for sure of it."""

    def __init__(self, runtime: Runtime) -> None:
        self.holds = runtime.holds

    def barrier(self, vnode: Vnode, done: Any) -> None:
        """Ask nobody."""
        done(None)


def _unasked(original: Any) -> Any:
    def begin(self: BackupViews, world: Any, runtime: Any, view: Any) -> None:
        original(self, world, _Unasked(runtime), view)

    return begin


def _unended(original: Any) -> Any:
    def fate(before: JobRecord, route: Route | None, restore: Restore) -> Any:
        if before.state == DELIVERED:
            before = msgspec.structs.replace(before, state=SCHEDULED, finished_ms=0)
        return original(before, route, restore)

    return fate


MUTATIONS = {
    "backup-of-no-moment": Mutation(
        "The pages of a backup show the rows as they are by then, each of another moment.",
        ("C13",),
        swap(BackupViews, "__init__", _live),
    ),
    "backup-without-quorum": Mutation(
        "A leader gives a backup what it has without asking whether it still leads.",
        ("C13",),
        swap(BackupViews, "__init__", _unasked),
    ),
    "restored-as-new": Mutation(
        "A job that had been delivered is restored as one that is to be sent.",
        ("C14",),
        swap(uploads, "fate", _unended),
    ),
}
