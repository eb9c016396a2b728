"""What happened to a cluster, as seen from outside: the evidence that `promises` judges.

Whoever drives a cluster, simulated or real, writes it down here: the calls of its clients, the
webhooks that its recipients got, the faults that were injected, and what the nodes said of
themselves. All times are milliseconds on one true clock, that of the simulator or of the machine
that all processes run on; `due_ms` and other times of jobs are on the same clock.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.checks.jobmodel import Answered, Asked
from tests.checks.lincheck import UNKNOWN, Unknown

NEVER: Final = math.inf


@dataclass(slots=True)
class Call:
    """One call of a client about one job, from its first request to its last answer.

    A client that repeats a request with the same Idempotency-Key makes one call. A call that
    certainly did nothing (429; 503 before it was proposed) is not kept: `History.forget`.

    job   the job, with whatever names its collection
    node  the node that was asked, 0 where it does not matter
    """

    job: str
    called_ms: float
    asked: Asked
    node: int = 0
    returned_ms: float = NEVER
    answered: Answered | Unknown = UNKNOWN

    def answer(self, at_ms: float, answered: Answered) -> None:
        """The call returned."""
        self.returned_ms = at_ms
        self.answered = answered


class Webhook(NamedTuple):
    """One request that a recipient got.

    at_ms        when it had all of it
    job          as in the calls
    due_ms       the trigger time that it names
    node         the node that sent it, 0 if that is not known
    route        its route
    sent_ms      when the node began to send it, where that is known
    answered_ms  when the recipient's answer was at the sender, or was given up; `at_ms` at least
    status       the answer, as far as the sender got it; None: a time-out, a broken connection
    batch        the webhook-id of the request and what its body is recognised by, where it had
                 several jobs
    """

    at_ms: float
    webhook_id: str
    job: str
    version: int
    attempt: int
    body_hash: int | str
    due_ms: int
    node: int = 0
    route: str = ""
    sent_ms: float | None = None
    answered_ms: float = 0.0
    status: int | None = 200
    batch: tuple[str, str] | None = None

    @property
    def failed(self) -> bool:
        """Whether its sender had to take it for a failure."""
        return self.status is None or not 200 <= self.status < 300


class Fault(NamedTuple):
    """What may keep a node from committing how a send ended: its crash, a pause, another leader.

    nodes    whom it touches; empty for all. What takes the majority away touches all
    planned  a stop, a handover: no send may be repeated because of it
    """

    at_ms: float
    until_ms: float
    what: str
    nodes: frozenset[int] = frozenset()
    planned: bool = False

    def touches(self, node: int) -> bool:
        """Whether it may have disturbed a node; an unknown node (0) may be any."""
        return not self.nodes or not node or node in self.nodes


class Reading(NamedTuple):
    """What a node said of its replica of a group at some time. `offset` is (due_ms, job)."""

    at_ms: float
    node: int
    group: tuple[int, int]
    epoch: int = 0
    term: int = 0
    commit: int = 0
    applied: int = 0
    offset: tuple[int, str] = (0, "")


class Image(NamedTuple):
    """A digest of all rows of a replica after the entry `applied`; `final` at the end of it all."""

    at_ms: float
    node: int
    group: tuple[int, int]
    applied: int
    digest: int | str
    final: bool = False


class Membership(NamedTuple):
    """Who belongs to a group when all is over, and who should.

    wanted, learners  replica ids that were asked for: as voters, as learners
    voters, learning  those that its leader counts
    replicas          ids of those that nodes have
    missing           how many replicas more nodes could have, of those that the collection wants
    leaving           replicas that are still to leave, or of which nobody knows that they have
    """

    group: tuple[int, int]
    wanted: frozenset[int]
    learners: frozenset[int]
    voters: frozenset[int]
    learning: frozenset[int]
    replicas: frozenset[int]
    missing: int = 0
    leaving: tuple[int, ...] = ()


class PlanEnd(NamedTuple):
    """How a plan of what is to move stood when all was over.

    left  replicas on nodes that it was to empty, and that are to be empty since
    """

    id: str
    state: str
    under_way: bool
    left: int = 0


class BackedJob(NamedTuple):
    """A job as a backup has it. `state` is the name of its state."""

    job: str
    version: int
    state: str
    content: bytes
    due_ms: int


class BackedUp(NamedTuple):
    """A vnode as a backup has it.

    num_vnodes  of its collection
    asked_ms    when it was asked for: what had been acknowledged by then is in it
    shown_ms    when the first of it was there: nothing that was asked for later is in it
    counted     how many jobs there are, as the vnode said of itself
    """

    name: str
    group: tuple[int, int]
    num_vnodes: int
    asked_ms: float
    shown_ms: float
    jobs: list[BackedJob]
    counted: int


class RestoredJob(NamedTuple):
    """A job that is restored.

    sent   whether it has to be sent by the cluster that gets it
    hurry  whether it was asked for that it be sent before its time
    """

    job: str
    version: int
    webhook_id: str
    sent: bool
    hurry: bool = False


class Restoration(NamedTuple):
    """A backup that came into this cluster while it was watched."""

    began_ms: float
    jobs: list[RestoredJob]


class Ending(NamedTuple):
    """A job as it was read when all was over: its version and the name of its state."""

    version: int
    state: str


class Probe(NamedTuple):
    """A write to a group after all faults had ended. `acked_ms` is infinite if it never was."""

    group: tuple[int, int]
    called_ms: float
    acked_ms: float = NEVER


@dataclass(slots=True)
class History:
    """All that is known.

    endings    how jobs were read in the end: None for one that was not there
    groups     the groups that must be alive again after the faults
    members    who belongs to each group in the end
    plans      how plans of what is to move have ended
    backups    what was read of each vnode by backups
    restoration
               what was restored from a backup, if anything was
    home_of    what the vnode of a job is found by: its ordering key, or the job itself
    probed     jobs of probes, which no client has asked for
    healed_ms  when the last fault ended
    ended_ms   when nobody looked any more
    """

    calls: list[Call] = field(default_factory=list)
    webhooks: list[Webhook] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    endings: dict[str, Ending | None] = field(default_factory=dict)
    groups: set[tuple[int, int]] = field(default_factory=set)
    members: list[Membership] = field(default_factory=list)
    plans: list[PlanEnd] = field(default_factory=list)
    backups: list[BackedUp] = field(default_factory=list)
    restoration: Restoration | None = None
    probed: set[str] = field(default_factory=set)
    home_of: Callable[[str], str] = lambda job: job
    healed_ms: float = 0.0
    ended_ms: float = NEVER

    def call(self, job: str, at_ms: float, asked: Asked, node: int = 0) -> Call:
        """A client calls; until `Call.answer`, what becomes of it is unknown."""
        call = Call(job, at_ms, asked, node)
        self.calls.append(call)
        return call

    def forget(self, call: Call) -> None:
        """A call that certainly did nothing and was told so."""
        self.calls.remove(call)

    def jobs(self) -> Iterator[tuple[str, list[Call]]]:
        """The calls about each job, in the order in which they were made."""
        by_job: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            by_job[call.job].append(call)
        for job in sorted(by_job):
            yield job, sorted(by_job[job], key=lambda call: call.called_ms)

    def deliveries(self) -> dict[tuple[str, int], list[Webhook]]:
        """The webhooks of each version of each job, in the order of their attempts."""
        found: dict[tuple[str, int], list[Webhook]] = defaultdict(list)
        for webhook in self.webhooks:
            found[webhook.job, webhook.version].append(webhook)
        for webhooks in found.values():
            webhooks.sort(key=lambda webhook: (webhook.attempt, webhook.at_ms))
        return found
