"""What may be asked of a node's own replicas. All of it is durable when it is seen.

What is asked about many vnodes is gathered, see `node/gathering/`.
"""

from collections.abc import Iterable

from node.replicas import job_machine
from timemachine.model import AttemptRecord, Collection, JobRecord, JobState, Leadership, Queue
from timemachine.replica.commands import PendingItem
from timemachine.replica.ordering import group_of
from timemachine.replica.records import (
    Alias,
    find_leaders,
    read_alias,
    read_attempt,
    read_job,
    read_meta,
    read_turn,
    whole,
)
from timemachine.ring import home_of, vnode_of
from timemachine.storage.api import Store, View
from timemachine.storage.keys import u32
from timemachine.vnode import Vnode

_TIME_BYTES = 8


class Reader:
    """Finds jobs in the vnodes of their collections.

    A collection that is being created or deleted has no vnodes: its jobs are not there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._collections: dict[int, Collection] = {}
        # By collection, and there by index: those that this node has a replica of.
        self._vnodes: dict[int, dict[int, Vnode]] = {}

    def view(self) -> View:
        """What is durable on this node now; whoever asks closes it."""
        return self._store.view()

    def held_by_restore(
        self, vnode: Vnode, after: bytes, rows_max: int
    ) -> tuple[list[PendingItem], bytes | None]:
        """The jobs among some held ones of a vnode that a restore holds.

        Also what to pass as `after` for the next ones, None if there are none.
        """
        start, stop = vnode.keys.state_range(JobState.HELD)
        rows = self._store.scan(start + after + b"\0" if after else start, stop, rows_max)
        items = []
        for key, _ in rows:
            raw_id = key[len(start) + _TIME_BYTES :]
            data = self._store.get(vnode.keys.job + raw_id)
            record = None if data is None else read_job(data)
            if record is not None and record.queue == Queue.PARKED:
                seen = PendingItem(raw_id.decode(), record.uid, record.version, record.attempts)
                items.append(seen)
        return items, rows[-1][0][len(start) :] if len(rows) == rows_max else None

    def _of(self, uid: int) -> Iterable[Vnode]:
        """The vnodes here of the collection of that uid."""
        return self._vnodes.get(uid, {}).values()

    # --- one job ---------------------------------------------------------------------------

    def vnode_of(self, collection: Collection, job_id: str) -> int:
        """Index of the vnode that a job id belongs to, or its ordering key, where that is known."""
        return vnode_of(home_of(job_id), collection.num_vnodes)

    def alias_of(self, collection: Collection, job_id: str) -> Alias | None:
        """Where the job of an id is, as its vnode's replica here says, if that is elsewhere."""
        vnode = self._vnode(collection, job_id)
        data = None if vnode is None else self._store.get(vnode.keys.alias + job_id.encode())
        return None if data is None else read_alias(data)

    def ahead_of(self, collection: Collection, job_id: str, record: JobRecord) -> str | None:
        """The id of the job that this one waits for: of the same route and ordering key."""
        vnode = self._vnode(collection, job_id)
        if vnode is None or record.order is None:
            return None
        data = self._store.get(vnode.keys.turn + group_of(record))
        head = "" if data is None else read_turn(data).head
        return head if head not in ("", job_id) else None

    def _vnode(self, collection: Collection, job_id: str) -> Vnode | None:
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            return None
        return vnodes.get(vnode_of(home_of(job_id), collection.num_vnodes))

    def read_job(self, collection: Collection, job_id: str) -> tuple[JobRecord, bytes] | None:
        """The durable job and its meta bytes."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return None
        raw_id = job_id.encode()
        data = self._store.get(vnode.keys.job + raw_id)
        if data is None:
            return None
        record = read_job(data)
        return record, read_meta(self._store, vnode.keys, raw_id, record)

    def read_meta(self, collection: Collection, job_id: str) -> bytes:
        """The meta bytes of a job."""
        found = self.read_job(collection, job_id)
        return b"null" if found is None else found[1]

    def read_attempts(
        self, collection: Collection, job_id: str, record: JobRecord
    ) -> list[AttemptRecord]:
        """The settled attempts of a job, oldest first."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return []
        start, stop = vnode.keys.attempts_range(job_id.encode())
        rows = self._store.scan(start, stop, max(1, record.serial))
        attempts = [value for _, value in rows]
        # Since the record was read, it may have got a row of its own.
        if record.delivering and (not rows or rows[-1][0] != start + u32(record.serial)):
            attempts.append(record.delivering)
        return [whole(record, read_attempt(value)) for value in attempts]

    def read_leaders(self, collection: Collection, job_id: str) -> list[Leadership]:
        """The last leaders of a job's vnode that have claimed something, the oldest first."""
        vnode = self._vnode(collection, job_id)
        return [] if vnode is None else find_leaders(self._store, vnode.keys)

    # --- many jobs -------------------------------------------------------------------------

    def counts(self, collection: Collection) -> dict[str, int]:
        """Jobs by state, as far as they are in replicas of this node."""
        totals = [0] * len(JobState)
        for vnode in self._of(collection.uid):
            counts = job_machine(vnode).state.counts
            totals = [a + b for a, b in zip(totals, counts, strict=True)]
        return {state.text: totals[state] for state in JobState}
