"""What the tests of the clients share."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.scripted import PATIENCE_S, Action, Server, Turn
from timemachine.client import Client, SyncClient


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts scripted servers, and stops them after the test."""
    servers: list[Server] = []

    def start(*turns: Turn, **options: Any) -> Server:
        servers.append(Server(*turns, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(params=["async", "sync"])
def run(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """Runs actions, one after the other, with one client of either kind; returns their results."""

    def synchronous(servers: list[str], actions: tuple[Action, ...], options: Any) -> list[Any]:
        with SyncClient(*servers, **options) as tm:
            return [action(tm) for action in actions]

    async def asynchronous(
        servers: list[str], actions: tuple[Action, ...], options: Any
    ) -> list[Any]:
        async with Client(*servers, **options) as tm, asyncio.timeout(PATIENCE_S):
            return [await action(tm) for action in actions]

    def either(servers: list[str], *actions: Action, **options: Any) -> list[Any]:
        options.setdefault("backoff_ms", 1)
        if request.param == "sync":
            return synchronous(servers, actions, options)
        return asyncio.run(asynchronous(servers, actions, options))

    return either
