"""Batches of a node that is killed between two attempts: the same bytes under the same id."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cluster.process import JOBS, NodeProcess, wait_until
from timemachine.receiver import Webhook, verify_items

SECRET = "whsec_" + "c2VjcmV0" * 5
NAMES = [f"job{number}" for number in range(5)]


class _Recipient:
    """Keeps each request, headers and bytes; answers 500 until `good`, nothing while held."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.good = False
        self.gate = threading.Event()
        self.gate.set()
        recipient = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                recipient.requests.append((dict(self.headers.items()), body))
                recipient.gate.wait(30)
                self.send_response(204 if recipient.good else 500)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize("killed", ["between the attempts", "during the attempt"])
def test_a_batch_is_the_same_before_and_after_a_kill(tmp_path: Path, killed: str) -> None:
    """Also when the node never heard what became of it; and then it is done with."""
    with _Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(
            recipient.url,
            num_vnodes=1,
            secret=SECRET,
            batch={"max_jobs": len(NAMES), "max_wait_ms": 5_000},
            retry={"schedule_ms": [2_000], "jitter": 0},
        )
        if killed == "during the attempt":
            recipient.gate.clear()
        node.create([{"id": name, "delay_ms": 0, "meta": {"of": name}} for name in NAMES])
        wait_until(lambda: len(recipient.requests) == 1, "no batch came")
        if killed == "between the attempts":
            wait_until(lambda: _states(node) == {"retrying"}, "no answer was settled")
        node.kill()
        recipient.good = True
        recipient.gate.set()
        node.start()
        jobs = node.drain()
        assert {"delivered"} == {job["state"] for job in jobs.values()}
        first, again = recipient.requests
        assert first[1] == again[1]
        assert first[0]["webhook-id"] == again[0]["webhook-id"]
        assert ("1", "2") == (first[0]["TimeMachine-Attempt"], again[0]["TimeMachine-Attempt"])
        items = verify_items(Webhook(SECRET), again[1], again[0])
        assert sorted(NAMES) == sorted(item.event["id"] for item in items)
        assert {jobs[item.event["id"]]["webhook_id"] for item in items} == {
            item.webhook_id for item in items
        }
        for name in NAMES:
            status, answer = node.ask("GET", f"{JOBS}/{name}/attempts")
            assert 200 == status, answer
            told = [each["batch"] for each in answer["items"]]
            assert 2 == len(told), json.dumps(answer)
            assert {first[0]["webhook-id"]} == {each["webhook_id"] for each in told}
        assert 0 == node.stop()


def _states(node: NodeProcess) -> set[str]:
    return {job["state"] for job in node.jobs().values()}
