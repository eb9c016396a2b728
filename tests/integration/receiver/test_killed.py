"""Workers that are killed or stopped in the middle of a webhook: its effect happens once."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.integration.receiver.places import Place, effects
from tests.unit.project import ROOT

LEASE_S = 120
ID = "msg_1"


class Worker:
    """A process that handles webhooks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """The next line that it prints; empty when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def until(self, name: str) -> None:
        """Wait for a step."""
        while (line := self.line()) != name:
            assert line, f"it ended before {name}"

    def allow(self, count: int) -> None:
        """Let it handle that many more webhooks of a storm."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n" * count)
        self.process.stdin.flush()

    def handled(self) -> None:
        """Wait until it has handled one webhook of a storm."""
        while (line := self.line()) == "effect":
            pass
        assert line.startswith(("repeated=", "webhook_busy")), line

    def last(self) -> str:
        """Let it go on, and wait for its end; returns the last line."""
        last = ""
        assert self.process.stdin is not None
        self.process.stdin.close()  # nothing waits any more
        while line := self.line():
            last = line
        assert 0 == self.process.wait()
        return last


@pytest.fixture(autouse=True)
def _tables(place: Place) -> None:
    """The tables are there before the workers are."""
    with closing(place.connect()) as connection:
        place.create_tables(connection)


@contextmanager
def worker(place: Place, mode: str, *webhook_ids: str, ahead_s: int = 0) -> Iterator[Worker]:
    """A worker that does not outlive the test."""
    command = [sys.executable, "-m", "tests.integration.receiver.worker"]
    with subprocess.Popen(
        [*command, place.text, str(ahead_s), mode, *(webhook_ids or [ID])],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


def run(place: Place, mode: str, *, ahead_s: int = 0) -> str:
    """What a worker that nobody disturbs says in the end."""
    with worker(place, mode, ahead_s=ahead_s) as undisturbed:
        return undisturbed.last()


def test_killed_between_claim_and_effect(place: Place) -> None:
    """Its claim holds until the lease ends; then another takes over, and does it once."""
    with worker(place, "claim-claimed") as victim:
        victim.until("claimed")
        victim.process.kill()
        victim.process.wait()
    assert "InProgress" == run(place, "claim")
    assert "webhook_in_progress" == run(place, "once")
    assert [] == effects(place)
    assert "taken_over=True" == run(place, "claim", ahead_s=LEASE_S)
    assert "Done" == run(place, "claim", ahead_s=LEASE_S)
    assert "repeated=True" == run(place, "once")
    assert [ID] == effects(place)


@pytest.mark.parametrize("moment", ["effect", "committing"])
def test_killed_inside_the_transaction(place: Place, moment: str) -> None:
    """An effect that was not committed is gone; the next one does it."""
    with worker(place, f"claim-{moment}") as victim:
        victim.until(moment)
        victim.process.kill()
        victim.process.wait()
    assert [] == effects(place)
    assert "repeated=False" == run(place, "once", ahead_s=LEASE_S)
    assert [ID] == effects(place)


def test_killed_after_the_commit(place: Place) -> None:
    """It could not answer, so the webhook comes again: and is recognised."""
    with worker(place, "claim-committed") as victim:
        victim.until("committed")
        victim.process.kill()
        victim.process.wait()
    assert "repeated=True" == run(place, "once")
    assert "Done" == run(place, "claim")
    assert [ID] == effects(place)


def test_killed_inside_once(place: Place) -> None:
    """It leaves neither effect nor claim: the next one need not wait for anything."""
    with worker(place, "once-effect") as victim:
        victim.until("effect")
        victim.process.kill()
        victim.process.wait()
    assert [] == effects(place)
    assert "repeated=False" == run(place, "once")
    assert "repeated=True" == run(place, "once")
    assert [ID] == effects(place)


def test_stopped_and_awake_again(place: Place) -> None:
    """A worker that slept past its lease finds its claim taken: it rolls its effect back."""
    with worker(place, "claim-claimed") as slow:
        slow.until("claimed")
        slow.process.send_signal(signal.SIGSTOP)
        assert "taken_over=True" == run(place, "claim", ahead_s=LEASE_S)
        slow.process.send_signal(signal.SIGCONT)
        assert "webhook_claim_lost" == slow.last()
    assert [ID] == effects(place)


def test_two_at_once(place: Place) -> None:
    """While one is inside its transaction the other waits, and then finds it done."""
    with worker(place, "once-effect") as first:
        first.until("effect")
        with worker(place, "once") as second:
            assert "repeated=False" == first.last()
            assert "repeated=True" == second.last()
    assert [ID] == effects(place)


@pytest.mark.timeout(240)
def test_a_storm_of_kills(place: Place) -> None:
    """Workers that all get all webhooks are killed again and again: each effect happens once."""
    dice = random.Random(1)
    webhook_ids = [f"msg_{number}" for number in range(100)]
    for _ in range(8):
        with ExitStack() as stack:
            storm = [stack.enter_context(worker(place, "storm", *webhook_ids)) for _ in range(3)]
            handled = [dice.randrange(1, 6) for _ in storm]
            for each, count in zip(storm, handled, strict=True):
                each.allow(count)
            for each, count in zip(storm, handled, strict=True):
                # One more, and killed somewhere in it.
                for _ in range(count):
                    each.handled()
                each.allow(1)
                if dice.random() < 0.7:
                    each.line()  # mostly of the effect, whose transaction is open
                each.process.kill()
                each.process.wait()
    assert len(effects(place)) < len(webhook_ids)
    with worker(place, "storm", *webhook_ids) as survivor:
        survivor.last()
    assert sorted(webhook_ids) == sorted(effects(place))
