"""Webhooks through the egress proxy: what it sees, what it judges, and whose faults are whose."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from node.sender.egress import Egress, parse_proxy
from tests.faults.certificates import Certificates
from tests.faults.proxy import Proxy
from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import LOOPBACK, SHORT_MS, Answers, Lab, until
from timemachine.addresses import AddressPolicy
from timemachine.errors import InvalidRequest
from timemachine.outbound import parse_target

SECRET = b"Basic dXNlcjpwYXNzd29yZA=="
OURS = "The egress proxy of this node opens no tunnels."


def through(proxy: Proxy, ca_pem: str | None = None, *, authorization: bytes = b"") -> Egress:
    """The way out by this proxy."""
    return Egress(parse_proxy(proxy.url)._replace(authorization=authorization), ca_pem)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy that opens tunnels."""
    with Proxy() as proxy:
        yield proxy


@pytest.fixture(params=["http", "https"])
def any_proxy(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Proxy]:
    """The same, with and without TLS of its own."""
    context = certificates.server("right") if request.param == "https" else None
    with Proxy(context=context) as proxy:
        yield proxy


@pytest.mark.parametrize("tls", [False, True])
async def test_through_a_proxy(
    lab: Lab, any_proxy: Proxy, certificates: Certificates, *, tls: bool
) -> None:
    """One tunnel carries many requests of one recipient; names are the proxy's to look up.

    The address that it has found is not known here.
    """
    resolver = Answers(OSError("nobody must ask"))
    egress = through(any_proxy, certificates.ca_pem)
    sender = lab.sender(resolver=resolver, egress=egress)
    context = certificates.server("right") if tls else None
    with FaultReceiver(context=context) as receiver:
        url = receiver.url("/", host="localhost")
        for _ in range(3):
            outcome = await lab.send(url, sender)
            assert (200, None) == (outcome.status, outcome.error_code), outcome
            assert outcome.remote_ip is None
        assert 3 == len(receiver.requests)
        assert 1 == receiver.connections
        assert f"localhost:{receiver.port}" == receiver.requests[0].headers["host"]
    assert [f"localhost:{receiver.port}"] == [authority for authority, _ in any_proxy.opened]
    assert [] == resolver.asked
    assert (b"webhook-id" in any_proxy.relayed_bytes) is not tls


async def test_tls_is_checked_against_the_recipient(
    lab: Lab, proxy: Proxy, certificates: Certificates
) -> None:
    """The proxy cannot stand for the recipient."""
    await stands_for_nobody(lab, proxy, certificates)


def test_tls_is_checked_inside_the_tls_of_a_proxy(certificates: Certificates) -> None:
    """The same. On nodes' own loop alone: asyncio's of Python 3.11 fails to close TLS in TLS."""

    async def check() -> None:
        with Proxy(context=certificates.server("right")) as proxy:
            lab = Lab()
            await stands_for_nobody(lab, proxy, certificates)
            await lab.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


async def stands_for_nobody(lab: Lab, proxy: Proxy, certificates: Certificates) -> None:
    """Certificates that do not fit the recipient are refused, through this proxy."""
    sender = lab.sender(egress=through(proxy, certificates.ca_pem))
    for kind, sentence in [
        ("wrong_name", "The certificate of 127.0.0.1 is for another name."),
        ("self_signed", "The certificate of 127.0.0.1 is not signed by a trusted authority."),
    ]:
        with FaultReceiver(context=certificates.server(kind)) as receiver:
            outcome = await lab.send(receiver.url("/"), sender)
            assert ("tls_error", "tls") == (outcome.error_code, outcome.error_phase)
            assert sentence == outcome.error_message
            assert [] == receiver.requests


async def test_a_client_certificate_goes_through(
    lab: Lab, any_proxy: Proxy, certificates: Certificates
) -> None:
    """It is shown to the recipient, inside the tunnel."""
    sender = lab.sender(egress=through(any_proxy, certificates.ca_pem))
    with FaultReceiver(context=certificates.server("needs_client")) as receiver:
        assert 200 == (await lab.send(receiver.url("/"), sender, tls=certificates.client())).status


