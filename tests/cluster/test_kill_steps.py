"""Real nodes that are killed with kill -9 at a chosen step of a delivery, not at a random moment.

The steps are those of the simulator's tests of the same name, which take all of them. Here the
recipient kills the node, or what stands between the node and its disk does.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.process import JOBS, NodeProcess, now_ms, wait_until
from tests.faults.effects import Effects
from tests.faults.preloading import build_shim, give, shimmed
from tests.faults.receiver import FaultReceiver, Seen

ONCE, MORE = "at_most_once", "at_least_once"
_AHEAD_MS: Final = 1_500
"""Jobs are due so long after their ack that the fault is ready before their claim."""

pytestmark = [pytest.mark.root("preload"), pytest.mark.timeout(300)]


class Ends(NamedTuple):
    """How a delivery may end: how often the recipient had all of it, its attempts, its state."""

    came: int
    attempts: tuple[str, ...]
    state: str


_DELIVERED: Final = Ends(1, ("succeeded",), "delivered")
_AGAIN: Final = ("unknown", "succeeded")
STEPS: Final = {
    "before the intent": {MORE: _DELIVERED, ONCE: _DELIVERED},
    "after the intent": {
        MORE: Ends(1, _AGAIN, "delivered"),
        ONCE: Ends(0, ("unknown",), "dead"),
    },
    "in the middle of the request": {
        MORE: Ends(1, _AGAIN, "delivered"),
        ONCE: Ends(0, ("unknown",), "dead"),
    },
    "before the response": {
        MORE: Ends(2, _AGAIN, "delivered"),
        ONCE: Ends(1, ("unknown",), "dead"),
    },
    "after the response": {
        MORE: Ends(2, _AGAIN, "delivered"),
        ONCE: Ends(1, ("unknown",), "dead"),
    },
    "before the settle": {
        MORE: Ends(2, _AGAIN, "delivered"),
        ONCE: Ends(1, ("unknown",), "dead"),
    },
    "after the settle": {MORE: _DELIVERED, ONCE: _DELIVERED},
}
"""What a single node makes of a kill at each step, in both ways of delivery."""


class Executioner:
    """Has a node killed when the recipient is at a step, once for each order."""

    def __init__(self, receiver: FaultReceiver) -> None:
        self._on_read: Callable[[], None] | None = None
        self._on_half: Callable[[], None] | None = None
        self._on_answer: Callable[[], None] | None = None
        self._lock = threading.Lock()
        receiver.on_request = self._read
        receiver.on_half = lambda _: not self._do("_on_half")
        receiver.on_answer = self._answered

    def _read(self, _: Seen) -> None:
        self._do("_on_read")

    def _answered(self, _: Seen) -> None:
        self._do("_on_answer")

    def _do(self, name: str) -> bool:
        with self._lock:
            action: Callable[[], None] | None = getattr(self, name)
            setattr(self, name, None)
        if action is not None:
            action()
        return action is not None

    def order(self, step: str, job_id: str, node: NodeProcess, rules: Path) -> None:
        """Let the node that leads this job be killed at that step of it. The job is not due yet.

        `rules` is where the shim of the node looks for its orders.
        """
        before, after = f"kill {job_id} 0 0", f"kill {job_id} 0 1"
        kill = node.process.kill
        match step:
            case "before the intent":
                give(rules, before)
            case "after the intent":
                give(rules, after)
            case "in the middle of the request":
                self._on_half = kill
            case "before the response":
                self._on_read = kill
            case "after the response":
                self._on_answer = kill
                self._on_read = lambda: _stop(node)
            case "before the settle":
                self._on_read = lambda: give(rules, before)
            case "after the settle":
                self._on_read = lambda: give(rules, after)


def _stop(node: NodeProcess) -> None:
    """SIGSTOP, and wait until no thread of it runs any more."""
    node.process.send_signal(signal.SIGSTOP)
    tasks = Path(f"/proc/{node.process.pid}/task")

    def stands() -> bool:
        stats = [(each / "stat").read_text() for each in tasks.iterdir()]
        return all(each.rpartition(")")[2].split()[0] == "T" for each in stats)

    wait_until(stands, "it does not stand still")


class Recipient(NamedTuple):
    """The recipient of a test: what it saw, and what webhooks did there with and without dedupe."""

    receiver: FaultReceiver
    executioner: Executioner
    once: Effects
    plain: Effects

    def came(self, job_id: str) -> tuple[int, int, int]:
        """How often a job came as a whole, and how many effects it had, with dedupe and without."""
        ids = [
            seen.webhook_id
            for seen in self.receiver.requests
            if seen.headers["timemachine-job-id"] == job_id
        ]
        assert len(set(ids)) <= 1, "one fire, two webhook-ids"
        webhook_id = ids[0] if ids else ""
        return len(ids), self.once.counts()[webhook_id], self.plain.counts()[webhook_id]


@contextmanager
def _recipient() -> Iterator[Recipient]:
    once, plain = Effects(dedupe=True), Effects(dedupe=False)
    with FaultReceiver(effects=(once, plain)) as receiver:
        yield Recipient(receiver, Executioner(receiver), once, plain)
    assert [] == receiver.conflicts + once.wrong() + plain.wrong()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fault shim."""
    return build_shim(tmp_path_factory.mktemp("shim"))


