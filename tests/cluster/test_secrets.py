"""No secret leaves a node in plain, but to its recipient and to who asks for it by name."""

import base64
import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, wait_until
from tests.cluster.terminal import Terminal
from tests.faults.certificates import Certificates
from tests.faults.proxy import Proxy
from tests.faults.receiver import FaultReceiver

pytestmark = pytest.mark.timeout(300)

IN_URL = "the-passw0rd-of-a-url"
IN_HEADER = "the-t0ken-of-a-header"
OF_PROXY = "the-passw0rd-of-the-proxy"
OLD_KEY = bytes(range(100, 132))
KEY = bytes(range(60, 92))
FULL = {"retry": {"schedule_ms": [0], "max_attempts": 2}, "breaker": None}


class Hidden:
    """Secrets, and where they are looked for: as they are written, and as their bytes."""

    def __init__(self) -> None:
        self._all: dict[str, bytes] = {}

    def add(self, name: str, text: str) -> str:
        """One more, which is returned."""
        self._all[name] = text.encode()
        self._all[f"{name} in base64"] = base64.b64encode(text.encode())
        return text

    def add_bytes(self, name: str, content: bytes) -> None:
        """One more, by what its text stands for."""
        self._all[f"the bytes of {name}"] = content
        self._all[f"{name} without its prefix"] = base64.b64encode(content).rstrip(b"=")
        self._all[f"{name} in hexadecimal digits"] = content.hex().encode()

    def found_in(self, content: bytes) -> list[str]:
        """The names of those that are there."""
        return [name for name, each in self._all.items() if each in content]


