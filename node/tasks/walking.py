"""One task in one vnode: from where the log says that it was, to the end.

Jobs that are moved to a later time would come up again if the walk went on in that direction.
Therefore it goes backwards then. Rows are read, and commands applied, in small portions: firing
goes on beside them.
"""

from node.selection import Selection, walk_ranges
from timemachine import limits
from timemachine.model import JobRecord, JobState, Task, TaskKind
from timemachine.replica import commands as c
from timemachine.replica.records import read_job, read_progress
from timemachine.replica.results import BulkProgress
from timemachine.storage.api import Store
from timemachine.storage.keys import u64
from timemachine.vnode import Vnode

_KINDS = {
    TaskKind.CANCEL: c.BULK_CANCEL,
    TaskKind.RESCHEDULE: c.BULK_RESCHEDULE,
    TaskKind.REDRIVE: c.BULK_REDRIVE,
    TaskKind.REPLAY_MISSING: c.BULK_REDRIVE,
}


def selection_of(task: Task) -> Selection:
    """Which jobs a task means, but for those that had attempts where it wants none."""
    return Selection(
        states=frozenset(map(JobState, task.states)),
        route=task.route,
        route_uid=task.route_uid,
        tag=task.tag,
        from_ms=task.from_ms,
        to_ms=task.to_ms,
    )


class Walk:
    """How far a task is in a vnode that this node leads.

    `finished` says that nothing is left to do there; `counts` are jobs by what became of them.
    """

    __slots__ = (
        "_at",
        "_backwards",
        "_committed",
        "_range",
        "_ranges",
        "_selection",
        "_store",
        "_task",
        "counts",
        "finished",
        "vnode",
    )

    def __init__(self, store: Store, vnode: Vnode, task: Task, selection: Selection) -> None:
        self.vnode = vnode
        self._store = store
        self._task = task
        self._selection = selection
        self._backwards = task.shift_ms > 0
        self._ranges: list[tuple[bytes, bytes]] = []
        data = store.get(vnode.keys.task + task.id.encode())
        self.got_to(BulkProgress() if data is None else read_progress(data))

    def got_to(self, progress: BulkProgress) -> None:
        """Go on where the log says that the task is."""
        self.counts = progress.counts
        self.finished = progress.finished
        self._committed = progress.cursor
        self.back()

    def back(self) -> None:
        """Look at the rows again that were looked at last: nothing was done about them."""
        self._range, self._at = 0, b""
        if self._committed:
            self._range, self._at = self._committed[0], self._committed[1:]

    def look(self) -> list[c.BulkItem] | None:
        """The jobs among the next rows; None at the end of the vnode."""
        vnode, store = self.vnode, self._store
        if not self._ranges:
            self._ranges = walk_ranges(vnode.keys, self._selection)
        start, stop = self._ranges[self._range]
        low = start + u64(self._selection.from_ms or 0)
        high = stop if self._selection.to_ms is None else start + u64(self._selection.to_ms)
        if self._at and self._backwards:
            high = start + self._at
        elif self._at:
            low = start + self._at + b"\0"
        count = limits.BULK_JOBS_PER_COMMAND_MAX
        rows = store.scan(low, high, count, reverse=self._backwards)
        items = []
        for key, _ in rows:
            raw_id = key[len(start) + 8 :]
            data = store.get(vnode.keys.job + raw_id)
            record = None if data is None else read_job(data)
            if record is not None and self._means(record):
                items.append(c.BulkItem(raw_id.decode(), record.uid, record.version))
        if rows:
            self._at = rows[-1][0][len(start) :]
        if len(rows) < count and not items:
            # With items it is found to be at its end once they are committed.
            if self._range + 1 == len(self._ranges):
                return None
            self._range += 1
            self._at = b""
        return items

    def _means(self, record: JobRecord) -> bool:
        task = self._task
        if not self._selection.takes(record) or (task.unattempted and record.attempts):
            return False
        if task.kind is not TaskKind.RESCHEDULE:
            return True
        if record.version > 1 and record.updated_ms > task.created_ms:
            # Moved by this task: it has fired since, or waits, and comes up in another range.
            return False
        return record.trigger_ms != task.trigger_ms or record.state != JobState.SCHEDULED

    @property
    def begun(self) -> bool:
        """Whether the log knows of the task here."""
        return bool(self._committed)

    def command(self, now_ms: int, items: list[c.BulkItem], *, finished: bool = False) -> c.Bulk:
        """What does the step that was looked at, or says that there is none any more."""
        task = self._task
        return c.Bulk(
            # Later than its beginning, whatever the clock does: `_means` tells by it what moved.
            now_ms=max(now_ms, task.created_ms + 1),
            task=task.id,
            kind=_KINDS[task.kind],
            items=items,
            after=self._committed,
            cursor=self._committed if finished else bytes((self._range,)) + self._at,
            trigger_ms=task.trigger_ms,
            shift_ms=task.shift_ms,
            route_uid=task.route_uid,
            finished=finished,
        )