async def test_the_proxy_is_shown_who_we_are(
    lab: Lab, proxy: Proxy, receiver: FaultReceiver
) -> None:
    """Credentials go to the proxy and to nobody else; no text of ours has them."""
    egress = through(proxy, authorization=SECRET)
    sender = lab.sender(egress=egress)
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    ((_, lines),) = proxy.opened
    assert f"proxy-authorization: {SECRET.decode().lower()}" in lines
    assert SECRET not in receiver.requests[0].head
    assert b"roxy-" not in receiver.requests[0].head
    assert "dXNlcj" not in f"{egress!r} {egress}"


async def test_what_can_be_judged_here_is(lab: Lab, proxy: Proxy) -> None:
    """Ports, and addresses that stand in the URL; names are left to the proxy.

    The same rule when a route is written.
    """
    sender = lab.sender(AddressPolicy(), resolver=Answers(["127.0.0.1"]), egress=through(proxy))
    for url in (
        "http://127.0.0.1:4000/",
        "http://[::ffff:10.0.0.1]/",
        "http://name.example:25/",
        # What the proxy's resolver would take for 127.0.0.1, or for 0.0.0.0.
        *(f"http://{host}:4000/" for host in ("127.1", "0x7f.1", "2130706433", "127.0.0.1.", "0")),
    ):
        outcome = await lab.send(url, sender)
        assert ("blocked_address", "resolve") == (outcome.error_code, outcome.error_phase)
        with pytest.raises(InvalidRequest):
            await sender.check(parse_target(url)[0])
    for host in ("inner.example", "8.8.8.8", "0x08080808"):
        await sender.check(parse_target(f"http://{host}:4000/")[0])
    assert [] == proxy.opened


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        (b"HTTP/1.1 403 Forbidden", "blocked_address", "lets no request go to"),
        (
            b"HTTP/1.1 407 Request rejected by proxy\r\nX-Smokescreen-Error: denied 10.0.0.1",
            "blocked_address",
            "lets no request go to",
        ),
        (b"HTTP/1.1 502 Bad Gateway", "network_error", "could not reach"),
        (b"HTTP/1.1 503 Service Unavailable", "network_error", "could not reach"),
        (b"HTTP/1.1 504 Gateway Timeout", "timeout", "in time"),
    ],
)
async def test_what_a_proxy_says_about_the_recipient(
    lab: Lab, proxy: Proxy, answer: bytes, code: str, sentence: str
) -> None:
    """It counts as if it had been found out here; the proxy's own words are not repeated."""
    proxy.answers = [answer + b"\r\nContent-Length: 10\r\n\r\nat 10.0.0.1"]
    sender = lab.sender(egress=through(proxy))
    outcome = await lab.send("http://name.example:4000/", sender)
    assert (code, "connect", False) == (outcome.error_code, outcome.error_phase, outcome.bytes_sent)
    assert sentence in str(outcome.error_message)
    assert "name.example" in str(outcome.error_message)
    assert "10.0.0" not in str(outcome)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.1 405 Method Not Allowed\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"",
    ],
)
async def test_faults_of_the_proxy(lab: Lab, proxy: Proxy, answer: bytes) -> None:
    """They are ours, and told as such."""
    proxy.answers = [answer]
    sender = lab.sender(egress=through(proxy))
    outcome = await lab.send("https://name.example/", sender)
    assert ("proxy_error", "connect") == (outcome.error_code, outcome.error_phase)
    assert OURS == outcome.error_message
    assert not outcome.bytes_sent


async def test_a_proxy_that_is_not_there(lab: Lab, certificates: Certificates) -> None:
    """Nor is a name that leads nowhere, or a certificate that fits not, the recipient's fault."""
    with Proxy(context=certificates.server("wrong_name")) as wrong:
        egresses = [through(wrong, certificates.ca_pem)]
        egresses.append(Egress(parse_proxy(wrong.url.replace("127.0.0.1", "proxy.example"))))
        egresses.append(Egress(parse_proxy(wrong.url)))  # an authority that nobody trusts
        for egress in egresses:
            sender = lab.sender(resolver=Answers(OSError("no such name")), egress=egress)
            outcome = await lab.send("http://name.example/", sender)
            assert ("proxy_error", "connect") == (outcome.error_code, outcome.error_phase)
        assert [] == wrong.opened
    gone = Egress(parse_proxy(wrong.url))
    outcome = await lab.send("http://name.example/", lab.sender(egress=gone))
    assert "The egress proxy of this node could not be reached." == outcome.error_message


