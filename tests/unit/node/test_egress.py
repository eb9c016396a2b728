"""The way out of a node, as its settings and files say."""

import base64
from pathlib import Path

import pytest

from node.sender.egress import EgressFiles, parse_proxy
from tests.faults.certificates import Certificates
from timemachine.errors import ConfigError
from timemachine.outbound import parse_target


def test_direct() -> None:
    """Without settings there is neither a proxy nor anything to read again."""
    files = EgressFiles("", "", "")
    assert (None, None) == files.egress
    assert not files.has_files


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128, False),
        ("http://proxy.example:3128/", "proxy.example", 3128, False),
        ("https://proxy.example", "proxy.example", 443, True),
        ("http://[::1]:25", "::1", 25, False),
    ],
)
def test_a_proxy(url: str, host: str, port: int, *, tls: bool) -> None:
    """It may be anywhere, at any port: the operator has named it."""
    assert (host, port, tls, b"") == parse_proxy(url)


def test_what_opens_a_tunnel() -> None:
    """Host and port, both always; IPv6 in brackets."""
    proxy = parse_proxy("http://p")._replace(authorization=b"Basic eA==")
    assert (
        b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n"
        b"Proxy-Authorization: Basic eA==\r\n\r\n"
    ) == proxy.opening(parse_target("https://[2001:db8::1]/x")[0])
    plain = parse_proxy("http://p").opening(parse_target("http://name.example/")[0])
    assert b"CONNECT name.example:80 HTTP/1.1\r\nHost: name.example:80\r\n\r\n" == plain


def test_files(tmp_path: Path) -> None:
    """They are read again when asked; what is wrong leaves what was in force, and is not shown."""
    auth, ca = tmp_path / "auth", tmp_path / "ca.pem"
    auth.write_text("user:se cret\n".replace(" ", "-"))
    ca.write_text(Certificates().ca_pem)
    files = EgressFiles("http://p:1", str(auth), str(ca))
    assert files.has_files
    shown = files.egress.proxy
    assert shown is not None
    assert b"Basic " + base64.b64encode(b"user:se-cret") == shown.authorization
    assert ca.read_text() == files.egress.ca_pem
    for text in ("", "user", "user:", ":se-cret", "user:se-cret\nuser:other", "user:sé"):
        auth.write_text(text)
        with pytest.raises(ConfigError, match="egress_proxy_auth_file") as caught:
            files.reload()
        assert "se-cret" not in caught.value.detail
        assert files.egress.proxy == shown
    auth.write_text("user:new")
    ca.write_text("no PEM")
    with pytest.raises(ConfigError, match="egress_ca_file"):
        files.reload()
    ca.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        files.reload()
    assert files.egress.proxy == shown
