"""Who is asked, and with what credentials; and what happens when it is no node that answers."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from admin import exits
from node.__main__ import main


class Servers:
    """Servers that answer every GET with the same body, and note the credentials they got."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []
        self._running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(self, body: bytes = b'{"items": []}', *, tls: ssl.SSLContext | None = None) -> str:
        """Start one; returns its address."""
        tokens = self.tokens

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tokens.append(self.headers.get("Authorization"))
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: the test says what came."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Somebody who does not trust it, or only knocks: expected here."""

        server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            # In the handler's thread: whoever only knocks must not hold up the others.
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self._running.append((server, thread))
        return f"127.0.0.1:{server.server_address[1]}"

    def close(self) -> None:
        """Stop them all."""
        for server, thread in self._running:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Servers that end with the test."""
    servers = Servers()
    try:
        yield servers
    finally:
        servers.close()


def ask(address: str, *words: str, **environment: str) -> Result:
    """`timemachine db list` at an address."""
    given = {"TIMEMACHINE_SERVER": address, **environment}
    return CliRunner().invoke(main, ["db", "list", *words], env=given)


def test_no_token_unless_given(servers: Servers) -> None:
    """Without one no credentials are sent."""
    assert 0 == ask(servers.start()).exit_code
    assert [None] == servers.tokens


def test_a_token(servers: Servers, tmp_path: Path) -> None:
    """From the environment, or from a file, which wins; never on the line, where others see it."""
    address = servers.start()
    file = tmp_path / "token"
    file.write_text("# of this node\n\nfrom-file\nanother\n")
    ask(address, TIMEMACHINE_TOKEN="from-variable")
    ask(address, TIMEMACHINE_TOKEN="from-variable", TIMEMACHINE_TOKEN_FILE=str(file))
    ask(address, "--token-file", str(file))
    assert ["Bearer from-variable", "Bearer from-file", "Bearer from-file"] == servers.tokens


def test_https_with_an_authority_of_ones_own(servers: Servers, tmp_path: Path) -> None:
    """--ca-file is what the certificate is judged by; without it that is nobody's certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    url = f"https://{servers.start(tls=context)}"
    assert 0 == ask(url, "--ca-file", str(tmp_path / "ca.pem")).exit_code
    assert 0 == ask(url, TIMEMACHINE_CA_FILE=str(tmp_path / "ca.pem")).exit_code
    refused = ask(url)
    assert exits.UNREACHABLE == refused.exit_code
    assert "certificate is not valid" in refused.stderr


@pytest.mark.parametrize(
    "body", [b"<html>hello</html>", b"[]", b'{"items": [7]}', b'{"items": [{}]}']
)
def test_a_server_that_is_no_node(servers: Servers, body: bytes) -> None:
    """A sentence and an exit code, no trace."""
    done = ask(servers.start(body))
    assert exits.FAILED == done.exit_code
    assert done.stderr.startswith("Error: ")
    assert 1 == done.stderr.count("\n")
