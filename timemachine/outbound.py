"""What is sent to recipients, as values: targets, requests, outcomes, and the Sender port.

Pure, so that the delivery logic and the simulator can use it without a network.
"""

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from timemachine import limits
from timemachine.errors import InvalidRequest


class TlsOptions(msgspec.Struct, frozen=True):
    """How a route's TLS differs from the default (verify against the system's authorities)."""

    ca_pem: str | None = None
    client_cert_pem: str | None = None
    client_key_pem: str | None = None
    skip_verify: bool = False


class Target(msgspec.Struct, frozen=True):
    """Where a request goes: `host` is ASCII and without brackets."""

    scheme: str
    host: str
    port: int
    path_and_query: bytes
    host_header: bytes
    tls: TlsOptions | None = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """One HTTP/1.1 request: `head` is complete, from the request line to the blank line."""

    target: Target
    head: bytes
    body: bytes
    timeout_ms: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a request ended.

    `status` is the response's, None when none arrived; then `error_code` and `error_phase` say
    what failed and where. `bytes_sent` tells whether any byte of the request may have left.
    `headers` holds an allow-list with lower-case names. Durations are those of the phases.
    """

    status: int | None = None
    headers: dict[str, str] = {}
    body: bytes = b""
    truncated: bool = False
    error_code: str | None = None
    error_phase: str | None = None
    error_message: str | None = None
    bytes_sent: bool = False
    remote_ip: str | None = None
    resolve_ms: float = 0.0
    connect_ms: float = 0.0
    tls_ms: float = 0.0
    first_byte_ms: float = 0.0
    total_ms: float = 0.0


class Handle(Protocol):
    """A request under way."""

    def abort_if_unsent(self) -> bool:
        """True: no byte has left and none will; `done` is not called. False: it goes on."""

    def abort(self) -> None:
        """Close its connection; `done` gets error_code `shutdown`."""


class Sender(Protocol):
    """Sends requests: one request for one call, never repeated."""

    def send(self, request: Request, done: Callable[[Outcome], None]) -> Handle:
        """Send; `done` is called exactly once, and never from inside this call."""


_DEFAULT_PORTS = {"http": 80, "https": 443}


def _refuse(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=[("/webhook_url", detail)])


def parse_target(url: str, tls: TlsOptions | None = None) -> tuple[Target, str | None]:
    """The target of a webhook URL, and its userinfo ("user:password") if it has one.

    Raises InvalidRequest for anything but an http or https URL with a host and no fragment.
    """
    if len(url.encode()) > limits.URL_BYTES_MAX:
        raise _refuse(f"The URL is longer than {limits.URL_BYTES_MAX} bytes.")
    if any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise _refuse("The URL contains spaces or control characters.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise _refuse("This is not a URL.") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refuse("The URL must start with http:// or https://.")
    if not host:
        raise _refuse("The URL has no host.")
    if parts.fragment or url.endswith("#"):
        raise _refuse("The URL must not have a fragment.")
    if port == 0:
        raise _refuse("The port must be 1 to 65535.")
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode()
        path = (parts.path or "/").encode("ascii")
        query = parts.query.encode("ascii")
    except UnicodeError:
        raise _refuse("The URL must be ASCII (percent-encoded), but for its host.") from None
    default = _DEFAULT_PORTS[parts.scheme]
    shown = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    if port not in (None, default):
        shown += f":{port}"
    target = Target(
        scheme=parts.scheme,
        host=ascii_host,
        port=port or default,
        path_and_query=path + (b"?" + query if query else b""),
        host_header=shown.encode("ascii"),
        tls=tls if parts.scheme == "https" else None,
    )
    userinfo = parts.netloc.rpartition("@")[0] or None
    return target, userinfo
