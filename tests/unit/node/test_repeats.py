"""Repeats of commands that are under way."""

from typing import Any

from node.repeats import Repeats
from timemachine.errors import NotLeader
from timemachine.replica.commands import DeleteJob, Request
from timemachine.replica.results import JobResult

GROUP = (1, 0)


def _delete(key: bytes, fingerprint: bytes = b"f") -> DeleteJob:
    return DeleteJob(now_ms=1, job_id="a", request=Request(key, fingerprint))


def test_a_repeat_gets_what_the_first_gets() -> None:
    """It is told that it is one; and what comes later is proposed again."""
    repeats = Repeats()
    heard: list[Any] = []
    first = repeats.begin(GROUP, _delete(b"k"), heard.append)
    assert first is not None
    assert repeats.begin(GROUP, _delete(b"k"), heard.append) is None
    first(JobResult(kind="deleted"))
    assert [("deleted", False), ("deleted", True)] == [(each.kind, each.replayed) for each in heard]
    assert repeats.begin(GROUP, _delete(b"k"), heard.append) is not None


def test_what_comes_to_nothing_comes_to_nothing_for_all() -> None:
    """Whoever asked asks again."""
    repeats = Repeats()
    heard: list[Any] = []
    first = repeats.begin(GROUP, _delete(b"k"), heard.append)
    assert repeats.begin(GROUP, _delete(b"k"), heard.append) is None
    assert first is not None
    first(NotLeader())
    assert [NotLeader, NotLeader] == list(map(type, heard))


def test_others_are_no_repeats() -> None:
    """Of another group, with another key, about something else, or without a key."""
    repeats = Repeats()
    heard: list[Any] = []
    keyless = DeleteJob(now_ms=1, job_id="a")
    for group, command in (
        (GROUP, _delete(b"k")),
        ((1, 1), _delete(b"k")),
        (GROUP, _delete(b"l")),
        (GROUP, _delete(b"k", b"g")),
        (GROUP, keyless),
        (GROUP, keyless),
    ):
        assert repeats.begin(group, command, heard.append) is not None
