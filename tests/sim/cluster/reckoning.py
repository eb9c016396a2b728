"""The evidence of a run, as `tests.checks` judges it: webhooks, readings of replicas, endings."""

import re
from hashlib import blake2b
from typing import Final

import msgspec

from tests.checks.history import NEVER, Ending, Fault, History, Image, Reading, Webhook
from tests.checks.promises import Rules
from tests.checks.watching import is_batch, items_of
from tests.sim.cluster.clients import ROUTE
from tests.sim.cluster.clockwork import START_MS
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.members import Member, Members
from tests.sim.cluster.recipients import ALERTS_HOST, Sending
from timemachine import codec
from timemachine.group import META_GROUP
from timemachine.logrows import LogState
from timemachine.model import JobState
from timemachine.receiver import fingerprint
from timemachine.replica.records import read_job, read_state
from timemachine.replica.snapshot import applied_in
from timemachine.storage.memory import MemoryStore
from timemachine.vnode import Vnode

_ROWS_MAX: Final = 1_000_000
_JOB_ID: Final = re.compile(rb"\r\nTimeMachine-Job-Id: (.*)\r\n")
_TRIGGER: Final = re.compile(rb"\r\nTimeMachine-Trigger-Time: (.*)\r\n")
_read_log_state = codec.decoder(LogState)


