"""Jobs with an ordering key: whose turn it is, and when it passes on."""

from typing import Any

import pytest

from tests.property.test_machine_twin import Bench
from timemachine import limits
from timemachine.model import JobState, Queue
from timemachine.replica import commands as c
from timemachine.replica.records import read_alias

KEY = "k"
DEADLINE_MS = 5_000


class Keyed(Bench):
    """A machine whose jobs have an ordering key."""

    def put(self, job_id: str, trigger_ms: int, now_ms: int = 100, **fields: Any) -> Any:
        """Create or replace a job."""
        command = c.PutJob(
            **{
                "now_ms": now_ms,
                "job_id": job_id,
                "uid": b"%016d" % (self.index + 1),
                "trigger_ms": trigger_ms,
                "delay_ms": None,
                "route": "r",
                "route_uid": 1,
                "meta": b"1",
                "ordering_key": KEY,
                "placed_ms": now_ms,
                **fields,
            }
        )
        return self.do(command)[0]

    def do(self, *commands: Any) -> list[Any]:
        """Apply one entry, and check all invariants."""
        results = self.apply(*commands)
        self.check()
        return results

    def seen(self, job_id: str) -> c.PendingItem:
        """A job as its leader sees it."""
        job = self.jobs()[job_id]
        return c.PendingItem(job_id, job.uid, job.version, job.attempts)

    def claim(self, job_id: str, now_ms: int = 20_000) -> bool:
        """Whether a claim of the next attempt holds."""
        job = self.jobs()[job_id]
        item = c.ClaimItem(job_id, job.uid, job.version, job.attempts + 1, DEADLINE_MS)
        ((result,),) = self.do(c.Claim(now_ms=now_ms, term=self.term, items=[item]))
        return bool(result.holds)

    def settle(self, job_id: str, verdict: int, now_ms: int = 300, retry_ms: int = 0) -> None:
        """End the open attempt."""
        job = self.jobs()[job_id]
        item = c.SettleItem(
            job_id, job.uid, job.version, job.attempts, job.serial, verdict, b"", retry_ms
        )
        self.do(c.Settle(now_ms=now_ms, items=[item]))

    def aside(self, *job_ids: str) -> None:
        """Have jobs stand aside, if it is not their turn."""
        self.do(c.StandAside(now_ms=150, items=[self.seen(each) for each in job_ids]))

    def queue(self, job_id: str) -> Queue:
        """Which index has a job."""
        return Queue(self.jobs()[job_id].queue)


@pytest.mark.parametrize("verdict", [c.VERDICT_DELIVERED, c.VERDICT_DEAD])
def test_one_after_the_other(verdict: int) -> None:
    """By trigger time, then as they were made; what waits is due when it gets its turn."""
    bench = Keyed()
    for job_id, trigger_ms in (("c", 20), ("b", 10), ("d", 20), ("a", 5)):
        bench.put(job_id, trigger_ms)
    for job_id in "bcd":
        assert not bench.claim(job_id)
        assert Queue.BEHIND == bench.queue(job_id)
    for at, job_id in enumerate("abcd"):
        assert Queue.DUE == bench.queue(job_id)
        assert bench.claim(job_id)
        for other in "abcd"[at + 1 :]:
            assert not bench.claim(other)
        bench.settle(job_id, verdict, now_ms=1_000 + at)
    orders = {job_id: job.order for job_id, job in bench.jobs().items()}
    assert [(0, ""), (1_000, "a"), (1_001, "b"), (1_002, "c")] == [
        (orders[each].turn_ms, orders[each].behind) for each in "abcd"
    ]
    assert set() == bench.suffixes(bench.keys.turn) == bench.suffixes(bench.keys.order)


def test_other_keys_and_routes_have_turns_of_their_own() -> None:
    """And a job without a key waits for nobody."""
    bench = Keyed()
    bench.put("first", 1)
    bench.put("other key", 2, ordering_key="k2")
    bench.put("other route", 2, route="s", route_uid=2)
    bench.put("none", 2, ordering_key=None)
    bench.put("behind", 2)
    assert [True] * 4 == [bench.claim(e) for e in ("first", "other key", "other route", "none")]
    assert not bench.claim("behind")


def test_a_retry_keeps_its_turn() -> None:
    """Whatever is made, moved or sent again to come before it."""
    bench = Keyed()
    bench.put("a", 50)
    bench.put("b", 60)
    assert bench.claim("a")
    bench.put("early", 1)
    bench.settle("a", c.VERDICT_RETRY, retry_ms=9_000)
    assert not bench.claim("early")
    assert not bench.claim("b")
    bench.do(c.PatchJob(now_ms=400, job_id="b", trigger_ms=2))
    assert not bench.claim("b")
    assert bench.claim("a")
    bench.settle("a", c.VERDICT_DELIVERED)
    assert [False, True] == [bench.claim("b"), bench.claim("early")]


