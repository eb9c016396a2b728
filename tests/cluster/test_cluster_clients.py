"""Clients that race with the clock or repeat themselves, and recipients that answer badly.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.checks.promises import Rules
from tests.cluster.cluster import PATIENCE_S
from tests.cluster.process import JOBS
from tests.cluster.recorder import Reply, Request, wall_ms
from tests.cluster.stage import SEED, staged
from tests.cluster.witness import RULES, Witness

pytestmark = pytest.mark.timeout(300)


def test_25_changes_race_with_the_due_time(tmp_path: Path) -> None:
    """Scenario 25 (C5, C6): either it fired and the answer says so, or it never does."""
    with staged(tmp_path) as (_, recorder, witness):
        recorder.reply = lambda request: Reply(pause_ms=request.due_ms % 4 * 10)
        threads = [
            threading.Thread(target=_race, args=(witness, number), daemon=True)
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4 * PATIENCE_S)
        history = witness.finish()
    outcomes: Counter[str] = Counter()
    for call in history.calls:
        outcomes[getattr(call.answered, "outcome", "")] += 1
        outcomes[(getattr(call.answered, "previous", None) or (0, ""))[1]] += 1
    print(outcomes)
    assert {"replaced", "in_flight", "already_delivered", "cancelled"} <= outcomes.keys()


def _race(witness: Witness, number: int) -> None:
    """Make jobs and change or delete them just when they fall due, again and again."""
    dice = random.Random(SEED * 10 + number)
    with witness.clerk(number) as clerk:
        for turn in range(80):
            job = f"race{number}-{turn}"
            due_ms = int(wall_ms()) + 60
            clerk.put(job, due_ms)
            time.sleep(max(0.0, (due_ms - wall_ms() + dice.uniform(-25, 40)) / 1_000))
            for _ in range(dice.randrange(1, 4)):
                drawn = dice.random()
                if drawn < 0.4:
                    clerk.delete(job)
                elif drawn < 0.6:
                    clerk.put(job, int(wall_ms()) + 30)
                elif drawn < 0.8:
                    clerk.patch(job, int(wall_ms()) + 30)
                else:
                    clerk.get(job)


def test_26_the_same_key_through_another_node(tmp_path: Path) -> None:
    """Scenario 26 (C2, jobs counted): one job, whoever is asked how often."""
    dice = random.Random(SEED)
    with staged(tmp_path) as (cluster, _, witness):
        due_ms = int(wall_ms()) + 2_000
        bodies = [{"trigger_time": due_ms, "route": "hook", "meta": number} for number in range(40)]
        for number, body in enumerate(bodies):
            with contextlib.suppress(OSError, http.client.HTTPException):
                node = cluster.nodes[1 + number % 3]
                _create(node.address, number, body, timeout_s=dice.uniform(0.000_5, 0.01))
        told = []
        for number, body in enumerate(bodies):
            answers = [
                _create(cluster.nodes[1 + (number + step) % 3].address, number, body)
                for step in (1, 2)
            ]
            assert {201} == {status for status, _ in answers} or {200, 201} >= {
                status for status, _ in answers
            }, answers
            told.append({answer["id"] for _, answer in answers})
        assert {1} == {len(ids) for ids in told}, told
        cluster.kill(cluster.leads_most())
        for number, body in enumerate(bodies):
            status, answer = _ask_on(cluster.running(), cluster, number, body)
            assert status in (200, 201), answer
            assert {answer["id"]} == told[number]
        status, answer = _ask_on(cluster.running(), cluster, 0, {**bodies[0], "meta": "other"})
        assert (422, "idempotency_key_reused") == (status, answer["code"]), answer
        cluster.restart(next(iter({1, 2, 3} - set(cluster.running()))))
        cluster.wait_whole()
        status, page = cluster.ask("GET", f"{JOBS}?limit=1000")
        assert 200 == status
        assert {next(iter(ids)) for ids in told} == {job["id"] for job in page["items"]}
        assert {1} == {job["version"] for job in page["items"]}
        history = witness.finish()
    sent = {each.webhook_id for each in history.webhooks if not each.job.startswith("probe")}
    assert len(bodies) == len(sent)


def _create(
    address: str, number: int, body: dict[str, Any], timeout_s: float = 30.0
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"key-{number}"}
        connection.request("POST", JOBS, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _ask_on(numbers: list[int], cluster: Any, number: int, body: dict[str, Any]) -> tuple[int, Any]:
    """Ask as long as it takes until some node knows."""
    end = time.monotonic() + PATIENCE_S
    while True:
        for each in numbers:
            status, answer = _create(cluster.nodes[each].address, number, body)
            if status != 503:
                return status, answer
        assert time.monotonic() < end, answer


def test_27_recipients_that_answer_badly(tmp_path: Path) -> None:
    """Scenario 27 (C1, C2, C3): each is tried again with the same id; others do not wait."""

    def reply(request: Request) -> Reply:
        match request.route, request.attempt:
            case "fails", 1 | 2:
                return Reply(500)
            case "busy", 1:
                return Reply(429, headers=(("Retry-After", "1"),))
            case "slow", 1:
                return Reply(pause_ms=2_500)
            case "resets", 1 | 2:
                return Reply(None)
            case "redirects", _:
                return Reply(302, headers=(("Location", "/elsewhere"),))
        return Reply()

    retry = {"schedule_ms": [200], "max_attempts": 4, "jitter": 0}
    with staged(tmp_path) as (cluster, recorder, witness):
        recorder.reply = reply
        kinds = ("fails", "busy", "slow", "resets", "redirects")
        for kind in kinds:
            cluster.route(kind, recorder.url(kind), timeout_ms=1_000, retry=retry)
        cluster.route("nobody", "http://127.0.0.1:1024/", timeout_ms=1_000, retry=retry)
        witness.start(2)
        with witness.clerk() as clerk:
            for number in range(20):
                for kind in (*kinds, "nobody"):
                    clerk.put(f"{kind}{number}", int(wall_ms()) + 200, route=kind)
        witness.wait_for(100)
        rules = Rules(
            drain_ms=RULES.drain_ms,
            probe_ms=RULES.probe_ms,
            timeout_ms=1_000,
            unsent_states=frozenset({"dead"}),
        )
        history = witness.finish(rules)
    attempts: dict[str, Counter[int]] = {kind: Counter() for kind in ("hook", *kinds)}
    ids: dict[tuple[str, str], set[str]] = {}
    for webhook in history.webhooks:
        attempts[webhook.route][webhook.attempt] += 1
        ids.setdefault((webhook.route, webhook.job), set()).add(webhook.webhook_id)
    assert {1} == {len(found) for (route, _), found in ids.items() if route in kinds}
    wanted = {"fails": 3, "busy": 2, "slow": 2, "resets": 3, "redirects": 4}
    assert wanted == {kind: max(attempts[kind]) for kind in kinds}
    for kind in kinds:
        assert all(20 <= attempts[kind][number + 1] for number in range(wanted[kind])), attempts
    endings = {name: ending for name, ending in history.endings.items() if ending is not None}
    states = {kind: {endings[f"{kind}{n}"].state for n in range(20)} for kind in wanted}
    assert {"redirects": {"dead"}} == {k: v for k, v in states.items() if v != {"delivered"}}
    assert {"dead"} == {endings[f"nobody{number}"].state for number in range(20)}
