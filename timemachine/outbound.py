"""What is sent to recipients, as values: targets, requests, outcomes, and the Sender port.

Pure, so that the delivery logic and the simulator can use it without a network.
"""

import re
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from timemachine import limits
from timemachine.errors import InvalidRequest


class TlsOptions(msgspec.Struct, frozen=True):
    """How a route's TLS differs from the default, which trusts the system's authorities.

    ca_pem           authorities trusted besides the system's
    client_cert_pem  the certificate to show, with its chain; needs its key
    client_key_pem   the key, without a passphrase
    skip_verify      take any certificate: whoever stands between can read and answer
    """

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
    """One HTTP/1.1 request: `head` is complete, from the request line to the blank line.

    `timeout_ms` counts from `send` and covers all of it: waiting for a connection to be free,
    resolving, connecting, TLS, writing and reading.
    """

    target: Target
    head: bytes
    body: bytes
    timeout_ms: int


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a request ended: with a response, or with an error, never with both.

    status         of the response. From its head on an attempt is answered, so a body that broke
                   off or came too slowly only sets `truncated`
    headers        an allow-list with lower-case names, the first of each; `location` is reduced to
                   its host
    body           its first bytes, at most ATTEMPT_BODY_BYTES_MAX, as they came
    truncated      whether there was more of the body
    error_code     what failed: dns_error, connection_refused, connection_reset,
                   network_unreachable, timeout, tls_error, network_error, blocked_address,
                   protocol_error; or shutdown, lease_lost and proxy_error, which are our own doing
    error_phase    where: resolve, connect, tls, send, headers; None while it waited for its turn
    error_message  a sentence from a fixed vocabulary that names the configured host at most
    bytes_sent     whether any byte of the request may have left this node
    remote_ip      the address connected to; None where a proxy connects
    *_ms           the time each phase took: waiting for a connection to be free, resolving,
                   connecting, TLS (these three are 0 on a connection that was used before), from
                   sending to the first byte of the response; `total_ms` is all but the waiting
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
    queue_ms: float = 0.0
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
        """Close its connection. `done` follows, never from inside this call.

        Its error_code is `shutdown`, unless the head of the response was there already.
        """


class Sender(Protocol):
    """Sends requests: one request for one call, never repeated."""

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> Handle:
        """Send; `done` is called exactly once, and never from inside this call.

        A request may wait for its connection, and a process may stand still. So `may_leave` is
        asked when the first byte is about to leave; if not, none does, and the request ends as
        `lease_lost`.
        """


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]*))?"
)
_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_IPV6: Final = re.compile(r"[0-9a-f:.]+")


def _refuse(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=[("/webhook_url", detail)])


def parse_target(url: str, tls: TlsOptions | None = None) -> tuple[Target, str | None]:
    """The target of a webhook URL, and its userinfo ("user:password") if it has one.

    The host becomes lower case and ASCII (IDNA 2003, as the standard library has it), and loses a
    scope id. Whether it may be connected to is decided later, on its addresses.

    Raises InvalidRequest for anything but an http or https URL with a host and no fragment.
    """
    if any(ord(character) <= 32 or character in "\x7f\\" for character in url):
        raise _refuse("The URL contains spaces, backslashes or control characters.")
    try:
        if len(url.encode()) > limits.URL_BYTES_MAX:
            raise _refuse(f"The URL is longer than {limits.URL_BYTES_MAX} bytes.")
        parts = urlsplit(url)
    except ValueError:
        raise _refuse("This is not a URL.") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _refuse("The URL must start with http:// or https://.")
    if "#" in url:
        raise _refuse("The URL must not have a fragment.")
    userinfo, _, authority = parts.netloc.rpartition("@")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _refuse("This is not a URL.")
    host = _ascii_host(found["name"], found["ipv6"])
    default_port = _DEFAULT_PORTS[parts.scheme]
    port = int(found["port"] or default_port) if len(found["port"] or "") <= 5 else 0
    if not 1 <= port <= 65535:
        raise _refuse("The port must be 1 to 65535.")
    try:
        path = (parts.path or "/").encode("ascii")
        query = parts.query.encode("ascii")
    except UnicodeError:
        raise _refuse("The URL must be ASCII (percent-encoded), but for its host.") from None
    shown = f"[{host}]" if ":" in host else host
    if port != default_port:
        shown += f":{port}"
    target = Target(
        scheme=parts.scheme,
        host=host,
        port=port,
        path_and_query=path + (b"?" + query if query else b""),
        host_header=shown.encode("ascii"),
        tls=tls if parts.scheme == "https" else None,
    )
    return target, userinfo or None


def _ascii_host(name: str | None, ipv6: str | None) -> str:
    """The host of a URL, from its name or from what stands in brackets."""
    if ipv6 is not None:
        host = ipv6.partition("%")[0].lower()
        if _IPV6.fullmatch(host) is None:
            raise _refuse("What stands in brackets must be an IPv6 address.")
        return host
    if not name:
        raise _refuse("The URL has no host.")
    try:
        host = name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise _refuse("The host is no valid name.") from None
    if _NAME.fullmatch(host) is None:
        raise _refuse("The host is no valid name.")
    return host
