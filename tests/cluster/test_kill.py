"""A node that is killed again and again under load, and one that is asked to stop."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.load import Creator, History, judge, run_creators
from tests.cluster.process import JOBS, NodeProcess, Recipient, now_ms

ROUNDS = int(os.environ.get("ROUNDS", "50"))
SEED = int(os.environ.get("SEED", "0")) or time.time_ns() % 1_000_000
TIMEOUT_MS = 5_000


def _told(creators: list[Creator]) -> dict[str, History]:
    return {job_id: each for creator in creators for job_id, each in creator.histories.items()}


@pytest.mark.timeout(60 + 4 * ROUNDS)
def test_kills_at_random_moments_break_no_promise(tmp_path: Path) -> None:
    """Whatever the moment of a kill -9: nothing acknowledged is lost, nothing cancelled fires.

    A version has one webhook id and comes at its time or later; it comes twice only when a node
    died in between; an answer about an older version stays true for ever.
    """
    print(f"to see this again: SEED={SEED} ROUNDS={ROUNDS}")
    rng = random.Random(SEED)
    creators = [Creator(SEED, number) for number in range(4)]
    kills: list[tuple[int, int]] = []
    with Recipient(SEED, slow_ms=100) as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, timeout_ms=TIMEOUT_MS, max_in_flight=256)
        for _ in range(ROUNDS):
            stop, threads = run_creators(creators, node.address)
            time.sleep(rng.uniform(0.02, 0.6))
            begin_ms = now_ms()
            node.kill()
            stop.set()
            for thread in threads:
                thread.join()
            recipient.settle()
            kills.append((begin_ms, now_ms()))
            node.start()
        jobs = node.drain()
        repeated = _repeated(recipient)
        arrivals = recipient.arrivals()
        wrong = [line for creator in creators for line in creator.wrong]
        wrong += judge(_told(creators), arrivals, jobs, kills)
        for job_id, count in repeated.items():
            unknown = [each for each in _attempts(node, job_id) if each["status"] == "unknown"]
            if len(unknown) < count:
                wrong.append(f"{job_id}: came {count} times more, and was lost track of: {unknown}")
        assert not wrong, _tell(node, wrong)
        assert 0 == node.stop()
    print(
        f"{sum(creator.answers for creator in creators)} answers, {len(jobs)} jobs,"
        f" {len(arrivals)} webhooks, {sum(repeated.values())} of them repeats"
    )
    assert len(arrivals) > ROUNDS


def _attempts(node: NodeProcess, job_id: str) -> list[dict[str, Any]]:
    status, answer = node.ask("GET", f"{JOBS}/{job_id}/attempts")
    assert 200 == status, answer
    return list(answer["items"])


def _tell(node: NodeProcess, wrong: list[str]) -> str:
    """All that is known about what went wrong."""
    shown = wrong[:10]
    for job_id in dict.fromkeys(line.split(":")[0] for line in shown):
        shown.append(f"{job_id} is {node.ask('GET', f'{JOBS}/{job_id}')}")
        shown += [f"{job_id} has {attempt}" for attempt in _attempts(node, job_id)]
    return f"SEED={SEED}: {len(wrong)} broken promises:\n" + "\n".join(shown)


def _repeated(recipient: Recipient) -> dict[str, int]:
    """How often each job's versions came again, where they did."""
    counts: dict[str, dict[str, int]] = {}
    for arrival in recipient.arrivals():
        ids = counts.setdefault(arrival.job_id, {})
        ids[arrival.webhook_id] = ids.get(arrival.webhook_id, 0) + 1
    return {
        job_id: repeats
        for job_id, ids in counts.items()
        if (repeats := sum(count - 1 for count in ids.values()))
    }


def test_attempts_and_what_the_recipient_saw_agree_over_kills(tmp_path: Path) -> None:
    """R99: each request that came has one attempt, and each answer is of a request that came.

    Only of an attempt whose outcome is unknown none need have come.
    """
    with Recipient(SEED, slow_ms=100) as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, timeout_ms=TIMEOUT_MS)
        for number in range(4):
            recipient.gate.clear()
            came = len(recipient.arrivals())
            node.create([{"id": f"{number}-{each}", "delay_ms": each} for each in range(60)])
            recipient.wait(came + 10)
            recipient.gate.set()
            recipient.wait(came + 40)
            node.kill()
            recipient.settle()
            node.start()
        jobs = node.drain()
        assert 240 == len(jobs)
        attempts = [each for job_id in jobs for each in _attempts(node, job_id)]
        assert 0 == node.stop()
    seen = [f"{each.webhook_id}-{each.attempt}" for each in recipient.arrivals()]
    status = {each["id"]: each["status"] for each in attempts}
    assert len(status) == len(attempts), "an attempt has two records"
    assert sorted(seen) == sorted(set(seen)), "an attempt was sent twice"
    assert set(seen) <= set(status), "a request was seen that no attempt tells of"
    known = {each for each, how in status.items() if how != "unknown"}
    assert known <= set(seen), "an answer is told to a request that nobody saw"
    assert "unknown" in status.values(), "no kill met an open send"


def test_asked_to_stop_it_finishes_what_is_open(tmp_path: Path) -> None:
    """SIGTERM under load: exit code 0, nothing lost, and not one webhook comes twice."""
    creators = [Creator(SEED, number) for number in range(4)]
    with Recipient(SEED, slow_ms=100) as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, timeout_ms=TIMEOUT_MS, max_in_flight=256)
        for _ in range(5):
            stop, threads = run_creators(creators, node.address)
            time.sleep(0.4)
            assert 0 == node.stop(), node.log_tail()
            stop.set()
            for thread in threads:
                thread.join()
            node.start()
        jobs = node.drain()
        assert 0 == node.stop()
        assert "did not end in time" not in node.log.read_text(), "it waited for nothing"
    wrong = [line for creator in creators for line in creator.wrong]
    wrong += judge(_told(creators), recipient.arrivals(), jobs, [])
    assert not wrong, f"SEED={SEED}: {len(wrong)} broken promises:\n" + "\n".join(wrong[:20])


def test_a_stop_waits_for_the_answer_of_an_open_send(tmp_path: Path) -> None:
    """A send whose answer comes after SIGTERM is settled by it, and is not repeated."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, timeout_ms=TIMEOUT_MS)
        recipient.gate.clear()
        node.create([{"id": f"open{number}", "delay_ms": 0} for number in range(20)])
        recipient.wait(20)
        node.process.terminate()
        time.sleep(0.3)
        recipient.gate.set()
        assert 0 == node.wait()
        assert "did not end in time" not in node.log_tail(), "it waited for nothing"
        node.start()
        jobs = node.drain()
        assert {"delivered"} == {job["state"] for job in jobs.values()}
        assert 0 == node.stop()
        assert 20 == len(recipient.arrivals())
