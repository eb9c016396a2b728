"""A wall clock that jumps under a running node, by a library that fakes the time of one process."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import JOBS, NodeProcess, Recipient, now_ms, wait_until
from tests.needs import faketime_library

HOUR_MS = 3_600_000
JUMP_MS = 2 * HOUR_MS
NEAR_MS = 60_000


class Clock:
    """The wall clock of one node; `set_ms` says how far it is ahead of this machine's."""

    def __init__(self, file: Path, node: NodeProcess) -> None:
        self._file = file
        self._node = node
        self._numbers = iter(range(1_000_000))

    def write(self, ahead_ms: int) -> None:
        """Step the clock; the node sees it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_ms // 1000:+d}\n")
        new.rename(self._file)

    def set_ms(self, ahead_ms: int) -> None:
        """Step the clock, and wait until the node sees it."""
        self.write(ahead_ms)
        wait_until(
            lambda: abs(self.now_ms() - now_ms() - ahead_ms) <= NEAR_MS,
            "the clock does not step",
            20,
        )

    def now_ms(self) -> int:
        """What the node's clock shows: the creation time of a job that is in nobody's way."""
        name = f"probe{next(self._numbers)}"
        job = {"id": name, "trigger_time": 4_000_000_000_000, "route": "hook"}
        status, answer = self._node.ask("POST", JOBS, job)
        assert 201 == status, answer
        assert 200 == self._node.ask("DELETE", f"{JOBS}/{name}")[0]
        return int(answer["created_time"])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node with a clock of its own; its monotonic clock is the machine's."""
    (tmp_path / "clock").write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
    }
    with NodeProcess(tmp_path / "data", environment=environment) as node:
        yield node


@pytest.fixture
def clock(tmp_path: Path, node: NodeProcess) -> Clock:
    """The node's wall clock."""
    return Clock(tmp_path / "clock", node)


def _create(node: NodeProcess, prefix: str, count: int, **when: int) -> set[str]:
    jobs = [{"id": f"{prefix}{number}", **when} for number in range(count)]
    node.create(jobs)
    return {str(job["id"]) for job in jobs}


def _wait_for(recipient: Recipient, wanted: set[str]) -> Counter[str]:
    """How often each job came, once all that is wanted came."""
    end = time.monotonic() + 20
    while missing := wanted - {arrival.job_id for arrival in recipient.arrivals()}:
        assert time.monotonic() < end, f"{len(missing)} did not come: {sorted(missing)[:5]}"
        time.sleep(0.02)
    return Counter(arrival.job_id for arrival in recipient.arrivals())


def _none_early(node: NodeProcess, jobs: set[str]) -> None:
    """By the node's own clock, as its attempts tell.

    An attempt is on record once it is settled, which is a moment after the recipient has it.
    """
    end = time.monotonic() + 20
    for job_id in jobs:
        job: dict[str, Any] = node.ask("GET", f"{JOBS}/{job_id}")[1]
        attempts: list[dict[str, Any]] = []
        while not attempts:
            assert time.monotonic() < end, f"{job_id} was sent and never settled"
            attempts = node.ask("GET", f"{JOBS}/{job_id}/attempts")[1]["items"]
        for attempt in attempts:
            assert attempt["started_time"] >= job["trigger_time"], (job, attempt)


@pytest.mark.root("faketime")
def test_a_step_forward_fires_what_is_now_due(node: NodeProcess, clock: Clock) -> None:
    """Two hours are gone at once: what fell due in them fires soon, the rest stays."""
    with Recipient() as recipient:
        node.start().set_up(recipient.url)
        start_ms = clock.now_ms()
        due = _create(node, "hour", 50, trigger_time=start_ms + HOUR_MS)
        later = _create(node, "later", 10, trigger_time=start_ms + 2 * JUMP_MS)
        clock.set_ms(JUMP_MS)
        counts = _wait_for(recipient, due)
        new = _create(node, "new", 10, delay_ms=300)
        counts = _wait_for(recipient, due | new)
        assert {1} == set(counts.values())
        assert not later & counts.keys()
        _none_early(node, due | new)
        assert 0 == node.stop()


@pytest.mark.root("faketime")
def test_a_step_back_fires_nothing_twice_or_early(node: NodeProcess, clock: Clock) -> None:
    """What was delivered stays delivered; what is not due any more waits; new jobs fire."""
    with Recipient() as recipient:
        node.start().set_up(recipient.url)
        clock.set_ms(JUMP_MS)
        done = _create(node, "done", 50, delay_ms=0)
        _wait_for(recipient, done)
        recipient.gate.clear()
        is_open = _create(node, "open", 10, delay_ms=0)
        _wait_for(recipient, is_open)
        soon = _create(node, "soon", 50, delay_ms=20_000)
        clock.set_ms(0)
        recipient.gate.set()
        new = _create(node, "new", 50, delay_ms=300)
        counts = _wait_for(recipient, done | is_open | new)
        past = _create(node, "past", 5, trigger_time=clock.now_ms() - JUMP_MS)
        counts = _wait_for(recipient, past)
        time.sleep(1.0)  # more than the longest pause between two looks at the clock
        counts = _wait_for(recipient, new)
        assert {1} == set(counts.values()), counts.most_common(3)
        assert not soon & counts.keys()
        clock.set_ms(JUMP_MS + 30_000)
        counts = _wait_for(recipient, soon)
        assert {1} == set(counts.values()), counts.most_common(3)
        jobs = node.drain()
        assert not [job for job in jobs.values() if job["state"] not in ("delivered", "cancelled")]
        _none_early(node, done | is_open | soon | new | past)
        assert 0 == node.stop()


@pytest.mark.root("faketime")
def test_a_restart_behind_its_own_past_still_fires(node: NodeProcess, clock: Clock) -> None:
    """A node comes up two hours before it went down: nothing comes twice, new jobs fire."""
    with Recipient() as recipient:
        node.start().set_up(recipient.url)
        clock.set_ms(JUMP_MS)
        done = _create(node, "done", 50, delay_ms=0)
        later = _create(node, "later", 5, delay_ms=HOUR_MS)
        _wait_for(recipient, done)
        delivered = f"{JOBS}?state=delivered"
        wait_until(
            lambda: len(node.ask("GET", delivered)[1]["items"]) >= 50, "they are not settled", 20
        )
        time.sleep(1.5)  # offsets move once a second
        node.kill()
        clock.write(0)
        node.start()
        new = _create(node, "new", 50, delay_ms=200)
        counts = _wait_for(recipient, new)
        assert not later & counts.keys()
        assert {1} == {counts[job_id] for job_id in done | new}
        _none_early(node, new)
        assert 0 == node.stop()
