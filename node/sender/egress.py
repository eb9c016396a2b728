"""The way out of this node, as its operator sets it: a proxy, and authorities to trust.

With a proxy every request goes through a tunnel that the proxy opens (CONNECT, RFC 9110, 9.3.6),
for http as for https: what is signed arrives byte for byte, and the proxy sees no secret. Names
are looked up there and not here, so it is the proxy that has to judge addresses; what can be judged
here without a lookup, ports and addresses in URLs, still is.
"""

import re
from base64 import b64encode
from pathlib import Path
from typing import Final, NamedTuple

from node.config import split_proxy
from node.sender.tls import make_context
from timemachine.errors import ConfigError
from timemachine.outbound import Target, TlsOptions

_CREDENTIALS: Final = re.compile(r"[!-9;-~]+:[!-~]+")
_FILE_BYTES_MAX: Final = 1024 * 1024


class Proxy(NamedTuple):
    """A proxy. `authorization` is what it is to be shown, or empty."""

    host: str
    port: int
    tls: bool = False
    authorization: bytes = b""

    def __repr__(self) -> str:
        """Without what it is shown."""
        return f"Proxy({self.host!r}, {self.port}, tls={self.tls})"

    def opening(self, target: Target) -> bytes:
        """The request that opens a tunnel to a target."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        authority = f"{host}:{target.port}".encode("ascii")
        shown = b"Proxy-Authorization: " + self.authorization + b"\r\n"
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (
            authority,
            authority,
            shown if self.authorization else b"",
        )


class Egress(NamedTuple):
    """How requests leave. `ca_pem` are authorities that are trusted beside the system's."""

    proxy: Proxy | None = None
    ca_pem: str | None = None


DIRECT: Final = Egress()


def parse_proxy(url: str) -> Proxy:
    """The proxy of a URL such as `http://proxy:3128`. Raises ConfigError, without the URL."""
    host, port, tls = split_proxy(url)
    return Proxy(host, port, tls=tls)


class EgressFiles:
    """What the settings name, read from their files; `reload` reads them again.

    Raises ConfigError for what cannot be used, without a word of what is secret.
    """

    def __init__(self, proxy: str, auth_file: str, ca_file: str) -> None:
        self._proxy = parse_proxy(proxy) if proxy else None
        self._auth_file = auth_file
        self._ca_file = ca_file
        self.egress = self._read()

    @property
    def has_files(self) -> bool:
        """Whether there is anything to read again."""
        return bool(self._auth_file or self._ca_file)

    def reload(self) -> None:
        """Read the files again; what was in force stays so when this raises ConfigError."""
        self.egress = self._read()

    def _read(self) -> Egress:
        proxy = self._proxy
        if proxy is not None and self._auth_file:
            credentials = _text("egress_proxy_auth_file", self._auth_file).strip()
            if _CREDENTIALS.fullmatch(credentials) is None:
                raise ConfigError(
                    f"egress_proxy_auth_file: {self._auth_file} does not hold one line"
                    " USER:PASSWORD of visible ASCII characters."
                )
            shown = b"Basic " + b64encode(credentials.encode("ascii"))
            proxy = proxy._replace(authorization=shown)
        ca_pem = None
        if self._ca_file:
            ca_pem = _text("egress_ca_file", self._ca_file)
            try:
                make_context(TlsOptions(ca_pem=ca_pem))
            except (ValueError, OSError):
                raise ConfigError(
                    f"egress_ca_file: {self._ca_file} holds no certificate in PEM."
                ) from None
        return Egress(proxy, ca_pem)


def _text(setting: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
        if len(data) > _FILE_BYTES_MAX:
            raise ConfigError(f"{setting}: {path} is too big.")
        return data.decode("ascii")
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} is no ASCII text.") from None
