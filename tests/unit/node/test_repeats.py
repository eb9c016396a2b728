"""Repeats of commands that are under way."""

from typing import Any

from node.repeats import Repeats
from timemachine import limits
from timemachine.errors import NotLeader
from timemachine.replica.commands import DeleteJob, PlaceJob, PutJob, Request
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


def _create(uid: bytes, *, create_only: bool = True) -> PutJob:
    return PutJob(
        now_ms=1,
        job_id="a",
        uid=uid,
        trigger_ms=1,
        delay_ms=None,
        route="hook",
        route_uid=1,
        meta=b"1",
        create_only=create_only,
    )


def test_a_node_that_asks_again_without_a_key_gets_what_it_asked_for_first() -> None:
    """It asks for nothing new (named: seed 570787688251144, repeats filled a log, C10).

    And its client, who has asked once, is told of no repeat.
    """
    for command, other in (
        (_create(b"u"), _create(b"v")),
        (
            PlaceJob(now_ms=1, job_id="a", ordering_key="k"),
            PlaceJob(now_ms=1, job_id="a", ordering_key="l"),
        ),
    ):
        repeats = Repeats()
        heard: list[Any] = []
        first = repeats.begin(GROUP, command, heard.append)
        assert repeats.begin(GROUP, command, heard.append) is None
        assert repeats.begin(GROUP, other, heard.append) is not None
        assert first is not None
        first(JobResult(kind="created"))
        assert [("created", False)] * 2 == [(each.kind, each.replayed) for each in heard]


def test_who_places_an_id_waits_for_nobody_who_asked_long_ago() -> None:
    """What it is told would say that the alias is younger than it is."""
    repeats = Repeats()
    heard: list[Any] = []

    def place(now_ms: int) -> bool:
        command = PlaceJob(now_ms=now_ms, job_id="a", ordering_key="k")
        return repeats.begin(GROUP, command, heard.append) is None

    assert [False, True, False] == [
        place(each) for each in (1, 1 + limits.PLACED_MS, 2 + limits.PLACED_MS)
    ]


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
        (GROUP, _create(b"u", create_only=False)),
        (GROUP, _create(b"u", create_only=False)),
    ):
        assert repeats.begin(group, command, heard.append) is not None