async def test_a_proxy_that_does_not_answer(lab: Lab, proxy: Proxy) -> None:
    """It may be waiting for the recipient, and who is dead must not be tried for ever."""
    proxy.silent = True
    sender = lab.sender(egress=through(proxy), phase_timeout_s=0.3)
    outcome = await lab.send("http://name.example/", sender)
    assert ("timeout", "connect") == (outcome.error_code, outcome.error_phase)
    outcome = await lab.send(
        "http://name.example/", lab.sender(egress=through(proxy)), timeout_ms=SHORT_MS
    )
    assert ("timeout", "connect") == (outcome.error_code, outcome.error_phase)


async def test_a_recipient_that_speaks_first(lab: Lab, proxy: Proxy) -> None:
    """What comes with the answer of the proxy is no answer to the request."""
    proxy.answers = [b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    outcome = await lab.send("http://name.example/", lab.sender(egress=through(proxy)))
    assert ("protocol_error", False) == (outcome.error_code, outcome.bytes_sent)


async def test_a_proxy_that_closes_an_idle_tunnel(
    lab: Lab, proxy: Proxy, receiver: FaultReceiver
) -> None:
    """The next request takes another one."""
    sender = lab.sender(egress=through(proxy))
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    sender.set_policy(AddressPolicy(LOOPBACK))
    await until(lambda: sender.connections == 0)
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    assert 2 == len(proxy.opened)


async def test_a_way_out_that_changes(lab: Lab, proxy: Proxy, receiver: FaultReceiver) -> None:
    """Connections of before carry no further request."""
    sender = lab.sender()
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    sender.set_egress(through(proxy))
    assert 0 == sender.idle
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    assert 1 == len(proxy.opened)
    sender.set_egress(Egress())
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    assert (1, 3) == (len(proxy.opened), receiver.connections)


async def test_a_policy_that_changes_while_a_tunnel_is_made(lab: Lab, proxy: Proxy) -> None:
    """Nothing is sent to a literal address that has become forbidden meanwhile."""
    proxy.silent = True
    sender = lab.sender(egress=through(proxy), phase_timeout_s=0.3)
    with FaultReceiver() as receiver:
        sent = lab.start(receiver.url("/"), sender)
        await until(lambda: bool(proxy.opened))
        sender.set_policy(AddressPolicy())
        assert not (await sent.outcome()).bytes_sent
        assert [] == receiver.requests


async def test_who_gives_up_leaves_nothing(lab: Lab, proxy: Proxy) -> None:
    """A request that is taken back while its tunnel is made closes it."""
    proxy.silent = True
    sender = lab.sender(egress=through(proxy))
    sent = lab.start("https://name.example/", sender)
    await until(lambda: bool(proxy.opened))
    assert sent.handle.abort_if_unsent()
    await until(lambda: sender.connections == 0)
    assert [] == sent.outcomes


@pytest.mark.parametrize("name", ["ca_pem", "none"])
async def test_an_authority_for_all_routes(lab: Lab, certificates: Certificates, name: str) -> None:
    """What the node trusts holds for every route, beside the system's and the route's own."""
    ca_pem = certificates.ca_pem if name == "ca_pem" else None
    sender = lab.sender(egress=Egress(ca_pem=ca_pem))
    with FaultReceiver(context=certificates.server("right")) as receiver:
        outcome = await lab.send(receiver.url("/"), sender)
        assert (200 if ca_pem else None) == outcome.status
        other = Certificates().trusting()
        outcome = await lab.send(receiver.url("/"), sender, tls=other)
        assert (200 if ca_pem else None) == outcome.status


async def test_an_authority_is_read_again(lab: Lab, certificates: Certificates) -> None:
    """What is trusted changes for the next connection."""
    sender = lab.sender()
    with FaultReceiver(context=certificates.server("right")) as receiver:
        assert "tls_error" == (await lab.send(receiver.url("/"), sender)).error_code
        sender.set_egress(Egress(ca_pem=certificates.ca_pem))
        assert 200 == (await lab.send(receiver.url("/"), sender)).status
        sender.set_egress(Egress())
        assert "tls_error" == (await lab.send(receiver.url("/"), sender)).error_code
