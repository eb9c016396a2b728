"""The recipient that misbehaves, as a program and as a witness."""

import http.client
import json
import subprocess
import sys
from pathlib import Path

from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import Lab
from tests.unit.project import ROOT


def test_as_a_program(tmp_path: Path) -> None:
    """It says where it listens, what it has seen, and writes it down."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.faults.receiver", "--port", "0", "--log", str(log)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, _, port = process.stdout.readline().removeprefix("ready http=").rpartition(":")
            connection = http.client.HTTPConnection(host, int(port))
            connection.request("POST", "/status/418", b"body", {"webhook-id": "w7"})
            assert 418 == connection.getresponse().status
            connection.close()
            connection.request("GET", "/seen")
            (seen,) = json.loads(connection.getresponse().read())
            connection.close()
        finally:
            process.kill()
    assert ("w7", "/status/418", 4) == (seen["webhook_id"], seen["path"], seen["body_bytes"])
    assert seen == json.loads(log.read_text())


async def test_flaky(lab: Lab, receiver: FaultReceiver) -> None:
    """Failures are counted for each webhook-id."""
    statuses = [
        (await lab.send(receiver.url("/flaky/2"), webhook_id=each)).status for each in "abaaba"
    ]
    assert [503, 503, 503, 200, 503, 200] == statuses


async def test_conflicts(lab: Lab) -> None:
    """Two bodies under one webhook-id are found."""
    with FaultReceiver() as receiver:
        for webhook_id, body in (("a", b"1"), ("a", b"1"), ("b", b"1"), ("b", b"2")):
            await lab.send(receiver.url("/"), webhook_id=webhook_id, body=body)
        assert ["b"] == receiver.conflicts
