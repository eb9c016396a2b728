"""A node that is killed with -9 again and again, under load."""

import http.client
import json
import os
import random
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from node.demo import NodeProcess
from timemachine.testing import RecordingReceiver

ROUNDS = int(os.environ.get("TIMEMACHINE_TEST_ROUNDS", "50"))
JOBS = "/v1/dbs/default/collections/jobs/jobs"
SLACK_MS = 200
"""A delete this long before the due moment is always `cancelled`."""


class Creator(threading.Thread):
    """Creates, changes and deletes jobs, and writes down what it was told."""

    def __init__(self, address: str, seed: int, number: int) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.rng = random.Random(seed)
        self.prefix = f"{seed}-{number}"
        self.acked: dict[str, int] = {}
        self.cancelled: dict[str, float] = {}
        self.wrong: list[str] = []
        self.stop = False

    def run(self) -> None:
        """Work until the node is gone or the test says stop."""
        connection = http.client.HTTPConnection(self.address, timeout=5)
        number = 0
        while not self.stop:
            number += 1
            try:
                self._one(connection, f"{self.prefix}-{number}")
            except (OSError, http.client.HTTPException):
                return
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def _one(self, connection: http.client.HTTPConnection, job_id: str) -> None:
        delay_ms = self.rng.choice([0, 50, 300, 1_500])
        due_ms = time.time_ns() // 1_000_000 + delay_ms
        job = {"id": job_id, "trigger_time": due_ms, "route": "hook", "meta": {"v": 1}}
        status, answer = self._ask(connection, "POST", JOBS, job)
        if status != 201:
            self.wrong.append(f"POST {job_id}: {status} {answer}")
            return
        self.acked[job_id] = due_ms
        if self.rng.random() < 0.3:
            asked_ms = time.time_ns() // 1_000_000
            self.acked.pop(job_id)
            status, answer = self._ask(connection, "DELETE", f"{JOBS}/{job_id}", None)
            if status == 200 and answer["outcome"] == "cancelled":
                self.cancelled[job_id] = time.time()
            elif due_ms - asked_ms > SLACK_MS:
                self.wrong.append(f"DELETE {job_id}, {due_ms - asked_ms} ms early: {answer}")


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_over_many_kills(tmp_path: Path) -> None:
    """Over 50 kills at random moments under load: nothing lost, nothing cancelled fires.

    And no job has two webhook ids, and whatever repeats was delivered shortly before a kill.
    """
    seed = int(os.environ.get("TIMEMACHINE_TEST_SEED", str(time.time_ns() % 1_000_000)))
    print(f"seed {seed}: TIMEMACHINE_TEST_SEED={seed}")
    rng = random.Random(seed)
    node = NodeProcess(tmp_path / "data", tmp_path / "node.log")
    acked: dict[str, int] = {}
    cancelled: dict[str, float] = {}
    wrong: list[str] = []
    kills: list[float] = []
    with RecordingReceiver() as receiver:
        node.start()
        connection = http.client.HTTPConnection(node.address)
        for path, body in (
            ("/v1/dbs/default/collections/jobs", {"num_vnodes": 4}),
            (
                "/v1/dbs/default/routes/hook",
                {"webhook_url": receiver.url, "retry": {"schedule_ms": [200]}},
            ),
        ):
            connection.request("PUT", path, json.dumps(body))
            response = connection.getresponse()
            assert response.status == 201, response.read()
            response.read()
        connection.close()
        for kill in range(ROUNDS):
            creators = [Creator(node.address, seed * 1_000 + kill, n) for n in range(3)]
            for creator in creators:
                creator.start()
            time.sleep(rng.uniform(0.05, 0.5))
            kills.append(time.time())
            node.kill()
            for creator in creators:
                creator.stop = True
                creator.join()
                acked |= creator.acked
                cancelled |= creator.cancelled
                wrong += creator.wrong
            node.start()
        end = time.time() + 60
        while time.time() < end and acked.keys() - {job for _, job, _ in _arrivals(receiver)}:
            time.sleep(0.2)
        assert 0 == node.stop()
        arrivals = _arrivals(receiver)
    assert not wrong
    assert len(acked) > ROUNDS
    fired = {job_id for _, job_id, _ in arrivals}
    assert not acked.keys() - fired, "acknowledged and lost"
    for at, job_id, _ in arrivals:
        assert job_id not in cancelled or at <= cancelled[job_id], f"{job_id} fired after cancel"
        assert job_id not in acked or at * 1000 >= acked[job_id], f"{job_id} was early"
    times: dict[str, list[float]] = defaultdict(list)
    identities: dict[str, set[str]] = defaultdict(set)
    for at, job_id, identity in arrivals:
        times[job_id].append(at)
        identities[job_id].add(identity)
    for job_id, seen in times.items():
        assert 1 == len(identities[job_id]), f"{job_id} has several webhook ids"
        for earlier in seen[:-1]:
            assert any(-1.0 < kill - earlier < 1.0 for kill in kills), (
                f"{job_id} came again, and no kill excuses it"
            )


def _arrivals(receiver: RecordingReceiver) -> list[tuple[float, str, str]]:
    """(time in seconds, job id, webhook id) of everything that arrived."""
    return [
        (webhook.arrived_ms / 1000, json.loads(webhook.body)["id"], webhook.headers["webhook-id"])
        for webhook in list(receiver.received)
    ]
