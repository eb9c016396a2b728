"""Backups that are restored: into another cluster, through faults of its own, under load.

The jobs of a backup go the way of `timemachine admin restore`: pages are cut into uploads, and a
node makes commands of each, from the fates of its jobs. Requests are conversations, so they are
repeated wherever the answer does not come. Jobs that are past due are sent, held or dropped, and
those that are held are decided on when the restore has ended.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from node.engine import Engine
from tests.checks.history import Restoration, RestoredJob
from tests.sim.cluster.backups import Backup
from tests.sim.cluster.clients import COLLECTION, DB, ROUTE, Conversation
from tests.sim.cluster.clockwork import START_MS
from tests.sim.cluster.growth import PATIENCE_MS
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs, draw
from timemachine.backup.uploads import (
    Upload,
    commands_of,
    read_upload,
    uploads_of,
    written_upload,
)
from timemachine.errors import NotLeader, TimeMachineError, Unavailable
from timemachine.identifiers import webhook_id
from timemachine.model import JobState, PastDue, Restore, Route
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.records import read_job
from timemachine.smearing import first_due_ms
from timemachine.vnode import Done

_TRY_MS: Final = 3_000.0
_ID: Final = "restore"
_HELD_ROWS: Final = 3
_OF_ROUTE: Final = (
    "max_in_flight",
    "rate_count",
    "rate_period_ms",
    "breaker_open_ms",
    "breaker_requests",
    "breaker_window_ms",
    "smear_ms",
    "batch_jobs",
    "batch_bytes",
    "batch_wait_ms",
    "batch_format",
    "batch_ends",
    "alerts",
)
_OTHER: Final = 1 << 48
"""Added to the seed of the first cluster, it is that of the other one."""


def restoring(harness: Harness) -> "RestoreHarness | None":
    """The cluster into which a backup of a finished run is restored; None if there is none."""
    meta = harness.members.meta()
    whole = [backup for backup in harness.backups.taken if backup.whole]
    if not harness.knobs.restores or not whole or meta is None or harness.knobs.alerts:
        return None
    dice = random.Random(f"{harness.knobs.seed}/restore")
    # The route comes from the backup, as it was made there; so do the ordering keys of its jobs,
    # which follow from their ids.
    of_route = {name: getattr(harness.knobs, name) for name in (*_OF_ROUTE, "ordering_keys")}
    knobs = draw(harness.knobs.seed + _OTHER, backups=0, restores=0, **of_route)
    after_ms = harness.clock.now_ms * dice.choice([0.3, 0.6, 1.0])
    route = meta.routes[DB, ROUTE]
    return RestoreHarness(knobs, dice.choice(whole), route, after_ms, dice)


class RestoreHarness(Harness):
    """A cluster that is born `after_ms` later than the other one, and gets what that one had."""

    def __init__(
        self, knobs: Knobs, backup: Backup, route: Route, after_ms: float, dice: random.Random
    ) -> None:
        super().__init__(knobs)
        self.clock.run_for(after_ms)
        self.creators.prefix = "new"
        self._backup = backup
        self._route = route
        self._dice_of = dice
        self._choice = dice.choice([PastDue.FIRE, PastDue.HOLD, PastDue.HOLD, PastDue.DROP])
        self._drops = dice.random() < 0.5
        self._open = 0
        self._uid = 0
        now_ms = START_MS + int(after_ms)
        self._restore = Restore(
            id=_ID,
            backup=backup.name,
            epoch=now_ms // 1_000,
            cut_ms=now_ms,
            past_due=self._choice,
        )

    def make(self) -> None:
        """The collection and the route come from the backup."""
        knobs = self.knobs
        collection = m.RestoredCollection(
            DB, COLLECTION, knobs.num_vnodes, knobs.replicas_wanted, 86_400_000
        )

        def begin(_: Knobs, engine: Engine, answer: Done) -> None:
            command = m.BeginRestore(
                now_ms=engine.now_ms(),
                restore=self._restore,
                databases=[DB],
                collections=[collection],
            )
            engine.propose_meta(command, answer)

        def routes(_: Knobs, engine: Engine, answer: Done) -> None:
            command = m.RestoreRoutes(now_ms=engine.now_ms(), id=_ID, routes=[self._route])
            engine.propose_meta(command, answer)

        self._ask(begin, knobs)
        self._ask(routes, knobs)

    def live(self) -> None:
        """The jobs come while there are faults."""
        self._uid = self.members.collection_uid
        self.history.restoration = Restoration(
            began_ms=self.reckoning.now_ms(), jobs=list(self._expected())
        )
        names = {self._route.uid: ROUTE}
        # All at once: a part without jobs is over at once, and the last one ends the restore.
        self._open += len(self._backup.parts)
        for index, pages in self._backup.parts.items():
            uploads = [each for page in pages for each in uploads_of(page, index, names)]
            self._push(iter(uploads))
        super().live()

    @property
    def busy(self) -> bool:
        """See Harness."""
        return self._open > 0

    def _expected(self) -> Iterator[RestoredJob]:
        """What becomes of each job, by what the page on backups says."""
        for pages in self._backup.parts.values():
            for page in pages:
                for raw_id, row in page.jobs:
                    if raw_id.startswith(b"probe-"):
                        continue  # due in days, and here others have these names
                    record = read_job(row)
                    claim = record.claim
                    over = record.state in _ENDED or record.outcome is not None
                    over = over or (claim is not None and claim.delivered)
                    past_due = record.due_ms <= self._restore.cut_ms
                    drops = self._choice is PastDue.DROP or (
                        self._choice is PastDue.HOLD and self._drops
                    )
                    yield RestoredJob(
                        raw_id.decode(),
                        record.version,
                        webhook_id(record.uid, record.version, 0),
                        not over and not (past_due and drops),
                        record.due_ms < first_due_ms(record.trigger_ms, record.smear_ms),
                    )

    # --- asking ----------------------------------------------------------------------------

    def _converse(self, ask: Callable[[Engine, Done], None], then: Callable[[Any], None]) -> None:
        """Ask until somebody answers."""

        def ended(result: Any) -> None:
            if result is None:
                self._converse(ask, then)
            else:
                then(result)

        Conversation(
            self.members, self._dice_of, ask, ended, patience_ms=PATIENCE_MS, try_ms=_TRY_MS
        )

    def _push(self, uploads: Iterator[Upload]) -> None:
        """Restore the uploads of a part, one after the other."""
        upload = next(uploads, None)
        if upload is not None:
            data = written_upload(upload)
            self._converse(partial(self._restore_jobs, data), lambda _: self._push(uploads))
            return
        self._open -= 1
        if not self._open:
            self._open += 1
            self._converse(self._end, self._ended)

    def _restore_jobs(self, data: bytes, engine: Engine, answer: Done) -> None:
        """As `node.api.restores` does it."""

        def known(error: TimeMachineError | None) -> None:
            collection = engine.meta.collections.get((DB, COLLECTION))
            restore = engine.meta.restores.get(_ID)
            if error is not None or collection is None or restore is None:
                answer(error or Unavailable("The restore is not known here."))
                return
            commands, counts = commands_of(
                read_upload(data),
                restore,
                collection.num_vnodes,
                lambda name: engine.meta.routes.get((DB, name)),
                engine.now_ms(),
            )
            _Steps(engine, collection.uid, commands, counts, answer)

        engine.router.read_meta(known)

    def _end(self, engine: Engine, answer: Done) -> None:
        engine.propose_meta(m.EndRestore(now_ms=engine.now_ms(), id=_ID), answer)

    def _ended(self, result: m.MetaResult) -> None:
        assert result.code is None, result
        self.clock.say("restore: all is there")
        if self._choice is PastDue.HOLD:
            for index in range(self.knobs.num_vnodes):
                self._open += 1
                self._decide(index, b"")
        self._open -= 1

    def _decide(self, index: int, after: bytes) -> None:
        """Send or drop what is held, some jobs of a vnode at once."""

        def decided(following: tuple[bytes | None]) -> None:
            if following[0] is None:
                self._open -= 1
            else:
                self._decide(index, following[0])

        self._converse(partial(self._unpark, index, after), decided)

    def _unpark(self, index: int, after: bytes, engine: Engine, answer: Done) -> None:
        group = (self._uid, index)
        vnode = engine.runtime.vnodes.get(group)
        if vnode is None or not vnode.serving:
            answer(NotLeader(0 if vnode is None else vnode.leader))
            return

        def found(held: Any) -> None:
            if isinstance(held, TimeMachineError):
                answer(held)
                return
            items, following = held

            def done(result: Any) -> None:
                answer(result if isinstance(result, TimeMachineError) else (following,))

            if not items:
                done(None)
                return
            command = c.Unpark(now_ms=engine.now_ms(), items=items, drop=self._drops)
            engine.router.propose(group, command, done, 256 * len(items))

        engine.read_held(vnode, after, _HELD_ROWS, found)


_ENDED: Final = frozenset({JobState.DELIVERED, JobState.DEAD, JobState.CANCELLED})


class _Steps:
    """The commands of an upload: those of a vnode one after the other."""

    def __init__(
        self,
        engine: Engine,
        uid: int,
        commands: dict[int, list[c.RestoreJobs]],
        counts: dict[str, int],
        answer: Done,
    ) -> None:
        self._engine = engine
        self._uid = uid
        self._counts = counts
        self._answer = answer
        self._left = len(commands)
        self._error: TimeMachineError | None = None
        for index, steps in commands.items():
            self._step(index, steps, None)

    def _step(self, index: int, steps: list[c.RestoreJobs], result: Any) -> None:
        if isinstance(result, TimeMachineError):
            self._error = result
        elif steps:
            size = sum(len(item.meta) + 512 for item in steps[0].items)
            then = partial(self._step, index, steps[1:])
            self._engine.router.propose((self._uid, index), steps[0], then, size)
            return
        self._left -= 1
        if not self._left:
            self._answer(self._error or self._counts)