def test_a_claim_that_is_taken_back_gives_the_turn_to_who_comes_first() -> None:
    """Nothing was sent, so what was made meanwhile comes before it."""
    bench = Keyed()
    bench.put("a", 50)
    assert bench.claim("a")
    bench.put("early", 1)
    bench.aside("early")
    assert Queue.BEHIND == bench.queue("early")
    job = bench.jobs()["a"]
    item = c.ClaimItem("a", job.uid, job.version, 1, 0)
    bench.do(c.Unclaim(now_ms=300, items=[item]))
    assert Queue.DUE == bench.queue("early")
    assert [False, True] == [bench.claim("a"), bench.claim("early")]


def test_a_held_job_holds_up_those_behind_it() -> None:
    """Its route is paused; they do not become held themselves."""
    bench = Keyed()
    bench.put("a", 1)
    bench.put("b", 2)
    bench.do(c.Wait(now_ms=100, items=[bench.seen("a")], held=True))
    bench.aside("a", "b")
    bench.do(c.Wait(now_ms=100, items=[bench.seen("b")], held=True))
    states = {job_id: (JobState(j.state), Queue(j.queue)) for job_id, j in bench.jobs().items()}
    assert {
        "a": (JobState.HELD, Queue.WAITING),
        "b": (JobState.SCHEDULED, Queue.BEHIND),
    } == states
    bench.do(c.Release(now_ms=200, items=[bench.seen("a")]))
    assert bench.claim("a")


@pytest.mark.parametrize("how", ["delete", "purge", "move", "other route", "give up"])
def test_whoever_goes_passes_the_turn_on(how: str) -> None:
    """Deleted, purged, moved behind the others, given to another route, or given up."""
    bench = Keyed()
    bench.put("a", 1)
    bench.put("b", 2)
    bench.aside("b")
    commands = {
        "delete": c.DeleteJob(now_ms=500, job_id="a"),
        "purge": c.DeleteJob(now_ms=500, job_id="a", purge=True),
        "move": c.PatchJob(now_ms=500, job_id="a", trigger_ms=3),
        "other route": c.PatchJob(now_ms=500, job_id="a", route="s", route_uid=2),
        "give up": c.GiveUp(now_ms=500, items=[bench.seen("a")], reason="x", error="y"),
    }
    bench.do(commands[how])
    assert (Queue.DUE, 500) == (bench.queue("b"), bench.jobs()["b"].due_ms)
    assert bench.claim("b")


@pytest.mark.parametrize("how", ["purge", "replace"])
def test_an_attempt_that_nobody_waits_for_is_over_before_the_next_begins(how: str) -> None:
    """Of a job that was purged or replaced in flight: whoever comes next is due at its deadline."""
    bench = Keyed()
    bench.put("a", 1)
    bench.put("b", 2)
    bench.aside("b")
    assert bench.claim("a")
    if how == "purge":
        bench.do(c.DeleteJob(now_ms=500, job_id="a", purge=True))
    else:
        bench.put("a", 3, now_ms=500)
    assert (Queue.DUE, DEADLINE_MS) == (bench.queue("b"), bench.jobs()["b"].due_ms)
    bench.put("first", 0, now_ms=600)
    assert DEADLINE_MS == bench.jobs()["first"].due_ms
    bench.do(c.RunJob(now_ms=700, job_id="first"))
    assert DEADLINE_MS == bench.jobs()["first"].due_ms


@pytest.mark.parametrize("how", ["delete", "purge", "replace", "dead", "repeated"])
def test_an_attempt_that_was_given_up_is_over_before_another_job_is_sent(how: str) -> None:
    """Named regression: of a job that was cancelled before its repeat the attempt was forgotten.

    The repeat itself is not kept waiting, nor is anybody when it was delivered: it is the same
    webhook.
    """
    bench = Keyed()
    bench.put("a", 1)
    bench.put("b", 2)
    bench.aside("b")
    assert bench.claim("a")
    bench.term += 1
    bench.settle("a", c.VERDICT_RETRY, now_ms=400, retry_ms=400)
    assert 400 == bench.jobs()["a"].due_ms
    due_ms = DEADLINE_MS
    match how:
        case "delete" | "purge":
            bench.do(c.DeleteJob(now_ms=500, job_id="a", purge=how == "purge"))
        case "replace":
            bench.put("a", 3, now_ms=500)
        case _:
            assert bench.claim("a", now_ms=450)
            ok = how == "repeated"
            bench.settle("a", c.VERDICT_DELIVERED if ok else c.VERDICT_DEAD, now_ms=500)
            due_ms = 500 if ok else DEADLINE_MS
    assert (Queue.DUE, due_ms) == (bench.queue("b"), bench.jobs()["b"].due_ms)


def test_run_now_does_not_jump_the_queue() -> None:
    """Its time is now, its place is what it was."""
    bench = Keyed()
    bench.put("a", 1_000)
    bench.put("b", 2_000)
    bench.do(c.RunJob(now_ms=100, job_id="b"))
    assert not bench.claim("b")
    assert Queue.BEHIND == bench.queue("b")


