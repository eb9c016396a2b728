"""Closes attempts of leaders of before that nobody settled: what became of them is unknown."""

from functools import partial

from node.delivery.settling import Settles
from node.env import World
from timemachine import limits
from timemachine.delivery.settlement import settle_orphan
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.model import ClaimMark, JobRecord
from timemachine.replica.commands import PendingItem
from timemachine.replica.meta import MetaMachine
from timemachine.replica.records import find_leaders


class Orphans:
    """Finds claims of an earlier term, and settles them: at once, or when a send must have ended.

    A leader that was to go has told which of its sends were open, and tells what becomes of them.
    The next one gives these up only after their deadline.
    """

    def __init__(self, settles: Settles, world: World, meta: MetaMachine) -> None:
        self._settles = settles
        self._world = world
        self._meta = meta

    def look(self, head: VnodeHead, due_ms: int, seen: PendingItem) -> bool:
        """Whether a job that stood in an index turns out to be an orphan, which is then closed."""
        if not head.fires or seen.job_id in head.known:
            return False
        record = head.machine.read(seen.job_id)
        if record is None or record.uid != seen.uid or record.version != seen.version:
            return False
        return self.close(head, due_ms, seen.job_id, record)

    def close(self, head: VnodeHead, due_ms: int, job_id: str, record: JobRecord) -> bool:
        """Settle the claim of this job if it is an orphan, soon or later; whether it is one.

        Until its settle is applied nothing may pass the job by, not even the offset.
        """
        claim = record.claim
        if claim is None or claim.term >= head.vnode.term or not head.fires:
            return False
        head.moving[job_id] = due_ms
        now_ms = self._world.wall_ms()
        if claim.handed_over:
            wait_ms = claim.deadline_ms + limits.HANDOVER_MARGIN_MS - now_ms
            if wait_ms > 0:
                again = partial(self._waited, head, due_ms, job_id, claim)
                self._world.call_later(wait_ms, again)
                return True
        route = self._meta.routes_by_uid.get(record.route_uid)
        if route is None and self._meta.may_come(record.route_uid):
            # Whether it delivers at most once is not known here yet.
            again = partial(self._waited, head, due_ms, job_id, claim)
            self._world.call_later(limits.META_BEHIND_MS, again)
            return True
        if route is None:
            route = self._meta.routes.get((head.db, record.route))
        node_id = self._claimed_by(head, claim)
        settle = settle_orphan(
            job_id,
            record,
            claim,
            route,
            node_id=node_id,
            now_ms=now_ms,
            collection=head.collection,
        )
        self._settles.give_up(head, settle)
        return True

    def _claimed_by(self, head: VnodeHead, claim: ClaimMark) -> str:
        """The id of the node whose claim it is; empty if that is not known any more."""
        leaders = find_leaders(head.machine.overlay, head.vnode.keys)
        numbers = {each.node for each in leaders if each.term == claim.term}
        nodes = self._meta.nodes.values()
        return next((node.id for node in nodes if node.number in numbers), "")

    def _waited(self, head: VnodeHead, due_ms: int, job_id: str, claim: ClaimMark) -> None:
        """A send that was handed over should have ended; what was told of it took it away."""
        if not head.fires or head.moving.get(job_id) != due_ms:
            return
        record = head.machine.read(job_id)
        if record is not None and record.claim is not None and record.claim.index == claim.index:
            self.close(head, due_ms, job_id, record)
