"""Webhook URLs, taken apart."""

import pytest

from timemachine import limits
from timemachine.errors import InvalidRequest
from timemachine.outbound import Target, TlsOptions, parse_target


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "host_header"),
    [
        ("http://example.com", "http", "example.com", 80, b"/", b"example.com"),
        (
            "https://example.com/a/b?c=d&e",
            "https",
            "example.com",
            443,
            b"/a/b?c=d&e",
            b"example.com",
        ),
        ("http://example.com:80/", "http", "example.com", 80, b"/", b"example.com"),
        ("https://example.com:80/", "https", "example.com", 80, b"/", b"example.com:80"),
        ("http://example.com:/x", "http", "example.com", 80, b"/x", b"example.com"),
        ("HTTP://EXAMPLE.Com/Path", "http", "example.com", 80, b"/Path", b"example.com"),
        ("http://example.com?q", "http", "example.com", 80, b"/?q", b"example.com"),
        ("http://127.0.0.1:4000/x", "http", "127.0.0.1", 4000, b"/x", b"127.0.0.1:4000"),
        ("http://[::1]:4000/x", "http", "::1", 4000, b"/x", b"[::1]:4000"),
        ("https://[2606:4700::1]/", "https", "2606:4700::1", 443, b"/", b"[2606:4700::1]"),
        ("http://[fe80::1%25eth0]/", "http", "fe80::1", 80, b"/", b"[fe80::1]"),
        (
            "http://bücher.example/",
            "http",
            "xn--bcher-kva.example",
            80,
            b"/",
            b"xn--bcher-kva.example",
        ),
        ("http://①②⑦.⓪.⓪.①/", "http", "127.0.0.1", 80, b"/", b"127.0.0.1"),
        ("http://a_b.example./", "http", "a_b.example.", 80, b"/", b"a_b.example."),
        ("http://h:65535/;p?a=%20%0d", "http", "h", 65535, b"/;p?a=%20%0d", b"h:65535"),
    ],
)
def test_target(
    url: str, scheme: str, host: str, port: int, path: bytes, host_header: bytes
) -> None:
    """A URL says where to connect, what to ask for, and which Host header to send."""
    assert (Target(scheme, host, port, path, host_header), None) == parse_target(url)


@pytest.mark.parametrize(
    ("url", "userinfo"),
    [
        ("https://user:secret@example.com/", "user:secret"),
        ("https://user@example.com/", "user"),
        ("https://us%3Aer:p%40ss@example.com/", "us%3Aer:p%40ss"),
        ("https://trusted.example@evil.example/", "trusted.example"),
        ("https://@example.com/", None),
    ],
)
def test_userinfo_is_split_off(url: str, userinfo: str | None) -> None:
    """Credentials come out beside the target, which is what follows the last @."""
    target, found = parse_target(url)
    assert userinfo == found
    assert target.host in {"example.com", "evil.example"}
    assert b"secret" not in target.host_header


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "http:",
        "http://",
        "http:///path",
        "http://:80/",
        "http://user@/",
        "http://example.com/#",
        "http://example.com/#fragment",
        "http://example.com/?q#fragment",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:-1/",
        "http://example.com:+80/",
        "http://example.com:８０/",
        "http://example.com:80:80/",
        "http://example.com:99999999999999999999/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX-Evil: 1",
        "http://example.com\t/",
        "http://example.com/\x00",
        "http://example.com/\x7f",
        " http://example.com/",
        "http://example.com\\@evil.example/",
        "http://example.com/é",
        "http://example.com/?é",
        "http://a..b/",
        "http://.example.com/",
        "http://127.0.0.1%2f@/",
        "http://%31%32%37.0.0.1/",
        "http://exa$mple.com/",
        "http://" + "a" * 64 + ".example/",
        "http://[::1/",
        "http://::1/",
        "http://[::1]evil.example/",
        "http://[::1]:x/",
        "http://[]/",
        "http://[example.com]/",
        "http://[v1.x]/",
        "http://\ud800/",
        "http://example.com/" + "a" * limits.URL_BYTES_MAX,
    ],
)
def test_no_target(url: str) -> None:
    """What is no plain http or https URL is refused, naming the member at fault."""
    with pytest.raises(InvalidRequest) as caught:
        parse_target(url)
    assert ["/webhook_url"] == [pointer for pointer, _ in caught.value.errors]


def test_tls_options_go_with_https_only() -> None:
    """Plain connections to one place are shared, whatever TLS its routes are configured with."""
    options = TlsOptions(skip_verify=True)
    assert options == parse_target("https://example.com/", options)[0].tls
    assert parse_target("http://example.com/", options)[0].tls is None


def test_targets_and_options_are_keys() -> None:
    """Equal ones are one key, so that connections are found again."""
    one = parse_target("https://example.com/", TlsOptions(ca_pem="pem"))[0]
    other = parse_target("https://example.com/", TlsOptions(ca_pem="pem"))[0]
    assert 1 == len({one, other})
