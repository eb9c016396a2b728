"""Work beside the event loop: its results, its failures, its end."""

import asyncio
import threading
from functools import partial
from typing import Any

from node.aside import AsideThread
from timemachine.errors import StoreError


async def _result(aside: AsideThread, work: Any) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    aside.do(work, future.set_result)
    return await asyncio.wait_for(future, 30)


async def test_results_come_back_on_the_loop() -> None:
    """The work is done in a thread of its own, one piece after the other."""
    aside = AsideThread(asyncio.get_running_loop())
    assert "aside" == await _result(aside, lambda: threading.current_thread().name)
    order: list[int] = []
    for number in range(5):
        aside.do(partial(int, number), order.append)
    assert 5 == await _result(aside, lambda: 5)
    assert [0, 1, 2, 3, 4] == order
    aside.close()


async def test_failures_are_results() -> None:
    """Whatever it was, the thread goes on."""

    def broken() -> None:
        raise ValueError

    def closed() -> None:
        raise StoreError("The store is closed.")

    aside = AsideThread(asyncio.get_running_loop())
    failure = await _result(aside, broken)
    assert isinstance(failure, StoreError)
    assert "ValueError" in failure.detail
    assert "The store is closed." == (await _result(aside, closed)).detail
    assert 1 == await _result(aside, lambda: 1)
    aside.close()


async def test_closing_waits_for_what_is_under_way() -> None:
    """A store must not be closed under it."""
    aside = AsideThread(asyncio.get_running_loop())
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(30)
        ended.set()

    aside.do(work, lambda _: None)
    await asyncio.to_thread(begun.wait, 30)
    closing = asyncio.create_task(asyncio.to_thread(aside.close))
    await asyncio.sleep(0)
    assert not ended.is_set()
    go.set()
    await closing
    assert ended.is_set()
