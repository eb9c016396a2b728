"""Every test here runs on asyncio's own event loop and on uvloop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop

from tests.faults.certificates import Certificates
from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import Lab


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops that each test runs on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def receiver() -> Iterator[FaultReceiver]:
    """A recipient on 127.0.0.1."""
    with FaultReceiver() as receiver:
        yield receiver
    assert [] == receiver.conflicts


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Senders, closed at the end."""
    lab = Lab()
    yield lab
    await lab.close()


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """One authority for all tests."""
    return Certificates()
