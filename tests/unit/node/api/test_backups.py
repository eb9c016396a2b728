"""Backups and restores through the API, of one node and of three."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from node.api.conventions import ask
from tests.unit.backup.test_fates import ROUTE as SENT_TO
from tests.unit.backup.test_fates import job
from tests.unit.node.api.harness import ROUTE, Api, Reply
from tests.unit.node.api.three import Three, three
from timemachine import codec, limits
from timemachine.backup.pages import Page, read_page
from timemachine.backup.uploads import Upload, UploadedJob, written_upload
from timemachine.model import JobState, Rate, Retry
from timemachine.replica import commands as c
from timemachine.sealing import MasterKey, seal

BACKUP = "/v1/cluster/backup"
RESTORE = "/v1/cluster/restore"
ONE = f"{BACKUP}/default/one"
JOBS = "/v1/dbs/default/collections/one/jobs"
COLLECTION: dict[str, Any] = {
    "db": "default",
    "name": "carts2",
    "num_vnodes": 3,
    "replicas": 3,
    "history_retention_ms": 1_000,
}


async def _fill(api: Api, count: int = 30) -> None:
    assert 201 == (await api.ask("PUT", JOBS.removesuffix("/jobs"), {"num_vnodes": 1})).status
    await api.ask("PUT", ROUTE, {"webhook_url": "http://hook.example/"})
    rows = [
        {"id": f"j{n:03}", "route": "hello", "trigger_time": 4_000_000_000_000, "meta": "x" * 100}
        for n in range(count)
    ]
    assert 200 == (await api.ask("POST", f"{JOBS}/batch", rows)).status


async def _page(api: Api, number: int, view: str = "v", **more: Any) -> Reply:
    return await api.ask("POST", f"{ONE}/0", {"view": view, "page": number, **more})


def _read(reply: Reply) -> Page:
    assert 200 == reply.status, reply.body
    assert "application/octet-stream" == reply.headers["content-type"]
    return read_page(reply.body)


@pytest.fixture
async def nodes() -> AsyncIterator[Three]:
    """A cluster to ask."""
    async with three() as made:
        yield made


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a few jobs."""
    monkeypatch.setattr(limits, "BACKUP_PAGE_BYTES", 1_000)
    monkeypatch.setattr(limits, "BACKUP_SCAN_BYTES", 500)


async def test_the_pages_of_a_view_show_one_moment(api: Api) -> None:
    """What is written after the first page was asked for is in none of them."""
    await _fill(api)
    pages = [_read(await _page(api, 0))]
    await api.ask("POST", JOBS, {"id": "z", "route": "hello", "trigger_time": 4_000_000_000_000})
    while not pages[-1].last:
        pages.append(_read(await _page(api, len(pages))))
    assert 2 < len(pages)
    ids = [raw_id.decode() for page in pages for raw_id, _ in page.jobs]
    assert [f"j{n:03}" for n in range(30)] == ids


async def test_a_page_may_be_asked_for_again_and_no_other(api: Api) -> None:
    """Its answer may have been lost; but a view goes only forward."""
    await _fill(api)
    first = await _page(api, 0)
    assert first.body == (await _page(api, 0)).body
    second = await _page(api, 1)
    assert second.body == (await _page(api, 1)).body
    assert "backup_view_gone" == (await _page(api, 5)).code
    assert "backup_view_gone" == (await _page(api, 1, view="other")).code
    assert first.body == (await _page(api, 0)).body


async def test_a_vnode_that_has_not_changed_is_not_read(api: Api) -> None:
    """Its content is the one that was named; once a job has changed, it is read.

    Named regression: a leader commits higher offsets as time goes by, and everything was read.
    """
    await _fill(api)
    head = _read(await _page(api, 0)).head
    assert head is not None
    position = head.position.content
    vnode = api.engine.runtime.vnodes[head.position.uid, 0]
    command = c.MoveOffset(now_ms=1, due_ms=2, job_id="", seen_index=1 << 40)
    await ask(api.engine.runtime.propose, vnode, command)
    again = _read(await _page(api, 0, view="w", unless=position))
    assert again.head is not None
    assert head.position.applied_index < again.head.position.applied_index
    assert (True, True, []) == (again.unchanged, again.last, again.jobs)
    await api.ask("DELETE", f"{JOBS}/j001")
    assert not _read(await _page(api, 0, view="x", unless=position)).unchanged


