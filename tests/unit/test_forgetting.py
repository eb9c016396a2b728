"""Where a look for what is old enough begins, and what it finds."""

import itertools

import pytest

from timemachine import codec, limits
from timemachine.errors import StoreDamaged
from timemachine.forgetting import Ended, Mark, Requests
from timemachine.storage.api import Row
from timemachine.storage.keys import ReplicaKeys, read_u64, u32, u64
from timemachine.storage.memory import MemoryStore

KEYS = ReplicaKeys(7)
NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
BEFORE_MS = NOW_MS - DAY_MS
SWEEP_MS = limits.FORGET_SWEEP_MS
MARGIN_MS = limits.FORGET_MARGIN_MS


class Watched(MemoryStore):
    """A store that tells where each scan began; `damaged` is a key that cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[bytes] = []
        self.damaged: bytes | None = None

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        self.starts.append(start)
        if self.damaged is not None and start <= self.damaged < stop:
            raise StoreDamaged("A row fails its checksum.", key=self.damaged)
        return super().scan(start, stop, limit, reverse=reverse)


class Scene:
    """A store of one replica, and what is remembered of it. Purging is immediate."""

    def __init__(self) -> None:
        self.store = Watched()
        self.ended = Ended(KEYS)
        self.requests = Requests(KEYS)
        self._numbers = 0

    def finish(self, job_id: str, at_ms: int) -> None:
        """A job ends other than by an attempt."""
        self.store.write({KEYS.finished + u64(at_ms) + job_id.encode(): b""})

    def settle(self, job_id: str, at_ms: int, route_uid: int = 1) -> None:
        """An attempt is listed with its route."""
        self._numbers += 1
        row = u64(route_uid) + u64(at_ms) + u64(self._numbers) + u32(0)
        self.store.write({KEYS.route_attempts + row: codec.encode([(job_id, 1)])})

    def answer(self, key: bytes, expires_ms: int) -> None:
        """An answer is stored."""
        self.store.write({KEYS.request_age + u64(expires_ms) + key: b""})

    def look(
        self, before_ms: int = BEFORE_MS, mono_ms: float = 0.0, *, committed: bool = True
    ) -> list[str]:
        """Look once, a day later, and have what is found purged."""
        self.store.starts.clear()
        found = self.ended.look(self.store, before_ms + DAY_MS, before_ms, mono_ms)
        if not self.ended.busy:
            assert ([], []) == found
            return []
        if committed:
            gone: dict[bytes, bytes | None] = {}
            for row in found.attempt_rows:
                gone[KEYS.route_attempts + row] = None
            for key in self.store.image():
                if key.startswith(KEYS.finished) and key[13:].decode() in found.job_ids:
                    gone[key] = None
            self.store.write(gone)
        self.ended.done(committed=committed)
        return found.job_ids

    def forget(
        self, count: int, now_ms: int = NOW_MS, mono_ms: float = 0.0, *, committed: bool = True
    ) -> list[bytes]:
        """The same of stored answers."""
        self.store.starts.clear()
        found = self.requests.look(self.store, count, now_ms, mono_ms)
        if found:
            if committed:
                rows = [KEYS.request_age + u64(expires_ms) + key for expires_ms, key in found]
                self.store.write(dict.fromkeys(rows))
            self.requests.done(committed=committed)
        return [key for _, key in found]

    def times(self, table: bytes) -> list[int]:
        """From which times on scans of a table began, its routes left aside."""
        at = len(table) + (8 if table == KEYS.route_attempts else 0)
        starts = [start for start in self.store.starts if start.startswith(table)]
        return [read_u64(start[at : at + 8]) if start[at:] else 0 for start in starts]


# --- jobs and attempts ---------------------------------------------------------------------------


def test_a_look_begins_where_the_last_one_ended() -> None:
    """Not at the front of its tables, where deleted keys pile up: that took a tenth of a second."""
    scene = Scene()
    scene.finish("a", BEFORE_MS - 2)
    scene.settle("b", BEFORE_MS - 1)
    scene.settle("later", NOW_MS)
    assert ["a", "b"] == scene.look()
    assert [] == scene.look()
    scene.finish("c", BEFORE_MS)
    scene.settle("d", BEFORE_MS)
    assert ["c", "d"] == scene.look(BEFORE_MS + 1)
    assert [BEFORE_MS] == scene.times(KEYS.finished)
    # The first row that is left of the route, and then those that are old enough.
    assert [BEFORE_MS] * 2 == scene.times(KEYS.route_attempts)
    assert [] == scene.look(BEFORE_MS + 2)
    assert [BEFORE_MS + 1] == scene.times(KEYS.finished) == scene.times(KEYS.route_attempts)


def test_what_was_not_committed_is_found_again() -> None:
    """A leader that is replaced does not know what became of its command."""
    scene = Scene()
    scene.finish("a", BEFORE_MS - 2)
    scene.settle("b", BEFORE_MS - 1)
    assert ["a", "b"] == scene.look(committed=False)
    assert ["a", "b"] == scene.look(BEFORE_MS + 1)


def test_a_pass_over_routes_of_which_a_part_was_not_committed_is_void() -> None:
    """Though what the others had was: the mark is one for all routes."""
    scene = Scene()
    for route_uid in range(1, 12):
        scene.settle(f"{route_uid}", BEFORE_MS - 1, route_uid)
    assert [f"{uid}" for uid in range(1, 9)] == scene.look(committed=False)
    assert 8 == len(scene.look())
    assert 3 == len(scene.look(committed=False))
    assert ["9", "10", "11"] == scene.look()


def test_a_pass_in_which_a_read_failed_is_void() -> None:
    """What it had found by then was told to nobody."""
    scene = Scene()
    scene.settle("a", BEFORE_MS - 1, 1)
    scene.settle("b", BEFORE_MS - 1, 2)
    scene.store.damaged = KEYS.route_attempts + u64(2)
    with pytest.raises(StoreDamaged):
        scene.look()
    scene.store.damaged = None
    assert ["a", "b"] == scene.look()


@pytest.mark.parametrize("attempts", [True, False])
def test_a_look_that_found_as_much_as_it_takes_is_gone_on_with(attempts: bool) -> None:
    """Behind what it found, also while there is more than is purged."""
    scene = Scene()
    for number in range(1_200):
        job_id, at_ms = f"{number:04d}", BEFORE_MS - 2_000 + number
        if attempts:
            scene.settle(job_id, at_ms)
        else:
            scene.finish(job_id, at_ms)
    table = KEYS.route_attempts if attempts else KEYS.finished
    assert [500, 500, 200] == [len(scene.look()) for _ in range(3)]
    assert BEFORE_MS - 1_001 == min(scene.times(table))
    assert [[], []] == [scene.look() for _ in range(2)]
    assert {BEFORE_MS} >= set(scene.times(table))


def test_the_mark_keeps_a_margin_to_what_is_being_written() -> None:
    """Other leaders' clocks may be behind, and what they commit has been on its way."""
    scene = Scene()

    def look(now_ms: int) -> list[str]:
        scene.store.starts.clear()
        found = scene.ended.look(scene.store, now_ms, now_ms - 1, 0.0)
        if scene.ended.busy:
            scene.ended.done(committed=True)
        return found.job_ids

    assert [] == look(NOW_MS)
    scene.finish("a", NOW_MS - MARGIN_MS)
    scene.settle("b", NOW_MS - MARGIN_MS)
    assert ["a", "b"] == look(NOW_MS + 1)
    assert [NOW_MS - MARGIN_MS] == scene.times(KEYS.finished)


