"""Equal ids in two collections and in two databases are strangers to each other."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest

from tests.cluster.process import NodeProcess, now_ms, wait_until
from timemachine.testing import ReceivedWebhook, RecordingReceiver

FAR_MS = 4_000_000_000_000
PLACES = ["one database", "its other collection", "another database"]


class Place(NamedTuple):
    """A collection of a database."""

    db: str
    collection: str

    @property
    def path(self) -> str:
        """Where the collection is."""
        return f"/v1/dbs/{self.db}/collections/{self.collection}"


class Places:
    """Two collections of one database, and one of another: `jobs` twice, and one route `hook` each.

    The databases are new ones for each test.
    """

    def __init__(self, node: NodeProcess, recipient: RecordingReceiver, number: int) -> None:
        self.node = node
        self.recipient = recipient
        self.first, self.second = f"first{number}", f"second{number}"
        self.all = [
            Place(self.first, "jobs"),
            Place(self.first, "other"),
            Place(self.second, "jobs"),
        ]
        for db in (self.first, self.second):
            assert 201 == node.ask("PUT", f"/v1/dbs/{db}")[0]
            route = {"webhook_url": f"{recipient.url}?{db}"}
            assert 201 == node.ask("PUT", f"/v1/dbs/{db}/routes/hook", route)[0]
        for place in self.all:
            # In one vnode all ids would meet, if anything was shared.
            assert 201 == node.ask("PUT", place.path, {"num_vnodes": 1})[0]

    def create(self, place: Place, job_ids: list[str], trigger_ms: int) -> dict[str, Any]:
        """Jobs whose meta says where they belong; the answers by id."""
        jobs = [
            {"id": job_id, "trigger_time": trigger_ms, "route": "hook", "meta": [*place, job_id]}
            for job_id in job_ids
        ]
        status, answer = self.node.ask("POST", f"{place.path}/jobs/batch", jobs)
        assert (200, len(jobs)) == (status, answer["created"]), answer
        return {item["job"]["id"]: item["job"] for item in answer["items"]}

    def received(self) -> list["Said"]:
        """What has come for these places, in order."""
        said = [_said(webhook) for webhook in list(self.recipient.received)]
        return [each for each in said if each.place.db in (self.first, self.second)]

    def job(self, place: Place, method: str = "GET", more: str = "", body: Any = None) -> Any:
        """Ask about the job `same`; returns the answer, or None for 404."""
        status, answer = self.node.ask(method, f"{place.path}/jobs/same{more}", body)
        assert status in (200, 404), answer
        return answer if status == 200 else None

    def settle(self, place: Place, count: int = 1) -> None:
        """Wait until all jobs of a place are delivered, and there are so many."""

        def delivered() -> bool:
            counts = self.node.ask("GET", place.path)[1]["counts"]
            return {"delivered": count} == {name: n for name, n in counts.items() if n}

        wait_until(delivered, f"the jobs of {place} are not delivered")

    def run(self, place: Place) -> None:
        """Let the job `same` fire now, and wait until it is delivered."""
        assert self.job(place, "POST", "/run") is not None
        self.settle(place)


class Said(NamedTuple):
    """What a webhook says of itself; `db` is the one of the URL that it was sent to."""

    place: Place
    job_id: str
    meta: Any
    webhook_id: str
    db: str


def _said(webhook: ReceivedWebhook) -> Said:
    body = json.loads(webhook.body)
    place = Place(body["db"], body["collection"])
    db = webhook.path.partition("?")[2]
    return Said(place, body["id"], body["meta"], webhook.headers["webhook-id"], db)


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Places]]:
    """One node and one recipient for the module; a call makes new places."""
    numbers = count()
    with (
        RecordingReceiver() as recipient,
        NodeProcess(tmp_path_factory.mktemp("node") / "data") as node,
    ):
        node.start()
        yield lambda: Places(node, recipient, next(numbers))
        assert 0 == node.stop()


@pytest.fixture
def places(around: Callable[[], Places]) -> Places:
    """New places for one test."""
    return around()


def test_each_fires_once_as_what_it_is(places: Places) -> None:
    """Due in the same millisecond, each comes once: own db, collection, meta and webhook id."""
    job_ids = ["same", "a/b", "🕰️", *(f"job{number}" for number in range(100))]
    due_ms = now_ms() + 500
    made = {place: places.create(place, job_ids, due_ms) for place in places.all}
    for place in places.all:
        places.settle(place, len(job_ids))
    told = [
        Said(place, job_id, [*place, job_id], job["webhook_id"], place.db)
        for place in places.all
        for job_id, job in made[place].items()
    ]
    assert len(told) == len({each.webhook_id for each in told})
    assert sorted(told) == sorted(places.received())


def _update(places: Places, place: Place) -> None:
    assert 2 == places.job(place, "PATCH", body={"meta": "new"})["version"]


def _replace(places: Places, place: Place) -> None:
    body = {"trigger_time": FAR_MS + 1, "route": "hook", "meta": "new"}
    assert 2 == places.job(place, "PUT", body=body)["version"]


def _delete(places: Places, place: Place) -> None:
    assert "cancelled" == places.job(place, "DELETE")["outcome"]


def _purge(places: Places, place: Place) -> None:
    assert "cancelled" == places.job(place, "DELETE", "?purge=true")["outcome"]
    assert places.job(place) is None


def _drop(places: Places, place: Place) -> None:
    assert 200 == places.node.ask("DELETE", f"{place.path}?force=true")[0]
    assert places.job(place) is None


@pytest.mark.parametrize("touched", range(3), ids=PLACES)
@pytest.mark.parametrize(
    ("touch", "comes"),
    [(_update, True), (_replace, True), (_delete, False), (_purge, False), (_drop, False)],
    ids=["updated", "replaced", "deleted", "purged", "dropped with its collection"],
)
def test_what_is_done_to_one_is_not_done_to_the_others(
    places: Places, touched: int, touch: Callable[[Places, Place], None], *, comes: bool
) -> None:
    """The others answer what they answered before, and come, once, as they were made."""
    ours = places.all[touched]
    others = [place for place in places.all if place != ours]
    made = {place: places.create(place, ["same"], FAR_MS)["same"] for place in places.all}
    before = {place: places.job(place) for place in others}
    touch(places, ours)
    assert before == {place: places.job(place) for place in others}
    for place in others:
        places.run(place)
    expected = [
        Said(place, "same", [*place, "same"], made[place]["webhook_id"], place.db)
        for place in others
    ]
    assert expected == places.received()
    if comes:
        places.run(ours)
    assert [(ours, "new")] * comes == [
        (each.place, each.meta) for each in places.received()[len(others) :]
    ]


def test_a_dropped_database_takes_only_its_own(places: Places) -> None:
    """Gone with its jobs and routes, it takes nothing from the one that has the same names."""
    for place in places.all:
        places.create(place, ["same"], FAR_MS)
    kept = places.all[:2]
    before = {place: places.job(place) for place in kept}
    assert 200 == places.node.ask("DELETE", f"/v1/dbs/{places.second}?force=true")[0]
    assert before == {place: places.job(place) for place in kept}
    for place in kept:
        places.run(place)
    assert kept == [each.place for each in places.received()]
