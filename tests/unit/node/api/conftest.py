"""The fixture of all tests here."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.node.api.harness import Api, started


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """An API to ask."""
    async with started() as made:
        yield made
