"""How many attempts of one route a node may begin in a period, and how many it has begun."""

from timemachine import limits
from timemachine.delivery.borrowing import Credit
from timemachine.delivery.shares import Share
from timemachine.model import Rate

_STEPS = 64
"""So many beginnings are known each by itself; of more, those of so small a part of a period end
together."""


def is_lent(rate: Rate) -> bool:
    """Whether parts of it are lent: of a long period they would be missed too long."""
    return rate.count is not None and rate.period_ms <= limits.CREDIT_RATE_PERIOD_MS_MAX


class _Begun:
    """What was begun between two moments; all of it counts until a period after the last."""

    __slots__ = ("count", "first_ms", "last_ms")

    def __init__(self, at_ms: float) -> None:
        self.first_ms = self.last_ms = at_ms
        self.count = 0


class RateLimit:
    """The share of a route's rate that this node keeps to.

    An attempt counts for a period from its beginning on, by the monotonic clock: at no time are
    there more that count than the node may have, so in no period whatsoever more are begun. That
    is what makes a share something that can be lent: as an attempt under way holds a slot until it
    ends, one that was begun holds its part of the rate until its period is over.

    Where the rate allows less than one attempt for each node, a node has one in its turn; turns
    are periods of the wall clock. Nothing is lent of such a rate, nor of one whose period is long:
    who lent it would wait as long to have it back.

    count  that the route allows in a period; None if it has no rate
    owned  what the node may begin of its own share, without what it has lent; credits of others
           come on top
    period_ms
           of the rate
    """

    __slots__ = (
        "_begun",
        "_credits",
        "_lendable",
        "_lent",
        "_most",
        "_peak",
        "_peak_before",
        "_peak_period",
        "_share",
        "_turn",
        "_turn_used",
        "_turns",
        "_used",
        "count",
        "owned",
        "period_ms",
    )

    def __init__(self) -> None:
        self.count: int | None = None
        self.period_ms = 0
        self._share = 1
        self._lent = 0
        self._credits: tuple[Credit, ...] = ()
        self._lendable = False
        self._turn, self._turns = 0, 1
        self._turn_used = -1
        self._begun: list[_Begun] = []
        self._used = 0
        self._peak = self._peak_before = self._peak_period = 0
        self._set_most()

    def set_limit(self, rate: Rate, share: Share) -> None:
        """The rate is this one now, and the node owns that share of it."""
        self.count = rate.count
        self.period_ms = rate.period_ms
        if rate.count is not None:
            self._share = share.of(rate.count)
            self._turn, self._turns = share.turn(rate.count)
        self._lendable = is_lent(rate) and self._turns == 1
        self._set_most()

    def set_lent(self, lent: int) -> None:
        """So much of the share is lent to other nodes. 1 is never lent."""
        self._lent = lent
        self._set_most()

    def set_credits(self, credits: tuple[Credit, ...]) -> None:
        """What other nodes lend of their shares, without what has run out."""
        self._credits = credits
        self._set_most()

    def _set_most(self) -> None:
        self.owned = max(1, self._share - self._lent)
        # Who lent it when periods were shorter does not wait for the end of a longer one.
        slots = [each.slots for each in self._credits if each.counts_ms >= self.period_ms]
        self._most = self.owned + sum(slots)

    def used(self, mono_ms: float) -> int:
        """How many were begun that still count."""
        begun = self._begun
        while begun and mono_ms >= begun[0].last_ms + self.period_ms:
            self._used -= begun.pop(0).count
        return self._used

    def recent(self, mono_ms: float) -> int:
        """The most that has counted at a time in this period and the one before."""
        self._turn_peaks(mono_ms)
        return max(self._peak, self._peak_before, self.used(mono_ms))

    def _turn_peaks(self, mono_ms: float) -> None:
        number = int(mono_ms // self.period_ms)
        if number != self._peak_period:
            self._peak_before = self._peak if number == self._peak_period + 1 else 0
            self._peak, self._peak_period = 0, number

    def free(self, now_ms: int, mono_ms: float) -> int:
        """How many more may begin now."""
        if self._turns == 1:
            return self._most - self.used(mono_ms)
        number = now_ms // self.period_ms
        return int(number % self._turns == self._turn and number != self._turn_used)

    def begin(self, count: int, now_ms: int, mono_ms: float, ahead_ms: float = 0.0) -> None:
        """So many have begun, or are to `ahead_ms` from now: from then on they count."""
        self.used(mono_ms)
        self._turn_peaks(mono_ms)
        begun = self._begun
        at_ms = max(mono_ms + ahead_ms, begun[-1].last_ms if begun else 0.0)
        if len(begun) < _STEPS or at_ms - begun[-1].first_ms >= self.period_ms / _STEPS:
            begun.append(_Begun(at_ms))
        begun[-1].last_ms = at_ms
        begun[-1].count += count
        self._used += count
        self._peak = max(self._peak, self._used)
        self._turn_used = now_ms // self.period_ms

    def is_full(self, mono_ms: float) -> bool:
        """Whether nothing may begin now, and what others lend would change that."""
        return self._lendable and self.used(mono_ms) >= self._most

    def opens_in_ms(self, now_ms: int, mono_ms: float) -> float:
        """When it allows the next attempt, from now on; not above 0 if it allows one now."""
        if self._turns > 1:
            number = now_ms // self.period_ms
            ahead = (self._turn - number) % self._turns
            if not ahead and number == self._turn_used:
                ahead = self._turns
            return (number + ahead) * self.period_ms - now_ms if ahead else 0
        opens_ms = mono_ms
        over = self.used(mono_ms) - self._most
        for each in self._begun:
            if over < 0:
                break
            over -= each.count
            opens_ms = each.last_ms + self.period_ms
        return opens_ms - mono_ms
