"""What a node has lent of its shares, and how it divides what it can spare."""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from timemachine import limits
from timemachine.delivery.credits import Ask, Grant, Wish, blocked_ms


class Own(NamedTuple):
    """How a lender stands with one route.

    share      what it owns of `max_in_flight`
    in_flight  how many attempts it has under way
    need       how many it would have, with the jobs that are due
    """

    share: int
    in_flight: int = 0
    need: int = 0


NOTHING_OWNED = Own(0)


class _Loan:
    """What one life of a borrower has of one route: `count` until `until_ms` at the latest."""

    __slots__ = ("asked_ms", "count", "until_ms", "wanted")

    def __init__(self) -> None:
        self.count = 0
        self.wanted = 0
        self.asked_ms = 0.0
        self.until_ms = 0.0


class _Debtor:
    """One life of a borrower."""

    __slots__ = ("epoch", "loans", "number")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.number = 0
        self.loans: dict[int, _Loan] = {}


class Lender:
    """Keeps what is lent, by route. All times are of this node's monotonic clock.

    `total` is what is lent, over all routes.

    Invariants: what is lent of a route is at least what all borrowers together may use of it.
    While `unsettled` names nodes, the node that begins anew does not know what these hold.
    A grant leaves the lender what it has under way, and at least 1.
    """

    def __init__(self, debtors: Collection[int] = (), now_ms: float = 0.0) -> None:
        """A life begins now; in the one before these nodes may have had credits."""
        self.unsettled = set(debtors)
        self._settled_ms = now_ms + blocked_ms(limits.ROUTE_TIMEOUT_MS_MAX)
        self._debtors: dict[int, _Debtor] = {}
        self._lent: dict[int, int] = {}
        self.total = 0

    def lent(self, route_uid: int) -> int:
        """How much of a route is lent at the moment."""
        return self._lent.get(route_uid, 0)

    def routes(self, node: int) -> set[int]:
        """The routes of which a node has something, or wants it."""
        debtor = self._debtors.get(node)
        return set() if debtor is None else set(debtor.loans)

    def knows(self, node: int) -> bool:
        """Whether a node has asked this one, in this life."""
        return node in self._debtors

    def debtors(self, route_uid: int | None = None) -> set[int]:
        """The nodes that have credits, of one route or of any."""
        return {
            node
            for node, debtor in self._debtors.items()
            for uid, loan in debtor.loans.items()
            if loan.count and route_uid in (None, uid)
        }

    def expire(self, now_ms: float) -> set[int]:
        """Take back what nobody can use any more; the routes of which less is lent by now."""
        if self.unsettled and now_ms >= self._settled_ms:
            self.unsettled.clear()
        changed = set()
        for debtor in self._debtors.values():
            for uid in [uid for uid, loan in debtor.loans.items() if now_ms >= loan.until_ms]:
                self._set_loan(uid, debtor.loans.pop(uid), 0)
                changed.add(uid)
        return changed

    def take(
        self, node: int, ask: Ask, now_ms: float, own: Callable[[int], Own], *, lends: bool = True
    ) -> list[Grant] | None:
        """Take a question that was meant for this life; None if it is late or came twice.

        Of a new life of its node it tells that what the one before had is free. `own` tells how
        this node stands with a route. If it does not lend, it only takes back.
        """
        debtor = self._debtors.get(node)
        if debtor is None or ask.epoch > debtor.epoch:
            if debtor is not None:
                # That process has ended, and its requests with it.
                for uid in list(debtor.loans):
                    self._set_loan(uid, debtor.loans.pop(uid), 0)
            debtor = self._debtors[node] = _Debtor(ask.epoch)
        elif ask.epoch < debtor.epoch or ask.number <= debtor.number:
            return None
        debtor.number = ask.number
        self.unsettled.discard(node)
        # All are written down first: what is given back of one is no matter for the others, but
        # who wants how much is.
        for wish in ask.wishes:
            self._write_down(debtor, wish, now_ms)
        named = {wish.route_uid for wish in ask.wishes}
        for uid in [uid for uid in debtor.loans if uid not in named]:
            self._set(debtor, uid, 0)
        lends = lends and not self.unsettled
        grants = []
        for wish in ask.wishes:
            uid = wish.route_uid
            count = self._grant(debtor, wish, now_ms, own(uid)) if lends else 0
            if count:
                grants.append(Grant(uid, count))
            self._set(debtor, uid, max(wish.held, count))
        return grants

    def _write_down(self, debtor: _Debtor, wish: Wish, now_ms: float) -> None:
        loan = debtor.loans.get(wish.route_uid)
        if loan is None:
            loan = debtor.loans[wish.route_uid] = _Loan()
        loan.wanted = wish.wanted
        loan.asked_ms = now_ms
        # What was begun before may take as long as was said before.
        loan.until_ms = max(loan.until_ms, now_ms + blocked_ms(wish.timeout_ms))
        self._set_loan(wish.route_uid, loan, wish.held)

    def _grant(self, debtor: _Debtor, wish: Wish, now_ms: float, own: Own) -> int:
        uid = wish.route_uid
        wants = [
            (each.wanted, other is debtor)
            for other, each in self._loans(uid)
            if now_ms - each.asked_ms < limits.CREDIT_MS
        ]
        spare = own.share - max(1, own.need, own.in_flight)
        room = own.share - max(1, own.in_flight) - self.lent(uid) + debtor.loans[uid].count
        return max(0, min(divide(spare, wants), room))

    def _loans(self, route_uid: int) -> Iterable[tuple[_Debtor, _Loan]]:
        for debtor in self._debtors.values():
            loan = debtor.loans.get(route_uid)
            if loan is not None:
                yield debtor, loan

    def _set(self, debtor: _Debtor, route_uid: int, count: int) -> None:
        """So much is lent of a route; a borrower that has nothing of it is forgotten."""
        loan = debtor.loans[route_uid]
        self._set_loan(route_uid, loan, count)
        if not count and not loan.wanted:
            del debtor.loans[route_uid]

    def _set_loan(self, route_uid: int, loan: _Loan, count: int) -> None:
        lent = self.lent(route_uid) + count - loan.count
        self.total += count - loan.count
        loan.count = count
        if lent:
            self._lent[route_uid] = lent
        else:
            self._lent.pop(route_uid, None)


def divide(spare: int, wants: list[tuple[int, bool]]) -> int:
    """What one borrower is to have where several want (how much, whether it is that one).

    Nobody gets more than it wants, and who wants more than an even part gets that, and of what the
    others leave. What cannot be divided evenly goes to those that want least.
    """
    left = len(wants)
    for wanted, is_it in sorted(wants):
        part = min(wanted, max(0, -(-spare // left)))
        if is_it:
            return part
        spare -= part
        left -= 1
    return 0
