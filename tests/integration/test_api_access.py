"""Who may use a node's API, and what is spoken there: tokens and HTTPS of a whole node."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.cluster.process import JOBS, NodeProcess, wait_until
from timemachine.client import ApiDenied, SyncClient

TOKEN, OTHER = "first-token-of-the-test", "other-token-of-the-test"
JOB = {"id": "a", "trigger_time": 4_000_000_000_000, "route": "hello"}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file with one token."""
    path = tmp_path / "tokens"
    path.write_text(f"# who\n{TOKEN}\n")
    return path


def ask(
    node: NodeProcess,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    trust: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """One request on a connection of its own."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection: http.client.HTTPConnection
    if trust is None:
        connection = http.client.HTTPConnection(node.address, timeout=30)
    else:
        connection = http.client.HTTPSConnection(node.address, timeout=30, context=trust)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def hang_up(node: NodeProcess, said: Callable[[str], bool]) -> None:
    """SIGHUP, and wait until the node has said something about it."""
    before = node.log.stat().st_size
    os.kill(node.process.pid, signal.SIGHUP)
    wait_until(
        lambda: said(node.log.read_bytes()[before:].decode()), "the node says nothing of SIGHUP"
    )


def test_tokens(tmp_path: Path, tokens: Path) -> None:
    """Requests need one, health does not; SIGHUP brings others, a bad file changes nothing."""
    with NodeProcess(tmp_path / "data", "--api-token-file", str(tokens)) as node:
        node.start()
        assert 200 == ask(node, "GET", "/healthz")[0]
        assert 200 == ask(node, "GET", "/readyz")[0]
        status, problem = ask(node, "GET", "/v1/dbs")
        assert (401, "unauthorized") == (status, problem["code"])
        assert 401 == ask(node, "POST", JOBS, JOB)[0]
        assert 401 == ask(node, "POST", JOBS, JOB, token=OTHER)[0]
        # With a token there is no such collection yet.
        assert 404 == ask(node, "POST", JOBS, JOB, token=TOKEN)[0]
        assert 200 == ask(node, "GET", "/v1/dbs", token=TOKEN)[0]

        tokens.write_text(f"{OTHER}\n")
        hang_up(node, lambda log: '"reloaded"' in log)
        assert [401, 200] == [ask(node, "GET", "/v1/dbs", token=t)[0] for t in (TOKEN, OTHER)]

        for wrong in ("", f"{TOKEN}\nshort\n"):
            tokens.write_text(wrong)
            hang_up(node, lambda log: "reload refused" in log)
        tokens.unlink()
        hang_up(node, lambda log: "cannot be read" in log)
        assert [401, 200] == [ask(node, "GET", "/v1/dbs", token=t)[0] for t in (TOKEN, OTHER)]
        assert 0 == node.stop()
    log = node.log.read_text()
    assert TOKEN not in log
    assert OTHER not in log
    assert "short" not in log


def test_the_sdk_has_a_token(tmp_path: Path, tokens: Path) -> None:
    """The client sends what it is given; without it hears of the refusal."""
    with NodeProcess(tmp_path / "data", "--api-token-file", str(tokens)) as node:
        node.start()
        with SyncClient(f"http://{node.address}", token=TOKEN) as client:
            assert client.request("GET", "/v1/dbs")
        with SyncClient(f"http://{node.address}") as client, pytest.raises(ApiDenied) as caught:
            client.request("GET", "/v1/dbs")
        assert "unauthorized" == caught.value.specific_code
        assert 0 == node.stop()


@pytest.mark.parametrize("content", [None, "", "# none\n", "short\n", f"{TOKEN} {TOKEN}\n"])
def test_bad_token_files(tmp_path: Path, content: str | None) -> None:
    """They are wrong configuration: exit code 2, no data directory, and nothing of them told."""
    path = tmp_path / "tokens"
    if content is not None:
        path.write_text(content)
    with NodeProcess(tmp_path / "data", "--api-token-file", str(path)) as node:
        assert 2 == node.refused()
        assert "api_token_file" in node.log.read_text()
        assert TOKEN not in node.log.read_text()
    assert not (tmp_path / "data").exists()


def test_beyond_loopback(tmp_path: Path, tokens: Path) -> None:
    """With tokens a node may be reached from elsewhere; with a certificate alone it may not."""
    everywhere = ("--http", "0.0.0.0:0")
    with NodeProcess(tmp_path / "one", *everywhere) as node:
        assert 2 == node.refused()
        assert "--api-token-file" in node.log.read_text()
    with NodeProcess(tmp_path / "two", *everywhere, "--api-token-file", str(tokens)) as node:
        node.start()
        assert 401 == ask(node, "GET", "/v1/dbs")[0]
        assert 0 == node.stop()
    pair = ("--http-tls-cert", "none", "--http-tls-key", "none")
    with NodeProcess(tmp_path / "three", *everywhere, *pair) as node:
        assert 2 == node.refused()
        assert "--api-token-file" in node.log.read_text()


def issue(folder: Path) -> tuple[ssl.SSLContext, tuple[str, ...]]:
    """What a client trusts, and the flags of a node with a certificate."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return trust, ("--http-tls-cert", str(chain), "--http-tls-key", str(key))


def test_https(tmp_path: Path, tokens: Path) -> None:
    """The node says that it speaks HTTPS, and does, for every client; SIGHUP brings the next."""
    trust, flags = issue(tmp_path)
    flags = (*flags, "--api-token-file", str(tokens))
    with NodeProcess(tmp_path / "data", *flags) as node:
        node.start()
        with SyncClient(f"https://{node.address}", token=TOKEN, ssl_context=trust) as client:
            client.put_collection("default", "jobs")
            client.put_route("default", "hello", webhook_url="http://127.0.0.1:1024/")
            for number in range(50):
                client.create_job("default", "jobs", id=f"j{number}", delay_ms=10**9, route="hello")
            assert "scheduled" == client.get_job("default", "jobs", "j49").state
        assert 401 == ask(node, "POST", JOBS, JOB, trust=trust)[0]
        wait_until(lambda: _shown(node, trust) == (node.address, True), "another address is shown")
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(node, "GET", "/healthz")

        renewed, _ = issue(tmp_path)
        hang_up(node, lambda log: log.count('"reloaded"') == 2)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(node, "GET", "/healthz", trust=trust)
        assert 200 == ask(node, "GET", "/healthz", trust=renewed)[0]
        (tmp_path / "key.pem").write_text("no key")
        hang_up(node, lambda log: "http_tls_key" in log)
        assert 200 == ask(node, "GET", "/healthz", trust=renewed)[0]
        # Clients that do nothing more do not keep a node from its end.
        host, _, port = node.address.rpartition(":")
        with socket.create_connection((host, int(port))) as silent:
            with renewed.wrap_socket(
                socket.create_connection((host, int(port))), server_hostname=host
            ):
                assert 200 == ask(node, "GET", "/healthz", trust=renewed)[0]
                assert 0 == node.stop()
            silent.settimeout(30)
            assert b"" == silent.recv(1)
    assert "PRIVATE" not in node.log.read_text()
    assert "unhandled" not in node.log.read_text()


def _shown(node: NodeProcess, trust: ssl.SSLContext) -> tuple[str, bool]:
    shown = ask(node, "GET", "/v1/cluster", token=TOKEN, trust=trust)[1]["nodes"][0]
    return shown["http"], shown["https"]


def test_bad_certificates(tmp_path: Path) -> None:
    """They are wrong configuration: exit code 2, and the setting is named."""
    _, (_, chain, _, key) = issue(tmp_path)
    for flags, setting in (
        (("--http-tls-cert", chain), "http_tls_key"),
        (("--http-tls-key", key), "http_tls_cert"),
        (("--http-tls-cert", "none", "--http-tls-key", key), "http_tls_cert"),
        (("--http-tls-cert", chain, "--http-tls-key", chain), "http_tls_key"),
    ):
        with NodeProcess(tmp_path / "data", *flags) as node:
            assert 2 == node.refused()
            assert f"{setting}: " in node.log_tail()
    assert not (tmp_path / "data").exists()


def test_the_ready_line(tmp_path: Path) -> None:
    """It has the form that programs read, whatever is spoken there; the log tells HTTPS."""
    _, flags = issue(tmp_path)
    for more in ((), flags):
        with NodeProcess(tmp_path / f"data{len(more)}", *more) as node:
            node.launch()
            assert node.process.stdout is not None
            line = node.process.stdout.readline().decode()
            found = re.fullmatch(r"ready http=(127\.0\.0\.1:[0-9]+) rpc=\S+ node=\S+\n", line)
            assert found is not None, line
            assert bool(more) is (f"https://{found[1]}" in node.log.read_text())
            assert 0 == node.stop()
