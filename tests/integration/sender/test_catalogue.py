"""The sender against every behaviour of the fault receiver, by its catalogue."""

import socket

import pytest

from tests.faults.catalogue import ENDINGS, KEPT_BYTES, MIB, TLS, UNREAD, waits_for_deadline
from tests.faults.certificates import KINDS, Certificates
from tests.faults.receiver import _BEHAVIOURS, FaultReceiver
from tests.integration.sender.harness import LONG_MS, SHORT_MS, Lab, until
from timemachine.outbound import Outcome
from timemachine.retry import AttemptFacts, RetryPolicy, Verdict, decide

LATE_MS = 10_000
"""Beyond a deadline: far more than the half second that is promised, for a machine with much to do;
what does not keep to deadlines does not end at all."""


def _becomes(outcome: Outcome) -> str:
    """What becomes of a job whose first attempt ends so."""
    decision = decide(
        AttemptFacts(
            status=outcome.status,
            error_code=outcome.error_code,
            retry_after=outcome.headers.get("retry-after"),
            webhook_delivery=outcome.headers.get("webhook-delivery"),
            bytes_sent=outcome.bytes_sent,
        ),
        RetryPolicy(),
        attempt=1,
        first_attempt_ms=0,
        ended_ms=0,
        random=0.0,
    )
    if decision.verdict is Verdict.DEAD:
        assert decision.disable_route is not None
        return decision.disable_route
    return decision.verdict.name.lower()


@pytest.mark.parametrize("path", ENDINGS)
async def test_each_behaviour(lab: Lab, receiver: FaultReceiver, path: str) -> None:
    """R16 to R18, R21, R24, R26, R35, R40 to R42: one request, ended in time, as it has to.

    Nothing is sent again, no redirect followed, no more kept than the cap, and no connection is
    used on that was not answered on.
    """
    expected = ENDINGS[path]
    timeout_ms = SHORT_MS if waits_for_deadline(path) else LONG_MS
    outcome = await lab.send(receiver.url(path), timeout_ms=timeout_ms)
    found = (outcome.status, outcome.error_code, outcome.error_phase, outcome.truncated)
    assert expected[1:] == found
    assert expected.outcome == _becomes(outcome)
    assert (outcome.status is None) == (outcome.error_message is not None)
    assert outcome.bytes_sent
    assert outcome.total_ms < timeout_ms + LATE_MS
    assert len(outcome.body) <= KEPT_BYTES
    assert 1 == receiver.connections
    assert len(receiver.requests) == (path != "/stall/before-reading")
    assert 0 == receiver.visited
    await until(lambda: lab.default.connections == lab.default.idle)
    if outcome.status is None:
        assert 0 == lab.default.idle
    assert receiver.sent_bytes < 64 * MIB


@pytest.mark.parametrize("path", UNREAD)
async def test_what_is_not_read(lab: Lab, receiver: FaultReceiver, path: str) -> None:
    """R24, R35: a recipient that closes before it has read all has failed the attempt, once."""
    code, phases = UNREAD[path]
    outcome = await lab.send(receiver.url(path), body=b"x" * 16 * MIB)
    assert (code, None) == (outcome.error_code, outcome.status)
    assert outcome.error_phase in phases
    assert "retry" == _becomes(outcome)
    assert outcome.bytes_sent
    assert (1, []) == (receiver.connections, receiver.requests)


@pytest.mark.parametrize("kind", TLS)
async def test_each_kind_of_certificate(lab: Lab, certificates: Certificates, kind: str) -> None:
    """R24, R35: nothing is sent where a certificate does not fit, and it is tried again later."""
    sentence = TLS[kind]
    with FaultReceiver(context=certificates.server(kind)) as receiver:
        outcome = await lab.send(receiver.url("/"), tls=certificates.trusting())
        if sentence is None:
            assert (200, "delivered") == (outcome.status, _becomes(outcome))
            return
        assert ("tls_error", "tls") == (outcome.error_code, outcome.error_phase)
        assert outcome.error_message is not None
        assert sentence in outcome.error_message
        assert "retry" == _becomes(outcome)
        assert (1, []) == (receiver.connections, receiver.requests)


async def test_nobody_listens(lab: Lab) -> None:
    """R24: a refused connection is tried again, and no byte has left."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = await lab.send(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert ("connection_refused", "connect", False) == (
        outcome.error_code,
        outcome.error_phase,
        outcome.bytes_sent,
    )
    assert "retry" == _becomes(outcome)


def test_the_catalogue_is_complete() -> None:
    """Each behaviour and each kind of certificate stands in it.

    Not so what answers in its own way each time: after a while, by the times that an id came, with
    what was seen, with an effect, or before all of a large request is read.
    """
    others = {"flaky", "slow", "seen", "visited", "effect"}
    paths = {path.split("?")[0].split("/")[1] for path in (*ENDINGS, *UNREAD)}
    assert _BEHAVIOURS.keys() - others == paths
    assert set(KINDS) == TLS.keys()
