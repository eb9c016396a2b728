"""Tells what vnodes and the meta group have to tell: each event becomes a job of its alert route.

Who leads a group reads its events and creates their jobs, as any creator does, wherever they belong
to. When all of them are there, the group forgets the events. What comes between is made good by
doing it again, here or at the next leader: a job that is there already is not made twice.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from node.env import World
from node.replicas import job_machine
from node.runtime import Runtime
from timemachine import limits
from timemachine.events import EVENTS_COLLECTION, Event, EventKind, event_body, event_uid
from timemachine.model import Collection
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.records import read_event, read_event_count
from timemachine.replica.results import JobResult
from timemachine.ring import vnode_of
from timemachine.storage.api import Store
from timemachine.storage.keys import after_prefix, u64
from timemachine.vnode import Done, Vnode

Told = Callable[[bool], None]
"""Hears whether all jobs are there."""


class Events:
    """All groups that this node leads, as far as they have something to tell.

    `collections` are those whose vnodes are known here, by uid. `propose_meta` and
    `propose_creates` put commands through whichever node leads. `told` counts events by their type,
    `suppressed` those that were only counted.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta_vnode: Vnode,
        meta: m.MetaMachine,
        collections: Mapping[int, Collection],
        *,
        propose_meta: Callable[[m.PutCollection, Done], None],
        propose_creates: Callable[
            [Collection, list[tuple[int, c.PutJob]], Callable[[list[Any]], None]], None
        ],
    ) -> None:
        self._world = world
        self._store = store
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._collections = collections
        self._propose_meta = propose_meta
        self._propose_creates = propose_creates
        # Groups of which something is under way, and until when that is waited for.
        self._busy: dict[Vnode, float] = {}
        self._looked: dict[Vnode, float] = {}
        self._turn = 0
        self.told: dict[str, int] = {}
        self.suppressed = 0

    @property
    def waiting(self) -> int:
        """Events of groups led here that are not told yet."""
        count = len(self._meta.events) if self._meta_vnode.serving else 0
        for vnode in self._runtime.vnodes.values():
            if vnode is not self._meta_vnode and vnode.serving:
                state = job_machine(vnode).state
                count += state.events_written - state.events_told
        return count

    # --- when to look ----------------------------------------------------------------------

    def look(self, vnode: Vnode) -> None:
        """Tell what a vnode has to tell, if it has; asked after each of its cycles."""
        state = job_machine(vnode).state
        if state.events_written != state.events_told and self._may_begin(vnode):
            self._tell(vnode)

    def look_at_meta(self) -> None:
        """Tell what the meta group has to tell, if it has."""
        if self._meta.events and self._may_begin(self._meta_vnode):
            self._begin(self._meta_vnode)
            # What is in memory may not be durable yet.
            self._runtime.when_written(self._tell_of_routes)

    def visit(self, vnode: Vnode) -> None:
        """The same as `look`, and close hours that are over; asked now and then."""
        self.look(vnode)
        if job_machine(vnode).state.event_counts and self._may_begin(vnode):
            self._close_hours(vnode)

    def forget(self, vnode: Vnode) -> None:
        """A replica is gone."""
        self._busy.pop(vnode, None)
        self._looked.pop(vnode, None)

    def _may_begin(self, vnode: Vnode) -> bool:
        if not vnode.serving or not self._runtime.working:
            return False
        # What is never answered is asked again: a repeat does no harm.
        return self._world.mono_ms() >= self._busy.get(vnode, 0.0)

    def _begin(self, vnode: Vnode) -> None:
        self._busy[vnode] = self._world.mono_ms() + limits.EVENT_AGAIN_MS

    def _rest(self, vnode: Vnode) -> None:
        # Not with the next cycle: who refuses for load would be asked by all that is committed.
        self._busy[vnode] = self._world.mono_ms() + limits.EVENT_REFUSED_MS

    # --- what is told ----------------------------------------------------------------------

    def _tell(self, vnode: Vnode) -> None:
        first = job_machine(vnode).state.events_told
        start, stop = vnode.keys.event + u64(first), after_prefix(vnode.keys.event)
        rows = self._store.scan(start, stop, limits.EVENTS_TOLD_AT_ONCE)
        collection = self._collections.get(vnode.group[0])
        if not rows or collection is None:
            return
        self._begin(vnode)
        at = len(vnode.keys.event)
        serials = [int.from_bytes(key[at:], "big") for key, _ in rows]
        events = [read_event(value) for _, value in rows]
        jobs = [
            (
                event,
                event_uid(vnode.group, serial, event),
                event_body(event, collection.db, collection.name),
            )
            for serial, event in zip(serials, events, strict=True)
        ]

        def told(all_there: bool) -> None:  # noqa: FBT001 - a callback
            if not all_there:
                self._rest(vnode)
                return
            self._count(events)
            command = c.EventsTold(now_ms=self._world.wall_ms(), until=serials[-1] + 1)
            self._runtime.propose(vnode, command, partial(self._forgotten, vnode))

        self._create(collection.db, jobs, told)

    def _tell_of_routes(self) -> None:
        found = sorted(self._meta.events.values(), key=lambda each: each.id)
        if not found:
            self._busy.pop(self._meta_vnode, None)
            return
        # In turn: one database without room for its events must not keep those of others waiting.
        dbs = sorted({each.db for each in found})
        self._turn += 1
        db = dbs[self._turn % len(dbs)]
        found = [each for each in found if each.db == db][: limits.EVENTS_TOLD_AT_ONCE]
        jobs = [
            (
                each.event,
                event_uid(self._meta_vnode.group, each.id, each.event),
                event_body(each.event, db, ""),
            )
            for each in found
        ]

        def told(all_there: bool) -> None:  # noqa: FBT001 - a callback
            if not all_there:
                self._rest(self._meta_vnode)
                return
            self._count([each.event for each in found])
            command = m.RouteEventsTold(
                now_ms=self._world.wall_ms(), ids=[each.id for each in found]
            )
            done = partial(self._forgotten, self._meta_vnode)
            self._runtime.propose(self._meta_vnode, command, done)

        self._create(db, jobs, told)

    def _forgotten(self, vnode: Vnode, _: Any) -> None:
        self._busy.pop(vnode, None)
        # There may be more than were told at once; if not, the next look finds none.
        if vnode is self._meta_vnode:
            self.look_at_meta()
        elif self._runtime.holds(vnode):
            self.look(vnode)

    def _count(self, events: Sequence[Event]) -> None:
        for event in events:
            text = EventKind(event.kind).text
            self.told[text] = self.told.get(text, 0) + 1
            self.suppressed += event.count

    def _create(self, db: str, jobs: list[tuple[Event, bytes, bytes]], told: Told) -> None:
        """Create the jobs that tell of events, each with its uid and its body."""
        collection = self._meta.collections.get((db, EVENTS_COLLECTION))
        if collection is None or collection.uid not in self._collections:
            self._create_collection(db, jobs, told)
            return
        now_ms = self._world.wall_ms()
        creates = []
        for event, uid, body in jobs:
            route = self._meta.routes.get((db, event.alert_route))
            job_id = uid.hex()
            command = c.PutJob(
                now_ms=now_ms,
                job_id=job_id,
                uid=uid,
                trigger_ms=event.at_ms,
                delay_ms=None,
                route=event.alert_route,
                route_uid=0 if route is None else route.uid,
                meta=body,
                tags=(EventKind(event.kind).text,),
                create_only=True,
            )
            creates.append((vnode_of(job_id, collection.num_vnodes), command))

        def answered(results: list[Any]) -> None:
            told(all(isinstance(each, JobResult) for each in results))

        self._propose_creates(collection, creates, answered)

    def _create_collection(
        self, db: str, jobs: list[tuple[Event, bytes, bytes]], told: Told
    ) -> None:
        """Have a collection for events, and go on; one that a user has made is as good."""
        if db not in self._meta.databases:
            told(True)  # it is being deleted, with all that could be told
            return

        def answered(result: Any) -> None:
            known = self._meta.collections.get((db, EVENTS_COLLECTION))
            if isinstance(result, m.MetaResult) and known and known.uid in self._collections:
                self._create(db, jobs, told)
            else:
                told(False)

        command = m.PutCollection(
            now_ms=self._world.wall_ms(),
            db=db,
            name=EVENTS_COLLECTION,
            num_vnodes=None
            if (db, EVENTS_COLLECTION) in self._meta.collections
            else limits.EVENT_VNODES,
        )
        self._propose_meta(command, answered)

    # --- hours that are over ---------------------------------------------------------------

    def _close_hours(self, vnode: Vnode) -> None:
        mono_ms, now_ms = self._world.mono_ms(), self._world.wall_ms()
        if mono_ms < self._looked.get(vnode, 0.0):
            return
        self._looked[vnode] = mono_ms + limits.EVENT_LOOK_MS
        start = vnode.keys.event_count
        rows = self._store.scan(start, after_prefix(start), limits.EVENT_COUNTS_LOOKED_AT_MAX)
        over = [
            key[len(start) :]
            for key, value in rows
            if now_ms >= read_event_count(value).begun_ms + limits.EVENT_HOUR_MS
        ]
        if over:
            self._begin(vnode)
            command = c.CloseEventHours(now_ms=now_ms, counts=over)
            self._runtime.propose(vnode, command, partial(self._forgotten, vnode))
