"""Creators: they write, read and cancel jobs, and ask again until they know or have no patience.

A creator does one thing after the other. It asks any node for a write, or the one that it knows
to lead. For a read it follows the hint of a node that does not lead. It turns to another node when
one is silent, and repeats a write under the same key, so that all of it is one call in the
history; without a key it asks once.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from node.engine import Engine
from tests.checks.history import Call, History
from tests.checks.jobmodel import (
    Absent,
    Answered,
    Asked,
    Delete,
    Deleted,
    Done,
    Found,
    Get,
    Patch,
    Put,
    Refused,
    Run,
    Written,
)
from tests.sim.cluster.clockwork import ANY_GENERATION, SOON, START_MS
from tests.sim.cluster.members import Members
from timemachine.errors import NotLeader, TimeMachineError, Unavailable
from timemachine.group import node_of
from timemachine.model import PENDING_STATES, Collection, JobState
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult
from timemachine.ring import OrderedId
from timemachine.smearing import smear_of
from timemachine.vnode import Done as Answer

DB: Final = "default"
COLLECTION: Final = "jobs"
ROUTE: Final = "hook"

_TO_COME: Final = PENDING_STATES - {JobState.FIRING}
"""States in which an attempt may still begin."""

_PATIENCE_MS: Final = 4_000.0
_TRY_MS: Final = (100.0, 700.0)
_AGAIN_MS: Final = (5.0, 100.0)
"""Some creators are patient with a silent node, some ask at once who leads now."""
_WAY_MS: Final = 2.0
_KEYLESS_SHARE: Final = 0.2
"""Of writes: what becomes of them is the nodes' to see to, and is not asked for again."""


class Conversation:
    """One call: tried at one node after the other until it is answered or given up.

    `ask(engine, answer)` puts the question to a node; `ended` hears the answer, or None. A node is
    taken for silent after `try_ms`; without it some are patient and some are not. `unheard`
    counts the tries that no node has answered: each of them may still be on its way. When `once`
    says so it is not asked again: a node has taken it, and it has no key.
    """

    def __init__(
        self,
        members: Members,
        dice: random.Random,
        ask: Callable[[Engine, Answer], None],
        ended: Callable[[Any], None],
        *,
        patience_ms: float,
        first: int = 0,
        try_ms: float | None = None,
        once: Callable[[], bool] = lambda: False,
    ) -> None:
        self._members = members
        self._taken = once
        self._clock = members.clock
        self._dice = dice
        self._ask = ask
        self._ended: Callable[[Any], None] | None = ended
        self._until_ms = self._clock.now_ms + patience_ms
        self._tries = 0
        self._try_ms = try_ms or dice.choice(_TRY_MS)
        self._again_ms = dice.choice(_AGAIN_MS)
        self.unheard = 0
        self._next = first
        self.node = 0
        self._try()

    def _try(self) -> None:
        if self._ended is None:
            return
        clock = self._clock
        if clock.now_ms >= self._until_ms or self._taken():
            self._end(None)
            return
        self._tries = number = self._tries + 1
        self.node, self._next = self._next or self._dice.choice(self._members.numbers), 0
        world = self._members.world(self.node)
        at_ms = clock.now_ms + _WAY_MS * self._dice.random()
        self.unheard += 1
        clock.later(self._try_ms, self._overdue, number)
        clock.post(at_ms, SOON, world, ANY_GENERATION, self._arrive, (number, self.node))

    def _arrive(self, try_: tuple[int, int]) -> None:
        """The question is at the node, whose process now answers or dies."""
        number, node = try_
        if self._taken():
            self.unheard -= 1  # a try before, which was late, has been
            return
        answer = partial(self._answer, number)
        member = self._members.members[node]
        engine = member.engine
        if engine is None or not member.ready:
            answer(Unavailable("The node is starting."))
        else:
            self._ask(engine, answer)

    def _answer(self, number: int, result: Any) -> None:
        self._clock.later(_WAY_MS * self._dice.random(), self._hear, (number, result))

    def _hear(self, heard: tuple[int, Any]) -> None:
        number, result = heard
        self.unheard -= 1
        if self._ended is None:
            return
        if not isinstance(result, TimeMachineError):
            self._end(result)
        elif not result.retryable:
            raise result
        elif number == self._tries:
            self._tries += 1  # the time-out of this try is no matter any more
            if isinstance(result, NotLeader) and result.leader in self._members.members:
                self._next = result.leader
            self._clock.later(self._again_ms * (0.1 + self._dice.random()), self._try)

    def _overdue(self, number: int) -> None:
        if number != self._tries:
            return
        if self._taken() and self._clock.now_ms < self._until_ms:
            self._clock.later(self._try_ms, self._overdue, number)
        else:
            self._try()

    def _end(self, result: Any) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(result)


