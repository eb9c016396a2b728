"""What operations share."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from node.api.conventions import polled
from node.gathering import Reports
from timemachine.errors import Unavailable


@pytest.mark.parametrize("result", [({}, frozenset({1})), Unavailable()])
async def test_an_answer_to_a_request_that_is_given_up_is_dropped(result: object) -> None:
    """Also one that comes in the very turn: an error there would end the node, not the request."""
    told: list[Callable[[object], None]] = []
    cancelled: list[bool] = []

    def poll(_: Any, __: Any, done: Callable[[object], None]) -> Any:
        told.append(done)
        return SimpleNamespace(cancel=lambda: cancelled.append(True))

    engine: Any = SimpleNamespace(others=list, gathering=SimpleNamespace(poll=poll))
    call: Any = SimpleNamespace(query={})
    asking = asyncio.ensure_future(polled(engine, Reports(), call))
    await asyncio.sleep(0)
    asking.cancel()
    told[0](result)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [True] == cancelled
