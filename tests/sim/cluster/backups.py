"""Backups that are pulled from the running cluster, vnode by vnode, page by page.

The nodes' part is production's: views of the store, and pages of them. What `timemachine admin
backup` does with threads and HTTP is done here by conversations: whoever leads a vnode is asked for
its pages, one after the other, and a vnode is begun anew when its view is gone.
"""

import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from node.engine import Engine
from tests.checks.history import BackedJob, BackedUp, History
from tests.sim.cluster.clients import Conversation
from tests.sim.cluster.clockwork import START_MS, Clockwork
from tests.sim.cluster.growth import PATIENCE_MS
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.members import Member, Members
from tests.sim.cluster.nemesis import Group
from timemachine.backup.pages import Page, read_in_turn
from timemachine.errors import NotLeader, TimeMachineError
from timemachine.model import JobState
from timemachine.replica.records import read_job
from timemachine.vnode import Done, Vnode

_MOVES: Final = 60
_TIMES: Final = 4
"""So many views are begun where another node leads by now, and so many of one vnode at once."""
_TRY_MS: Final = (50.0, 400.0, 3_000.0)


def draw_backups(knobs: Knobs) -> list[float]:
    """When backups are begun in the safety phase."""
    rng = random.Random(f"{knobs.seed}/backups taken")
    return sorted(knobs.safety_ms * (0.1 + 0.8 * rng.random()) for _ in range(knobs.backups))


@dataclass(slots=True)
class Backup:
    """One backup. `parts` are the pages of each vnode that was read to its end."""

    name: str
    uid: int
    num_vnodes: int
    parts: dict[int, list[Page]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether each vnode is in it."""
        return len(self.parts) == self.num_vnodes


@dataclass(slots=True)
class _Given:
    """What a node has answered: a page, or None for a view that is gone."""

    page: bytes | None


class Backups:
    """Takes the backups of a seed. `open` counts vnodes that are being read, `pages` what came.

    leaders  who gave the last page of each vnode: often asked first, as whoever passes questions on
             asks who led when it last heard
    """

    def __init__(self, clock: Clockwork, members: Members, knobs: Knobs, history: History) -> None:
        self.clock = clock
        self.members = members
        self.history = history
        self.plan = draw_backups(knobs)
        self._knobs = knobs
        self.taken: list[Backup] = []
        self._uid = 0
        self._moves_left = _MOVES
        self.leaders: dict[int, int] = {}
        self.open = self.pages = 0

    def start(self) -> None:
        """The safety phase begins."""
        self._uid = self.members.collection_uid
        for number, at_ms in enumerate(self.plan):
            self.clock.later(at_ms, self._begin, number)
        if self.plan:
            self._hear_moves()

    def stop(self) -> None:
        """Nothing further is begun."""
        self._moves_left = 0

    def _hear_moves(self) -> None:
        """When a vnode is led by another node, who led before and has not heard is asked for it."""
        heard = self.members.on_moved
        dice = self.clock.child("backups of what moves")

        def moved(member: Member, vnode: Vnode) -> None:
            heard(member, vnode)
            uid, index = vnode.group
            if uid != self._uid or not vnode.serving:
                return
            for number in self._who_led(vnode.group, member.number):
                for _ in range(min(_TIMES, self._moves_left)):
                    self._moves_left -= 1
                    backup = Backup(f"m{self._moves_left}", uid, self._knobs.num_vnodes)
                    pull = _Pull(self, backup, index, self.clock.child(f"backup {backup.name}"))
                    pull.first = number
                    self.clock.later(self._knobs.election_ms * dice.random(), pull.begin)

        self.members.on_moved = moved

    def _who_led(self, group: Group, leader: int) -> list[int]:
        """Who thinks that it leads a vnode that another one leads now."""
        found = []
        for number in self.members.numbers:
            vnode = self.members.members[number].vnode(group)
            if number != leader and vnode is not None and vnode.serving:
                found.append(number)
        return found

    def _begin(self, number: int) -> None:
        backup = Backup(f"b{number}", self._uid, self._knobs.num_vnodes)
        self.taken.append(backup)
        self.clock.say(f"backups: {backup.name} begins")
        for index in range(backup.num_vnodes):
            _Pull(self, backup, index, self.clock.child(f"backup {number} {index}")).begin()

    def ended(self, backup: Backup, taken: BackedUp) -> None:
        """A vnode was read to its end."""
        self.open -= 1
        self.history.backups.append(taken)
        if backup.whole:
            self.clock.say(f"backups: {backup.name} is whole")


class _Pull:
    """One vnode on its way. `first` is who is asked first, if that is not 0."""

    def __init__(self, backups: Backups, backup: Backup, index: int, dice: random.Random) -> None:
        self._backups = backups
        self._backup = backup
        self._group = (backup.uid, index)
        self._dice = dice
        self._asked_ms = self._shown_ms = 0.0
        self._pages: list[Page] = []
        self.first = 0
        backups.open += 1

    def _now_ms(self) -> float:
        return START_MS + self._backups.clock.now_ms

    def begin(self) -> None:
        """Ask for the first page, perhaps once more."""
        if not self._asked_ms:
            self._asked_ms = self._now_ms()
        self._pages = []
        self._next()

    def _next(self) -> None:
        first, self.first = self.first or self._backups.leaders.get(self._group[1], 0), 0
        self._conversation = Conversation(
            self._backups.members,
            self._dice,
            partial(self._ask, len(self._pages), self._position()),
            self._heard,
            patience_ms=PATIENCE_MS,
            first=first,
            try_ms=self._dice.choice(_TRY_MS),
        )

    def _position(self) -> str | None:
        head = self._pages[0].head if self._pages else None
        return None if head is None else head.position.text

    def _ask(self, number: int, position: str | None, engine: Engine, answer: Done) -> None:
        """As `node.api.backups` does it."""
        vnode = engine.runtime.vnodes.get(self._group)
        if vnode is None or not vnode.serving:
            answer(NotLeader(0 if vnode is None else vnode.leader))
            return

        def given(page: bytes | TimeMachineError | None) -> None:
            answer(page if isinstance(page, TimeMachineError) else _Given(page))

        engine.backups.page(self._backup.name, vnode, number, None, position, given)

    def _heard(self, result: Any) -> None:
        if result is None:
            self._next()
        elif result.page is None:
            self._backups.leaders.pop(self._group[1], None)
            self.begin()
        else:
            self._take(read_in_turn(result.page, len(self._pages)))

    def _take(self, page: Page) -> None:
        if not self._pages:
            self._shown_ms = self._now_ms()
        self._pages.append(page)
        self._backups.leaders[self._group[1]] = self._conversation.node
        self._backups.pages += 1
        if not page.last:
            self._next()
            return
        self._backup.parts[self._group[1]] = self._pages
        head = self._pages[0].head
        assert head is not None
        taken = BackedUp(
            self._backup.name,
            self._group,
            self._backup.num_vnodes,
            self._asked_ms,
            self._shown_ms,
            _jobs_of(self._pages),
            sum(head.counts),
        )
        self._backups.ended(self._backup, taken)


def _jobs_of(pages: list[Page]) -> list[BackedJob]:
    found = []
    for page in pages:
        metas = dict(page.metas)
        for raw_id, row in page.jobs:
            record = read_job(row)
            content = metas.get(raw_id, b"") if record.meta is None else record.meta
            state = JobState(record.state).text
            found.append(
                BackedJob(raw_id.decode(), record.version, state, content, record.trigger_ms)
            )
    return found