class Creators:
    """All creators of a seed. What they did is in `history`, in true milliseconds.

    prefix    with which the ids of their jobs begin
    proposed  called with the number of a node that a write was put to, for the nemesis
    """

    def __init__(self, members: Members, history: History) -> None:
        self._members = members
        self._clock = members.clock
        self._knobs = members.knobs
        self._history = history
        self._pointing = members.clock.child("pointing")
        self._leaders: dict[int, int] = {}
        self._working = False
        self._numbers = 0
        self._written = ""
        self.prefix = "job"
        self.open = 0
        self.proposed: Callable[[int], None] = lambda _: None

    def start(self) -> None:
        """Every creator begins its work."""
        self._working = True
        for number in range(self._knobs.clients):
            self._rest(self._clock.child(f"client {number}"))
        if self._knobs.audit_ms:
            self._audit(self._clock.child("auditor"))

    def stop(self) -> None:
        """Nobody asks for anything new; what is open goes on."""
        self._working = False

    def _rest(self, dice: random.Random) -> None:
        self._clock.later(2.0 * self._knobs.client_pace_ms * dice.random(), self._act, dice)

    def _act(self, dice: random.Random) -> None:
        if not self._working:
            return
        job = f"{self.prefix}-{dice.randrange(self._knobs.jobs)}"
        asked = self._draw(dice)

        def look() -> None:
            """What was just written is what others should read, wherever they ask."""
            self.call(Get(), job, dice, lambda: self._rest(dice))

        looks = not isinstance(asked, Get) and dice.random() < self._knobs.read_share
        self.call(asked, job, dice, look if looks else lambda: self._rest(dice))

    def _audit(self, dice: random.Random) -> None:
        """Somebody asks every node, again and again, for what was written last."""
        if not self._working:
            return
        self._clock.later(2.0 * self._knobs.audit_ms * dice.random(), self._audit, dice)
        for node in self._members.numbers:
            job = self._written or f"{self.prefix}-0"
            call = self._history.call(job, START_MS + self._clock.now_ms, Get(), node)
            at_ms = self._clock.now_ms + _WAY_MS * dice.random()
            world = self._members.world(node)
            self._clock.post(at_ms, SOON, world, ANY_GENERATION, self._audit_arrives, (call, dice))

    def _audit_arrives(self, asked: tuple[Call, random.Random]) -> None:
        call, dice = asked
        member = self._members.members[call.node]

        def hear(result: Any) -> None:
            call.answer(START_MS + self._clock.now_ms, result)

        def answer(result: Any) -> None:
            if not isinstance(result, TimeMachineError):
                self._clock.later(_WAY_MS * dice.random(), hear, result)

        if member.engine is not None and member.ready:
            self._ask(member.engine, call, b"", answer)

    def _draw(self, dice: random.Random) -> Asked:
        knobs = self._knobs
        drawn = dice.random()
        if drawn < knobs.read_share:
            return Get()
        if drawn < knobs.read_share + (1.0 - knobs.read_share) * knobs.delete_share:
            return Delete()
        self._numbers += 1
        content = b"%d" % self._numbers
        ahead_ms = dice.choice([-50.0, 0.0, 20.0, knobs.due_ms_max * dice.random()])
        due_ms = START_MS + int(self._clock.now_ms + ahead_ms)
        drawn = dice.random()
        if drawn < 0.1:
            return Patch(content, due_ms if dice.random() < 0.5 else None)
        if drawn < 0.15:
            return Run()
        return Put(content, due_ms, create_only=drawn < 0.3)

    def call(self, asked: Asked, job: str, dice: random.Random, ended: Callable[[], None]) -> None:
        """Ask something about a job, note what comes of it, and call `ended`."""
        call = self._history.call(job, START_MS + self._clock.now_ms, asked)
        self.open += 1
        keyless = not isinstance(asked, Get) and dice.random() < _KEYLESS_SHARE
        key = b"" if keyless else dice.randbytes(16)
        place = self._members.place_of(job)

        def over(result: Any) -> None:
            self._ended(call, place, conversation, result)
            ended()

        # Any node takes a write. Whoever reads may ask one that led once, and knows no better yet.
        known = dice.random() < 0.5
        conversation = Conversation(
            self._members,
            dice,
            lambda engine, answer: self._ask(engine, call, key, answer),
            over,
            patience_ms=_PATIENCE_MS,
            first=self._leaders.get(place, 0) if known else 0,
            once=lambda: keyless and bool(call.node),
        )

    def _ask(self, engine: Engine, call: Call, key: bytes, answer: Answer) -> None:
        asked, job = call.asked, call.job
        collection = engine.meta.collections.get((DB, COLLECTION))
        key_of_order = self._knobs.ordering_key(job)
        if key_of_order is not None:
            job = OrderedId(job, key_of_order)
        vnode = None if collection is None else engine._vnode(collection, job)
        if collection is None or (DB, ROUTE) not in engine.meta.routes:
            # That is for the leader of the meta group to judge: this node may be behind.
            answer(Unavailable("The collection and the route are not known here."))
        elif vnode is None:
            placement = engine.meta.placement(collection.uid, self._members.place_of(job))
            answer(NotLeader(node_of(self._pointing.choice(placement.replicas))))
        elif isinstance(asked, Get):
            engine.read_latest(collection, job, partial(_read, answer))
        elif isinstance(asked, Put) and isinstance(job, OrderedId):
            placed_ms = engine.now_ms()
            ordered = job
            if not key:
                call.node = engine.number  # it is not asked again

            def placed(result: Any) -> None:
                if isinstance(result, TimeMachineError):
                    answer(result)
                    return
                assert result.kind == "placed", "the ids of creators keep their keys"
                call.node = engine.number
                command = _command(engine, collection, asked, ordered, key)
                command = msgspec.structs.replace(
                    command, ordering_key=ordered.key, placed_ms=placed_ms
                )
                engine.propose_job(collection, ordered, command, answer)

            engine.place_job(collection, job, job.key, placed)
            self.proposed(engine.number)
        else:
            # From here on it may be done, whatever is answered.
            call.node = engine.number
            command = _command(engine, collection, asked, job, key)
            engine.propose_job(collection, job, command, answer)
            self.proposed(engine.number)

    def _ended(self, call: Call, place: int, conversation: Conversation, result: Any) -> None:
        self.open -= 1
        if result is None:
            self._leaders.pop(place, None)
            if not call.node and not conversation.unheard:
                self._history.forget(call)
            return
        self._leaders[place] = call.node = conversation.node
        if not isinstance(call.asked, Get):
            self._written = call.job
        answered = result if not isinstance(result, JobResult) else _told(call.asked, result)
        call.answer(START_MS + self._clock.now_ms, answered)


