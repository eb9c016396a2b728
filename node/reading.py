"""What may be asked of a node without changing anything. All of it is durable when it is seen."""

from collections.abc import Iterator

from node.attempts import RoutePage, RoutePosition, route_attempts
from node.forecast import forecast
from node.listing import Page, Position, count_jobs, list_jobs
from node.replicas import job_machine
from node.selection import Selection
from timemachine.model import AttemptRecord, Collection, JobRecord, JobState
from timemachine.replica.records import read_attempt, read_job
from timemachine.ring import vnode_of
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys
from timemachine.vnode import Vnode


class Reader:
    """Finds jobs in the vnodes of their collections.

    A collection that is being created or deleted has no vnodes: its jobs are not there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._collections: dict[int, Collection] = {}
        self._vnodes: dict[int, list[Vnode]] = {}

    # --- one job ---------------------------------------------------------------------------

    def vnode_of(self, collection: Collection, job_id: str) -> int:
        """Index of the vnode that a job id belongs to."""
        return vnode_of(job_id, collection.num_vnodes)

    def _vnode(self, collection: Collection, job_id: str) -> Vnode | None:
        vnodes = self._vnodes.get(collection.uid)
        if vnodes is None:
            return None
        return vnodes[vnode_of(job_id, collection.num_vnodes)]

    def read_job(self, collection: Collection, job_id: str) -> tuple[JobRecord, bytes] | None:
        """The durable job and its meta bytes."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return None
        raw_id = job_id.encode()
        data = self._store.get(vnode.keys.job + raw_id)
        if data is None:
            return None
        return read_job(data), self._store.get(vnode.keys.meta + raw_id) or b"null"

    def read_meta(self, collection: Collection, job_id: str) -> bytes:
        """The meta bytes of a job."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return b"null"
        return self._store.get(vnode.keys.meta + job_id.encode()) or b"null"

    def read_attempts(
        self, collection: Collection, job_id: str, record: JobRecord
    ) -> list[AttemptRecord]:
        """The settled attempts of a job, oldest first."""
        vnode = self._vnode(collection, job_id)
        if vnode is None:
            return []
        start, stop = vnode.keys.attempts_range(job_id.encode())
        rows = self._store.scan(start, stop, max(1, record.serial))
        return [read_attempt(value) for _, value in rows]

    # --- many jobs -------------------------------------------------------------------------

    def list_jobs(
        self, collection: Collection, selection: Selection, after: Position | None, limit: int
    ) -> Iterator[Page | None]:
        """Jobs in trigger order over all vnodes; see `node.listing.list_jobs`."""
        return list_jobs(self._store, self._keys(collection), selection, after, limit)

    def count_jobs(
        self, collection: Collection, selection: Selection, *, unattempted: bool, sample: int
    ) -> Iterator[tuple[int, list[tuple[str, JobRecord]]] | None]:
        """What a task would find; see `node.listing.count_jobs`."""
        keys = self._keys(collection)
        return count_jobs(self._store, keys, selection, unattempted=unattempted, sample=sample)

    def _keys(self, collection: Collection) -> list[ReplicaKeys]:
        return [vnode.keys for vnode in self._vnodes.get(collection.uid, [])]

    def forecast(
        self, collection: Collection, from_ms: int, to_ms: int, bucket_ms: int
    ) -> Iterator[list[tuple[int, int, int]] | None]:
        """Jobs due by time; see `node.forecast`."""
        vnodes = [
            (vnode.keys, job_machine(vnode).due_counts)
            for vnode in self._vnodes.get(collection.uid, [])
        ]
        return forecast(self._store, vnodes, from_ms, to_ms, bucket_ms)

    def counts(self, collection: Collection) -> dict[str, int]:
        """Jobs by state."""
        totals = [0] * len(JobState)
        for vnode in self._vnodes.get(collection.uid, []):
            counts = job_machine(vnode).state.counts
            totals = [a + b for a, b in zip(totals, counts, strict=True)]
        return {state.text: totals[state] for state in JobState}

    # --- routes ----------------------------------------------------------------------------

    def route_attempts(
        self, db: str, route_uid: int, before: RoutePosition | None, limit: int
    ) -> Iterator[RoutePage | None]:
        """Attempts of a route, the newest first; see `node.attempts`."""
        vnodes = [
            (collection, index, vnode.keys)
            for uid, collection in sorted(self._collections.items())
            if collection.db == db
            for index, vnode in enumerate(self._vnodes.get(uid, []))
        ]
        return route_attempts(self._store, vnodes, route_uid, before, limit)

    def jobs_of_route(self, route_uid: int) -> tuple[int, int]:
        """Pending jobs bound to a route, in all collections, and those of them that wait for it."""
        pending = waiting = 0
        for vnodes in self._vnodes.values():
            for vnode in vnodes:
                counts = job_machine(vnode).routes.get(route_uid)
                if counts is not None:
                    pending += counts.pending
                    waiting += counts.waiting
        return pending, waiting