class Reckoning:
    """Gathers a history while a cluster runs, and completes it when it is over."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._clock = members.clock
        self.history = History()
        self.history.home_of = lambda job: members.knobs.ordering_key(job) or job
        members.on_moved = self._moved
        members.on_crashed = self._crashed
        members.on_paused = self._paused

    def now_ms(self) -> float:
        """True time, as the history has it."""
        return START_MS + self._clock.now_ms

    # --- faults ----------------------------------------------------------------------------
    #
    # Only what is told here excuses that a webhook comes again (C3), and only for that node. To be
    # cut off, a bad disk, a moody recipient or other members excuse nothing by themselves.

    def _fault(
        self, what: str, member: Member, duration_ms: float = 0.0, *, planned: bool = False
    ) -> None:
        now_ms = self.now_ms()
        nodes = frozenset({member.number})
        self.history.faults.append(Fault(now_ms, now_ms + duration_ms, what, nodes, planned))

    def _moved(self, member: Member, vnode: Vnode) -> None:
        # A disk that stalls lets a planned change take an unplanned end.
        handed_ms = self._members.handed_ms.get(vnode.group, 0.0)
        planned = self._clock.now_ms < handed_ms and not self._members.knobs.stall_rate
        self._fault(f"moved {vnode.group}", member, planned=planned)

    def _crashed(self, member: Member) -> None:
        self._fault("crash", member)

    def _paused(self, member: Member, duration_ms: float) -> None:
        self._fault("pause", member, duration_ms)

    # --- replicas --------------------------------------------------------------------------

    def look(self) -> None:
        """Note how every replica stands, by its rows that are durable."""
        for member in self._members.members.values():
            engine = member.engine
            if engine is None or member.disk.store.damaged:
                continue
            epoch = engine.consensus._peers.epoch
            for vnode in engine.runtime.vnodes.values():
                reading = self._reading(member, vnode, epoch)
                if reading is not None:
                    self.history.readings.append(reading)

    def _reading(self, member: Member, vnode: Vnode, epoch: int) -> Reading | None:
        keys, store = vnode.keys, member.disk.store
        hard_state = store.get(keys.hard_state)
        if hard_state is None:
            return None
        log: LogState = _read_log_state(hard_state)
        # By its id: another replica of the same group on this node is another one.
        reading = Reading(self.now_ms(), vnode.id, vnode.group, epoch, log.term, log.commit)
        row = store.get(keys.state)
        if row is None or vnode.group == META_GROUP:
            return reading
        state = read_state(row)
        return reading._replace(
            applied=state.applied_index, offset=(state.offset_due_ms, state.offset_job_id)
        )

    def _image(self, member: Member, vnode: Vnode) -> Image:
        """A digest of what follows from the log: all rows but those of the log itself."""
        keys, store = vnode.keys, member.disk.store
        digest = blake2b(digest_size=8)
        for key, value in store.scan(keys.prefix, keys.stop, _ROWS_MAX):
            if not key.startswith((keys.hard_state, keys.log)):
                digest.update(b"%d %b %b" % (len(key), key[len(keys.prefix) :], value))
        # As durable as the rows: in memory a replica may be a batch ahead.
        view = store.view()
        applied, _ = applied_in(view, keys)
        view.close()
        now_ms = self.now_ms()
        return Image(now_ms, member.number, vnode.group, applied, digest.hexdigest(), final=True)

    # --- the end ---------------------------------------------------------------------------

    def finish(self) -> History:
        """Complete the history: what arrived, how jobs ended, and what the replicas hold."""
        history = self.history
        history.ended_ms = self.now_ms()
        arrivals = [
            sending
            for sending in self._members.recipients.arrivals
            if sending.request.target.host != ALERTS_HOST
        ]
        history.webhooks = [webhook for sending in arrivals for webhook in _webhooks(sending)]
        own = (META_GROUP[0], self._members.collection_uid)
        history.groups = {group for group in self._members.groups() if group[0] in own}
        history.members = self._members.memberships()
        for member in self._members.members.values():
            if member.engine is not None and not member.disk.store.damaged:
                for vnode in member.engine.runtime.vnodes.values():
                    history.images.append(self._image(member, vnode))
        for job, _ in history.jobs():
            history.endings[job] = self._ending(job)
        for each in () if history.restoration is None else history.restoration.jobs:
            history.endings[each.job] = self._ending(each.job)
        return history

    def _ending(self, job: str) -> Ending | None:
        """A job as its leader has it."""
        members = self._members
        group = (members.collection_uid, members.place_of(job))
        leader = members.leader_of(group)
        vnode = members.members[leader].vnode(group) if leader else None
        if vnode is None:
            return Ending(0, "nobody leads its vnode")
        # Not as the node reads it: damage that it has not met yet takes nothing away.
        data = MemoryStore.get(members.members[leader].disk.store, vnode.keys.job + job.encode())
        if data is None:
            return None
        record = read_job(data)
        return Ending(record.version, JobState(record.state).text)


def _webhooks(sending: Sending) -> list[Webhook]:
    """What arrived, for each of its jobs."""
    request = sending.request
    if not is_batch(request):
        return [_webhook(sending)]
    batch = sending.identity.decode(), fingerprint(request.body)
    found = []
    for item in items_of(request):
        job = item.event.get("data", item.event)
        found.append(
            _told(sending, job["id"], job["version"], job["trigger_time"])._replace(
                webhook_id=item.webhook_id, body_hash=item.fingerprint, batch=batch
            )
        )
    return found


def _webhook(sending: Sending) -> Webhook:
    request = sending.request
    body = msgspec.json.decode(request.body)
    trigger = _TRIGGER.search(request.head)
    job = _JOB_ID.search(request.head)
    assert trigger is not None
    assert job is not None
    return _told(sending, job[1].decode(), body["version"], int(trigger[1]))


def _told(sending: Sending, job: str, version: int, due_ms: int) -> Webhook:
    outcome = sending.outcome
    assert sending.arrived_ms is not None
    assert sending.left_ms is not None
    heard_ms = sending.ended_ms or sending.orphaned_ms or sending.arrived_ms
    return Webhook(
        at_ms=START_MS + sending.arrived_ms,
        webhook_id=sending.identity.decode(),
        job=job,
        version=version,
        attempt=sending.attempt,
        body_hash=fingerprint(sending.request.body),
        due_ms=due_ms,
        node=sending.node,
        route=ROUTE,
        sent_ms=START_MS + sending.left_ms,
        answered_ms=START_MS + max(heard_ms, sending.arrived_ms),
        status=None if outcome is None else outcome.status,
    )


def rules_of(knobs: Knobs, history: History) -> Rules:
    """The bounds that hold for these knobs, in a history that is complete."""
    over_ms = history.ended_ms - history.healed_ms
    return Rules(
        # What is due last, is due that long after the faults at most.
        drain_ms=over_ms - knobs.due_ms_max - knobs.smear_ms - 1.0,
        # One send after the other, with a slow recipient: how long that takes is the knobs'.
        late_ms=NEVER,
        early_ms=knobs.early_ms,
        smear_ms=knobs.smear_ms,
        settle_ms=1_000.0 + 4.0 * knobs.election_ms + (4_000.0 if knobs.stall_rate else 0.0),
        timeout_ms=1_000.0,
        probe_ms=over_ms,
        steps_max=50_000,
        lag_ms=knobs.safety_ms + over_ms,
        unsent_states=frozenset({"dead"} if knobs.alerts else ()),
    )