def test_a_row_with_an_older_time_goes_with_the_next_full_sweep() -> None:
    """Its clock was far off; nothing is kept for ever."""
    scene = Scene()
    scene.settle("young", NOW_MS)
    assert [] == scene.look()
    scene.finish("a", BEFORE_MS - DAY_MS)
    scene.settle("b", BEFORE_MS - DAY_MS)
    assert [] == scene.look(BEFORE_MS + 1, SWEEP_MS / 2 - 1)
    assert ["a", "b"] == scene.look(BEFORE_MS + 2, SWEEP_MS)
    assert 0 in scene.times(KEYS.finished)


@pytest.mark.parametrize("committed", [True, False])
def test_a_full_sweep_that_was_not_committed_is_done_again(committed: bool) -> None:
    """At once, not when the next one is due."""
    scene = Scene()
    assert [] == scene.look()
    scene.finish("a", BEFORE_MS - DAY_MS)
    scene.settle("b", BEFORE_MS - DAY_MS)
    assert ["a", "b"] == scene.look(BEFORE_MS, SWEEP_MS, committed=committed)
    assert (["a", "b"] if not committed else []) == scene.look(BEFORE_MS, SWEEP_MS + 1)


def test_the_replicas_of_a_node_are_not_swept_at_the_same_time() -> None:
    """Each sweep may walk over very much."""
    marks = [Mark(ReplicaKeys(incarnation)) for incarnation in range(1, 101)]
    for mark in marks:
        assert mark.is_full_due(0.0)
        mark.drop(0.0)
        assert not mark.is_full_due(SWEEP_MS / 2 - 1)
        assert mark.is_full_due(SWEEP_MS)
    moments = [SWEEP_MS * (10 + tenth) / 20 for tenth in range(11)]
    due = [sum(mark.is_full_due(moment) for mark in marks) for moment in moments]
    assert all(8 <= after - before <= 12 for before, after in itertools.pairwise(due))


