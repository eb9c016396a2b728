"""The head of one vnode's due index, as its leader has it in memory.

The due index on disk is the truth; this is a bounded view of its next moments. One route can fill
its own share of the window only: what does not fit stays in the index, and the head remembers from
where on (`lag`), so that other routes' jobs behind it are found in time.
"""

from timemachine.delivery.item import GONE, QUEUED, SENDING, Item
from timemachine.model import Collection
from timemachine.replica.machine import JobMachine
from timemachine.storage.keys import u64
from timemachine.vnode import Vnode

_OFFSET_STEP_MS = 1_000


class VnodeHead:
    """The next moments of one vnode, from its committed offset on.

    Every row below `cursor` is either in `known`, behind the `lag` mark of its route, in `moving`,
    or gone. In `moving` are those on their way to a waiting index or to their end, and those whose
    claim by a leader of before is being closed. Rows from `cursor` on have not been looked at.

    fires         whether its vnode is fired for; one that is fired for again has a new head
    since_ms      when that began, by the wall clock
    scanned_ms    the due time of the cursor or later, for a quick look
    next_due_ms   when the index is to be looked at next
    seen_index    up to where in the log this view is complete
    overtaken     what goes on of jobs that have changed since: at most the node's slots
    offset_asked  whether a higher offset is on its way
    """

    __slots__ = (
        "collection",
        "cursor",
        "db",
        "fires",
        "known",
        "lag",
        "machine",
        "moving",
        "next_due_ms",
        "offset_asked",
        "overtaken",
        "scanned_ms",
        "seen_index",
        "since_ms",
        "vnode",
    )

    def __init__(self, vnode: Vnode, collection: Collection, seen_index: int) -> None:
        """Begin at the committed offset; `seen_index` is what the store that is read has."""
        machine = vnode.machine
        assert isinstance(machine, JobMachine)
        state = machine.state
        self.vnode = vnode
        self.fires = True
        self.since_ms = 0
        self.machine = machine
        self.db = collection.db
        self.collection = collection.name
        self.cursor = vnode.keys.due + u64(state.offset_due_ms) + state.offset_job_id.encode()
        self.scanned_ms = state.offset_due_ms
        self.next_due_ms = 0
        self.seen_index = seen_index
        self.known: dict[str, Item] = {}
        self.lag: dict[int, bytes] = {}
        self.moving: dict[str, int] = {}
        self.overtaken: list[Item] = []
        self.offset_asked = False

    def let_go(self, item: Item) -> None:
        """Its job has changed: what is queued is dropped, what is under way goes on."""
        del self.known[item.job_id]
        if item.stage == QUEUED:
            item.queue.drop(item)
        elif item.stage != GONE:
            self.overtaken = [each for each in self.overtaken if each.stage != GONE]
            self.overtaken.append(item)

    def take_over(self, item: Item) -> None:
        """Take up a request that began when this node led before; its outcome settles as usual.

        While the job's open claim is its own, nobody else is to claim the job.
        """
        item.head = self
        record = self.machine.read(item.job_id)
        claim = None if record is None else record.claim
        if (
            record is not None
            and claim is not None
            and record.uid == item.uid
            and record.version == item.version
            and claim.attempt == item.attempts + 1
        ):
            self.known[item.job_id] = item
        else:
            self.overtaken.append(item)

    def is_doubled(self, item: Item) -> bool:
        """Whether the same attempt of the same job is under way for an earlier row of it."""
        return any(
            other.job_id == item.job_id
            and other.stage != GONE
            and other.version == item.version
            and other.attempts == item.attempts
            and other.uid == item.uid
            for other in self.overtaken
        )

    def sending(self) -> list[Item]:
        """All requests under way."""
        items = [*self.known.values(), *self.overtaken]
        return [item for item in items if item.stage == SENDING]

    def low_mark(self) -> bytes:
        """The lowest row that is not settled, as far as this leader knows: `due_ms + job id`."""
        at = len(self.vnode.keys.due)
        low = self.cursor[at:]
        for item in self.known.values():
            if not item.waiting:
                low = min(low, u64(item.due_ms) + item.job_id.encode())
        for job_id, due_ms in self.moving.items():
            low = min(low, u64(due_ms) + job_id.encode())
        for key in self.lag.values():
            low = min(low, key[at:])
        return low

    def higher_offset(self) -> tuple[int, str] | None:
        """The due time and job id that the offset may rise to; None where it is not worth it."""
        state = self.machine.state
        # First of all, for it is asked each second, and thousands of vnodes may have nothing to do.
        if not self.known and not self.lag and not self.moving and not any(state.counts[:4]):
            # Nothing is pending: there is nothing that a higher offset would spare anybody.
            return None
        low = self.low_mark()
        if len(low) < 8:
            return None
        due_ms = int.from_bytes(low[:8], "big")
        if due_ms - state.offset_due_ms < _OFFSET_STEP_MS or not self.machine.applied_index:
            return None
        return due_ms, low[8:].rstrip(b"\0").decode()
