"""One seed: a cluster is born, lives through its faults, is healed, and has to keep its word.

boot -> collection and route -> safety phase: creators, nemesis and operators -> heal -> liveness
phase: probes, every job comes out, every group has its members -> the history is judged
"""

import random
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from node.engine import Engine
from node.replicas import job_machine
from node.secrets import seal_value
from tests.checks.history import NEVER, History, Probe
from tests.checks.promises import Judgement, judge
from tests.sim.cluster.alerts import open_events, put_alert_route, untold
from tests.sim.cluster.backups import Backups
from tests.sim.cluster.clients import COLLECTION, DB, ROUTE, Conversation, Creators
from tests.sim.cluster.growth import Growth, unsettled
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.members import KEY, Members, in_limits
from tests.sim.cluster.nemesis import Fault, Group, Nemesis
from tests.sim.cluster.ordering import disorders, without_alias
from tests.sim.cluster.overruled import watched
from tests.sim.cluster.pace import observed
from tests.sim.cluster.plans import Plans
from tests.sim.cluster.recipients import ALERTS, MOODS
from tests.sim.cluster.reckoning import Reckoning, rules_of
from timemachine.errors import Unavailable
from timemachine.group import META_GROUP
from timemachine.model import Batching, Breaker, Collection, Rate, Retry, Route, SealedKey
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.machine import JobMachine
from timemachine.replica.states import FIRING, HELD, RETRYING, SCHEDULED
from timemachine.signing import format_secret
from timemachine.vnode import Done

_BOOT_MS: Final = 60_000.0
_LOOK_EVERY_MS: Final = 500.0
_DRAIN_STEP_MS: Final = 200.0
_DRAIN_TIMES: Final = 30
"""So many times the patience, a cluster may take that gets on slowly."""
_OTHER_ROUTE: Final = "another"
_FAR_MS: Final = 10 * 86_400_000


@dataclass(frozen=True, slots=True)
class Result:
    """How a seed went."""

    knobs: Knobs
    trace: str
    events: int
    counts: str
    calls: int
    webhooks: int
    faults: int
    judgement: Judgement


