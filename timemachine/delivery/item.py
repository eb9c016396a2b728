"""One due job on its way through queue, claim and send."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timemachine.delivery.forming import Batch
    from timemachine.delivery.routequeue import RouteQueue
    from timemachine.delivery.vnodehead import VnodeHead
    from timemachine.model import JobRecord
    from timemachine.outbound import Handle

QUEUED, CLAIMING, CLAIMED, SENDING, GONE = range(5)
"""Stages. From CLAIMING to SENDING a job holds a slot of its route and of the node."""


class Item:
    """One due job as its row tells, and how far it is.

    waiting     whether it came out of its route's waiting index, and not out of the due index
    attempts    those that are settled; the claim asks for the next
    record      the job with its claim, from CLAIMED on
    bound       the id of the batch in which it was sent before, and is sent again; or nothing
    alone       whether no other job goes with it in a batch: it has an ordering key
    held_up     what it waited for before its claim, `HeldUp`
    batch       what it is sent in with others, from CLAIMING on; None where it is sent alone
    handle, route, key_ids, started_ms
                the request under way, its route as it was then and the keys that signed it, from
                SENDING on
    trial       of its route's breaker, when it got its slot
    """

    __slots__ = (
        "alone",
        "attempts",
        "batch",
        "bound",
        "due_ms",
        "handle",
        "head",
        "held_up",
        "job_id",
        "key_ids",
        "queue",
        "record",
        "route",
        "stage",
        "started_ms",
        "trial",
        "uid",
        "version",
        "waiting",
    )

    def __init__(
        self,
        head: "VnodeHead",
        queue: "RouteQueue",
        due_ms: int,
        job_id: str,
        version: int,
        attempts: int,
        uid: bytes,
        *,
        waiting: bool,
        bound: bytes = b"",
    ) -> None:
        self.head = head
        self.queue = queue
        self.due_ms = due_ms
        self.job_id = job_id
        self.version = version
        self.attempts = attempts
        self.uid = uid
        self.waiting = waiting
        self.bound = bound
        self.alone = False
        self.batch: Batch | None = None
        self.stage = QUEUED
        self.record: JobRecord | None = None
        self.handle: Handle | None = None
        self.started_ms = 0
        self.trial = 0
        self.key_ids: tuple[int, ...] = ()
        self.held_up = 0
        self.route = queue.route

    def take_unsent(self) -> bool:
        """Whether no byte of its request has left, and none will: it is only claimed then.

        So are all that are in its batch.
        """
        if self.stage != SENDING or self.handle is None or not self.handle.abort_if_unsent():
            return False
        for item in (self,) if self.batch is None else self.batch.items:
            if item.stage == SENDING:
                item.stage = CLAIMED
        return True
