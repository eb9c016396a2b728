"""Jobs with ordering keys on three nodes whose leaders are killed: one after the other, all.

The recipient fails often, so that most jobs have several attempts.
"""

import random
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import PATIENCE_S
from tests.cluster.process import JOBS, ROUTES, wait_until
from tests.cluster.recorder import Reply, Request, wall_ms
from tests.cluster.stage import SEED, staged

_KEYS: Final = 8
_JOBS: Final = 12
_APART_MS: Final = 400


@pytest.mark.timeout(300)
def test_leaders_are_killed_while_keys_wait_for_their_turns(tmp_path: Path) -> None:
    """Nothing comes between the attempts of a job, nor before its turn; nothing is lost."""
    rng = random.Random(SEED)

    def reply(request: Request) -> Reply:
        failed = request.attempt < 5 and rng.random() < 0.4
        return Reply(503 if failed else 204, pause_ms=rng.choice([0.0, 20.0, 100.0]))

    retry = {"schedule_ms": [100, 200, 400], "max_attempts": 50}
    with staged(tmp_path, timeout_ms=2_000, retry=retry) as (cluster, recorder, _):
        recorder.reply = reply
        begin_ms = int(wall_ms())
        jobs = [
            {
                "id": f"{number}-of-{key}",
                "trigger_time": begin_ms + _APART_MS * number,
                "route": "hook",
                "ordering_key": f"key {key}" if key else None,
            }
            for key in range(_KEYS + 1)
            for number in range(_JOBS)
        ]
        rng.shuffle(jobs)
        # All are there before the first is sent, however long that takes.
        cluster.ask("POST", f"{ROUTES}/hook/pause")
        for each in jobs:
            status, answer = cluster.ask("PUT", f"{JOBS}/{each['id']}", each)
            assert status in (200, 201), answer
        cluster.ask("POST", f"{ROUTES}/hook/resume")
        for came in (_JOBS, 4 * _JOBS):
            wait_until(lambda: len(_ids(recorder.requests())) >= came, "none come", PATIENCE_S)  # noqa: B023
            victim = cluster.leads_most()
            cluster.kill(victim)
            cluster.wait_led(without=victim)
            cluster.restart(victim)
            cluster.wait_whole()

        def delivered() -> bool:
            _, page = cluster.ask("GET", f"{JOBS}?state=delivered&limit=1000")
            return len(page["items"]) == len(jobs)

        wait_until(delivered, "they are not all delivered", PATIENCE_S)
        for each in jobs:
            status, job = cluster.ask("GET", f"{JOBS}/{each['id']}")
            assert (200, "delivered", each["ordering_key"]) == (
                status,
                job["state"],
                job["ordering_key"],
            )
        requests = recorder.requests()
    assert len(requests) > len(jobs), "nothing was tried twice"
    for key in range(1, _KEYS + 1):
        own = [each for each in requests if each.job.endswith(f"-of-{key}")]
        in_turn = [job for job, _ in groupby(own, key=lambda each: each.job)]
        assert [f"{number}-of-{key}" for number in range(_JOBS)] == in_turn


def _ids(requests: list[Request]) -> set[str]:
    return {each.webhook_id for each in requests}
