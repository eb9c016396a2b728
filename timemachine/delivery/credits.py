"""What nodes say to each other about the parts of a route's limits that they lend.

Every node owns a share (`shares.py`). What it does not need it lends to nodes that lack it, as
credits: how many more attempts a borrower may have that count. Of `max_in_flight` an attempt counts
while it is under way, of `rate` for a period since it was begun. At no moment may all nodes
together have more that count than all shares, so

* a lender does not use what it has lent until it is given back, or until the last attempt that
  may have been begun by it must have ceased to count: `CREDIT_MS` after the borrower asked no
  attempt is begun any more, and each counts no longer than the borrower named;
* a borrower measures `CREDIT_MS` from before it asked, a lender from after it was asked, and
  adds what clocks may drift apart;
* a lender keeps at least 1 of each, so that its own jobs never wait for anybody.

A borrower tells a lender all that it holds of it in each question. So a question that was lost is
made good by the next one, and nothing has to be told apart. Questions are numbered within the life
of a borrower, and name the life of the lender: what is late, or came twice, or was meant for a life
before, is not taken. What a borrower has named as held it will not exceed, whatever answers to
questions of before may say; so whoever asks again forgets those.

A lender that begins anew does not know what it has lent. It has kept on its disk to whom it has,
and uses no more than the 1 that it never lends until each of these has asked (`lending.py`).
A borrower that begins anew has nothing under way; but what it has begun before counts in a period
that is not over, and it does not know of it. So what it had of a rate is left alone.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from timemachine import codec, limits

DRIFT: Final = 0.02
"""By how much two monotonic clocks may differ, as a fraction."""

MARGIN_MS: Final = limits.HANDOVER_MARGIN_MS
"""Beyond its time, until an attempt must have ceased to count."""


class Kind(IntEnum):
    """Which limit of a route: on what is under way, or on what is begun in a period."""

    FLIGHT = 0
    RATE = 1


class Limit(NamedTuple):
    """One limit of one route."""

    route_uid: int
    kind: Kind


class Wish(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a borrower says of one limit.

    held       so many attempts that count it may have beyond its own share, by what it was lent
    wanted     so many it would like to have
    counts_ms  an attempt that it begins by credit counts no longer: of flight the time-out of the
               route, of a rate the period
    """

    limit: Limit
    held: int
    wanted: int
    counts_ms: int


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that a borrower holds of a lender, and wants of it; a limit that is not named: nothing.

    number  of the question, rising in each life of the borrower
    epoch   the life of the borrower
    lender_epoch
            the life of the lender that is meant, 0 if the borrower does not know it
    again   the borrower would like to be asked by this lender, soon: it wants its own back, or does
            not know any more what it has lent
    """

    number: int
    epoch: int
    lender_epoch: int
    again: bool
    wishes: list[Wish]


class Grant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """So many attempts that count a borrower may have beyond its own share, of one lender's."""

    limit: Limit
    count: int


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to an Ask. `epoch` is the lender's life; what was not `taken` changed nothing."""

    epoch: int
    taken: bool
    grants: list[Grant]


read_ask = codec.decoder(Ask)
read_answer = codec.decoder(Answer)


def blocked_ms(counts_ms: int) -> float:
    """How long after it was asked a lender does not use what it lends, if it hears no more."""
    return (limits.CREDIT_MS + counts_ms) * (1 + DRIFT) + MARGIN_MS
