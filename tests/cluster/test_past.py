"""Jobs whose time lies in the past, far below the offset that their vnode has long reached."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import JOBS, ROUTES, Arrival, NodeProcess, Recipient, now_ms, wait_until

COUNT = 300
FAR_MS = 4_000_000_000_000
FLIGHTS = 16


def _offsets(node: NodeProcess) -> list[int]:
    """The times that the offsets of all vnodes stand at."""
    status, answer = node.ask("GET", "/v1/cluster/vnodes")
    assert 200 == status, answer
    return [row["offset"]["time"] for row in answer["items"]]


def _raised(node: NodeProcess, recipient: Recipient) -> int:
    """Let jobs fire until every vnode's offset lies above them; returns the lowest offset.

    An offset rises only where something is still pending, so there are jobs of a far future too.
    """
    due_ms = now_ms()
    far = [{"id": f"far{number}", "trigger_time": FAR_MS + number} for number in range(60)]
    node.create([*far, *({"id": f"due{number}", "trigger_time": due_ms} for number in range(40))])
    recipient.wait(40)
    wait_until(lambda: min(_offsets(node)) > due_ms, "the offsets do not rise")
    return min(_offsets(node))


def _past(below_ms: int, count: int = COUNT) -> list[dict[str, Any]]:
    """Jobs of all times below an offset: from the first millisecond there is to the last."""
    rng = random.Random(count)
    due = [1, 2, below_ms - 2, below_ms - 1, *rng.sample(range(3, below_ms - 2), count - 4)]
    rng.shuffle(due)
    return [{"id": f"past{due_ms}", "trigger_time": due_ms} for due_ms in due]


def _came(recipient: Recipient, jobs: list[dict[str, Any]]) -> list[Arrival]:
    """Wait until each of these jobs has come; returns what came of them."""
    wanted = {job["id"] for job in jobs}

    def there() -> list[Arrival]:
        return [arrival for arrival in recipient.arrivals() if arrival.job_id in wanted]

    wait_until(lambda: wanted == {arrival.job_id for arrival in there()}, "jobs do not come")
    return there()


def _settled(node: NodeProcess, jobs: list[dict[str, Any]]) -> None:
    """Wait until none of these jobs is on its way any more; all are delivered."""
    pending = f"{JOBS}?limit=1&state=scheduled,retrying,firing,held&to={FAR_MS}"
    wait_until(lambda: not node.ask("GET", pending)[1]["items"], "it does not drain")
    found = node.jobs()
    assert {"delivered"} == {found[job["id"]]["state"] for job in jobs}


def _webhook_ids(arrivals: list[Arrival]) -> int:
    return len({arrival.webhook_id for arrival in arrivals})


def test_the_past_fires_at_once(tmp_path: Path) -> None:
    """However far below the offset a job is created, it comes, once, and the answer says so."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url)
        low_ms = _raised(node, recipient)
        jobs = _past(low_ms)
        node.create(jobs)
        one = {"id": "one", "trigger_time": 1_000, "route": "hook"}
        assert (201, True) == ((answer := node.ask("POST", JOBS, one))[0], answer[1]["past_due"])
        jobs.append(one)
        _came(recipient, jobs)
        _settled(node, jobs)
        wait_until(lambda: min(_offsets(node)) >= low_ms, "an offset stays behind")
        assert 0 == node.stop()
    assert len(jobs) == len(_came(recipient, jobs))


@pytest.mark.parametrize("kill", [True, False])
def test_the_past_survives_a_restart(tmp_path: Path, kill: bool) -> None:
    """Created right before the end of a node, with few sends open: the others all come after it.

    What the first node had sent without hearing an answer comes again after a kill, under the
    same webhook id, and nothing else does.
    """
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, max_in_flight=FLIGHTS)
        jobs = _past(_raised(node, recipient))
        recipient.gate.clear()
        node.create(jobs)
        if kill:
            node.kill()
        else:
            node.process.terminate()
        recipient.gate.set()
        if not kill:
            assert 0 == node.wait()
        recipient.settle()
        early = recipient.arrivals()[40:]
        node.start()
        _came(recipient, jobs)
        _settled(node, jobs)
        assert 0 == node.stop()
        arrivals = _came(recipient, jobs)
    assert COUNT == _webhook_ids(arrivals)
    repeats = len(arrivals) - COUNT
    assert repeats <= (min(FLIGHTS, len(early)) if kill else 0)


