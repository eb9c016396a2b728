"""Forgets what is kept only for a time.

Ended jobs, attempts and what was answered to them, stored answers, ended tasks. On its rounds it
also has events told that were not at once, for whatever reason.
"""

from collections.abc import Callable
from functools import partial

from node.aliases import Aliases
from node.env import World
from node.events import Events
from node.replicas import job_machine
from node.runtime import Runtime
from node.tasks import Tasks
from timemachine import limits
from timemachine.contents import Contents
from timemachine.errors import StoreDamaged, TimeMachineError
from timemachine.forgetting import Ended, Requests
from timemachine.model import Collection
from timemachine.replica import commands as c
from timemachine.replica.meta import ForgetRequests, MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys
from timemachine.vnode import Vnode

_ROUND_MS = 1_000.0
_VNODES_A_ROUND = 32


class _Kept:
    """What is remembered of the replica with these keys, as long as this node has it."""

    __slots__ = ("contents", "ended", "keys", "requests", "tidied", "tidied_ms")

    def __init__(self, keys: ReplicaKeys) -> None:
        self.keys = keys
        self.ended = Ended(keys)
        self.contents = Contents(keys)
        self.requests = Requests(keys)
        # When nothing was there of any task, and of which state of the meta group that was true.
        self.tidied = -1
        self.tidied_ms = 0.0


class Expiry:
    """Looks at the meta group and some vnodes each second.

    `collections` and `vnodes` are the engine's, by collection uid; `alone` says whether there is no
    other node.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta_vnode: Vnode,
        meta: MetaMachine,
        collections: dict[int, Collection],
        vnodes: dict[int, dict[int, Vnode]],
        tasks: Tasks,
        events: Events,
        *,
        alone: Callable[[], bool],
        aliases: Aliases,
    ) -> None:
        self._world = world
        self._store = store
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._collections = collections
        self._vnodes = vnodes
        self._tasks = tasks
        self._events = events
        self._alone = alone
        self._aliases = aliases
        self._next_vnode = 0
        self._kept: dict[tuple[int, int], _Kept] = {}

    def start(self) -> None:
        """Begin, and go on until the node stops."""
        self._world.call_later(_ROUND_MS, self._round)

    def forget_vnode(self, group: tuple[int, int]) -> None:
        """A vnode is gone."""
        self._kept.pop(group, None)
        self._aliases.forget_vnode(group)

    def _round(self) -> None:
        if not self._runtime.working:
            return
        self.start()
        if self._meta_vnode.serving:
            self._forget_requests(self._meta_vnode, self._meta.state.requests, ForgetRequests)
        self._tasks.expire()
        self._events.look_at_meta()
        vnodes = [vnode for group in self._vnodes.values() for vnode in group.values()]
        if not vnodes:
            return
        for step in range(min(_VNODES_A_ROUND, len(vnodes))):
            vnode = vnodes[(self._next_vnode + step) % len(vnodes)]
            # One after the other: all in one cycle would hold up what fires beside it.
            delay_ms = step * _ROUND_MS / _VNODES_A_ROUND
            self._world.call_later(delay_ms, partial(self._try, vnode))
        self._next_vnode = (self._next_vnode + _VNODES_A_ROUND) % len(vnodes)

    def _try(self, vnode: Vnode) -> None:
        if not self._runtime.working or not self._runtime.holds(vnode) or not vnode.serving:
            return
        try:
            self._purge(vnode)
            self._forget_contents(vnode)
            self._forget_requests(vnode, job_machine(vnode).state.requests, c.Forget)
            self._tidy(vnode)
            self._events.visit(vnode)
            self._aliases.look(vnode)
        except StoreDamaged as error:
            self._runtime.damaged(error)

    def _of(self, vnode: Vnode) -> _Kept:
        """What is remembered of a replica; nothing is where it goes on from a snapshot."""
        kept = self._kept.get(vnode.group)
        if kept is None or kept.keys is not vnode.keys:
            kept = self._kept[vnode.group] = _Kept(vnode.keys)
        return kept

    def _purge(self, vnode: Vnode) -> None:
        ended = self._of(vnode).ended
        if ended.busy:
            return
        now_ms = self._world.wall_ms()
        collection = self._collections[vnode.group[0]]
        kept_ms = collection.history_retention_ms
        if not self._alone():
            # A node that has not heard that it made a job asks for it again: the job tells it so.
            kept_ms = max(kept_ms, limits.REQUESTS_MADE_KEPT_MS)
        before_ms = max(0, now_ms - kept_ms)
        found = ended.look(self._store, now_ms, before_ms, self._world.mono_ms())
        if ended.busy:
            command = c.Purge(
                now_ms=now_ms,
                before_ms=before_ms,
                job_ids=found.job_ids,
                attempt_rows=found.attempt_rows,
            )
            self._runtime.propose(vnode, command, partial(_done, ended))

    def _forget_contents(self, vnode: Vnode) -> None:
        """Forget what recipients answered, where that goes before the attempts."""
        collection = self._collections[vnode.group[0]]
        kept_ms = collection.content_retention_ms
        if kept_ms is None or kept_ms >= collection.history_retention_ms:
            return
        kept = self._of(vnode)
        contents, known = kept.contents, kept.ended.routes
        if contents.busy or known is None:
            return
        now_ms = self._world.wall_ms()
        before_ms = now_ms - kept_ms
        # Those that were made since these were looked for, too.
        routes = {each.uid for each in self._meta.routes.values() if each.db == collection.db}
        found = contents.look(self._store, sorted(routes.union(known)), now_ms, before_ms)
        if found is not None:
            command = c.ForgetContents(
                now_ms=now_ms, before_ms=before_ms, items=found.items, until_ms=found.until_ms
            )
            self._runtime.propose(vnode, command, partial(_done, contents))

    def _forget_requests(
        self, vnode: Vnode, count: int, command: type[c.Forget | ForgetRequests]
    ) -> None:
        """Forget stored answers of a replica that has so many."""
        requests = self._of(vnode).requests
        if requests.busy:
            return
        now_ms = self._world.wall_ms()
        found = requests.look(self._store, count, now_ms, self._world.mono_ms())
        if found:
            self._runtime.propose(
                vnode, command(now_ms=now_ms, requests=found), partial(_done, requests)
            )

    def _tidy(self, vnode: Vnode) -> None:
        """Forget what is kept of tasks that are over, where there may be any.

        LevelDB finds that there is none behind all that it has kept of deleted rows of the log.
        """
        kept, mono_ms = self._of(vnode), self._world.mono_ms()
        known = self._meta.changes
        if kept.tidied == known and mono_ms - kept.tidied_ms < limits.FORGET_SWEEP_MS:
            return
        if self._tasks.tidy(vnode):
            kept.tidied, kept.tidied_ms = known, mono_ms


def _done(looked: Contents | Ended | Requests, result: object) -> None:
    looked.done(committed=not isinstance(result, TimeMachineError))