class Harness:
    """Drives one seed through its phases."""

    def __init__(self, knobs: Knobs, plan: list[Fault] | None = None) -> None:
        self.knobs = knobs
        self.members = Members(knobs)
        self.clock = self.members.clock
        self.reckoning = Reckoning(self.members)
        self.history: History = self.reckoning.history
        self.creators = Creators(self.members, self.history)
        self.nemesis = Nemesis(
            self.clock, self.members.network, self.members.recipients, self.members, knobs, plan
        )
        self.growth = Growth(self.clock, self.members, knobs)
        self.plans = Plans(self.clock, self.members, knobs)
        self.plans.replace = self.growth.join
        self.backups = Backups(self.clock, self.members, knobs, self.history)
        self.creators.proposed = self.nemesis.proposed
        self._dice = self.clock.child("harness")

    def run(self) -> Result:
        """Run all phases. Raises AssertionError for what a step found; the rest is judged."""
        knobs = self.knobs
        with (
            in_limits(knobs),
            observed(self.members.begins),
            watched(self.members, self.nemesis.overruled),
            self.plans.judged(),
        ):
            self.boot()
            self.live()
            self.heal()
            self.drain()
            history = self.reckoning.finish()
            history.plans = self.plans.ends()
        judgement = judge(history, rules_of(knobs, history))
        judgement.broken.extend(f"C15: {each}" for each in untold(self.members))
        judgement.broken.extend(f"C16: {each}" for each in disorders(self.members, history))
        judgement.broken.extend(f"C16: {each}" for each in without_alias(self.members))
        return Result(
            knobs=knobs,
            trace=self.clock.trace,
            events=self.clock.events,
            counts=self.clock.summary(),
            calls=len(history.calls),
            webhooks=len(history.webhooks),
            faults=self.nemesis.done + self.growth.done + self.plans.done,
            judgement=judgement,
        )

    # --- phases ----------------------------------------------------------------------------

    def boot(self) -> None:
        """Every node starts on an empty disk; the collection and the route are made."""
        for number in self.members.numbers:
            self.clock.later(20.0 * self._dice.random(), partial(self.members.start, number))
        self.make()
        led = self.clock.run_until(self.clock.now_ms + _BOOT_MS, self._all_led)
        assert led, "a new cluster has no leaders"
        self.clock.later(0.0, self._look)

    def make(self) -> None:
        """Have the collection and the route made."""
        self._ask(_put_collection, self.knobs)
        if self.knobs.alerts:
            self._ask(put_alert_route, self.knobs)
        self._ask(_put_route, self.knobs)

    @property
    def busy(self) -> bool:
        """Whether anything else is to be done before all can be over."""
        return False

    def live(self) -> None:
        """Creators and nemesis at work."""
        self.members.recipients.fair = MOODS[self.knobs.mood]
        for number in self.members.numbers:
            self.members.disk(number).stall_rate = self.knobs.stall_rate
        self.creators.start()
        self.nemesis.start()
        self.growth.start()
        self.plans.start()
        self.backups.start()
        self.clock.run_for(self.knobs.safety_ms)
        self.creators.stop()

    def heal(self) -> None:
        """All faults end; every group is asked to take a write."""
        self.members.take_back()
        self.nemesis.heal()
        self.growth.heal()
        self.plans.heal()
        self.backups.stop()
        self.history.healed_ms = self.reckoning.now_ms()
        for group in self._own_groups():
            Prober(self, group)

    def drain(self) -> None:
        """Until every job came out, or nothing has got on for as long as patience lasts."""
        patience_ms = self.knobs.liveness_ms
        began_ms = moved_ms = self.clock.now_ms
        # Those that are due late in the safety phase, and the deadlines of open claims.
        least_ms = began_ms + self.knobs.due_ms_max + self.knobs.smear_ms + 2_000.0
        progress = 0
        while (
            self.clock.now_ms < min(moved_ms, began_ms + _DRAIN_TIMES * patience_ms) + patience_ms
        ):
            self.clock.run_for(_DRAIN_STEP_MS)
            if self.clock.now_ms >= least_ms and self._drained():
                break
            # It falls where a replica is gone, and what is left has to get on from there.
            before, progress = progress, self._progress()
            if progress > before:
                moved_ms = self.clock.now_ms
        # What is committed last reaches the other replicas, and their disks. Offsets and other
        # housekeeping go on, leaders are moved, and hours of events end, which tell what they have
        # suppressed: so the end is when nothing is on its way.
        self.clock.run_for(self.knobs.election_ms)
        self.clock.run_until(
            self.clock.now_ms + patience_ms,
            lambda: self._equal() and self._all_led() and not open_events(self.members),
        )

    # --- helpers ---------------------------------------------------------------------------

    def _ask(self, ask: Any, knobs: Knobs) -> None:
        """Have something done by whichever node can, and wait for it."""
        done: list[Any] = []
        Conversation(
            self.members,
            self._dice,
            partial(ask, knobs),
            done.append,
            patience_ms=_BOOT_MS,
        )
        self.clock.run_until(self.clock.now_ms + _BOOT_MS, lambda: bool(done))
        assert done, "a new cluster does not answer"
        assert done[0] is not None, "a new cluster does not answer"

    def _all_led(self) -> bool:
        return len(self._own_groups()) == self.knobs.num_vnodes + 1 and all(
            self.members.leader_of(group) for group in self.members.groups()
        )

    def _own_groups(self) -> list[Group]:
        """The groups that are there from the beginning: none of the collection of events."""
        own = (META_GROUP[0], self.members.collection_uid)
        return [group for group in self.members.groups() if group[0] in own]

    def _look(self) -> None:
        self.reckoning.look()
        self.clock.later(_LOOK_EVERY_MS, self._look)

    def _progress(self) -> int:
        """How far all replicas are, together, images on their way to them, and backups."""
        engines = [member.engine for member in self.members.members.values()]
        return self.backups.pages + sum(
            engine._images.outgoing.sent_bytes
            + engine._compacting.steps_done
            + sum(vnode.machine.applied_index for vnode in engine.runtime.vnodes.values())
            for engine in engines
            if engine is not None
        )

    def _equal(self) -> bool:
        """Whether all replicas of each group have applied as much as each other, durably."""
        applied: dict[Group, int] = {}
        for member in self.members.members.values():
            engine = member.engine
            if engine is not None:
                for group, vnode in engine.runtime.vnodes.items():
                    index = vnode._log.storage.applied[0]
                    if {applied.setdefault(group, index), vnode.machine.applied_index} != {index}:
                        return False
        return True

    def _drained(self) -> bool:
        """Whether no job is pending, on every node that could say so, and all have applied all."""
        if not self._equal() or self.growth.open or not self.plans.settled:
            return False
        if self.backups.open or self.busy or open_events(self.members):
            return False
        if unsettled(self.members):
            return False
        for member in self.members.members.values():
            engine = member.engine
            if engine is None:
                continue
            collection = engine.meta.collections.get((DB, COLLECTION))
            if collection is None:
                return False
            for vnode in engine.runtime.vnodes.values():
                if vnode.group[0] == collection.uid and _is_pending(job_machine(vnode)):
                    return False
        return not self.creators.open and all(
            probe.acked_ms != NEVER for probe in self.history.probes
        )


