"""Where a client's requests go, how long it tries, and where its time and chance come from."""

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from timemachine import __version__
from timemachine.identifiers import UUID7_RANDOM_BYTES, uuid7

_TOKEN: Final = re.compile(r"[!-~]+")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


@dataclass(frozen=True, slots=True)
class Sources:
    """The client's clocks and dice: the only place that it has them from."""

    wall_ms: Callable[[], int] = _wall_ms
    monotonic_ms: Callable[[], float] = _monotonic_ms
    random: Callable[[], float] = random.random
    random_bytes: Callable[[int], bytes] = os.urandom

    def new_id(self) -> str:
        """A new UUIDv7."""
        return uuid7(self.wall_ms(), self.random_bytes(UUID7_RANDOM_BYTES))


@dataclass(frozen=True, slots=True)
class Server:
    """One base URL, taken apart. `host_header` is what goes into Host, `prefix` before paths."""

    url: str
    tls: bool
    host: str
    port: int
    host_header: str
    prefix: str


def parse_server(url: str) -> Server:
    """Take a base URL apart. Raises ValueError when it is none."""
    url = url.strip()
    if not all("!" <= character <= "~" for character in url):
        raise ValueError("a server's URL is plain ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a server is a URL like http://127.0.0.1:8001")
    if "@" in parts.netloc:
        raise ValueError("a server's URL has no credentials; give a token")
    if parts.query or parts.fragment:
        raise ValueError("a server's URL has neither query nor fragment")
    tls = parts.scheme == "https"
    return Server(
        url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
        tls=tls,
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        host_header=parts.netloc,
        prefix=parts.path.rstrip("/"),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """What a client was told.

    timeout_ms          one call in all, with all its tries and waits
    attempt_timeout_ms  one try with one server
    backoff_ms          wait after the first round of failed tries; it doubles
    backoff_ms_max      and stops growing here
    token               sent as `Authorization: Bearer`
    """

    servers: tuple[Server, ...]
    timeout_ms: int = 30_000
    attempt_timeout_ms: int = 10_000
    backoff_ms: int = 100
    backoff_ms_max: int = 5_000
    token: str | None = field(default=None, repr=False)
    sources: Sources = field(default_factory=Sources, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work, at once."""
        if not self.servers:
            raise ValueError("a client needs at least one server")
        for name in ("timeout_ms", "attempt_timeout_ms", "backoff_ms", "backoff_ms_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ValueError("a token is printable ASCII without spaces")

    def headers(self) -> list[tuple[str, str]]:
        """The headers of every request."""
        headers = [
            ("User-Agent", f"timemachine-python/{__version__}"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
        ]
        if self.token is not None:
            headers.append(("Authorization", f"Bearer {self.token}"))
        return headers
