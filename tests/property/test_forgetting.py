"""What is found to be forgotten, against a twin that looks at all rows each time."""

from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine import codec, forgetting, limits
from timemachine.forgetting import Ended, Requests
from timemachine.replica.records import read_listed
from timemachine.storage.keys import ReplicaKeys, read_u64, u32, u64
from timemachine.storage.memory import MemoryStore

DAY_MS = 86_400_000
MARGIN_MS = limits.FORGET_MARGIN_MS
SWEEP_MS = limits.FORGET_SWEEP_MS
REQUESTS_MAX = 8
SMALL = patch.multiple(forgetting, _JOBS=3, _ROWS=2, _ROUTES_LOOKED_AT=2, _REQUESTS=3)
FEW = patch.object(limits, "REQUESTS_PER_VNODE_MAX", REQUESTS_MAX)

ROUTES = st.sampled_from([0, 0, 1, 1, 2, 3, 4])
"""0 is for what ends otherwise than by an attempt."""
LAGS_MS = st.sampled_from([0, 1, MARGIN_MS - 1, MARGIN_MS])
FAR_MS = st.sampled_from([MARGIN_MS + 1, SWEEP_MS, 3 * DAY_MS])
PAUSES_MS = st.sampled_from([1, 1_000, MARGIN_MS // 2, MARGIN_MS, 60_000, SWEEP_MS // 3, DAY_MS])
RETENTIONS_MS = st.sampled_from([0, 1, MARGIN_MS // 2, MARGIN_MS, 2 * MARGIN_MS, DAY_MS])
OUTCOMES = st.sampled_from(["committed", "committed", "lost", "unknown"])


def _steps(often: list[Any], calm: list[Any], strange: list[Any]) -> st.SearchStrategy[Any]:
    """What happens, each as the name of a method and its arguments."""

    def drawn(steps: list[Any]) -> st.SearchStrategy[Any]:
        named = [st.tuples(st.just(name), st.tuples(*given)) for name, *given in steps]
        return st.lists(st.one_of(named), min_size=5, max_size=40)

    quiet = 2 * often + calm
    return st.one_of(drawn(quiet), drawn(quiet), drawn(quiet + strange))


class _Twins:
    """A store with one table in order of time, and what is remembered of it.

    `strange` since something was written with a time, or by a clock, that is far off.
    """

    def __init__(self) -> None:
        self.wall_ms = 1_700_000_000_000
        self.mono_ms = 0.0
        self.store = MemoryStore()
        self.keys = ReplicaKeys(5)
        self.number = 0
        self.strange = False
        self.open: list[bytes] | None = None
        self.begin()

    def begin(self) -> None:
        """Remember nothing."""
        raise AssertionError

    def find(self) -> list[bytes]:
        """What a look finds."""
        raise AssertionError

    def told(self, *, committed: bool) -> None:
        """Say what became of it."""
        raise AssertionError

    def time_of(self, key: bytes) -> int:
        """Up to when a row is kept."""
        raise AssertionError

    def is_right(self) -> bool:
        """Whether the store has what the twin has."""
        raise AssertionError

    # --- what happens ----------------------------------------------------------------------

    def time_passes(self, ms: int) -> None:
        """For both clocks."""
        self.wall_ms += ms
        self.mono_ms += ms

    def clock_is_set(self, ms: int, back: bool) -> None:
        """By more than clocks that fire may differ."""
        self.wall_ms += -ms if back else ms
        self.strange = True

    def another_replica(self) -> None:
        """It goes on from a snapshot: what was remembered is of other rows."""
        self.begin()
        self.open = None
        self.strange = False

    def look(self) -> None:
        """Unless one is under way."""
        if self.open is None:
            found = self.find()
            assert len(set(found)) == len(found)
            assert self.store.image().keys() >= set(found)
            self.open = found or None

    def done(self, outcome: str) -> None:
        """A leader that is replaced does not hear that its command was committed."""
        if self.open is not None:
            found, self.open = self.open, None
            if outcome != "lost":
                self.store.write(dict.fromkeys(found))
            self.told(committed=outcome == "committed")

    def rounds(self, outcomes: list[str]) -> None:
        """As on most days: one after the other."""
        for outcome in outcomes:
            self.look()
            self.done(outcome)

    def drain(self) -> None:
        """As many rounds as may be needed: all that is old enough is gone, if nothing is strange.

        If something was, it is after the next full sweep.
        """
        enough = ["committed"] * (2 * len(self.store.image()) + 20)
        if not self.strange:
            self.rounds(enough)
            assert self.is_right()
        self.time_passes(SWEEP_MS)
        self.rounds(enough)
        assert self.is_right()
        self.strange = False

    def play(self, steps: list[tuple[str, tuple[Any, ...]]]) -> None:
        """Do all that, and see that it comes out right."""
        with SMALL, FEW:
            for name, arguments in steps:
                getattr(self, name)(*arguments)
            self.drain()


SOME_ROUNDS = ("rounds", st.lists(OUTCOMES, max_size=4))
ANY_TIME = [("time_passes", PAUSES_MS), SOME_ROUNDS]
NOW_AND_THEN = [("look",), ("done", OUTCOMES), ("drain",), ("another_replica",)]
STRANGE = [("clock_is_set", FAR_MS, st.booleans())]


class EndedTwins(_Twins):
    """Jobs and attempts: all that is old enough goes, and nothing else."""

    def begin(self) -> None:
        self.ended = Ended(self.keys)
        if not self.number:
            self.kept_ms = 60_000

    @property
    def before_ms(self) -> int:
        """What ended before that is to be purged."""
        return self.wall_ms - self.kept_ms

    def find(self) -> list[bytes]:
        image = self.store.image()
        jobs, rows = self.ended.look(self.store, self.wall_ms, self.before_ms, self.mono_ms)
        assert self.ended.busy == bool(jobs or rows)
        found = [self.keys.route_attempts + row for row in rows]
        listed = [job_id for row in found for job_id, _ in read_listed(image[row])]
        at = len(self.keys.finished)
        finished = {key[at + 8 :].decode(): key for key in image if key[:at] == self.keys.finished}
        assert listed == jobs[len(jobs) - len(listed) :]
        found += [finished[job_id] for job_id in jobs[: len(jobs) - len(listed)]]
        assert all(self.time_of(key) < self.before_ms for key in found)
        return found

    def told(self, *, committed: bool) -> None:
        self.ended.done(committed=committed)

    def time_of(self, key: bytes) -> int:
        at = 13 if key.startswith(self.keys.route_attempts) else 5
        return read_u64(key[at : at + 8])

    def is_right(self) -> bool:
        return all(self.time_of(key) >= self.before_ms for key in self.store.image())

    def write(self, lag_ms: int, route_uids: list[int]) -> None:
        """Now, by the clock of some leader."""
        for route_uid in route_uids:
            self.number += 1
            job_id, at = f"{self.number}", u64(self.wall_ms - lag_ms)
            if route_uid:
                row = u64(route_uid) + at + u64(self.number) + u32(0)
                # Some rows list several attempts.
                listed = [(f"{job_id}{each}", 1) for each in "ab"[: 1 + self.number % 3 // 2]]
                self.store.write({self.keys.route_attempts + row: codec.encode(listed)})
            else:
                self.store.write({self.keys.finished + at + job_id.encode(): b""})

    def write_late(self, ms: int, route_uid: int) -> None:
        """With a time that no leader may give."""
        self.write(ms, [route_uid])
        self.strange = True

    def retain(self, kept_ms: int) -> None:
        """Another retention."""
        self.kept_ms = kept_ms

    def other_leader_purges(self) -> None:
        """It looks at everything."""
        image = self.store.image()
        old = [key for key in image if self.time_of(key) < self.before_ms]
        self.store.write(dict.fromkeys(old))


@settings(max_examples=400, deadline=None)
@given(
    _steps(
        [*ANY_TIME, ("write", LAGS_MS, st.lists(ROUTES, min_size=1, max_size=6))],
        [*NOW_AND_THEN, ("retain", RETENTIONS_MS), ("other_leader_purges",)],
        [*STRANGE, ("write_late", FAR_MS, ROUTES)],
    )
)
def test_what_ended_is_purged_in_its_time(steps: list[Any]) -> None:
    """All of it within some rounds, and nothing younger, whatever is committed or not."""
    EndedTwins().play(steps)


class RequestTwins(_Twins):
    """Stored answers: those that have expired go, and the oldest of too many."""

    def begin(self) -> None:
        self.requests = Requests(self.keys)

    def find(self) -> list[bytes]:
        image = self.store.image()
        requests = self.requests.look(self.store, len(image), self.wall_ms, self.mono_ms)
        assert self.requests.busy == bool(requests)
        found = [self.keys.request_age + u64(at_ms) + key for at_ms, key in requests]
        assert sorted(found) == found
        if len(image) <= REQUESTS_MAX:
            assert all(self.time_of(key) < self.wall_ms for key in found)
        return found

    def told(self, *, committed: bool) -> None:
        self.requests.done(committed=committed)

    def time_of(self, key: bytes) -> int:
        return read_u64(key[5:13])

    def is_right(self) -> bool:
        times = [self.time_of(key) for key in self.store.image()]
        return len(times) <= REQUESTS_MAX and all(time >= self.wall_ms for time in times)

    def answer(self, lag_ms: int, kept_ms: int, count: int) -> None:
        """By the clock of some leader."""
        for _ in range(count):
            self.number += 1
            expires = u64(self.wall_ms - lag_ms + kept_ms)
            self.store.write({self.keys.request_age + expires + u32(self.number): b""})

    def answer_late(self, ms: int) -> None:
        """With a time that no leader may give."""
        self.answer(ms, 0, 1)
        self.strange = True


@settings(max_examples=400, deadline=None)
@given(
    _steps(
        [*ANY_TIME, ("answer", LAGS_MS, st.sampled_from([60_000, DAY_MS]), st.integers(1, 5))],
        NOW_AND_THEN,
        [*STRANGE, ("answer_late", FAR_MS)],
    )
)
def test_stored_answers_are_forgotten_in_their_time(steps: list[Any]) -> None:
    """All that have expired within some rounds, and the oldest of too many; no others."""
    RequestTwins().play(steps)
