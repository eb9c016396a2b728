"""Forgets what is kept only for a time: ended jobs, attempts, stored answers, ended tasks."""

from collections.abc import Callable
from functools import partial

from node.attempts import old_attempt_rows
from node.env import World
from node.replicas import job_machine
from node.runtime import Runtime
from node.tasks import Tasks
from timemachine import limits
from timemachine.errors import StoreDamaged
from timemachine.model import Collection
from timemachine.replica import commands as c
from timemachine.replica.meta import ForgetRequests, MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import u64
from timemachine.vnode import Vnode

_ROUND_MS = 1_000.0
_VNODES_A_ROUND = 32
_JOBS = 500
_REQUESTS = 1_000


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
        *,
        alone: Callable[[], bool],
    ) -> None:
        self._world = world
        self._store = store
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._collections = collections
        self._vnodes = vnodes
        self._tasks = tasks
        self._alone = alone
        self._next_vnode = 0
        self._attempts_at: dict[tuple[int, int], bytes] = {}

    def start(self) -> None:
        """Begin, and go on until the node stops."""
        self._world.call_later(_ROUND_MS, self._round)

    def forget_vnode(self, group: tuple[int, int]) -> None:
        """A vnode is gone."""
        self._attempts_at.pop(group, None)

    def _round(self) -> None:
        if not self._runtime.working:
            return
        self.start()
        requests = self._old_requests(self._meta_vnode, self._meta.state.requests)
        if requests:
            command = ForgetRequests(now_ms=self._world.wall_ms(), requests=requests)
            self._runtime.propose(self._meta_vnode, command)
        self._tasks.expire()
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
        if not self._runtime.working or not self._runtime.holds(vnode):
            return
        try:
            self._expire(vnode)
        except StoreDamaged as error:
            self._runtime.damaged(error)

    def _expire(self, vnode: Vnode) -> None:
        now_ms = self._world.wall_ms()
        keys = vnode.keys
        collection = self._collections[vnode.group[0]]
        kept_ms = collection.history_retention_ms
        if not self._alone():
            # A node that has not heard that it made a job asks for it again: the job tells it so.
            kept_ms = max(kept_ms, limits.REQUESTS_MADE_KEPT_MS)
        before_ms = max(0, now_ms - kept_ms)
        finished = self._store.scan(keys.finished, keys.finished + u64(before_ms), _JOBS)
        at_route = self._attempts_at.get(vnode.group, b"")
        attempts, ended, cursor = old_attempt_rows(self._store, keys, before_ms, at_route)
        if at_route and not attempts and not cursor:
            # Nothing was behind that route: look from the first one on, and not a round later.
            attempts, ended, cursor = old_attempt_rows(self._store, keys, before_ms, b"")
        self._attempts_at[vnode.group] = cursor
        if finished or attempts:
            at = len(keys.finished) + 8
            # What its attempt delivered is listed with this, or with one before or after.
            job_ids = [key[at:].decode() for key, _ in finished] + ended
            command = c.Purge(
                now_ms=now_ms, before_ms=before_ms, job_ids=job_ids, attempt_rows=attempts
            )
            self._runtime.propose(vnode, command)
        requests = self._old_requests(vnode, job_machine(vnode).state.requests)
        if requests:
            self._runtime.propose(vnode, c.Forget(now_ms=now_ms, requests=requests))
        if vnode.serving:
            self._tasks.tidy(vnode)

    def _old_requests(self, vnode: Vnode, count: int) -> list[tuple[int, bytes]]:
        """Stored answers of a vnode that are to be forgotten, the oldest first."""
        if not count:
            return []
        keys = vnode.keys
        # Beyond the bound in number, the oldest answers go before their time.
        crowded = count > limits.REQUESTS_PER_VNODE_MAX
        stop = keys.prefix + b"y" if crowded else keys.request_age + u64(self._world.wall_ms())
        at = len(keys.request_age)
        rows = self._store.scan(keys.request_age, stop, _REQUESTS)
        return [(int.from_bytes(key[at : at + 8], "big"), key[at + 8 :]) for key, _ in rows]
