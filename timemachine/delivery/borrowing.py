"""What a node has borrowed of the others' shares, and whom it asks for how much."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from timemachine import limits
from timemachine.delivery.credits import Answer, Ask, Limit, Wish, blocked_ms


class Lack(NamedTuple):
    """How a borrower stands with one limit.

    in_use     how many attempts that count it has beyond its own share
    wanted     how many it would have, with the jobs that are due
    counts_ms  how long one counts that begins now
    """

    in_use: int
    wanted: int
    counts_ms: int


NO_LACK = Lack(0, 0, limits.ROUTE_TIMEOUT_MS_MIN)


class Credit(NamedTuple):
    """So many more attempts may count, and such may begin until `until_ms`.

    None of them is to count for longer than `counts_ms`.
    """

    slots: int
    until_ms: float
    counts_ms: int


class _Held:
    """Of one lender and one limit. The lender counts on `held`, of which `usable` may be used."""

    __slots__ = ("counts_ms", "held", "later_ms", "until_ms", "usable")

    def __init__(self) -> None:
        self.held = 0
        self.usable = 0
        self.until_ms = 0.0
        self.later_ms = 0.0
        self.counts_ms = 0


class _Lender:
    """One node that may lend. `open` is the question that is not answered yet.

    It is told of this life once, also if nothing is wanted: it may know of one before.
    """

    __slots__ = ("asked_ms", "epoch", "held", "later_ms", "open", "told", "wanted")

    def __init__(self) -> None:
        self.epoch = 0
        self.open: Ask | None = None
        self.asked_ms = float("-inf")
        self.later_ms = float("-inf")
        self.told = False
        self.wanted = False
        self.held: dict[Limit, _Held] = {}


class Borrower:
    """Keeps what this node holds of others. All times are of its monotonic clock.

    Invariant: of each lender and limit it uses no more than it has named in its last question, or
    was granted in the answer to that. `epoch` is the life of this node.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._number = 0
        self._lenders: dict[int, _Lender] = {}

    # --- what there is ---------------------------------------------------------------------

    def limits(self) -> set[Limit]:
        """Those of which something is held."""
        return {limit for lender in self._lenders.values() for limit in lender.held}

    def credits(self, limit: Limit, now_ms: float) -> tuple[Credit, ...]:
        """What may be used of a limit."""
        return tuple(
            Credit(held.usable, held.until_ms, held.counts_ms)
            for lender in self._lenders.values()
            if (held := lender.held.get(limit)) is not None
            and held.usable
            and now_ms < held.until_ms
        )

    def heard(self, lender: int, epoch: int, *, again: bool) -> None:
        """A node has said which of its lives this is, and whether it would like to be asked."""
        known = self._lenders.setdefault(lender, _Lender())
        known.epoch = max(known.epoch, epoch)
        known.wanted = known.wanted or again

    # --- asking ----------------------------------------------------------------------------

    def asks(
        self,
        now_ms: float,
        lenders: Sequence[int],
        lacks: Mapping[Limit, Lack],
        again: Sequence[int] = (),
    ) -> Iterator[tuple[int, Ask]]:
        """The questions that are due, to some of `lenders`.

        `lacks` names the limits that lack something, and those of `limits`. Those of `again` are
        asked to ask this node as well.
        """
        self._expire(now_ms)
        due = [each for each in lenders if self._is_due(each, now_ms, lacks, again=each in again)]
        if not due:
            return
        wishes: dict[int, list[Wish]] = {each: [] for each in due}
        for limit in {**lacks, **dict.fromkeys(self.limits())}:
            self._wish(limit, lacks.get(limit, NO_LACK), wishes, now_ms)
        for each in due:
            lender = self._lenders[each]
            self._number += 1
            ask = Ask(self._number, self.epoch, lender.epoch, each in again, wishes[each])
            lender.open = ask
            lender.asked_ms = now_ms
            lender.wanted = False
            yield each, ask

    def _expire(self, now_ms: float) -> None:
        for lender in self._lenders.values():
            for limit, held in list(lender.held.items()):
                if now_ms >= held.until_ms:
                    held.usable = 0
                    if not lender.open and now_ms >= held.until_ms + blocked_ms(held.counts_ms):
                        # The lender is gone, and so is all that was begun by it.
                        del lender.held[limit]

    def _is_due(
        self, node: int, now_ms: float, lacks: Mapping[Limit, Lack], *, again: bool
    ) -> bool:
        lender = self._lenders.setdefault(node, _Lender())
        if lender.open is not None or now_ms < lender.later_ms:
            return False
        since_ms = now_ms - lender.asked_ms
        if since_ms < limits.CREDIT_ROUND_MS:
            return False
        if again or lender.wanted or not lender.told:
            return True
        if lender.held and since_ms >= limits.CREDIT_RENEW_MS:
            return True
        for limit, held in lender.held.items():
            # It wants some of it back, and that is free now.
            lack = lacks.get(limit, NO_LACK)
            if held.held > held.usable and self._held(limit, now_ms) > lack.in_use:
                return True
        for limit, lack in lacks.items():
            known = lender.held.get(limit)
            if (known is None or now_ms >= known.later_ms) and lack.wanted > self._usable(limit):
                return True
        return False

    def _usable(self, limit: Limit) -> int:
        return sum(
            held.usable
            for lender in self._lenders.values()
            if (held := lender.held.get(limit)) is not None
        )

    def _held(self, limit: Limit, now_ms: float) -> int:
        """How much is held of a limit, without what has run out."""
        held = [lender.held.get(limit) for lender in self._lenders.values()]
        return sum([each.held for each in held if each is not None and now_ms < each.until_ms])

    def _wish(self, limit: Limit, lack: Lack, wishes: dict[int, list[Wish]], now_ms: float) -> None:
        """Divide what is lacking of a limit among those that are asked now.

        Of each as much as it lends already, as far as that is needed; if it is not enough, each is
        asked for all of the rest, for it may have nothing, and what is too much is given back.

        What has run out covers only what was begun before, and its lender may use it again when
        that has ended. So of what is in use it is thought to cover what nothing else does, the last
        that ran out first.
        """
        missing = lack.wanted
        asked: list[tuple[int, _Held]] = []
        silent: list[_Held] = []
        for node, lender in self._lenders.items():
            held = lender.held.get(limit)
            if node in wishes:
                asked.append((node, held or _Held()))
            elif held is not None:
                missing -= held.usable
                silent.append(held)
        asked.sort(key=lambda each: -each[1].usable)
        wanted = []
        for _, held in asked:
            part = max(0, min(held.usable, missing))
            missing -= part
            wanted.append(part)
        extra = max(0, missing)
        kept = [min(held.held, part) for (_, held), part in zip(asked, wanted, strict=True)]
        in_use = lack.in_use - sum(kept)
        covers = [(held, held.held) for held in silent]
        covers += [(held, held.held - keep) for (_, held), keep in zip(asked, kept, strict=True)]
        covers.sort(key=lambda each: -min(each[0].until_ms, now_ms))
        for (_, held), keep in zip(asked, kept, strict=True):
            held.held = keep
        for held, most in covers:
            more = max(0, min(most, in_use))
            in_use -= more
            if held not in silent:
                held.held += more
        for (node, held), part in zip(asked, wanted, strict=True):
            held.usable = min(held.usable, held.held)
            full = len(wishes[node]) >= limits.CREDIT_ROUTES_MAX
            want = 0 if full else part + extra
            if held.held or want:
                self._lenders[node].held[limit] = held
                wishes[node].append(Wish(limit, held.held, want, lack.counts_ms))
            else:
                self._lenders[node].held.pop(limit, None)

    # --- answers ---------------------------------------------------------------------------

    def answered(self, node: int, number: int, answer: Answer | None, now_ms: float) -> set[Limit]:
        """The answer to a question, or None if there will be none; the limits it is about."""
        lender = self._lenders.get(node)
        ask = None if lender is None else lender.open
        if lender is None or ask is None or ask.number != number:
            return set()
        lender.open = None
        if answer is None:
            lender.later_ms = now_ms + limits.CREDIT_RENEW_MS
            return set()
        if not answer.taken:
            if answer.epoch > lender.epoch:
                lender.epoch = answer.epoch
                lender.wanted = True
            else:
                lender.later_ms = now_ms + limits.CREDIT_RENEW_MS
            return set()
        lender.told = True
        grants = {grant.limit: grant.count for grant in answer.grants}
        for wish in ask.wishes:
            limit = wish.limit
            held = lender.held[limit]
            held.usable = min(grants.get(limit, 0), wish.wanted)
            held.held = max(held.held, held.usable)
            held.until_ms = lender.asked_ms + limits.CREDIT_MS
            held.counts_ms = wish.counts_ms
            if held.usable < wish.wanted:
                held.later_ms = now_ms + limits.CREDIT_RENEW_MS
            if not held.held and not wish.wanted:
                del lender.held[limit]
        return {wish.limit for wish in ask.wishes}
