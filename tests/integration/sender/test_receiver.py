"""The recipient that misbehaves, as a program and as a witness."""

import http.client
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.effects import Effects
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


@pytest.mark.parametrize(
    ("path", "flag", "bodies", "fails"),
    [
        ("/", [], [b"1", b"2"], True),
        ("/effect", [], [b"1", b"2"], True),
        ("/effect", [], [b"1", b"1"], False),
        ("/effect", ["--no-dedupe"], [b"1", b"1"], False),
    ],
)
def test_a_program_that_finds_something_wrong_fails(
    path: str, flag: list[str], bodies: list[bytes], fails: bool
) -> None:
    """Two bodies under one webhook-id end it with exit code 1; the same again is no fault."""
    command = [sys.executable, "-m", "tests.faults.receiver", "--port", "0", *flag]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, _, port = process.stdout.readline().removeprefix("ready http=").rpartition(":")
            for body in bodies:
                connection = http.client.HTTPConnection(host, int(port))
                connection.request("POST", path, body, {"webhook-id": "w7"})
                with suppress(http.client.HTTPException, OSError):
                    connection.getresponse()
                connection.close()
            if fails:
                assert 1 == process.wait(20)
                assert "wrong:\nw7 came with two bodies\n" == process.stdout.read()
            else:
                assert process.poll() is None
        finally:
            process.kill()


def test_effects_are_counted() -> None:
    """With dedupe once, without it each time; one id with two bodies is wrong in both."""
    for dedupe, count in ((True, 1), (False, 2)):
        effects = Effects(dedupe=dedupe)
        assert [200, 200] == [effects.take("a", b"1"), effects.take("a", b"1")]
        assert ({"a": count}, []) == (effects.counts(), effects.wrong())
        effects.take("a", b"2")
        assert ["a came with two bodies"] == effects.wrong()
        effects.close()


def test_two_effects_are_found() -> None:
    """Where dedupe does not do what it is for."""
    effects = Effects(dedupe=True)
    effects.take("a", b"1")
    effects._do("a")
    assert ["a had 2 effects"] == effects.wrong()
    effects.close()


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