def _read(answer: Answer, found: Any) -> None:
    if found is None:
        answer(Absent())
    elif isinstance(found, TimeMachineError):
        answer(found)
    else:
        record, meta = found
        answer(Found(record.version, meta, record.trigger_ms, record.state in _TO_COME))


def _command(engine: Engine, collection: Collection, asked: Asked, job: str, key: bytes) -> Any:
    """The command that the API would make of a request."""
    now_ms = engine.now_ms()
    request = c.Request(key, key) if key else None
    route = engine.meta.routes.get((DB, ROUTE))
    route_uid = 0 if route is None else route.uid
    smear_ms = 0 if route is None else smear_of(job, route.smear_ms)
    match asked:
        case Put():
            return c.PutJob(
                now_ms=now_ms,
                job_id=job,
                uid=engine.random_bytes(16),
                trigger_ms=asked.due_ms or now_ms,
                delay_ms=None,
                route=ROUTE,
                route_uid=route_uid,
                meta=asked.content,  # type: ignore[arg-type]
                create_only=asked.create_only,
                request=request,
                revoked=None if asked.create_only else engine.revoke(collection, job),
                smear_ms=smear_ms,
            )
        case Patch():
            return c.PatchJob(
                now_ms=now_ms,
                job_id=job,
                trigger_ms=asked.due_ms,
                meta=asked.content,  # type: ignore[arg-type]
                request=request,
                revoked=engine.revoke(collection, job),
            )
        case Delete():
            return c.DeleteJob(
                now_ms=now_ms,
                job_id=job,
                request=request,
                revoked=engine.revoke(collection, job),
            )
        case Run():
            return c.RunJob(now_ms=now_ms, job_id=job, request=request)
        case _:
            raise AssertionError(asked)


def _told(asked: Asked, result: JobResult) -> Answered:
    """What the API would answer."""
    if result.kind == "refused":
        assert result.code is not None
        return Absent() if result.code == "job_not_found" else Refused(result.code)
    record = result.record
    assert record is not None
    match asked:
        case Put() | Patch():
            return Written(record.version, result.previous, record.trigger_ms)
        case Delete():
            assert result.outcome is not None
            return Deleted(record.version, result.outcome)
        case _:
            return Done()