def test_what_a_shorter_retention_leaves_behind_is_found_at_once() -> None:
    """The range that is looked at grows."""
    scene = Scene()
    assert [] == scene.look()
    scene.finish("a", BEFORE_MS + DAY_MS // 2)
    scene.settle("b", BEFORE_MS + DAY_MS // 2)
    assert [] == scene.look(BEFORE_MS + 1)
    assert ["a", "b"] == scene.look(NOW_MS)


def test_what_a_longer_retention_keeps_is_found_when_its_time_comes() -> None:
    """Then what is to be purged is older than what was purged already: so the mark goes back."""
    scene = Scene()
    scene.settle("first", BEFORE_MS + 1)
    assert [] == scene.look()
    earlier_ms = BEFORE_MS - DAY_MS
    assert [] == scene.look(earlier_ms)
    scene.finish("a", earlier_ms + 5)
    scene.settle("b", earlier_ms + 5)
    assert ["a", "b"] == scene.look(earlier_ms + 6)
    assert [earlier_ms] == scene.times(KEYS.finished)


def test_a_longer_retention_in_the_middle_of_a_pass_holds_for_all_of_it() -> None:
    """The routes that were looked at before are not the last ones of the pass."""
    scene = Scene()
    for route_uid in range(1, 10):
        scene.settle(f"{route_uid}", BEFORE_MS - 1, route_uid)
    scene.settle("older", BEFORE_MS - 2, 9)
    assert 8 == len(scene.look())
    assert ["older"] == scene.look(BEFORE_MS - 1)
    # The others have no rows any more, and are gone through first.
    assert [[], ["9"]] == [scene.look() for _ in range(2)]


def test_what_is_written_after_the_clock_was_set_back_is_found_in_time() -> None:
    """Its route is one that the replica knows, with times that it believes to be gone."""
    scene = Scene()
    scene.settle("before", BEFORE_MS - 1)
    assert ["before"] == scene.look(committed=False)
    assert ["before"] == scene.look()
    back_ms = BEFORE_MS - SWEEP_MS
    scene.settle("a", back_ms + 1)
    assert [] == scene.look(back_ms)
    assert ["a"] == scene.look(back_ms + 2)


def test_routes_are_found_by_a_full_sweep_alone() -> None:
    """To find them by their rows is to walk over what was deleted at the front of each."""
    scene = Scene()
    for route_uid in (1, 2, 300):
        scene.settle("young", NOW_MS, route_uid)
    assert [] == scene.look()
    assert KEYS.route_attempts in scene.store.starts
    assert [] == scene.look(BEFORE_MS + 1)
    expected = [KEYS.route_attempts + u64(uid) + u64(BEFORE_MS) for uid in (1, 2, 300)]
    assert expected == [each for each in scene.store.starts if each > KEYS.route_attempts]


def test_a_route_that_is_new_is_looked_at_before_its_first_row_is_old_enough() -> None:
    """Which is long before the time of a full sweep, where the retention is short."""
    scene = Scene()
    assert [] == scene.look()
    scene.settle("a", NOW_MS + 1)
    before_ms = NOW_MS - MARGIN_MS
    assert [] == scene.look(before_ms)
    assert [] == scene.times(KEYS.route_attempts)
    assert [] == scene.look(before_ms + 1)
    assert [] == scene.look(NOW_MS + 1)
    assert ["a"] == scene.look(NOW_MS + 2)


def test_a_route_without_rows_is_not_asked_again() -> None:
    """Its first row would be looked for at the front of the next route."""
    scene = Scene()
    scene.settle("a", BEFORE_MS - 1, 1)
    scene.settle("young", NOW_MS, 2)
    assert ["a"] == scene.look()
    assert [] == scene.look(BEFORE_MS + 1)
    assert 2 == len(scene.times(KEYS.route_attempts))
    assert [] == scene.look(BEFORE_MS + 2)
    assert [BEFORE_MS + 1] == scene.times(KEYS.route_attempts)


# --- stored answers ------------------------------------------------------------------------------


def test_stored_answers_are_looked_for_where_the_last_look_ended() -> None:
    """A thousand at a time."""
    scene = Scene()
    for number in range(1_500):
        scene.answer(u64(number), NOW_MS - 2_000 + number)
    scene.answer(b"young", NOW_MS + 1)
    assert 1_000 == len(scene.forget(1_501))
    assert 500 == len(scene.forget(501))
    assert [NOW_MS - 1_001] == scene.times(KEYS.request_age)
    assert [b"young"] == scene.forget(1, NOW_MS + 2)
    assert [NOW_MS] == scene.times(KEYS.request_age)


def test_nothing_is_looked_for_where_no_answer_is_stored() -> None:
    """The count tells."""
    scene = Scene()
    assert [] == scene.forget(0)
    assert [] == scene.store.starts


def test_an_answer_that_was_not_forgotten_is_found_again() -> None:
    """Nor is what would have expired later."""
    scene = Scene()
    scene.answer(b"a", NOW_MS - 1)
    assert [b"a"] == scene.forget(1, committed=False)
    assert [b"a"] == scene.forget(1)


def test_an_answer_with_an_older_time_goes_with_the_next_full_sweep() -> None:
    """Its clock was far off."""
    scene = Scene()
    scene.answer(b"young", NOW_MS + DAY_MS)
    assert [] == scene.forget(1)
    scene.answer(b"a", NOW_MS - DAY_MS)
    assert [] == scene.forget(2, NOW_MS + 1)
    assert [b"a"] == scene.forget(2, NOW_MS + 1, SWEEP_MS)


def test_too_many_answers_go_before_their_time_and_each_look_goes_on() -> None:
    """The oldest first; what has expired goes in any case."""
    scene = Scene()
    crowd = limits.REQUESTS_PER_VNODE_MAX + 1
    for number in range(3_000):
        scene.answer(u64(number), NOW_MS + 1 + number)
    scene.answer(b"old", NOW_MS - 1)
    assert [b"old"] + [u64(number) for number in range(999)] == scene.forget(crowd)
    assert [u64(999 + number) for number in range(1_000)] == scene.forget(crowd, committed=False)
    assert [u64(999 + number) for number in range(1_000)] == scene.forget(crowd)
    assert scene.store.starts[-1] >= KEYS.request_age + u64(NOW_MS + 1 + 998)
    # What expires before those that went already comes up when nothing is behind them any more.
    scene.answer(b"short", NOW_MS + 2)
    assert 1_001 == len(scene.forget(crowd)) + len(scene.forget(crowd))
    assert [] == scene.forget(crowd)
    assert [b"short"] == scene.forget(crowd)


def test_a_full_sweep_begins_before_those_that_went_early() -> None:
    """So the oldest goes first again, now and then."""
    scene = Scene()
    crowd = limits.REQUESTS_PER_VNODE_MAX + 1
    for number in range(2_500):
        scene.answer(u64(number), NOW_MS + 1 + number)
    assert 1_000 == len(scene.forget(crowd))
    scene.answer(b"short", NOW_MS + 2)
    assert b"short" not in scene.forget(crowd)
    assert b"short" in scene.forget(crowd, NOW_MS, SWEEP_MS)
