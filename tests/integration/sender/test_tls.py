"""TLS: verified against the URL's host, with what a route adds to it."""

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from node.sender.connection import Connection
from tests.faults.certificates import Certificates
from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import LOOPBACK, SHORT_MS, Answers, Lab, until
from timemachine.addresses import AddressPolicy
from timemachine.outbound import TlsOptions


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost."])
async def test_a_certificate_that_fits(lab: Lab, certificates: Certificates, host: str) -> None:
    """A trusted certificate for the URL's host is good, and its connection is used again."""
    lab.sender(resolver=Answers(["127.0.0.1"]))
    with FaultReceiver(context=certificates.server("right")) as receiver:
        for _ in range(3):
            outcome = await lab.send(receiver.url("/", host=host), tls=certificates.trusting())
            assert (200, b"ok", "127.0.0.1") == (outcome.status, outcome.body, outcome.remote_ip)
        assert 1 == receiver.connections
        assert 3 == len(receiver.requests)


async def test_the_first_request_has_the_time_of_its_phases(
    lab: Lab, certificates: Certificates
) -> None:
    """Phases that took place have a duration, a used connection has none of them."""
    with FaultReceiver(context=certificates.server("right")) as receiver:
        first = await lab.send(receiver.url("/slow/50"), tls=certificates.trusting())
        again = await lab.send(receiver.url("/slow/50"), tls=certificates.trusting())
    assert first.tls_ms >= 0
    assert (0.0, 0.0, 0.0) == (again.resolve_ms, again.connect_ms, again.tls_ms)
    assert again.total_ms >= again.first_byte_ms > 40


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("wrong_name", "The certificate of 127.0.0.1 is for another name."),
        ("expired", "The certificate of 127.0.0.1 has expired."),
        ("not_yet_valid", "The certificate of 127.0.0.1 is not valid yet."),
        ("self_signed", "The certificate of 127.0.0.1 is not signed by a trusted authority."),
        ("old", "The TLS handshake with 127.0.0.1 failed."),
    ],
)
async def test_a_certificate_that_does_not_fit(
    lab: Lab, certificates: Certificates, kind: str, sentence: str
) -> None:
    """Each kind is refused with its own sentence, and no request is sent."""
    with FaultReceiver(context=certificates.server(kind)) as receiver:
        outcome = await lab.send(receiver.url("/"), tls=certificates.trusting())
        assert ("tls_error", "tls") == (outcome.error_code, outcome.error_phase)
        assert sentence == outcome.error_message
        assert not outcome.bytes_sent
        assert [] == receiver.requests
        assert 1 == receiver.connections


async def test_the_authority_must_be_configured(lab: Lab, certificates: Certificates) -> None:
    """Without the route's own authority only the system's are trusted."""
    with FaultReceiver(context=certificates.server("right")) as receiver:
        outcome = await lab.send(receiver.url("/"))
        assert "tls_error" == outcome.error_code
        assert [] == receiver.requests


async def test_the_name_is_checked_though_the_socket_goes_to_an_address(
    lab: Lab, certificates: Certificates
) -> None:
    """The host of the URL counts, not where its name points."""
    with FaultReceiver(context=certificates.server("right")) as receiver:
        sender = lab.sender(resolver=Answers(["127.0.0.1"]))
        url = receiver.url("/", host="other.example")
        outcome = await lab.send(url, sender, tls=certificates.trusting())
        assert "The certificate of other.example is for another name." == outcome.error_message
        sender = lab.sender(AddressPolicy(LOOPBACK), resolver=Answers(["127.0.0.1"]))
    with FaultReceiver(context=certificates.server("wrong_name")) as receiver:
        url = receiver.url("/", host="elsewhere.example")
        assert 200 == (await lab.send(url, sender, tls=certificates.trusting())).status


async def test_verification_can_be_switched_off(lab: Lab, certificates: Certificates) -> None:
    """By a route for itself: others to the same place still verify, on connections of their own."""
    with FaultReceiver(context=certificates.server("self_signed")) as receiver:
        careless = TlsOptions(skip_verify=True)
        assert 200 == (await lab.send(receiver.url("/"), tls=careless)).status
        outcome = await lab.send(receiver.url("/"), tls=certificates.trusting())
        assert "tls_error" == outcome.error_code
        assert 200 == (await lab.send(receiver.url("/"), tls=careless)).status
        assert 2 == receiver.connections


async def test_a_client_certificate(lab: Lab, certificates: Certificates) -> None:
    """A recipient that asks for a certificate gets the route's."""
    with FaultReceiver(context=certificates.server("needs_client")) as receiver:
        outcome = await lab.send(receiver.url("/"), tls=certificates.client())
        assert 200 == outcome.status


async def test_no_client_certificate(lab: Lab, certificates: Certificates) -> None:
    """Without one, or with a stranger's, the recipient's refusal is told as what it is."""
    with FaultReceiver(context=certificates.server("needs_client")) as receiver:
        for options in (certificates.trusting(), certificates.client(known=False)):
            outcome = await lab.send(receiver.url("/"), tls=options)
            assert ("tls_error", "tls") == (outcome.error_code, outcome.error_phase)
            assert (
                "127.0.0.1 refused the client certificate, or asks for one."
                == outcome.error_message
            )
        assert [] == receiver.requests


