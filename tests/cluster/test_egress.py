"""A node whose webhooks go through a proxy, and what it says of that and of careless routes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.process import JOBS, ROUTES, NodeProcess, Recipient, wait_until
from tests.faults.certificates import Certificates
from tests.faults.proxy import Proxy
from tests.faults.receiver import FaultReceiver

pytestmark = pytest.mark.timeout(180)

PASSWORD = "the-proxys-password"


def test_a_proxy_that_fails_costs_no_attempt(tmp_path: Path) -> None:
    """A job with a single attempt is delivered when the proxy works again.

    Its faults stand in the attempts of the job, and not in the figures of the route. Nothing that
    the node says or keeps has the proxy's password.
    """
    auth = tmp_path / "auth"
    auth.write_text(f"user:{PASSWORD}\n")
    with Recipient() as recipient, Proxy() as proxy:
        proxy.answers = [b"HTTP/1.1 407 Who are you?\r\n\r\n", b"", None]
        flags = ("--egress-proxy", proxy.url, "--egress-proxy-auth-file", str(auth))
        with NodeProcess(tmp_path / "data", *flags) as node:
            node.start()
            node.set_up(recipient.url, retry={"max_attempts": 1, "schedule_ms": [0]})
            node.create([{"id": "one", "delay_ms": 0}])
            recipient.wait(1)
            wait_until(
                lambda: "delivered" == node.ask("GET", f"{JOBS}/one")[1]["state"],
                "it is not settled",
            )
            attempts = node.ask("GET", f"{JOBS}/one/attempts")[1]["items"]
            assert ["proxy_error", "proxy_error", None] == [
                each["error_code"] for each in sorted(attempts, key=lambda each: each["attempt"])
            ]
            assert {None} == {each["remote_ip"] for each in attempts}
            stats = node.ask("GET", f"{ROUTES}/hook/stats")[1]
            assert (1, 0) == (stats["succeeded"], stats["failed"])
            assert all(len(lines) == 2 for _, lines in proxy.opened)
            assert 0 == node.stop()
        said = node.log.read_text()
        assert "webhooks go through a proxy" in said
        assert PASSWORD not in said
        for path in (tmp_path / "data").rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


def test_authorities_for_all_routes(tmp_path: Path) -> None:
    """`egress_ca_file` lets routes reach recipients of an inner authority, also after SIGHUP."""
    certificates = Certificates()
    ca = tmp_path / "ca.pem"
    ca.write_text(Certificates().ca_pem)
    server = FaultReceiver(context=certificates.server("right"))
    flags = ("--egress-ca-file", str(ca))
    with server as receiver, NodeProcess(tmp_path / "data", *flags) as node:
        node.start()
        retry = {"schedule_ms": [200], "max_attempts": 500}
        node.set_up(receiver.url("/"), retry=retry)
        node.create([{"id": "one", "delay_ms": 0}])

        def reason() -> str | None:
            found: str | None = node.ask("GET", f"{JOBS}/one")[1]["last_error"]
            return found

        wait_until(lambda: bool(reason()), "it is not tried")
        assert "not signed by a trusted authority" in str(reason())
        ca.write_text(certificates.ca_pem)
        node.hang_up()
        receiver.wait_until(lambda: bool(receiver.requests))
        ca.write_text("no PEM")
        node.hang_up()
        wait_until(lambda: "reload refused" in node.log.read_text(), "it says nothing")
        assert 0 == node.stop()


def test_routes_that_do_not_verify_are_told_at_the_start(tmp_path: Path) -> None:
    """R89: by their names, in the log and in the API."""
    with NodeProcess(tmp_path / "data") as node:
        node.start()
        node.set_up("https://127.0.0.1:1024/", dangerous_skip_tls_verify=True)
        careful = {"webhook_url": "https://127.0.0.1:1024/"}
        assert 201 == node.ask("PUT", f"{ROUTES}/careful", careful)[0]
        assert node.ask("GET", f"{ROUTES}/hook")[1]["dangerous_skip_tls_verify"]
        assert 0 == node.stop()
        assert "do not verify" not in node.log.read_text()
        node.start()
        line = next(each for each in node.log.read_text().splitlines() if "do not verify" in each)
        assert "default/hook" in line
        assert "careful" not in line
        assert 0 == node.stop()


def test_a_client_certificate_that_expires(tmp_path: Path) -> None:
    """R87: nodes gave their senders no clock, and went on to show certificates that had expired.

    The reason is told without a handshake.
    """
    certificates = Certificates()
    server = FaultReceiver(context=certificates.server("needs_client"))
    with server as receiver, NodeProcess(tmp_path / "data") as node:
        node.start()
        node.set_up(receiver.url("/"), ca_pem=certificates.ca_pem)
        status = 0
        lasts = timedelta(seconds=3)
        while status != 200:
            options = certificates.client(lasts=lasts)
            pems = {
                "client_cert_pem": options.client_cert_pem,
                "client_key_pem": options.client_key_pem,
            }
            ends = datetime.now(UTC) + lasts
            status, answer = node.ask("PATCH", f"{ROUTES}/hook", pems)
            assert status == 200 or "expired" in str(answer), answer
            lasts *= 2
        wait_until(lambda: datetime.now(UTC) > ends, "the clock stands still", 300.0)
        node.create([{"id": "one", "delay_ms": 0}])
        wait_until(lambda: bool(node.ask("GET", f"{JOBS}/one")[1]["last_error"]), "it is not tried")
        told = node.ask("GET", f"{JOBS}/one")[1]["last_error"]
        assert "The client certificate for 127.0.0.1 has expired." == told
        assert [] == receiver.requests
        assert 0 == node.stop()


def test_a_proxy_with_credentials_in_its_url_is_refused(tmp_path: Path) -> None:
    """With exit code 2, and without repeating them."""
    flags = ("--egress-proxy", f"http://user:{PASSWORD}@127.0.0.1:3128")
    with NodeProcess(tmp_path / "data", *flags) as node:
        assert 2 == node.refused()
        assert PASSWORD not in node.log.read_text()
        assert not (tmp_path / "data").exists()
