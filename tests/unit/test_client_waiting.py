"""How the end of a task is waited for, and how a list is read on. No sockets, no clock."""

from typing import Any

import msgspec
import pytest

from tests.unit.test_client_conversation import Play, answer
from timemachine.client import Bulk, Page, Task
from timemachine.client.common import Paging
from timemachine.client.http1 import RawAnswer
from timemachine.client.operations import list_jobs
from timemachine.client.waiting import converse_task
from timemachine.errors import ApiNotFound, TaskFailed, TaskUnfinished


def state(name: str, **more: Any) -> RawAnswer:
    """A task as a node shows it, with something that we do not know yet."""
    return answer(200, {"id": "t", "kind": "cancel", "state": name, "new": [1], **more})


RUNNING = state("running", progress={"done": 250}, result=None)


def wait(play: Play, timeout_ms: int | None = None, task: Bulk | str = "t") -> Any:
    """The task at its end."""
    return play.carry(converse_task(task, timeout_ms, play.config, 0))


@pytest.mark.parametrize("end", ["done", "cancelled"])
def test_end_of_a_task(end: str) -> None:
    """It is asked for until it has ended, done or cancelled."""
    play = Play(RUNNING, RUNNING, state(end, result={"cancelled": 500}, finished_time=9))
    task = wait(play)
    assert isinstance(task, Task)
    assert (end, {"cancelled": 500}, 9, False) == (
        task.state,
        task.result,
        task.finished_time,
        task.running,
    )
    assert all(send.request.startswith(b"GET /v1/tasks/t HTTP") for send in play.sends)


def test_answer_that_named_the_task_will_do() -> None:
    """What `cancel_jobs` returns is what is waited for; a dry run started nothing."""
    assert "done" == wait(Play(state("done")), task=Bulk(task="t")).state
    with pytest.raises(ValueError, match="dry run"):
        wait(Play(), task=Bulk(count=7))


def test_polls_become_rarer() -> None:
    """Short tasks are seen soon, long ones are asked for every few seconds."""
    play = Play(*[RUNNING] * 20, state("done"))
    wait(play)
    assert 50.0 == play.waits[0]
    assert play.waits == sorted(play.waits)
    assert 5_000.0 == play.waits[-1]


def test_task_that_failed() -> None:
    """A failure is raised, with the reason."""
    with pytest.raises(TaskFailed, match="The route was deleted") as caught:
        wait(Play(RUNNING, state("failed", error="The route was deleted.")))
    assert ("t", "task_failed") == (caught.value.task, caught.value.code)


def test_task_that_goes_on() -> None:
    """The wait is bounded if asked; the task is not stopped by it."""
    play = Play(*[RUNNING] * 99)
    with pytest.raises(TaskUnfinished) as caught:
        wait(play, timeout_ms=1_000)
    assert "t" == caught.value.task
    assert sum(play.waits) <= 1_000
    assert not [send for send in play.sends if b"/cancel" in send.request]


def test_task_that_nobody_knows() -> None:
    """An error of a look is the error of the wait."""
    with pytest.raises(ApiNotFound):
        wait(Play(answer(404, {"code": "task_not_found"})))


# --- lists -------------------------------------------------------------------------------------


def read(paging: Paging[Any], sizes: list[int]) -> list[str]:
    """Read pages of these sizes; returns what was asked for."""
    asked = []
    for number, size in enumerate(sizes):
        assert paging.call is not None
        asked.append(paging.call.target.partition("?")[2])
        paging.took(Page(items=(None,) * size, next_cursor=f"c{number}"))
    return asked


def test_limit_is_over_all_pages() -> None:
    """No page is asked to be longer than what is wanted, and the cursor stands where it ended."""
    paging = Paging(list_jobs("d", "c", state="dead", limit=25, page_size=10))
    expected = [
        "state=dead&limit=10",
        "state=dead&limit=10&cursor=c0",
        "state=dead&cursor=c1&limit=5",
    ]
    assert expected == read(paging, [10, 10, 5])
    assert (None, "c2") == (paging.call, paging.next_cursor)


def test_short_pages_count_as_what_they_hold() -> None:
    """A node may answer less than asked; the limit counts items."""
    paging = Paging(list_jobs("d", "c", limit=3))
    assert ["limit=3", "cursor=c0&limit=2", "cursor=c1&limit=2"] == read(paging, [1, 0, 2])
    assert paging.call is None


@pytest.mark.parametrize(("limit", "asked"), [(None, ""), (5_000, ""), (100, ""), (99, "limit=99")])
def test_pages_have_the_size_of_the_node(limit: int | None, asked: str) -> None:
    """Without `page_size` the node decides, unless less is wanted."""
    assert [asked] == read(Paging(list_jobs("d", "c", limit=limit)), [1])


def test_nothing_is_asked_for_nothing() -> None:
    """A limit of 0 is no request; less than that is a mistake."""
    assert Paging(list_jobs("d", "c", limit=0)).call is None
    with pytest.raises(ValueError, match="limit"):
        list_jobs("d", "c", limit=-1)


def test_task_without_anything_is_a_task() -> None:
    """Members that a node leaves out have defaults."""
    assert "" == msgspec.json.decode(b"{}", type=Task).state