def _answer(node: NodeProcess, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """The status, and the head and body of an answer."""
    connection = http.client.HTTPConnection(node.address, timeout=30)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, str(response.headers).encode() + response.read()
    finally:
        connection.close()


def _private_key(hidden: Hidden) -> str:
    private = Ed25519PrivateKey.generate()
    seed = private.private_bytes_raw()
    hidden.add_bytes("the private key", seed)
    both = seed + private.public_key().public_bytes_raw()
    return hidden.add("the private key", "whsk_" + base64.b64encode(both).decode())


def _client(certificates: Certificates, hidden: Hidden) -> dict[str, str | None]:
    options = certificates.client()
    pem = options.client_key_pem
    assert pem is not None
    for number, line in enumerate(pem.split("\n")[1:-2]):
        hidden.add(f"line {number} of the client key", line)
    hidden.add_bytes("the client key", base64.b64decode("".join(pem.split("\n")[1:-2])))
    return {
        "ca_pem": options.ca_pem,
        "client_cert_pem": options.client_cert_pem,
        "client_key_pem": pem,
    }


def test_secrets_are_found_nowhere(tmp_path: Path) -> None:
    """R13, R90, R92: not on the disk, in a backup, in the log, in metrics, in any other answer.

    They are: signing secrets of both kinds, the one of before too, header values, credentials in
    URLs, a client's private key, the password of the egress proxy. All of them are used, in
    attempts that fail and in those that do not, and in requests that are refused.
    """
    hidden, certificates = Hidden(), Certificates()
    hidden.add("the proxy's password", OF_PROXY)
    hidden.add("the proxy's credentials", f"user:{OF_PROXY}")
    auth = tmp_path / "auth"
    auth.write_text(f"user:{OF_PROXY}\n")
    place = tmp_path / "backups"
    answers: list[tuple[str, bytes]] = []
    with (
        FaultReceiver() as plain,
        FaultReceiver(context=certificates.server("needs_client")) as secure,
        Proxy() as proxy,
        NodeProcess(
            tmp_path / "data",
            *("--egress-proxy", proxy.url, "--egress-proxy-auth-file", str(auth)),
        ) as node,
    ):

        def ask(method: str, path: str, body: Any = None) -> int:
            status, answer = _answer(node, method, path, body)
            answers.append((f"{method} {path}", answer))
            return status

        node.start()
        assert 201 == ask("PUT", COLLECTION, {"num_vnodes": 2})
        hidden.add("the password in the URL", IN_URL)
        hidden.add("the credentials in the URL", f"somebody:{IN_URL}")
        hidden.add("the header", IN_HEADER)
        old = hidden.add("the old secret", "whsec_" + base64.b64encode(OLD_KEY).decode())
        hidden.add_bytes("the old secret", OLD_KEY)
        new = hidden.add("the secret", "whsec_" + base64.b64encode(KEY).decode())
        hidden.add_bytes("the secret", KEY)
        with_password = f"somebody:{IN_URL}@127.0.0.1"
        routes: dict[str, dict[str, Any]] = {
            "password": {"webhook_url": plain.url("/status/500", host=with_password)},
            "header": {"webhook_url": plain.url("/"), "headers": {"authorization": IN_HEADER}},
            "secret": {"webhook_url": plain.url("/close/after-request"), "secret": old},
            "private": {"webhook_url": plain.url("/"), "secret": _private_key(hidden)},
            "client": {"webhook_url": secure.url("/"), **_client(certificates, hidden)},
        }
        for name, route in routes.items():
            path = f"{ROUTES}/{name}"
            assert 201 == ask("PUT", path, {**FULL, **route})
            assert 200 == ask("PATCH", path, {**route, "timeout_ms": 9_000})
            assert 200 == ask("POST", f"{path}/send-example")
        # What answers with secrets, as its name says, is not looked through.
        assert 200 == node.ask("POST", f"{ROUTES}/secret/secret/rotate", {"secret": new})[0]
        # Refusals name the member, and do not repeat what is in it.
        for wrong in (
            {"secret": new + "!"},
            {"secret": f"{old} {new}"},
            {"webhook_url": f"ftp://{with_password}/"},
            {"webhook_url": f"http://somebody:{IN_URL}@10.1.2.3/"},
            {"headers": {"webhook-id": IN_HEADER}},
            {"headers": {"x-team": IN_HEADER + "\n"}},
            {"client_key_pem": routes["client"]["client_key_pem"]},
            {"client_key_pem": routes["client"]["client_key_pem"], "client_cert_pem": "none"},
        ):
            refused = {"webhook_url": plain.url("/"), **wrong}
            assert 400 == ask("PUT", f"{ROUTES}/wrong", refused), wrong
        jobs = [{"id": name, "delay_ms": 0, "route": name} for name in routes]
        assert 200 == ask("POST", f"{JOBS}/batch", jobs)
        wait_until(
            lambda: {"dead", "delivered"} == {each["state"] for each in node.jobs().values()},
            "they are not settled",
        )
        states = {each["id"]: each["state"] for each in node.jobs().values()}
        ends = {"password": "dead", "secret": "dead"}
        assert {name: ends.get(name, "delivered") for name in routes} == states
        for name in routes:
            for part in ("", "/stats", "/attempts"):
                assert 200 == ask("GET", f"{ROUTES}/{name}{part}")
            for part in ("", "?explain=true", "/attempts"):
                assert 200 == ask("GET", f"{JOBS}/{name}{part}")
            assert 200 == ask("PUT", f"{ROUTES}/{name}", node.ask("GET", f"{ROUTES}/{name}")[1])
        for path in (ROUTES, JOBS, "/v1/cluster", "/v1/cluster/settings", "/v1/tasks", "/metrics"):
            assert 200 == ask("GET", path)
        # They are there, for who asks for them: nothing here looks for what does not exist.
        shown = node.ask("GET", f"{ROUTES}/secret/secret")[1]
        assert (new, [old]) == (shown["secret"], [each["secret"] for each in shown["previous"]])
        sent = hidden.found_in(b"".join(seen.head for seen in plain.requests))
        assert {"the header", "the credentials in the URL in base64"} <= set(sent)
        shown_to_proxy = [line for _, lines in proxy.opened for line in lines]
        assert any(line.startswith("proxy-authorization: basic") for line in shown_to_proxy)
        Terminal(node.address)("admin", "backup", "create", str(place))
        assert 0 == node.stop()
    for what, answer in answers:
        assert [] == hidden.found_in(answer), what
    assert [] == hidden.found_in(node.log.read_bytes())
    for folder in (tmp_path / "data", place):
        files = [each for each in folder.rglob("*") if each.is_file()]
        assert files
        for each in files:
            assert [] == hidden.found_in(each.read_bytes()), each
