"""S8 and S9: claims and sends that are right pass, every planted violation is raised."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.checks.firing import Firing
from tests.checks.violation import Violation

GROUP = (7, 0)
UID = b"u" * 16


class Shop:
    """A group in which node 1 leads term 1, node 2 term 2, and so on; and the moves of tests."""

    def __init__(self) -> None:
        self.firing = Firing(lambda _, term: term, clock_bound_ms=5)
        self.leases = {1: True, 2: False}
        for node in self.leases:
            self.firing.replica(node, GROUP, partial(self._leased, node))
        self.firing.written(GROUP, "a", UID, 1)

    def _leased(self, node: int) -> bool:
        return self.leases[node]

    def claim(
        self, number: int = 1, *, index: int = 5, term: int = 1, version: int = 1, **other: int
    ) -> None:
        """A claim holds, by default 20 ms before its time, which is 100."""
        fields = {"entry_term": term, "now_ms": 80, "due_ms": 100, "lead_ms": 20} | other
        self.firing.claimed(
            GROUP,
            "a",
            (UID, version, number),
            webhook_id=f"id-{version}",
            index=index,
            term=term,
            **fields,
        )

    def send(
        self, node: int = 1, number: int = 1, *, index: int = 5, version: int = 1, at_ms: int = 100
    ) -> None:
        """A send begins."""
        self.firing.sent(node, f"id-{version}", number, index=index, wall_ms=at_ms, true_ms=at_ms)

    def hand_over(self) -> None:
        """The lease of node 1 ends, and node 2 fires in term 2."""
        self.leases = {1: False, 2: True}
        self.firing.may_fire(2, GROUP, 2)


@pytest.fixture
def shop() -> Shop:
    """A group that fires."""
    made = Shop()
    made.firing.may_fire(1, GROUP, 1)
    return made


def breaks(rule: str, move: Callable[[], object]) -> str:
    """The sentence with which a move breaks a rule."""
    with pytest.raises(Violation) as caught:
        move()
    assert rule == caught.value.rule
    return str(caught.value)


def test_right_moves_break_nothing(shop: Shop) -> None:
    """Claim, send, settle; again; change; claim, take back, claim anew, send; hand over."""
    shop.claim()
    shop.send()
    shop.firing.settled((UID, 1, 1))
    shop.claim(2, index=6)
    shop.send(number=2, index=6)
    shop.firing.settled((UID, 1, 2))
    shop.firing.written(GROUP, "a", UID, 2)
    shop.claim(version=2, index=7)
    shop.firing.taken_back(GROUP, (UID, 2, 1))
    shop.claim(version=2, index=8)
    shop.send(version=2, index=8)
    shop.hand_over()
    shop.firing.settled((UID, 2, 1))
    shop.claim(2, version=2, index=9, term=2)
    shop.send(2, 2, version=2, index=9)


def test_each_entry_is_judged_once(shop: Shop) -> None:
    """By the first replica that applies it."""
    assert [True, False, True] == [shop.firing.judges(GROUP, index) for index in (1, 1, 2)]
    assert shop.firing.judges((7, 1), 1)


# --- S8 ------------------------------------------------------------------------------------------


def test_two_claims_of_an_attempt(shop: Shop) -> None:
    """S8: also after it was settled."""
    shop.claim()
    told = breaks("S8", lambda: shop.claim(index=6))
    assert "S8: group (7, 0): a version 1 attempt 1 is claimed at 5 and again at 6" == told
    shop.firing.settled((UID, 1, 1))
    breaks("S8", lambda: shop.claim(index=6))


def test_claim_of_a_version_that_is_not_live(shop: Shop) -> None:
    """S8: replaced, or of another life."""
    shop.firing.written(GROUP, "a", UID, 2)
    breaks("S8", shop.claim)
    shop.firing.written(GROUP, "a", b"v" * 16, 1)
    breaks("S8", shop.claim)


def test_claim_of_what_nobody_followed(shop: Shop) -> None:
    """A bulk task changed it: then nothing is known."""
    shop.firing.written(GROUP, "a", UID, 2)
    shop.firing.unknown(GROUP, "a")
    shop.claim()


def test_claim_too_early(shop: Shop) -> None:
    """S8: by the clock of who decided; at most once leaves no time ahead."""
    breaks("S8", lambda: shop.claim(now_ms=79))
    breaks("S8", lambda: shop.claim(now_ms=99, lead_ms=0))


def test_claim_of_a_term_that_is_over(shop: Shop) -> None:
    """S8."""
    breaks("S8", lambda: shop.claim(entry_term=2))


def test_claim_taken_back_though_it_was_sent(shop: Shop) -> None:
    """S8; not if its send was withdrawn, or its outcome is known."""
    shop.claim()
    shop.send()
    breaks("S8", lambda: shop.firing.taken_back(GROUP, (UID, 1, 1)))
    shop.firing.unsent("id-1", 1)
    shop.firing.taken_back(GROUP, (UID, 1, 1))
    shop.firing.taken_back(GROUP, (UID, 1, 9))


def test_claim_of_another_term_is_not_taken_back(shop: Shop) -> None:
    """Its own leader sent it; the newer one speaks of a claim that did not hold."""
    shop.claim()
    shop.send()
    shop.firing.taken_back(GROUP, (UID, 1, 1), 2)
    breaks("S8", lambda: shop.firing.taken_back(GROUP, (UID, 1, 1), 1))


# --- S9 ------------------------------------------------------------------------------------------


def test_send_without_a_claim(shop: Shop) -> None:
    """S9: none at all, one of another attempt, one taken back, one of another place."""
    breaks("S9", shop.send)
    shop.claim()
    breaks("S9", lambda: shop.send(number=2))
    breaks("S9", lambda: shop.send(index=4))
    shop.firing.taken_back(GROUP, (UID, 1, 1))
    assert "taken back" in breaks("S9", shop.send)


def test_one_claim_sent_twice(shop: Shop) -> None:
    """S9."""
    shop.claim()
    shop.send()
    breaks("S9", shop.send)


def test_send_before_its_time(shop: Shop) -> None:
    """S9: by the clock of its node, and by the true time but for the bound of clocks."""
    shop.claim()
    breaks("S9", lambda: shop.send(at_ms=99))
    send = shop.firing.sent
    breaks("S9", lambda: send(1, "id-1", 1, index=5, wall_ms=100, true_ms=94))
    send(1, "id-1", 1, index=5, wall_ms=100, true_ms=95)


def test_send_after_its_outcome(shop: Shop) -> None:
    """S9: somebody has said that nobody knows it."""
    shop.claim()
    shop.firing.settled((UID, 1, 1))
    breaks("S9", shop.send)


def test_send_that_stood_still(shop: Shop) -> None:
    """S9: its bytes leave when others have gone on."""
    breaks("S9", lambda: shop.firing.left("id-1", 1))
    shop.claim()
    shop.send()
    shop.firing.left("id-1", 1)
    shop.firing.settled((UID, 1, 1))
    breaks("S9", lambda: shop.firing.left("id-1", 1))
    shop.claim(2, index=6)
    shop.send(number=2, index=6)
    shop.claim(3, index=7)
    breaks("S9", lambda: shop.firing.left("id-1", 2))
    shop.firing.unsent("id-1", 3)
    breaks("S9", lambda: shop.firing.left("id-1", 3))


def test_send_after_a_later_claim(shop: Shop) -> None:
    """S9."""
    shop.claim()
    shop.claim(2, index=6)
    breaks("S9", shop.send)


def test_send_by_another_than_who_claimed(shop: Shop) -> None:
    """S9."""
    shop.claim()
    shop.leases[2] = True
    breaks("S9", lambda: shop.send(2))


def test_send_without_a_lease(shop: Shop) -> None:
    """S9: its own clock would tell."""
    shop.claim()
    shop.leases[1] = False
    breaks("S9", shop.send)


def test_send_after_the_next_leader_fires(shop: Shop) -> None:
    """S9: a lease that it still believes in is stale."""
    shop.claim()
    shop.hand_over()
    shop.leases[1] = True
    assert "after others fired in 2" in breaks("S9", shop.send)


def test_two_leases_at_one_time(shop: Shop) -> None:
    """S9: the new one may fire while the old one thinks that it may."""
    breaks("S9", lambda: shop.firing.may_fire(2, GROUP, 2))


def test_node_that_crashed_holds_nothing(shop: Shop) -> None:
    """So the next one may fire."""
    shop.firing.gone(1)
    shop.firing.may_fire(2, GROUP, 2)
    breaks("S9", lambda: shop.firing.may_fire(1, GROUP, 1))


def test_lease_that_was_given_up(shop: Shop) -> None:
    """S9: who asked another to campaign neither sends nor may fire, for the rest of the term."""
    shop.claim()
    shop.firing.gave_up(1, GROUP, 1)
    breaks("S9", shop.send)
    breaks("S9", lambda: shop.firing.may_fire(1, GROUP, 1))
    shop.firing.may_fire(1, GROUP, 3)


def test_claim_that_is_closed_by_anything_but_its_outcome(shop: Shop) -> None:
    """S8: of the live version; one that is settled, taken back or of before may be closed."""
    firing = shop.firing
    assert 0 == firing.open_claim(GROUP, "a")
    shop.claim()
    assert 5 == firing.open_claim(GROUP, "a")
    with pytest.raises(Violation) as raised:
        firing.closed(GROUP, "a", 5)
    assert "S8" == raised.value.rule
    firing.written(GROUP, "a", UID, 2)
    assert 0 == firing.open_claim(GROUP, "a")
    shop.claim(version=2, index=6)
    assert 6 == firing.open_claim(GROUP, "a")
    firing.settled((UID, 1, 1))
    assert 6 == firing.open_claim(GROUP, "a")
    firing.settled((UID, 2, 1))
    assert 0 == firing.open_claim(GROUP, "a")


def test_leader_that_has_given_up(shop: Shop) -> None:
    """For this term, not for one to come."""
    firing = shop.firing
    assert not firing.has_given_up(1, GROUP, 1)
    firing.gave_up(1, GROUP, 1)
    assert [True, False] == [firing.has_given_up(1, GROUP, term) for term in (1, 2)]
