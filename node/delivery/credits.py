"""Lends what this node does not need of its shares, and borrows what it lacks.

The rules are those of `timemachine/delivery/credits.py`; here nodes are asked and answered, and
queues are told what they may have. Nobody waits for it: a node that hears of nobody goes
on with its own shares, less what it has lent, and at least 1 of each.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from node.calls import UNKNOWN_KIND, Answer, Calls
from node.env import World
from node.runtime import Runtime
from timemachine import codec, limits
from timemachine.delivery.borrowing import Borrower, Lack
from timemachine.delivery.credits import Answer as Told
from timemachine.delivery.credits import Ask, Kind, Limit, read_answer, read_ask
from timemachine.delivery.lending import NOTHING_OWNED, Lender, Own
from timemachine.delivery.ratelimit import is_lent
from timemachine.delivery.window import Window
from timemachine.errors import CodecError, TimeMachineError, Unavailable
from timemachine.replica.meta import MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import DEBTORS_KEY
from timemachine.storage.overlay import Overlay

KIND: Final = "credit"
_RATE_KEPT: Final = 2
"""So many times what a node has used of its share lately it keeps: what comes late, bunches."""

_read_debtors: Any = codec.decoder(list[int])


class Neighbours:
    """What credits need to know of the other nodes.

    epoch   counts the lives of this node
    alive   tells whether another node answers, as far as is known
    overlay takes rows of this node
    """

    def __init__(
        self, calls: Calls, overlay: Overlay, epoch: int, alive: Callable[[int], bool]
    ) -> None:
        self.calls = calls
        self.overlay = overlay
        self.epoch = epoch
        self.alive = alive


class Credits:
    """Both sides of lending, and the queues that follow from them.

    `_recorded` are the nodes of which the disk says that they may have credits; nobody else gets
    one. There is no such row until every other member has asked this node once, and so knows that
    it is one: who does not may still use what now is this node's share. `_borrowing` are the limits
    of which queues have credits.
    """

    def __init__(
        self,
        window: Window,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        neighbours: Neighbours,
    ) -> None:
        self._window = window
        self._world = world
        self._runtime = runtime
        self._meta = meta
        self._neighbours = neighbours
        self._others: frozenset[int] = frozenset()
        row = store.get(DEBTORS_KEY)
        self._known = row is not None
        self._recorded: set[int] = set() if row is None else set(_read_debtors(row))
        self._recording: set[int] | None = None
        self._used_ms = world.mono_ms()
        self._invited: set[int] = set()
        self._invited_ms: dict[int, float] = {}
        self._lender = Lender(self._recorded, world.mono_ms())
        self._borrower = Borrower(neighbours.epoch)
        self._borrowing: set[Limit] = set()
        self._next_ms = 0.0
        self._busy = True
        window.lent = self._lent
        neighbours.calls.serve(KIND, self._asked)

    def set_others(self, others: frozenset[int]) -> None:
        """These are the other members of the cluster from now on."""
        self._others = others
        self._next_ms = 0.0
        self._window.wake()

    def lent(self, kind: Kind) -> int:
        """Attempts that others may have by shares of this node, over all routes."""
        return self._lender.totals[kind]

    def borrowed(self, kind: Kind) -> int:
        """Attempts that this node may have by shares of others, over all routes."""
        now_ms = self._world.mono_ms()
        held = [limit for limit in self._borrower.limits() if limit.kind == kind]
        return sum(each.slots for limit in held for each in self._borrower.credits(limit, now_ms))

    def rest_ms(self) -> float:
        """How long there is nothing to do."""
        if not self._busy:
            return limits.CREDIT_RENEW_MS
        return self._next_ms - self._world.mono_ms()

    # --- rounds ----------------------------------------------------------------------------

    def run_out(self, mono_ms: float) -> None:
        """Before slots are given: queues have no more than what is held and has not run out."""
        for limit in list(self._borrowing):
            self._set_credits(limit, mono_ms)

    def round(self, now_ms: int, mono_ms: float) -> None:
        """Ask for what is lacking, give back what is not, want back what is lent and needed."""
        if not self._others and not self._busy:
            return
        if mono_ms < self._next_ms:
            self._busy = True
            return
        self._next_ms = mono_ms + limits.CREDIT_ROUND_MS
        unsettled = bool(self._lender.unsettled)
        changed = self._lender.expire(mono_ms)
        if unsettled and not self._lender.unsettled:
            self._set_all_lent()
        for limit in changed:
            self._set_lent(limit)
        self._forget(mono_ms)
        lacks = self._lacks(now_ms, mono_ms)
        again = self._wanted_back(now_ms, mono_ms)
        calls = self._neighbours.calls
        lenders = [each for each in sorted(self._others) if self._neighbours.alive(each)]
        for node, ask in self._borrower.asks(mono_ms, lenders, lacks, again):
            done = partial(self._answered, node, ask)
            calls.call(node, KIND, codec.encode(ask), done, limits.CREDIT_CALL_MS)
        self.run_out(mono_ms)
        self._busy = bool(
            lacks
            or again
            or self._lender.unsettled
            or self._borrower.limits()
            or any(self._lender.totals.values())
        )

    def _lacks(self, now_ms: int, mono_ms: float) -> dict[Limit, Lack]:
        """What is lacking, and how it stands with what is borrowed."""
        queues = self._window.queues
        lacks = {}
        for limit in sorted({*self._full(mono_ms), *self._borrower.limits()}):
            queue = queues.get(limit.route_uid)
            if queue is None:
                continue
            own = queue.standing(limit.kind, now_ms, mono_ms)
            in_use, wanted = max(0, own.used - own.owned), max(0, own.need - own.owned)
            counts_ms = own.counts_ms
            if limit.kind == Kind.RATE and not is_lent(queue.route.rate):
                # Its period has become too long: what was begun is not given back for that.
                wanted, counts_ms = 0, min(counts_ms, limits.CREDIT_RATE_PERIOD_MS_MAX)
            lacks[limit] = Lack(in_use, wanted, counts_ms)
        return lacks

    def _full(self, mono_ms: float) -> Iterator[Limit]:
        """The limits that hold jobs up."""
        for uid, queue in self._window.queues.items():
            if queue.is_full:
                yield Limit(uid, Kind.FLIGHT)
            if queue.paced and queue.size and queue.rate.is_full(mono_ms):
                yield Limit(uid, Kind.RATE)

    def _wanted_back(self, now_ms: int, mono_ms: float) -> Sequence[int]:
        """The nodes that are to ask: they have what is needed here, may have it, or now may."""
        nodes = self._lender.unsettled | self._invited
        for limit in self._full(mono_ms) if any(self._lender.totals.values()) else ():
            if self._lender.lent(limit):
                own = self._window.queues[limit.route_uid].standing(limit.kind, now_ms, mono_ms)
                if own.need > own.owned:
                    nodes |= self._lender.debtors(limit)
        soon_ms = mono_ms - limits.CREDIT_RENEW_MS
        found = [each for each in sorted(nodes) if self._invited_ms.get(each, soon_ms) <= soon_ms]
        self._invited_ms.update(dict.fromkeys(found, mono_ms))
        return found

    def _answered(self, node: int, ask: Ask, result: bytes | TimeMachineError) -> None:
        answer: Told | None = None
        if isinstance(result, bytes):
            try:
                answer = read_answer(result)
            except CodecError:
                pass  # of a version that answers otherwise: as good as silent
        elif isinstance(result, Unavailable) and result.detail == UNKNOWN_KIND:
            # A program from before there were credits: it holds none.
            self._settled(node)
        mono_ms = self._world.mono_ms()
        for limit in self._borrower.answered(node, ask.number, answer, mono_ms):
            self._set_credits(limit, mono_ms)
        self._wake()

    # --- lending ---------------------------------------------------------------------------

    def _asked(self, sender: int, body: bytes, answer: Answer) -> None:
        ask: Ask = read_ask(body)
        if sender not in self._others:
            raise Unavailable("The node is not known as a member here.")
        epoch = self._neighbours.epoch
        self._invited.discard(sender)
        self._borrower.heard(sender, ask.epoch, again=ask.again)
        if ask.again:
            self._wake()
        if ask.lender_epoch != epoch:
            answer(codec.encode(Told(epoch, False, [])))
            return
        now_ms = self._world.wall_ms()
        mono_ms = self._world.mono_ms()
        recorded = sender in self._recorded
        unsettled = bool(self._lender.unsettled)
        before = self._lender.limits(sender)
        own = partial(self._own, now_ms=now_ms, mono_ms=mono_ms)
        grants = self._lender.take(sender, ask, mono_ms, own, lends=recorded)
        if grants is None:
            answer(codec.encode(Told(epoch, False, [])))
            return
        if not recorded and any(wish.wanted for wish in ask.wishes):
            self._record(sender)
        if unsettled and not self._lender.unsettled:
            self._set_all_lent()
        for limit in before | self._lender.limits(sender):
            self._set_lent(limit)
        self._busy = True
        answer(codec.encode(Told(epoch, True, grants)))

    def _own(self, limit: Limit, now_ms: int, mono_ms: float) -> Own:
        """How this node stands with a limit of a route, of which it may have no jobs."""
        route = self._meta.routes_by_uid.get(limit.route_uid)
        if route is None:
            return NOTHING_OWNED
        most: int | None = route.max_in_flight
        if limit.kind == Kind.RATE:
            most = route.rate.count if is_lent(route.rate) else None
        if most is None:
            return NOTHING_OWNED
        share = self._window.share.of(most)
        queue = self._window.queues.get(limit.route_uid)
        if queue is None:
            return Own(share)
        own = queue.standing(limit.kind, now_ms, mono_ms)
        need = own.need
        if limit.kind == Kind.RATE:
            # What is lent of a rate comes back after a period. A node that keeps below its share
            # would wait for that in each period, if what it does not use at the moment were lent.
            need = max(need, _RATE_KEPT * queue.rate.recent(mono_ms))
        return Own(share, own.used, need)

    def _settled(self, node: int) -> None:
        """A node holds nothing that was lent in a life before."""
        if node in self._lender.unsettled:
            self._lender.unsettled.discard(node)
            if not self._lender.unsettled:
                self._set_all_lent()

    def _record(self, node: int) -> None:
        """Have the disk know that a node may have credits, and then ask it to ask again."""
        known = self._known or all(map(self._lender.knows, self._others))
        if known and self._recording is None and self._runtime.working:
            self._known = True
            self._write({*self._recorded, node}, invited=node)

    def _forget(self, mono_ms: float) -> None:
        """Have the disk forget who has had no credits for long."""
        debtors = self._lender.debtors() | self._lender.unsettled
        if debtors >= self._recorded:
            self._used_ms = mono_ms
        elif (
            mono_ms - self._used_ms >= limits.CREDIT_FORGET_MS
            and self._recording is None
            and self._runtime.working
        ):
            self._used_ms = mono_ms
            # Whom the disk is about to forget gets nothing any more.
            self._recorded &= debtors
            self._write(debtors)

    def _write(self, debtors: set[int], invited: int = 0) -> None:
        def written() -> None:
            self._recorded, self._recording = debtors, None
            if invited:
                self._invited.add(invited)
                self._invited_ms.pop(invited, None)
                self._wake()

        self._recording = debtors
        self._neighbours.overlay.put(DEBTORS_KEY, codec.encode(sorted(debtors)))
        self._runtime.when_written(written)

    # --- queues ----------------------------------------------------------------------------

    def _lent(self, limit: Limit) -> int:
        """What of a limit is not to be used here: all but 1, while it is not known."""
        if self._lender.unsettled:
            if limit.kind == Kind.FLIGHT:
                return limits.ROUTE_IN_FLIGHT_MAX
            route = self._meta.routes_by_uid.get(limit.route_uid)
            if route is not None and is_lent(route.rate):
                return limits.ROUTE_RATE_COUNT_MAX
        return self._lender.lent(limit)

    def _set_lent(self, limit: Limit) -> None:
        queue = self._window.queues.get(limit.route_uid)
        if queue is not None:
            queue.set_lent(limit.kind, self._lent(limit))
            if queue.size:
                self._wake()

    def _set_all_lent(self) -> None:
        for uid in self._window.queues:
            for kind in Kind:
                self._set_lent(Limit(uid, kind))

    def _set_credits(self, limit: Limit, mono_ms: float) -> None:
        queue = self._window.queues.get(limit.route_uid)
        held = () if queue is None else self._borrower.credits(limit, mono_ms)
        if queue is not None:
            queue.set_credits(limit.kind, held)
        if held:
            self._borrowing.add(limit)
        else:
            self._borrowing.discard(limit)

    def _wake(self) -> None:
        self._window.wake()