def test_the_past_survives_a_node_that_keeps_dying(tmp_path: Path) -> None:
    """Killed at any moment while it catches up, again and again: each job comes.

    A kill may repeat what was open at it, which is no more than the route allows.
    """
    rng = random.Random(7)
    kills = 5
    with Recipient(7, slow_ms=50) as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, max_in_flight=FLIGHTS)
        jobs = _past(_raised(node, recipient), 600)
        node.create(jobs)
        for _ in range(kills):
            seen = len(recipient.arrivals())
            node.kill()
            recipient.settle()
            node.start()
            if rng.random() < 0.5:
                recipient.wait(min(seen + rng.randrange(100), 640))
        _came(recipient, jobs)
        _settled(node, jobs)
        assert 0 == node.stop()
        arrivals = _came(recipient, jobs)
    assert 600 == _webhook_ids(arrivals)
    assert len(arrivals) <= 600 + kills * FLIGHTS


@pytest.mark.parametrize("kill", [True, False])
def test_the_past_waits_for_a_paused_route(tmp_path: Path, kill: bool) -> None:
    """Created while the route is paused: held, out of the offset's way, through a restart.

    After the resume all come, each once and in the order of their times.
    """
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, max_in_flight=1)
        low_ms = _raised(node, recipient)
        jobs = _past(low_ms)
        assert 200 == node.ask("POST", f"{ROUTES}/hook/pause")[0]
        node.create(jobs)

        def stay_away() -> bool:
            count = len(node.ask("GET", f"{JOBS}?limit=1000&state=held")[1]["items"])
            return COUNT == count and min(_offsets(node)) >= low_ms

        if kill:
            node.kill()  # not all are out of the way yet: the next node has to go on with it
        else:
            wait_until(stay_away, "held jobs hold down the offset")
            assert 0 == node.stop()
        node.start()
        wait_until(stay_away, "held jobs hold down the offset")
        assert 40 == len(recipient.arrivals()), "a paused route sends"
        assert 200 == node.ask("POST", f"{ROUTES}/hook/resume")[0]
        arrivals = _came(recipient, jobs)
        _settled(node, jobs)
        assert 0 == node.stop()
    order = [arrival.trigger_ms for arrival in arrivals]
    assert sorted(order) == order
    assert COUNT == len(_came(recipient, jobs))


def test_a_future_job_moved_into_the_past_fires_at_once(tmp_path: Path) -> None:
    """Updated from the far future to below the offset: the new version comes, the old one never.

    The node dies right after the last answer.
    """
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, max_in_flight=FLIGHTS)
        times = _past(_raised(node, recipient), 60)
        jobs = [job | {"id": f"far{number}"} for number, job in enumerate(times)]
        # Something has to be pending still, or no offset would ever rise again.
        node.create([{"id": f"last{number}", "trigger_time": FAR_MS} for number in range(20)])
        for number, job in enumerate(jobs):
            method = ("PUT", "PATCH")[number % 2]
            body = {"trigger_time": job["trigger_time"], "route": "hook"}
            status, answer = node.ask(method, f"{JOBS}/{job['id']}", body)
            assert (200, 2, "replaced") == (
                status,
                answer["version"],
                answer["previous"]["outcome"],
            )
        node.kill()
        recipient.settle()
        node.start()
        _came(recipient, jobs)
        _settled(node, jobs)
        assert 0 == node.stop()
        arrivals = _came(recipient, jobs)
    assert {2} == {arrival.version for arrival in arrivals}
    times_asked = {job["id"]: job["trigger_time"] for job in jobs}
    assert times_asked == {arrival.job_id: arrival.trigger_ms for arrival in arrivals}
    assert 60 == _webhook_ids(arrivals)
    assert len(arrivals) <= 60 + FLIGHTS