async def test_an_expired_client_certificate(lab: Lab, certificates: Certificates) -> None:
    """It is not even tried: the reason is clear without asking the recipient."""
    with FaultReceiver(context=certificates.server("needs_client")) as receiver:
        options = certificates.client(expired=True)
        sender = lab.sender(wall_ms=lambda: 4_000_000_000_000)
        outcome = await lab.send(receiver.url("/"), sender, tls=options)
        assert ("tls_error", "tls") == (outcome.error_code, outcome.error_phase)
        assert "The client certificate for 127.0.0.1 has expired." == outcome.error_message
        assert not outcome.bytes_sent


@pytest.mark.parametrize("pem", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
async def test_pem_that_cannot_be_used(lab: Lab, certificates: Certificates, pem: str) -> None:
    """Broken PEM is a failure of its own that keeps failing, not a crash."""
    with FaultReceiver(context=certificates.server("right")) as receiver:
        for _ in range(2):
            outcome = await lab.send(receiver.url("/"), tls=TlsOptions(ca_pem=pem))
            assert "tls_error" == outcome.error_code
            assert (
                "The certificates configured for 127.0.0.1 cannot be used." == outcome.error_message
            )


async def test_identities_do_not_share_connections(lab: Lab, certificates: Certificates) -> None:
    """A connection made with one client certificate is not used for another."""
    with FaultReceiver(context=certificates.server("needs_client")) as receiver:
        for options in (certificates.client(), certificates.client()):
            for _ in range(2):
                assert 200 == (await lab.send(receiver.url("/"), tls=options)).status
        assert 2 == receiver.connections


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_no_handshake(lab: Lab, answer: bytes) -> None:
    """A recipient that does not speak TLS, or goes away instead, fails the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept_and_close() -> None:
            stream, _ = listener.accept()
            stream.recv(4096)
            stream.sendall(answer)
            stream.close()

        thread = threading.Thread(target=accept_and_close)
        thread.start()
        outcome = await lab.send(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert ("tls_error", "tls") == (outcome.error_code, outcome.error_phase)
    assert not outcome.bytes_sent


@pytest.mark.parametrize("whole", [True, False])
async def test_a_handshake_that_does_not_end(lab: Lab, whole: bool) -> None:
    """The deadline, and the phase's own limit, cover the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        if whole:
            outcome = await lab.send(url, timeout_ms=SHORT_MS)
        else:
            outcome = await lab.send(url, lab.sender(phase_timeout_s=0.3))
        await until(lambda: all(sender.connections == 0 for sender in lab.senders))
    assert ("timeout", "tls") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 did not finish the TLS handshake in time." == outcome.error_message
    assert not outcome.bytes_sent


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/close/after-request", "connection_reset"),
        ("/reset/after-request", "connection_reset"),
        ("/stall/after-request", "timeout"),
        ("/invalid/garbage", "protocol_error"),
    ],
)
async def test_failures_after_the_handshake(
    lab: Lab, certificates: Certificates, path: str, code: str
) -> None:
    """Over TLS the same failures have the same names."""
    with FaultReceiver(context=certificates.server("right")) as receiver:
        outcome = await lab.send(
            receiver.url(path), tls=certificates.trusting(), timeout_ms=2 * SHORT_MS
        )
        assert code == outcome.error_code
        assert outcome.bytes_sent
        assert 1 == len(receiver.requests)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_handshake_given_up_as_it_ends(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Its connection is cut: nobody is left who could wait for the other side's farewell."""
    reported: list[dict[str, Any]] = []
    made = Connection.connection_made

    async def give_up(receiver: FaultReceiver) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        lab = Lab()

        def connection_made(self: Connection, transport: asyncio.BaseTransport) -> None:
            made(self, transport)
            assert sent.handle.abort_if_unsent()

        monkeypatch.setattr(Connection, "connection_made", connection_made)
        sent = lab.start(receiver.url("/"), tls=certificates.trusting())
        await until(lambda: lab.default.connections == 0)
        await lab.close()
        assert [] == sent.outcomes

    context = certificates.server("right")
    context.num_tickets = 0  # or they would show that the socket is gone
    gc.collect()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with FaultReceiver(context=context) as receiver:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(give_up(receiver))
            receiver.wait_until(lambda: receiver.open == 0)
        gc.collect()
    assert [] == [str(each.message) for each in warned]
    assert [] == reported
    assert [] == receiver.requests


async def test_the_address_guard_holds_for_tls_too(lab: Lab, certificates: Certificates) -> None:
    """A client certificate opens no way into the inside."""
    with FaultReceiver(context=certificates.server("needs_client")) as receiver:
        sender = lab.sender(AddressPolicy())
        outcome = await lab.send(receiver.url("/"), sender, tls=certificates.client())
        assert "blocked_address" == outcome.error_code
        assert 0 == receiver.connections
