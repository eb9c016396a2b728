"""What may be asked about many vnodes, and how a node answers for those that it leads.

Each question has `steps`, which reads the replicas of this node. It yields None whenever the
caller should let others run, and at last its part of the answer. `merge` makes one answer of the
parts of several nodes, each of which is about other vnodes. Questions and parts travel.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, Protocol

import msgspec

from node.attempts import (
    ALL,
    AttemptFilter,
    AttemptsPage,
    RouteAttempt,
    RoutePosition,
    newest_first,
    oldest_first,
    route_attempts,
)
from node.compacting.reports import CompactionReport, CompactionSize
from node.delivery import Delivery
from node.forecast import forecast
from node.listing import FoundJob, JobsPage, Position, count_jobs, list_jobs
from node.overview import VnodeReport, report
from node.replicas import job_machine
from node.selection import Selection
from node.traffic import Rates
from timemachine import codec, limits
from timemachine.model import JobState, Task
from timemachine.storage.api import Store
from timemachine.storage.keys import u64
from timemachine.vnode import Vnode

Group = tuple[int, int]
"""(collection uid, vnode index)."""

_VNODES_BETWEEN_YIELDS: Final = 256
_REPORTS_BETWEEN_YIELDS: Final = 32
_JOBS_BETWEEN_YIELDS: Final = 50


class Crews(Protocol):
    """What questions about tasks ask of a node; see `node.tasks.Tasks`."""

    def order(self, order: "TaskOrder", vnodes: Sequence[Vnode]) -> Iterator["TaskPart | None"]:
        """Go on with a task."""

    def running(self) -> list[str]:
        """The tasks that run."""


class Sealers(Protocol):
    """What questions about seals ask of a node; see `node.seals.Seals`."""

    def sealed(self, meta_index: int, vnodes: Sequence[Vnode]) -> list[Group]:
        """Which of these vnodes are sealed; the others are to be."""


class Compactors(Protocol):
    """What questions about compactions ask of a node; see `node.compacting.working.Compacting`."""

    def report(self, plan_id: str) -> CompactionReport | None:
        """How far its part of a plan is."""

    def size(self, uid: int, indexes: Sequence[int]) -> CompactionSize | None:
        """How much there is to compact."""


class Here:
    """What a node answers from.

    `started_ms` is when it began, on the wall clock; `rates` tells how busy it is.
    `number` is the node's, and `unsettled` counts what it has sent and nobody has settled yet.
    """

    __slots__ = (
        "compacting",
        "delivery",
        "number",
        "rates",
        "seals",
        "started_ms",
        "store",
        "tasks",
        "unsettled",
    )

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        tasks: Crews,
        seals: Sealers,
        compacting: Compactors,
        started_ms: int,
        *,
        number: int,
        rates: Callable[[], Rates],
        unsettled: Callable[[], int],
    ) -> None:
        self.store = store
        self.delivery = delivery
        self.tasks = tasks
        self.seals = seals
        self.compacting = compacting
        self.started_ms = started_ms
        self.number = number
        self.rates = rates
        self.unsettled = unsettled


class _Question(msgspec.Struct, frozen=True, array_like=True, tag_field="q"):
    """Base of all questions. `TIMEOUT_MS` is how long one node may take to answer."""

    TIMEOUT_MS: ClassVar[int] = limits.GATHER_TIMEOUT_MS


class Counts(_Question, frozen=True, tag=1):
    """How many jobs are in which state; the answer is in the order of `JobState`."""

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[int]]:
        """See the module."""
        totals = [0] * len(JobState)
        for vnode in vnodes:
            counts = job_machine(vnode).state.counts
            totals = [a + b for a, b in zip(totals, counts, strict=True)]
        yield totals

    def merge(self, parts: Sequence[list[int]]) -> list[int]:
        """See the module."""
        return [sum(column) for column in zip([0] * len(JobState), *parts, strict=True)]


class CountPart(msgspec.Struct, frozen=True, array_like=True):
    """How many jobs are meant, and some of them, each with the index of its vnode."""

    count: int
    sample: list[tuple[int, FoundJob]]


class CountJobs(_Question, frozen=True, tag=2):
    """How many jobs of one collection are meant, and the first few of them, vnode by vnode."""

    selection: Selection
    unattempted: bool = False
    sample: int = 0

    TIMEOUT_MS: ClassVar[int] = limits.GATHER_COUNT_TIMEOUT_MS

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[CountPart | None]:
        """See the module."""
        for step in count_jobs(
            here.store,
            [vnode.keys for vnode in vnodes],
            self.selection,
            unattempted=self.unattempted,
            sample=self.sample,
        ):
            if step is None:
                yield None
            else:
                count, found = step
                yield CountPart(count, [(vnodes[at].group[1], job) for at, job in found])

    def merge(self, parts: Sequence[CountPart]) -> CountPart:
        """See the module."""
        found = [each for part in parts for each in part.sample]
        found.sort(key=lambda each: each[0])
        return CountPart(sum(part.count for part in parts), found[: self.sample])


class Forecast(_Question, frozen=True, tag=3):
    """How many jobs are due in each bucket; see `node.forecast`. They are (from, to, count)."""

    from_ms: int
    to_ms: int
    bucket_ms: int

    TIMEOUT_MS: ClassVar[int] = limits.GATHER_COUNT_TIMEOUT_MS

    def steps(
        self, here: Here, vnodes: Sequence[Vnode]
    ) -> Iterator[list[tuple[int, int, int]] | None]:
        """See the module."""
        counted = [(vnode.keys, job_machine(vnode).due_counts) for vnode in vnodes]
        yield from forecast(here.store, counted, self.from_ms, self.to_ms, self.bucket_ms)

    def merge(self, parts: Sequence[list[tuple[int, int, int]]]) -> list[tuple[int, int, int]]:
        """See the module."""
        starts = range(self.from_ms, self.to_ms, self.bucket_ms)
        totals = [sum(counts) for counts in zip(*[[n for *_, n in p] for p in parts], strict=True)]
        return [
            (start, min(start + self.bucket_ms, self.to_ms), total)
            for start, total in zip(starts, totals or [0] * len(starts), strict=True)
        ]


class RouteCounts(_Question, frozen=True, tag=4):
    """For each of these routes: its pending jobs, and those of them that wait for it."""

    route_uids: tuple[int, ...]

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[tuple[int, int]] | None]:
        """See the module."""
        totals = [(0, 0)] * len(self.route_uids)
        for number, vnode in enumerate(vnodes, 1):
            routes = job_machine(vnode).routes
            for place, uid in enumerate(self.route_uids):
                counts = routes.get(uid)
                if counts is not None:
                    pending, waiting = totals[place]
                    totals[place] = pending + counts.pending, waiting + counts.waiting
            if number % _VNODES_BETWEEN_YIELDS == 0:
                yield None
        yield totals

    def merge(self, parts: Sequence[list[tuple[int, int]]]) -> list[tuple[int, int]]:
        """See the module."""
        totals = [(0, 0)] * len(self.route_uids)
        for part in parts:
            totals = [(a + c, b + d) for (a, b), (c, d) in zip(totals, part, strict=True)]
        return totals


class ListJobs(_Question, frozen=True, tag=5):
    """A page of jobs of one collection, in trigger order; see `node.listing.list_jobs`."""

    selection: Selection
    after: Position | None
    limit: int
    bytes_max: int | None = None

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[JobsPage | None]:
        """See the module."""
        keys = [vnode.keys for vnode in vnodes]
        yield from list_jobs(
            here.store, keys, self.selection, self.after, self.limit, self.bytes_max
        )

    def merge(self, parts: Sequence[JobsPage]) -> JobsPage:
        """Of one part."""
        (part,) = parts
        return part

    def on(self, position: Position | None, limit: int) -> "ListJobs":
        """The same from there on, in pieces that can be sent."""
        return ListJobs(self.selection, position, limit, limits.GATHER_PAGE_BYTES)

    @property
    def position(self) -> Position | None:
        """From where on."""
        return self.after

    @staticmethod
    def items(page: JobsPage) -> list[FoundJob]:
        """What a page holds."""
        return page.jobs

    @staticmethod
    def place(item: FoundJob) -> Position:
        """Where an item stands."""
        return item[1].trigger_ms, item[0]

    @staticmethod
    def order(position: Position) -> bytes:
        """A sort key of positions."""
        return u64(position[0]) + position[1].encode()

    @staticmethod
    def page(items: list[FoundJob], position: Position | None) -> JobsPage:
        """A page of these."""
        return JobsPage(items, position)


class ListAttempts(_Question, frozen=True, tag=6):
    """A page of a route's attempts; see `node.attempts.route_attempts`.

    `kept_ms` are (uid of a collection, before which time its attempts are forgotten).
    """

    route_uid: int
    behind: RoutePosition | None
    limit: int
    bytes_max: int | None = None
    newer: bool = False
    among: AttemptFilter = ALL
    kept_ms: tuple[tuple[int, int], ...] = ()

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[AttemptsPage | None]:
        """See the module."""
        placed = sorted([(*vnode.group, vnode.keys) for vnode in vnodes], key=lambda each: each[:2])
        yield from route_attempts(
            here.store,
            placed,
            self.route_uid,
            self.behind,
            self.limit,
            self.bytes_max,
            newer=self.newer,
            among=self.among,
            kept_ms=dict(self.kept_ms),
        )

    def merge(self, parts: Sequence[AttemptsPage]) -> AttemptsPage:
        """Of one part."""
        (part,) = parts
        return part

    def on(self, position: RoutePosition | None, limit: int) -> "ListAttempts":
        """The same from there on, in pieces that can be sent."""
        return msgspec.structs.replace(
            self, behind=position, limit=limit, bytes_max=limits.GATHER_PAGE_BYTES
        )

    @property
    def position(self) -> RoutePosition | None:
        """From where on."""
        return self.behind

    @staticmethod
    def items(page: AttemptsPage) -> list[RouteAttempt]:
        """What a page holds."""
        return page.attempts

    @staticmethod
    def place(item: RouteAttempt) -> RoutePosition:
        """Where an item stands."""
        return item.position

    def order(self, position: RoutePosition) -> tuple[bytes, int, int, int]:
        """A sort key of positions."""
        return oldest_first(position) if self.newer else newest_first(position)

    @staticmethod
    def page(items: list[RouteAttempt], position: RoutePosition | None) -> AttemptsPage:
        """A page of these."""
        return AttemptsPage(items, position)


class TaskPart(msgspec.Struct, frozen=True, array_like=True):
    """How far a task is in some vnodes: in how many it is finished; if a step is under way.

    `counts` are jobs by what became of them, `vnodes` how many vnodes it is about.
    """

    finished: int
    busy: bool
    counts: dict[str, int]
    vnodes: int = 0


class TaskOrder(_Question, frozen=True, tag=7):
    """Go on with a task in these vnodes, or stop, and say how far it is; see `node.tasks`.

    `term` is that of the node leader who orders it.
    """

    task: Task
    term: int
    stop: bool = False

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[TaskPart | None]:
        """See the module."""
        for part in here.tasks.order(self, vnodes):
            yield part and msgspec.structs.replace(part, vnodes=len(vnodes))

    def merge(self, parts: Sequence[TaskPart]) -> TaskPart:
        """See the module."""
        totals: dict[str, int] = {}
        for part in parts:
            for outcome, count in part.counts.items():
                totals[outcome] = totals.get(outcome, 0) + count
        return TaskPart(
            sum(part.finished for part in parts),
            any(part.busy for part in parts),
            totals,
            sum(part.vnodes for part in parts),
        )


class RunningTasks(_Question, frozen=True, tag=8):
    """The names of the tasks that run: asked about the meta group."""

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[str]]:
        """See the module."""
        yield here.tasks.running()

    def merge(self, parts: Sequence[list[str]]) -> list[str]:
        """See the module."""
        return [name for part in parts for name in part]


class Reports(_Question, frozen=True, tag=9):
    """What a node tells of the vnodes that it leads; the newest leader of each is believed."""

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[VnodeReport] | None]:
        """See the module."""
        found = []
        for vnode in vnodes:
            if vnode.group[0] and vnode.is_leader():
                found.append(report(vnode, here.delivery.backlog(vnode)))
                if len(found) % _REPORTS_BETWEEN_YIELDS == 0:
                    yield None
        yield found

    def merge(self, parts: Sequence[list[VnodeReport]]) -> dict[Group, VnodeReport]:
        """See the module."""
        found: dict[Group, VnodeReport] = {}
        for part in parts:
            for each in part:
                known = found.get(each.group)
                if known is None or each.term > known.term:
                    found[each.group] = each
        return found


class Sends(msgspec.Struct, frozen=True, array_like=True):
    """How the sends of a route have gone since `since_ms`, when a node began."""

    since_ms: int
    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    last_success_ms: int | None = None
    last_failure_ms: int | None = None
    last_failure: str | None = None


class RouteSends(_Question, frozen=True, tag=10):
    """How the sends of a route have gone that a node has made."""

    route_uid: int

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[Sends]:
        """See the module."""
        queue = here.delivery.queue_of(self.route_uid)
        if queue is None:
            yield Sends(here.started_ms)
        else:
            yield Sends(
                here.started_ms,
                queue.in_flight,
                queue.succeeded,
                queue.failed,
                queue.last_success_ms,
                queue.last_failure_ms,
                queue.last_failure,
            )

    def merge(self, parts: Sequence[Sends]) -> Sends:
        """See the module. Times are those of the first beginning, and of what happened last."""
        failures = [part for part in parts if part.last_failure_ms is not None]
        last = max(failures, key=lambda part: part.last_failure_ms or 0, default=None)
        return Sends(
            min(part.since_ms for part in parts),
            sum(part.in_flight for part in parts),
            sum(part.succeeded for part in parts),
            sum(part.failed for part in parts),
            max((part.last_success_ms for part in parts if part.last_success_ms), default=None),
            None if last is None else last.last_failure_ms,
            None if last is None else last.last_failure,
        )


class SealVnodes(_Question, frozen=True, tag=11):
    """Which of these vnodes are sealed; their leaders seal the others as soon as they can."""

    meta_index: int

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[Group]]:
        """See the module."""
        yield here.seals.sealed(self.meta_index, vnodes)

    def merge(self, parts: Sequence[list[Group]]) -> list[Group]:
        """See the module."""
        return [group for part in parts for group in part]


class Members(_Question, frozen=True, tag=12):
    """The ids of the replicas that vote in these vnodes, by vnode, as their leaders know."""

    def steps(
        self, here: Here, vnodes: Sequence[Vnode]
    ) -> Iterator[list[tuple[Group, set[int]]] | None]:
        """See the module."""
        found = []
        for number, vnode in enumerate(vnodes, 1):
            members = vnode.members
            found.append((vnode.group, {*members.voters, *members.voters_outgoing}))
            if number % _VNODES_BETWEEN_YIELDS == 0:
                yield None
        yield found

    def merge(self, parts: Sequence[list[tuple[Group, set[int]]]]) -> list[tuple[Group, set[int]]]:
        """See the module."""
        return [each for part in parts for each in part]


class Burden(msgspec.Struct, frozen=True, array_like=True):
    """What there is to move, and what is done meanwhile.

    sizes   (vnode, about how many bytes of rows), of vnodes that are led
    writes_per_s, fires_per_s
            creators' commands and sends, over the last few seconds
    unsettled
            (node, how many sends it has begun that are not settled yet)
    """

    sizes: list[tuple[Group, int]]
    writes_per_s: float = 0.0
    fires_per_s: float = 0.0
    unsettled: list[tuple[int, int]] = []


class Burdens(_Question, frozen=True, tag=13):
    """How much is in the vnodes that a node leads, if `sizes` are wanted, and what it has done."""

    sizes: bool

    TIMEOUT_MS: ClassVar[int] = limits.GATHER_COUNT_TIMEOUT_MS

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[Burden | None]:
        """See the module."""
        found = []
        for vnode in vnodes if self.sizes else ():
            if vnode.group[0] and vnode.is_leader():
                found.append((vnode.group, _size(here.store, vnode)))
                if len(found) % _REPORTS_BETWEEN_YIELDS == 0:
                    yield None
        yield Burden(
            found,
            *here.rates(),
            [(here.number, here.unsettled())],
        )

    def merge(self, parts: Sequence[Burden]) -> Burden:
        """See the module."""
        return Burden(
            [each for part in parts for each in part.sizes],
            sum(part.writes_per_s for part in parts),
            sum(part.fires_per_s for part in parts),
            [each for part in parts for each in part.unsettled],
        )


class CompactionSizes(_Question, frozen=True, tag=20):
    """How much nodes have to compact of a collection, or of all (uid 0); of all vnodes or these."""

    uid: int
    indexes: tuple[int, ...]

    TIMEOUT_MS: ClassVar[int] = limits.GATHER_COUNT_TIMEOUT_MS

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[CompactionSize]]:
        """See the module."""
        size = here.compacting.size(self.uid, self.indexes)
        yield [] if size is None else [size]

    def merge(self, parts: Sequence[list[CompactionSize]]) -> dict[int, CompactionSize]:
        """By the numbers of the nodes that have any of it."""
        return {size.node: size for part in parts for size in part}


class CompactionReports(_Question, frozen=True, tag=21):
    """How far nodes are with their parts of a plan that compacts."""

    plan_id: str

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[CompactionReport]]:
        """See the module."""
        report = here.compacting.report(self.plan_id)
        yield [] if report is None else [report]

    def merge(self, parts: Sequence[list[CompactionReport]]) -> dict[int, CompactionReport]:
        """By the numbers of the nodes that are at work."""
        return {report.node: report for part in parts for report in part}


class LogsHeld(_Question, frozen=True, tag=22):
    """Up to which index all members of these vnodes have the log, as their leaders know."""

    def steps(
        self, here: Here, vnodes: Sequence[Vnode]
    ) -> Iterator[list[tuple[Group, int]] | None]:
        """See the module."""
        found = []
        for number, vnode in enumerate(vnodes, 1):
            found.append((vnode.group, vnode.core.held_index))
            if number % _VNODES_BETWEEN_YIELDS == 0:
                yield None
        yield found

    def merge(self, parts: Sequence[list[tuple[Group, int]]]) -> list[tuple[Group, int]]:
        """See the module."""
        return [each for part in parts for each in part]


class MissingJobs(_Question, frozen=True, tag=34):
    """Which of these jobs, given with the indexes of their vnodes, are not there."""

    jobs: list[tuple[int, str]]

    def steps(self, here: Here, vnodes: Sequence[Vnode]) -> Iterator[list[tuple[int, str]] | None]:
        """See the module."""
        keys = {vnode.group[1]: vnode.keys for vnode in vnodes}
        found = []
        for number, (index, job_id) in enumerate(self.jobs, 1):
            if index in keys and here.store.get(keys[index].job + job_id.encode()) is None:
                found.append((index, job_id))
            if number % _JOBS_BETWEEN_YIELDS == 0:
                yield None
        yield found

    def merge(self, parts: Sequence[list[tuple[int, str]]]) -> list[tuple[int, str]]:
        """See the module."""
        return [each for part in parts for each in part]


def _size(store: Store, vnode: Vnode) -> int:
    """About how many bytes an image of a vnode has: what is not in tables yet, by its jobs."""
    jobs = sum(job_machine(vnode).state.counts)
    return max(
        store.approximate_bytes(vnode.keys.prefix, vnode.keys.stop), jobs * limits.PLAN_JOB_BYTES
    )


Summed = (
    Counts
    | CountJobs
    | Forecast
    | RouteCounts
    | TaskOrder
    | RunningTasks
    | SealVnodes
    | Members
    | LogsHeld
    | MissingJobs
)
Listed = ListJobs | ListAttempts
Polled = Reports | RouteSends | Burdens | CompactionSizes | CompactionReports
Question = Summed | Listed | Polled

PARTS: Final[dict[type, Any]] = {
    Counts: codec.decoder(list[int]),
    CountJobs: codec.decoder(CountPart),
    Forecast: codec.decoder(list[tuple[int, int, int]]),
    RouteCounts: codec.decoder(list[tuple[int, int]]),
    TaskOrder: codec.decoder(TaskPart),
    RunningTasks: codec.decoder(list[str]),
    Reports: codec.decoder(list[VnodeReport]),
    RouteSends: codec.decoder(Sends),
    SealVnodes: codec.decoder(list[Group]),
    Members: codec.decoder(list[tuple[Group, set[int]]]),
    Burdens: codec.decoder(Burden),
    CompactionSizes: codec.decoder(list[CompactionSize]),
    CompactionReports: codec.decoder(list[CompactionReport]),
    LogsHeld: codec.decoder(list[tuple[Group, int]]),
    MissingJobs: codec.decoder(list[tuple[int, str]]),
    ListJobs: codec.decoder(JobsPage),
    ListAttempts: codec.decoder(AttemptsPage),
}
"""How the part of an answer is read."""
