"""What a node counts anew after a start, in the background: ids of jobs, and what is due when.

Neither has rows of its own, since those would be paid by each job that is written. Until a vnode
is through, creates look their id up in the store, and forecasts read the due index itself.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain

from node.env import World
from node.replicas import job_machine
from node.runtime import Runtime
from timemachine.errors import StoreDamaged
from timemachine.replica.machine import JobMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import after_prefix
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode

_ROWS = 500
_PAUSE_MS = 5.0


class Learning:
    """Reads some rows of one vnode after the other, and lets others run in between."""

    def __init__(self, world: World, store: Store, overlay: Overlay, runtime: Runtime) -> None:
        self._world = world
        self._store = store
        self._overlay = overlay
        self._runtime = runtime
        self._open: deque[Iterator[None]] = deque()

    def add(self, vnode: Vnode) -> None:
        """Learn what the rows of this vnode say; once more when its machine was rebased."""
        if not self._open:
            self._world.call_later(_PAUSE_MS, self._step)
        self._open.append(self._learn(vnode))

    def _step(self) -> None:
        if not self._runtime.working:
            return
        try:
            next(self._open[0])
        except StopIteration:
            self._open.popleft()
        except StoreDamaged as error:
            self._open.popleft()
            self._runtime.damaged(error)
        if self._open:
            self._world.call_later(_PAUSE_MS, self._step)

    def _learn(self, vnode: Vnode) -> Iterator[None]:
        machine = job_machine(vnode)
        keys = machine.keys
        for _ in chain(self._ids(machine), self._due(machine)):
            yield
            if not self._runtime.holds(vnode) or machine.keys is not keys:
                # Gone, or it goes on with the rows of a snapshot and is to be added again.
                return

    def _ids(self, machine: JobMachine) -> Iterator[None]:
        if machine.ids.complete:
            return
        for prefix in (machine.keys.alias, machine.keys.job):
            cursor, stop = prefix, after_prefix(prefix)
            more = True
            while more:
                rows = self._store.scan(cursor, stop, _ROWS)
                for key, _ in rows:
                    machine.ids.add(key[len(prefix) :])
                more = len(rows) == _ROWS
                if more:
                    cursor = rows[-1][0] + b"\0"
                elif prefix == machine.keys.job:
                    machine.ids.complete = True
                yield

    def _due(self, machine: JobMachine) -> Iterator[None]:
        keys = machine.keys
        at = len(keys.due)
        cursor = keys.due
        while not machine.due_counts.complete:
            rows = self._store.scan(cursor, keys.due_stop, _ROWS)
            following = rows[-1][0] + b"\0" if len(rows) == _ROWS else keys.due_stop
            # What is applied and not written yet stands in the overlay only.
            present = {key for key, _ in rows}
            for key, value in self._overlay.pending(cursor, following).items():
                if value is None:
                    present.discard(key)
                else:
                    present.add(key)
            cursor = following
            until = None if cursor == keys.due_stop else _place(cursor, at)
            machine.due_counts.cover([_place(key, at) for key in present], until)
            yield


def _place(key: bytes, at: int) -> tuple[int, bytes]:
    return int.from_bytes(key[at : at + 8], "big"), key[at + 8 :]