def _job(job_id: str, step: str) -> dict[str, Any]:
    """A job that is due soon; where half a request is read it is a large one."""
    meta = "m" * (200_000 if "middle" in step else 10)
    return {"id": job_id, "trigger_time": now_ms() + _AHEAD_MS, "meta": meta}


def _at_rest(ask: Callable[[str, str], tuple[int, Any]], job_id: str) -> str:
    """The state in which a job comes to rest."""
    seen: dict[str, Any] = {}

    def over() -> bool:
        seen.update(ask("GET", f"{JOBS}/{job_id}")[1])
        return seen["state"] in ("delivered", "dead")

    wait_until(over, f"{job_id} does not come to rest", 60)
    assert ("unknown" if seen["state"] == "dead" else None) == seen["reason"]
    return str(seen["state"])


def _attempts(ask: Callable[[str, str], tuple[int, Any]], job_id: str) -> list[dict[str, Any]]:
    """The attempts of a job, the first one first."""
    items: list[dict[str, Any]] = ask("GET", f"{JOBS}/{job_id}/attempts")[1]["items"]
    assert len({each["attempt"] for each in items}) == len(items), "an attempt has two records"
    return sorted(items, key=lambda each: int(each["attempt"]))


def _statuses(attempts: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(each["status"] for each in attempts)


@pytest.mark.parametrize("delivery", [MORE, ONCE])
def test_a_node_is_killed_at_each_step(tmp_path: Path, shim: Path, delivery: str) -> None:
    """R105, R106, R108: with dedupe one effect, without it one for each time that it came.

    A delivery at most once that was open is left to an operator and never sent again.
    """
    rules, data = tmp_path / "rule", tmp_path / "data"
    ends: dict[str, Ends] = {}
    with _recipient() as there, NodeProcess(data, environment=shimmed(shim, data, rules)) as node:
        node.start().set_up(there.receiver.url("/effect"), num_vnodes=1, delivery=delivery)
        for number, step in enumerate(STEPS):
            job_id = f"the-job-{number}"
            node.create([_job(job_id, step)])
            there.executioner.order(step, job_id, node, rules)
            assert -signal.SIGKILL == node.wait(), node.log_tail()
            assert not rules.exists()
            node.start()
            state = _at_rest(node.ask, job_id)
            came, once, plain = there.came(job_id)
            assert (min(1, came), came) == (once, plain), step
            ends[step] = Ends(came, _statuses(_attempts(node.ask, job_id)), state)
        assert 0 == node.stop()
    assert {step: of[delivery] for step, of in STEPS.items()} == ends


@pytest.mark.parametrize("delivery", [MORE, pytest.param(ONCE, marks=pytest.mark.slow)])
def test_a_leader_is_killed_at_each_step(tmp_path: Path, shim: Path, delivery: str) -> None:
    """R105, R106, R108, with three nodes: another one leads and goes on, the dead one returns.

    What the leader has not written may be on its way to the others, so around intent and settle
    either may have been committed.
    """
    rules = {number: tmp_path / f"rule{number}" for number in (1, 2, 3)}
    environments = {
        number: shimmed(shim, tmp_path / f"node{number}", rule) for number, rule in rules.items()
    }
    around = {
        "before the intent": "after the intent",
        "after the intent": "before the intent",
        "before the settle": "after the settle",
        "after the settle": "before the settle",
    }
    with _recipient() as there, Cluster(tmp_path, environments=environments) as cluster:
        cluster.form()
        cluster.set_up(there.receiver.url("/effect"), num_vnodes=1, delivery=delivery)
        steps, jobs = list(STEPS), count()
        while steps:
            step, job_id = steps[0], f"the-job-{next(jobs)}"
            cluster.create([_job(job_id, step)])
            (row,) = cluster.vnodes()
            victim = cluster.ids[row["leader"]]
            node = cluster.nodes[victim]
            there.executioner.order(step, job_id, node, rules[victim])
            assert -signal.SIGKILL == node.wait(), cluster.logs()
            assert victim != cluster.wait_led(without=victim)[0]
            _at_rest(cluster.ask, job_id)
            cluster.restart(victim)
            cluster.wait_whole()
            state = _at_rest(cluster.ask, job_id)
            came, once, plain = there.came(job_id)
            assert (min(1, came), came) == (once, plain), step
            attempts = _attempts(cluster.ask, job_id)
            if step != "before the intent" and attempts[0]["term"] != row["term"]:
                continue  # it was not the leader any more, for leaders are spread over the nodes
            found = Ends(came, _statuses(attempts), state)
            assert found in (STEPS[step][delivery], STEPS[around.get(step, step)][delivery]), step
            steps.pop(0)
