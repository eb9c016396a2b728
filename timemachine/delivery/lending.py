"""What a node has lent of its shares, and how it divides what it can spare."""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from timemachine import limits
from timemachine.delivery.credits import Ask, Grant, Kind, Limit, Wish, blocked_ms


class Own(NamedTuple):
    """How a lender stands with one limit.

    share  what it owns of it
    used   how many attempts it has that count
    need   how many it would have, with the jobs that are due
    """

    share: int
    used: int = 0
    need: int = 0


NOTHING_OWNED = Own(0)


class _Loan:
    """What one life of a borrower has of one limit: `count` until `until_ms` at the latest."""

    __slots__ = ("asked_ms", "count", "until_ms", "wanted")

    def __init__(self) -> None:
        self.count = 0
        self.wanted = 0
        self.asked_ms = 0.0
        self.until_ms = 0.0


class _Debtor:
    """One life of a borrower. `before` is what those before it have begun that may still count."""

    __slots__ = ("before", "epoch", "loans", "number")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.number = 0
        self.loans: dict[Limit, _Loan] = {}
        self.before: list[tuple[Limit, _Loan]] = []


class Lender:
    """Keeps what is lent, by limit. All times are of this node's monotonic clock.

    `totals` is what is lent over all routes, by kind.

    Invariants: what is lent of a limit is at least what all borrowers together may use of it.
    While `unsettled` names nodes, the node that begins anew does not know what these hold.
    A grant leaves the lender what it has that counts, and at least 1.
    """

    def __init__(self, debtors: Collection[int] = (), now_ms: float = 0.0) -> None:
        """A life begins now; in the one before these nodes may have had credits."""
        self.unsettled = set(debtors)
        longest_ms = max(limits.ROUTE_TIMEOUT_MS_MAX, limits.CREDIT_RATE_PERIOD_MS_MAX)
        self._settled_ms = now_ms + blocked_ms(longest_ms)
        self._debtors: dict[int, _Debtor] = {}
        self._lent: dict[Limit, int] = {}
        self.totals = dict.fromkeys(Kind, 0)

    def lent(self, limit: Limit) -> int:
        """How much of a limit is lent at the moment."""
        return self._lent.get(limit, 0)

    def limits(self, node: int) -> set[Limit]:
        """The limits of which a node has something, or wants it."""
        debtor = self._debtors.get(node)
        return set() if debtor is None else set(debtor.loans)

    def knows(self, node: int) -> bool:
        """Whether a node has asked this one, in this life."""
        return node in self._debtors

    def debtors(self, of: Limit | None = None) -> set[int]:
        """The nodes that have credits, of one limit or of any."""
        return {
            node
            for node, debtor in self._debtors.items()
            for limit, loan in debtor.loans.items()
            if loan.count and of in (None, limit)
        }

    def expire(self, now_ms: float) -> set[Limit]:
        """Take back what nobody can use any more; the limits of which less is lent by now."""
        if self.unsettled and now_ms >= self._settled_ms:
            self.unsettled.clear()
        changed = set()
        for debtor in self._debtors.values():
            for limit in [limit for limit, loan in debtor.loans.items() if now_ms >= loan.until_ms]:
                self._set_loan(limit, debtor.loans.pop(limit), 0)
                changed.add(limit)
            for over in [each for each in debtor.before if now_ms >= each[1].until_ms]:
                debtor.before.remove(over)
                self._set_loan(*over, 0)
                changed.add(over[0])
        return changed

    def take(
        self, node: int, ask: Ask, now_ms: float, own: Callable[[Limit], Own], *, lends: bool = True
    ) -> list[Grant] | None:
        """Take a question that was meant for this life; None if it is late or came twice.

        Of a new life of its node it tells that nothing of the one before is under way. `own` tells
        how this node stands with a limit. If it does not lend, it only takes back.
        """
        debtor = self._debtors.get(node)
        if debtor is None or ask.epoch > debtor.epoch:
            debtor = self._debtors[node] = self._begin_anew(debtor, ask.epoch)
        elif ask.epoch < debtor.epoch or ask.number <= debtor.number:
            return None
        debtor.number = ask.number
        self.unsettled.discard(node)
        # All are written down first: what is given back of one is no matter for the others, but
        # who wants how much is.
        for wish in ask.wishes:
            self._write_down(debtor, wish, now_ms)
        named = {wish.limit for wish in ask.wishes}
        for limit in [limit for limit in debtor.loans if limit not in named]:
            self._set(debtor, limit, 0)
        lends = lends and not self.unsettled
        grants = []
        for wish in ask.wishes:
            limit = wish.limit
            count = self._grant(debtor, wish, now_ms, own(limit)) if lends else 0
            if count:
                grants.append(Grant(limit, count))
            self._set(debtor, limit, max(wish.held, count))
        return grants

    def _begin_anew(self, debtor: _Debtor | None, epoch: int) -> _Debtor:
        anew = _Debtor(epoch)
        if debtor is not None:
            # That process has ended, and its requests with it. What it began of a rate counts on.
            anew.before = debtor.before
            for limit, loan in debtor.loans.items():
                if limit.kind == Kind.FLIGHT:
                    self._set_loan(limit, loan, 0)
                elif loan.count:
                    anew.before.append((limit, loan))
        return anew

    def _write_down(self, debtor: _Debtor, wish: Wish, now_ms: float) -> None:
        loan = debtor.loans.get(wish.limit)
        if loan is None:
            loan = debtor.loans[wish.limit] = _Loan()
        loan.wanted = wish.wanted
        loan.asked_ms = now_ms
        # What was begun before may take as long as was said before.
        loan.until_ms = max(loan.until_ms, now_ms + blocked_ms(wish.counts_ms))
        self._set_loan(wish.limit, loan, wish.held)

    def _grant(self, debtor: _Debtor, wish: Wish, now_ms: float, own: Own) -> int:
        limit = wish.limit
        wants = [
            (each.wanted, other is debtor)
            for other, each in self._loans(limit)
            if now_ms - each.asked_ms < limits.CREDIT_MS
        ]
        spare = own.share - max(1, own.need, own.used)
        room = own.share - max(1, own.used) - self.lent(limit) + debtor.loans[limit].count
        return max(0, min(divide(spare, wants), room))

    def _loans(self, limit: Limit) -> Iterable[tuple[_Debtor, _Loan]]:
        for debtor in self._debtors.values():
            loan = debtor.loans.get(limit)
            if loan is not None:
                yield debtor, loan

    def _set(self, debtor: _Debtor, limit: Limit, count: int) -> None:
        """So much is lent of a limit; a borrower that has nothing of it is forgotten."""
        loan = debtor.loans[limit]
        self._set_loan(limit, loan, count)
        if not count and not loan.wanted:
            del debtor.loans[limit]

    def _set_loan(self, limit: Limit, loan: _Loan, count: int) -> None:
        lent = self.lent(limit) + count - loan.count
        self.totals[limit.kind] += count - loan.count
        loan.count = count
        if lent:
            self._lent[limit] = lent
        else:
            self._lent.pop(limit, None)


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
