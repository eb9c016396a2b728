"""The fixture of all tests here."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.unit.node.api.harness import Api, started


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that each test runs on: both, where bytes are taken from the loop itself."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if item.path.name in ("test_express.py", "test_handshake.py"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """An API to ask."""
    async with started() as made:
        yield made