def test_a_new_life_stands_behind_and_a_redriven_job_where_it_stood() -> None:
    """A new life was made after the others of its time."""
    bench = Keyed()
    bench.put("a", 1)
    bench.put("b", 1)
    bench.put("c", 1)
    bench.do(c.DeleteJob(now_ms=200, job_id="a"))
    bench.put("a", 1, now_ms=300, meta=b"2")
    assert [False, False, True] == [bench.claim(each) for each in "acb"]
    bench.settle("b", c.VERDICT_DEAD)
    bench.do(c.RedriveJob(now_ms=400, job_id="b", route_uid=1))
    assert [False, False, True] == [bench.claim(each) for each in "acb"]


def test_a_key_cannot_be_changed_nor_taken() -> None:
    """By whatever command of whoever knows it otherwise."""
    bench = Keyed()
    bench.put("a", 1)
    bench.put("plain", 1, ordering_key=None)
    for job_id, key in (("a", None), ("a", "other"), ("plain", KEY)):
        assert "ordering_key_fixed" == bench.put(job_id, 2, ordering_key=key).code
        assert "job_exists" == bench.put(job_id, 2, ordering_key=key, create_only=True).code
        place = c.PlaceJob(now_ms=100, job_id=job_id, ordering_key=key or "x")
        assert "ordering_key_fixed" == bench.do(place)[0].code
    assert "placed" == bench.do(c.PlaceJob(now_ms=1, job_id="a", ordering_key=KEY))[0].kind


def test_an_id_that_is_placed_belongs_to_its_key() -> None:
    """Until that is forgotten, which is void if it was placed anew."""
    bench = Keyed()
    bench.do(c.PlaceJob(now_ms=7, job_id="x", ordering_key=KEY))
    assert (
        "ordering_key_fixed"
        == bench.do(c.PlaceJob(now_ms=8, job_id="x", ordering_key="other"))[0].code
    )
    assert "job_exists" == bench.put("x", 1, ordering_key=None, create_only=True).code
    assert "ordering_key_fixed" == bench.put("x", 1, ordering_key=None).code
    bench.do(c.PlaceJob(now_ms=9, job_id="x", ordering_key=KEY))
    bench.do(c.UnplaceJobs(now_ms=9, items=[c.PlacedId("x", KEY, 7)]))
    row = bench.store.get(bench.keys.alias + b"x")
    assert row is not None
    assert 9 == read_alias(row).placed_ms
    bench.do(c.UnplaceJobs(now_ms=9, items=[c.PlacedId("x", KEY, 9)]))
    assert "created" == bench.put("x", 1, ordering_key=None).kind


def test_a_create_that_comes_late_is_refused_and_not_remembered() -> None:
    """Its alias may be gone; who asks again with the same key has it placed anew."""
    bench = Keyed()
    request = c.Request(b"k" * 16, b"f" * 16)
    late_ms = 101 + limits.PLACED_MS
    late = bench.put("a", 1, now_ms=late_ms, placed_ms=100, request=request)
    assert "placed_too_long_ago" == late.code
    assert "created" == bench.put("a", 1, now_ms=late_ms, placed_ms=late_ms, request=request).kind


def test_jobs_of_one_entry_stand_as_they_were_made() -> None:
    """The items of a batch, in the order of the array."""
    bench = Keyed()
    commands = [
        c.PutJob(
            now_ms=1,
            job_id=job_id,
            uid=job_id.encode() * 16,
            trigger_ms=5,
            delay_ms=None,
            route="r",
            route_uid=1,
            meta=b"1",
            ordering_key=KEY,
            placed_ms=1,
        )
        for job_id in "zax"
    ]
    bench.do(*commands)
    for job_id in "zax":
        assert bench.claim(job_id)
        bench.settle(job_id, c.VERDICT_DELIVERED)


def test_restored_jobs_keep_their_order() -> None:
    """In whichever order they come in; what is made here stands behind them."""
    old, bench = Keyed(), Keyed()
    for job_id in "zax":
        old.put(job_id, 5)
    items = [c.RestoreItem(job_id, old.jobs()[job_id]) for job_id in "azx"]
    placed = [c.PlacedId(job_id, KEY) for job_id in "azx"]
    bench.do(c.RestoreJobs(now_ms=9, restore="s", part=0, number=1, items=items, placed=placed))
    bench.put("new", 5)
    assert [False] * 3 == [bench.claim(each) for each in ("a", "x", "new")]
    for job_id in ("z", "a", "x", "new"):
        assert bench.claim(job_id)
        bench.settle(job_id, c.VERDICT_DELIVERED)
    assert {b"a", b"x", b"z"} == bench.suffixes(bench.keys.alias)


def test_a_claim_that_was_asked_for_before_its_time_was_moved_is_void() -> None:
    """Named regression (S8): the next one was claimed before the attempt of a replaced one ended.

    Its leader had seen it as due already.
    """
    bench = Keyed()
    bench.put("a", 1)
    bench.put("b", 2)
    assert bench.claim("a")
    bench.put("a", 3, now_ms=500)
    assert (Queue.DUE, DEADLINE_MS) == (bench.queue("b"), bench.jobs()["b"].due_ms)
    assert not bench.claim("b", now_ms=501)
    assert Queue.DUE == bench.queue("b")
    assert bench.claim("b", now_ms=DEADLINE_MS)
