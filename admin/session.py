"""A conversation with the node that was named: calls go out, documents come back as they were."""

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import click
import msgspec

from admin.given import DEFAULT_SERVER, Given
from timemachine.client import NoAnswer, SyncClient
from timemachine.client.answers import Page
from timemachine.client.call import Call
from timemachine.client.common import Paging
from timemachine.client.config import Server, parse_server

T = TypeVar("T")

TIMEOUT_MS = 30_000
_CONNECT_S = 3.0


class NobodyThere(NoAnswer):
    """No node answers at the addresses that were named."""

    code = "no_answer"

    def __init__(self, servers: list[Server], reason: str) -> None:
        named = ", ".join(server.url for server in servers)
        super().__init__(f"No node answers at {named}: {reason}.", maybe_done=False)


class _Carrier(SyncClient):
    """A client that carries any call of the API through."""

    def carry(self, call: Call[T]) -> T:
        """The call's value. Raises ClientError."""
        return self._perform(call)


class Session:
    """Answers of the API as the bytes that came, so that `--json` can print exactly these.

    Use it as a context manager. `timeout_ms` is used where none was given.
    """

    def __init__(self, given: Given, *, timeout_ms: int = TIMEOUT_MS) -> None:
        self._given = given
        urls = [url.strip() for url in (given.server or DEFAULT_SERVER).split(",") if url.strip()]
        try:
            # `127.0.0.1:8001` is what people type.
            self.servers = [parse_server(url if "://" in url else f"http://{url}") for url in urls]
            if not self.servers:
                raise ValueError("no server is named")
        except ValueError as error:
            raise click.UsageError(f"--server: {error}.") from None
        self._client = _Carrier(
            *(server.url for server in self.servers),
            token=_token(given.token_file),
            timeout_ms=given.timeout_ms or timeout_ms,
            ssl_context=_trust(given.ca_file),
        )
        self._connect_s = min(_CONNECT_S, (given.timeout_ms or timeout_ms) / 1_000)
        self._looked = False

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, call: Call[Any]) -> bytes:
        """One call: the JSON that answers it. Raises ClientError."""
        return bytes(self.carry(replace(call, answer=msgspec.Raw)))

    def pages(self, call: Call[Any]) -> Iterator[list[bytes]]:
        """The items of a list, page by page, each as its JSON. Raises ClientError."""
        paging: Paging[msgspec.Raw] = Paging(replace(call, answer=Page[msgspec.Raw]))
        while (following := paging.call) is not None:
            yield [bytes(item) for item in paging.took(self.carry(following)).items]

    def carry(self, call: Call[T]) -> T:
        """One call and its value. Raises ClientError."""
        if not self._looked:
            self._look()
        return self._client.carry(call)

    def _look(self) -> None:
        """Find out whether anybody is there.

        The client would try for as long as it may, since nodes come back; somebody at a terminal
        wants to hear at once that the address is wrong.
        """
        reason = ""
        for server in self.servers:
            try:
                socket.create_connection((server.host, server.port), self._connect_s).close()
            except TimeoutError:
                reason = "no answer in time"
            except socket.gaierror:
                reason = "its name cannot be resolved"
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
            else:
                self._looked = True
                return
        raise NobodyThere(self.servers, reason)


def _token(file: str | None) -> str | None:
    """The bearer token: the first of the file, which may be a node's own, else the variable's."""
    if file is None:
        return os.environ.get("TIMEMACHINE_TOKEN", "").strip() or None
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"--token-file: {file} cannot be read.") from None
    tokens = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not tokens:
        raise click.UsageError(f"--token-file: {file} is empty.")
    return tokens[0]


def _trust(file: str | None) -> ssl.SSLContext | None:
    """What certificates are judged by, None for the system's authorities."""
    if file is None:
        return None
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError):
        raise click.UsageError(f"--ca-file: {file} holds no certificates in PEM.") from None