def _is_pending(machine: JobMachine) -> bool:
    """Whether jobs of a vnode are still to come out, but the one that it was probed with."""
    counts = machine.state.counts
    return any(counts[state] for state in (FIRING, RETRYING, HELD)) or counts[SCHEDULED] > 1


class Prober:
    """Asks one group for a write after the faults."""

    def __init__(self, harness: Harness, group: Group) -> None:
        self._harness = harness
        self._group = group
        self._called_ms = harness.reckoning.now_ms()
        self._place = len(harness.history.probes)
        harness.history.probes.append(Probe(group, self._called_ms))
        ask = _put_route if group == META_GROUP else self._put_job
        Conversation(
            harness.members,
            random.Random(f"{harness.knobs.seed}/probe {group}"),
            partial(ask, harness.knobs),
            self._ended,
            patience_ms=harness.knobs.liveness_ms,
        )

    def _put_job(self, knobs: Knobs, engine: Engine, answer: Done) -> None:
        collection = engine.meta.collections.get((DB, COLLECTION))
        if collection is None or (DB, ROUTE) not in engine.meta.routes:
            answer(Unavailable("The collection and the route are not known here."))
            return
        names = (f"probe-{number}" for number in range(1_000_000))
        job = next(name for name in names if self._is_mine(engine, collection, name))
        self._harness.history.probed.add(job)
        now_ms = engine.now_ms()
        command = c.PutJob(
            now_ms=now_ms,
            job_id=job,
            uid=engine.random_bytes(16),
            trigger_ms=now_ms + _FAR_MS,
            delay_ms=None,
            route=ROUTE,
            route_uid=engine.meta.routes[DB, ROUTE].uid,
            meta=b"null",
        )
        engine.propose_job(collection, job, command, answer)

    def _is_mine(self, engine: Engine, collection: Collection, name: str) -> bool:
        return engine.vnode_of(collection, name) == self._group[1]

    def _ended(self, result: Any) -> None:
        if result is not None:
            acked = Probe(self._group, self._called_ms, self._harness.reckoning.now_ms())
            self._harness.history.probes[self._place] = acked


def _put_collection(knobs: Knobs, engine: Engine, answer: Done) -> None:
    engine.propose_meta(
        m.PutCollection(
            now_ms=engine.now_ms(),
            db=DB,
            name=COLLECTION,
            num_vnodes=knobs.num_vnodes,
            replicas=knobs.replicas_wanted,
        ),
        answer,
    )


def _put_route(knobs: Knobs, engine: Engine, answer: Done) -> None:
    """Create the route; later write it anew, or another one if its breaker is to close by itself.

    For a new version has a new breaker.
    """
    existing = engine.meta.routes.get((DB, ROUTE))
    name = ROUTE
    if existing is not None and knobs.breaker_open_ms:
        name = _OTHER_ROUTE
        existing = engine.meta.routes.get((DB, name))
    if existing is None:
        secret = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db=DB, name=name)
        route = Route(
            uid=0,
            db=DB,
            name=name,
            version=0,
            webhook_url="http://recipient.test/hook",
            created_ms=0,
            updated_ms=0,
            secrets=(SealedKey(sealed=secret),),
            retry=Retry(schedule_ms=(50, 100, 200), max_attempts=knobs.alerts or 1_000),
            alert_route=ALERTS if knobs.alerts else None,
            rate=Rate(count=knobs.rate_count or None, period_ms=knobs.rate_period_ms),
            timeout_ms=1_000,
            max_in_flight=knobs.max_in_flight,
            breaker=_breaker(knobs),
            smear_ms=knobs.smear_ms,
            batch=Batching(
                max_jobs=knobs.batch_jobs,
                max_bytes=knobs.batch_bytes,
                max_wait_ms=knobs.batch_wait_ms,
                format=knobs.batch_format,
            ),
        )
    elif name != ROUTE:
        route = msgspec.structs.replace(existing, timeout_ms=existing.timeout_ms + 1)
    else:
        most = existing.max_in_flight + 1
        batch = Batching() if knobs.batch_ends else existing.batch
        route = msgspec.structs.replace(existing, max_in_flight=most, rate=Rate(), batch=batch)
    version = 0 if existing is None else existing.version
    command = m.PutRoute(now_ms=engine.now_ms(), route=route, expected_version=version)
    engine.propose_meta(command, answer)


def _breaker(knobs: Knobs) -> Breaker | None:
    if not knobs.breaker_open_ms:
        return None
    return Breaker(
        failure_ratio=0.5,
        min_requests=knobs.breaker_requests,
        window_ms=knobs.breaker_window_ms,
        open_ms=knobs.breaker_open_ms,
        half_open_requests=2,
    )