async def test_views_are_let_go_of(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at once, and each for so long."""
    await _fill(api)
    monkeypatch.setattr(limits, "BACKUP_VIEWS_MAX", 2)
    for name in ("a", "b"):
        assert 200 == (await _page(api, 0, view=name)).status
    assert "unavailable" == (await _page(api, 0, view="c")).code


async def test_what_is_no_vnode(api: Api) -> None:
    """Names and numbers that are not there."""
    await _fill(api, 1)
    body = {"view": "v"}
    for path, code in (
        ("default/one/1", "vnode_not_found"),
        ("default/one/x", "vnode_not_found"),
        ("default/none/0", "collection_not_found"),
        ("none/carts/0", "database_not_found"),
    ):
        assert code == (await api.ask("POST", f"{BACKUP}/{path}", body)).code
        decided = await api.ask("POST", f"/v1/cluster/past-due/{path}", {"choice": "fire"})
        assert code == decided.code


async def _begin(api: Api, **more: Any) -> Reply:
    body = {"backup": "b", "collections": [COLLECTION], **more}
    return await api.ask("POST", RESTORE, body)


async def test_nothing_is_overwritten(api: Api) -> None:
    """Neither a collection nor a route; and nothing is made before that is known."""
    await _fill(api, 1)
    taken = {**COLLECTION, "name": "one"}
    assert "restore_conflict" == (await _begin(api, collections=[taken])).code
    route = {"db": "default", "name": "hello"}
    assert "restore_conflict" == (await _begin(api, routes=[route])).code
    assert 404 == (await api.ask("GET", "/v1/dbs/default/collections/carts2")).status


async def test_a_dry_run_makes_nothing(api: Api) -> None:
    """It only says whether it could begin."""
    assert 200 == (await _begin(api, dry_run=True)).status
    assert 404 == (await api.ask("GET", "/v1/dbs/default/collections/carts2")).status


async def test_another_master_key_is_refused(api: Api) -> None:
    """Before anything is made, by the ids of the keys; and by each secret when routes come."""
    reply = await _begin(api, keys=["deadbeef"])
    assert "sealed_with_another_key" == reply.code
    assert "deadbeef" in reply.json["detail"]
    restore = (await _begin(api)).json["id"]
    await _fill(api, 0)
    described = (await api.ask("POST", BACKUP)).json
    (record,) = [base64.b64decode(each["record"]) for each in described["routes"]]
    foreign = seal(MasterKey(b"x" * 32), b"whsec_", nonce=b"n" * 12, context=b"route:default/hello")
    route = msgspec.msgpack.decode(record[1:])
    route["headers"] = {"x": foreign}
    body = {"routes": [base64.b64encode(codec.encode(route)).decode()]}
    assert (
        "sealed_with_another_key"
        == (await api.ask("POST", f"{RESTORE}/{restore}/routes", body)).code
    )


async def test_a_collection_is_named_once(api: Api) -> None:
    """Named regression: no node got past that entry of the meta group."""
    reply = await _begin(api, collections=[COLLECTION, {**COLLECTION, "num_vnodes": 2}])
    assert (400, "invalid_request") == (reply.status, reply.code)


@pytest.mark.parametrize(
    "more",
    [
        {"name": "../x"},
        {"db": "a b"},
        {"max_in_flight": 0},
        {"rate": Rate(count=0, period_ms=0)},
        {"delivery": "at_times"},
        {"headers": {"x\r\ny": b""}},
        {"headers": {"Host": b""}},
        {"webhook_url": "file:///etc/passwd"},
        {"retry": Retry(max_attempts=-1)},
    ],
)
async def test_a_route_that_no_node_can_have_stored(api: Api, more: dict[str, Any]) -> None:
    """Named regression: a backup that somebody made up could bring a rate of nothing in no time."""
    restore = (await _begin(api)).json["id"]
    record = codec.encode(replace(SENT_TO, **more))
    body = {"routes": [base64.b64encode(record).decode()]}
    reply = await api.ask("POST", f"{RESTORE}/{restore}/routes", body)
    assert (400, "invalid_request") == (reply.status, reply.code)
    good = {"routes": [base64.b64encode(codec.encode(SENT_TO)).decode()]}
    assert 200 == (await api.ask("POST", f"{RESTORE}/{restore}/routes", good)).status


async def test_a_restore_goes_on(api: Api) -> None:
    """The same backup, with the same choices, is the same restore until it has ended.

    Named regression: with fewer databases it ended, and the collections of the others stayed empty.
    """
    first = await _begin(api)
    again = await _begin(api)
    assert (201, 200) == (first.status, again.status)
    assert again.json == {**first.json, "resumed": True}
    assert "restore_conflict" == (await _begin(api, past_due="fire")).code
    assert "restore_conflict" == (await _begin(api, collections=[])).code
    assert "restore_conflict" == (await _begin(api, databases=["default"])).code
    more = {**COLLECTION, "num_vnodes": 4}
    assert "restore_conflict" == (await _begin(api, collections=[more])).code
    assert 200 == (await api.ask("POST", f"{RESTORE}/{first.json['id']}/end")).status
    done = await _begin(api)
    assert (200, first.json["id"]) == (done.status, done.json["id"])
    assert done.json["finished_time"] is not None
    assert "restore_conflict" == (await _begin(api, past_due="fire")).code
    upload = {"data": base64.b64encode(written_upload(Upload(0, 0, {}, []))).decode()}
    path = f"{RESTORE}/{first.json['id']}/jobs/default/carts2"
    assert "restore_ended" == (await api.ask("POST", path, upload)).code


def _upload(*ids: str, state: JobState = JobState.SCHEDULED) -> dict[str, str]:
    row = codec.encode(job(state, 5))
    jobs = [UploadedJob(each.encode(), row, b"", []) for each in ids]
    data = written_upload(Upload(0, 0, {2: "hello"}, jobs))
    return {"data": base64.b64encode(data).decode()}


@pytest.mark.parametrize("data", ["", "AAAA", "!", 7, None])
async def test_an_upload_that_is_none(api: Api, data: Any) -> None:
    """It is the caller's fault, and said so."""
    restore = (await _begin(api)).json["id"]
    path = f"{RESTORE}/{restore}/jobs/default/carts2"
    assert "invalid_request" == (await api.ask("POST", path, {"data": data})).code


async def _held(api: Api) -> None:
    """Restore three jobs that are past due, and are held."""
    await api.ask("PUT", ROUTE, {"webhook_url": "http://one.example/x"})
    restore = (await _begin(api)).json["id"]
    path = f"{RESTORE}/{restore}/jobs/default/carts2"
    reply = await api.ask("POST", path, _upload("a", "b", "c"))
    assert {"counts": {"held": 3}} == reply.json
    again = await api.ask("POST", path, _upload("a", "b", "c"))
    assert 200 == again.status


async def _decide(api: Api, choice: str) -> int:
    total = 0
    for vnode in range(3):
        path = f"/v1/cluster/past-due/default/carts2/{vnode}"
        reply = await api.ask("POST", path, {"choice": choice})
        assert reply.json["after"] is None
        total += reply.json["jobs"]
    return total


@pytest.mark.parametrize(("choice", "state"), [("fire", "delivered"), ("drop", "dead")])
async def test_held_jobs_wait_for_a_word(api: Api, choice: str, state: str) -> None:
    """Nothing is sent before, and what is decided is done once."""
    await _held(api)
    shown = (await api.ask("GET", "/v1/dbs/default/collections/carts2/jobs/a")).json
    assert "held" == shown["state"]
    assert [] == api.recipient.received
    assert 3 == await _decide(api, choice)
    for _ in range(200):
        shown = (await api.ask("GET", "/v1/dbs/default/collections/carts2/jobs/a")).json
        if shown["state"] == state:
            break
    assert state == shown["state"]
    assert 0 == await _decide(api, choice)
    assert (3 if choice == "fire" else 0) == len(api.recipient.received)


async def test_any_node_restores_and_reads(nodes: Three) -> None:
    """Each job gets to the leader of its vnode; what is held is found again from any node."""
    api, other = nodes.apis[1], nodes.apis[3]
    await _held(api)
    assert 3 == await _decide(other, "drop")
    found = 0
    for vnode in range(3):
        path = f"{BACKUP}/default/carts2/{vnode}"
        reply = await other.ask("POST", path, {"view": "v"})
        found += len(_read(reply).jobs)
    assert 3 == found


async def test_a_view_ends_with_its_last_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named regression: a node of many vnodes refused a backup for views that nobody needed.

    The last page may still be asked for again.
    """
    await _fill(api, 1)
    monkeypatch.setattr(limits, "BACKUP_VIEWS_MAX", 2)
    for number in range(5):
        first = await _page(api, 0, view=f"v{number}")
        assert _read(first).last
        assert first.body == (await _page(api, 0, view=f"v{number}")).body
