"""The route that alerts in simulated clusters, and whether all there was to tell was told (C15).

At the end each dead job has its event, or stands in a number of events that were only counted;
each event has arrived, and under one `webhook-id` nothing but the same event.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from node.secrets import seal_value
from tests.sim.cluster.clients import DB
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.members import KEY, Members
from tests.sim.cluster.recipients import ALERTS, ALERTS_HOST
from timemachine.events import EVENTS_COLLECTION
from timemachine.identifiers import webhook_id
from timemachine.model import Collection, DeadReason, JobRecord, JobState, Retry, Route, SealedKey
from timemachine.replica import meta as m
from timemachine.replica.records import find_meta, read_event_count, read_job, read_state
from timemachine.signing import format_secret
from timemachine.storage.keys import ReplicaKeys, after_prefix
from timemachine.storage.memory import MemoryStore
from timemachine.vnode import Done

_ROWS_MAX: Final = 1_000_000
_PENDING: Final = ("scheduled", "firing", "retrying", "held")


def put_alert_route(_: Knobs, engine: Any, answer: Done) -> None:
    """Have the route that is told."""
    if (DB, ALERTS) in engine.meta.routes:
        answer(m.MetaResult(kind="unchanged"))
        return
    secret = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db=DB, name=ALERTS)
    route = Route(
        uid=0,
        db=DB,
        name=ALERTS,
        version=0,
        webhook_url=f"http://{ALERTS_HOST}/",
        created_ms=0,
        updated_ms=0,
        secrets=(SealedKey(sealed=secret),),
        body="meta",
        retry=Retry(schedule_ms=(50, 100, 200), max_attempts=1_000),
        timeout_ms=1_000,
        breaker=None,
    )
    command = m.PutRoute(now_ms=engine.now_ms(), route=route, expected_version=0)
    engine.propose_meta(command, answer)


def open_events(members: Members) -> bool:
    """Whether anything is still to be told, or on its way."""
    for member in members.members.values():
        engine = member.engine
        if engine is None:
            continue
        if engine.events.waiting:
            return True
        collection = engine.meta.collections.get((DB, EVENTS_COLLECTION))
        if collection is not None:
            counts = engine.counts(collection)
            if any(counts[state] for state in _PENDING):
                return True
    return False


def untold(members: Members) -> Iterator[str]:
    """What was to be told and was not, or otherwise than it should be; when all is over."""
    meta = members.meta()
    if meta is None:
        return
    told, suppressed = Told(), 0
    collection = meta.collections.get((DB, EVENTS_COLLECTION))
    if not members.knobs.alerts:
        if collection is not None:
            yield "there is a collection of events, and no route that alerts"
        return
    if collection is not None:
        for store, keys in _led(members, collection):
            for job_id, record in _jobs(store, keys):
                body = find_meta(store, keys, job_id.encode(), record)
                assert body is not None
                told.add(msgspec.json.decode(body), record)
    uid = members.collection_uid
    jobs = meta.collections_by_uid[uid]
    ended = []
    for store, keys in _led(members, jobs):
        state = store.get(keys.state)
        waiting = None if state is None else read_state(state)
        if waiting is not None and waiting.events_written != waiting.events_told:
            yield f"{waiting.events_written - waiting.events_told} events were never told"
        for _, row in store.scan(keys.event_count, after_prefix(keys.event_count), _ROWS_MAX):
            suppressed += read_event_count(row).suppressed
        ended += list(_jobs(store, keys))
    suppressed += told.suppressed
    missing = []
    for job_id, record in ended:
        identity = webhook_id(record.uid, record.version, record.occurrence)
        if record.state == JobState.DELIVERED and record.alerted is not None:
            yield f"{job_id} was delivered, and who was told that it fails was not told"
        if record.alerted is not None and not told.of(job_id):
            yield f"{job_id} is said to be told as failing, and no event tells so"
        dead = record.state == JobState.DEAD and record.reason != DeadReason.ROUTE_DELETED
        if dead and ("job.dead", identity) not in told.events:
            missing.append(job_id)
    if len(missing) > suppressed:
        yield f"{missing} are dead, {suppressed} events were suppressed, and none tells of these"
    yield from told.strange()
    yield from _unarrived(members, told)


class Told:
    """The events whose jobs are there, and what they tell."""

    def __init__(self) -> None:
        self.events: set[tuple[str, str]] = set()
        self.jobs: dict[str, set[str]] = {}
        self.identities: dict[str, int] = {}
        self.suppressed = 0
        self.moments: set[tuple[str, str, str]] = set()
        self.twice = 0

    def add(self, body: dict[str, Any], record: JobRecord) -> None:
        """One of them."""
        kind, data = body["type"], body["data"]
        self.identities[webhook_id(record.uid, record.version, 0)] = record.state
        if kind == "events.suppressed":
            self.suppressed += data["suppressed"]
        elif "job" in data:
            self.twice += (body["timestamp"], kind, data["job"]) in self.moments
            self.moments.add((body["timestamp"], kind, data["job"]))
            self.events.add((kind, data["webhook_id"]))
            self.jobs.setdefault(data["job"], set()).add(kind)

    def of(self, job_id: str) -> set[str]:
        """The types of events about a job."""
        return self.jobs.get(job_id, set())

    def strange(self) -> Iterator[str]:
        """A recovery of what was never told as failing, and what has two jobs."""
        if self.twice:
            yield f"{self.twice} events were told by more than one webhook"
        for job_id, kinds in self.jobs.items():
            if kinds == {"job.recovered"}:
                yield f"{job_id} is told as recovered, and never was as failing"


def _unarrived(members: Members, told: Told) -> Iterator[str]:
    """Events that nobody got, or that came with two contents."""
    bodies: dict[str, set[bytes]] = {}
    for sending in members.recipients.arrivals:
        if sending.request.target.host == ALERTS_HOST:
            bodies.setdefault(sending.identity.decode(), set()).add(sending.request.body)
    for identity, state in told.identities.items():
        if state != JobState.DELIVERED:
            yield f"event {identity} ended as {JobState(state).text}"
        elif identity not in bodies:
            yield f"event {identity} was delivered, and never arrived"
    for identity, contents in bodies.items():
        if len(contents) > 1:
            yield f"event {identity} came with {len(contents)} contents"


def _led(members: Members, collection: Collection) -> Iterator[tuple[MemoryStore, ReplicaKeys]]:
    """What the leaders of a collection's vnodes have on their disks."""
    for index in range(collection.num_vnodes):
        group = (collection.uid, index)
        leader = members.leader_of(group)
        vnode = members.members[leader].vnode(group) if leader else None
        if vnode is not None:
            yield _Undamaged(members.members[leader].disk.store), vnode.keys


class _Undamaged(MemoryStore):
    """A store as it is, not as the node reads it: damage takes nothing away here."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store.image())


def _jobs(store: MemoryStore, keys: ReplicaKeys) -> Iterator[tuple[str, JobRecord]]:
    for key, row in store.scan(keys.job, after_prefix(keys.job), _ROWS_MAX):
        yield key[len(keys.job) :].decode(), read_job(row)
