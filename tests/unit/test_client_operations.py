"""What each operation of the SDK asks for."""

import inspect
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from timemachine.client import Client, SyncClient, operations
from timemachine.client.answers import Bulk, Job, Page, Plan, PreviousSecret, RouteSecret
from timemachine.client.call import Call, time_ms
from timemachine.client.common import next_page

JOB_PATH = "/v1/dbs/d/collections/c/jobs/j"
PLANS = "/v1/cluster/plans"


@pytest.mark.parametrize(
    ("call", "method", "target", "body"),
    [
        (operations.put_database("d"), "PUT", "/v1/dbs/d", None),
        (operations.get_database("d"), "GET", "/v1/dbs/d", None),
        (operations.list_databases(page_size=5), "GET", "/v1/dbs?limit=5", None),
        (operations.delete_database("d", force=True), "DELETE", "/v1/dbs/d?force=true", None),
        (operations.put_collection("d", "c"), "PUT", "/v1/dbs/d/collections/c", {}),
        (
            operations.put_collection(
                "d", "c", num_vnodes=3, replicas=1, history_retention_ms=0, content_retention_ms=0
            ),
            "PUT",
            "/v1/dbs/d/collections/c",
            {
                "num_vnodes": 3,
                "replicas": 1,
                "history_retention_ms": 0,
                "content_retention_ms": 0,
            },
        ),
        (operations.get_collection("d", "c"), "GET", "/v1/dbs/d/collections/c", None),
        (operations.list_collections("d"), "GET", "/v1/dbs/d/collections", None),
        (operations.delete_collection("d", "c"), "DELETE", "/v1/dbs/d/collections/c", None),
        (
            operations.put_route("d", "r", webhook_url="http://x", retry={"max_attempts": 1}),
            "PUT",
            "/v1/dbs/d/routes/r",
            {"webhook_url": "http://x", "retry": {"max_attempts": 1}},
        ),
        (operations.get_route("d", "r"), "GET", "/v1/dbs/d/routes/r", None),
        (
            operations.patch_route("d", "r", enabled=False),
            "PATCH",
            "/v1/dbs/d/routes/r",
            {"enabled": False},
        ),
        (operations.delete_route("d", "r"), "DELETE", "/v1/dbs/d/routes/r", None),
        (operations.list_routes("d"), "GET", "/v1/dbs/d/routes", None),
        (operations.get_route_secret("d", "r"), "GET", "/v1/dbs/d/routes/r/secret", None),
        (operations.pause_route("d", "r"), "POST", "/v1/dbs/d/routes/r/pause", None),
        (operations.resume_route("d", "r"), "POST", "/v1/dbs/d/routes/r/resume", None),
        (operations.send_example("d", "r"), "POST", "/v1/dbs/d/routes/r/send-example", None),
        (
            operations.create_job("d", "c", route="r", trigger_time=5),
            "POST",
            "/v1/dbs/d/collections/c/jobs",
            {"trigger_time": 5, "route": "r", "meta": None},
        ),
        (
            operations.create_job(
                "d",
                "c",
                route="r",
                delay_ms=0,
                meta=[1],
                tags=("a",),
                ordering_key="k",
                id="i",
                allow_missing_route=True,
            ),
            "POST",
            "/v1/dbs/d/collections/c/jobs?allow_missing_route=true",
            {
                "id": "i",
                "delay_ms": 0,
                "route": "r",
                "meta": [1],
                "tags": ["a"],
                "ordering_key": "k",
            },
        ),
        (
            operations.create_jobs("d", "c", [operations.NewJob(route="r", delay_ms=1)]),
            "POST",
            "/v1/dbs/d/collections/c/jobs/batch",
            [{"delay_ms": 1, "route": "r", "meta": None}],
        ),
        (
            operations.put_job("d", "c", "j", route="r", trigger_time=5, meta={}),
            "PUT",
            JOB_PATH,
            {"trigger_time": 5, "route": "r", "meta": {}},
        ),
        (operations.patch_job("d", "c", "j"), "PATCH", JOB_PATH, {}),
        (
            operations.patch_job("d", "c", "j", meta=None, tags=(), trigger_time=1),
            "PATCH",
            JOB_PATH,
            {"meta": None, "tags": [], "trigger_time": 1},
        ),
        (
            operations.patch_job("d", "c", "j", route="r", delay_ms=9),
            "PATCH",
            JOB_PATH,
            {"route": "r", "delay_ms": 9},
        ),
        (operations.get_job("d", "c", "j"), "GET", JOB_PATH, None),
        (
            operations.get_job("d", "c", "j", consistency="stale"),
            "GET",
            JOB_PATH + "?consistency=stale",
            None,
        ),
        (operations.delete_job("d", "c", "j"), "DELETE", JOB_PATH, None),
        (
            operations.delete_job("d", "c", "j", purge=True),
            "DELETE",
            JOB_PATH + "?purge=true",
            None,
        ),
        (operations.run_job("d", "c", "j"), "POST", JOB_PATH + "/run", None),
        (
            operations.redrive_job("d", "c", "j", force=True),
            "POST",
            JOB_PATH + "/redrive?force=true",
            None,
        ),
        (
            operations.redrive_job("d", "c", "j", new_id=True),
            "POST",
            JOB_PATH + "/redrive?new_id=true",
            None,
        ),
        (
            operations.list_jobs(
                "d",
                "c",
                state=["dead", "held"],
                route="r",
                tag="a b&c",
                from_time=1,
                to_time=datetime.fromtimestamp(2, tz=UTC),
                consistency="stale",
                page_size=7,
                cursor="x/y=",
            ),
            "GET",
            (
                "/v1/dbs/d/collections/c/jobs?state=dead%2Cheld&route=r&tag=a%20b%26c"
                "&from=1&to=2000&consistency=stale&limit=7&cursor=x%2Fy%3D"
            ),
            None,
        ),
        (
            operations.list_jobs("d", "c", state="dead", from_time=0),
            "GET",
            "/v1/dbs/d/collections/c/jobs?state=dead&from=0",
            None,
        ),
        (operations.attempts("d", "c", "j"), "GET", JOB_PATH + "/attempts", None),
        (
            operations.delete_attempt_content("d", "c", "j", 2),
            "DELETE",
            JOB_PATH + "/attempts/2/content",
            None,
        ),
        (
            operations.cancel_jobs("d", "c"),
            "POST",
            "/v1/dbs/d/collections/c/jobs/cancel",
            {"filter": {}},
        ),
        (
            operations.cancel_jobs(
                "d",
                "c",
                state=["scheduled", "held"],
                route="r",
                tag="t",
                from_time=0,
                to_time=datetime.fromtimestamp(2, tz=UTC),
                dry_run=True,
            ),
            "POST",
            "/v1/dbs/d/collections/c/jobs/cancel",
            {
                "filter": {
                    "state": "scheduled,held",
                    "route": "r",
                    "tag": "t",
                    "from": 0,
                    "to": 2000,
                },
                "dry_run": True,
            },
        ),
        (
            operations.reschedule_jobs("d", "c", trigger_time=5, tag="t"),
            "POST",
            "/v1/dbs/d/collections/c/jobs/reschedule",
            {"filter": {"tag": "t"}, "trigger_time": 5},
        ),
        (
            operations.reschedule_jobs("d", "c", shift_ms=-9, state="held", dry_run=True),
            "POST",
            "/v1/dbs/d/collections/c/jobs/reschedule",
            {"filter": {"state": "held"}, "shift_ms": -9, "dry_run": True},
        ),
        (
            operations.forecast("d", "c", from_time=1, to_time=9, bucket_ms=4),
            "GET",
            "/v1/dbs/d/collections/c/forecast?from=1&to=9&bucket_ms=4",
            None,
        ),
        (
            operations.redrive_route("d", "r", from_time=1, to_time=9, dry_run=True),
            "POST",
            "/v1/dbs/d/routes/r/redrive",
            {"from": 1, "to": 9, "dry_run": True},
        ),
        (
            operations.replay_missing("d", "r", from_time=1),
            "POST",
            "/v1/dbs/d/routes/r/replay-missing",
            {"from": 1},
        ),
        (operations.route_stats("d", "r"), "GET", "/v1/dbs/d/routes/r/stats", None),
        (
            operations.route_attempts("d", "r", page_size=9, cursor="x"),
            "GET",
            "/v1/dbs/d/routes/r/attempts?limit=9&cursor=x",
            None,
        ),
        (
            operations.rotate_route_secret("d", "r", grace_period_ms=9),
            "POST",
            "/v1/dbs/d/routes/r/secret/rotate",
            {"grace_period_ms": 9},
        ),
        (operations.get_task("t"), "GET", "/v1/tasks/t", None),
        (operations.get_task(Bulk(task="t")), "GET", "/v1/tasks/t", None),
        (operations.list_tasks(page_size=9, cursor="x"), "GET", "/v1/tasks?limit=9&cursor=x", None),
        (operations.cancel_task("t"), "POST", "/v1/tasks/t/cancel", None),
        (operations.cluster(), "GET", "/v1/cluster", None),
        (operations.vnodes(), "GET", "/v1/cluster/vnodes", None),
        (
            operations.finalise(cluster_version=2),
            "POST",
            "/v1/cluster/finalise",
            {"cluster_version": 2},
        ),
        (operations.master_keys(), "GET", "/v1/cluster/keys", None),
        (operations.reseal(), "POST", "/v1/cluster/reseal", None),
        (operations.make_plan("rebalance"), "POST", PLANS, {"kind": "rebalance"}),
        (
            operations.make_plan("drain", nodes=("n2", "n3"), transfers=4),
            "POST",
            PLANS,
            {"kind": "drain", "nodes": ["n2", "n3"], "transfers": 4},
        ),
        (
            operations.make_plan("replicate", db="d", collection="c", replicas=5),
            "POST",
            PLANS,
            {"kind": "replicate", "db": "d", "collection": "c", "replicas": 5},
        ),
        (operations.make_plan("compact"), "POST", PLANS, {"kind": "compact"}),
        (
            operations.make_plan(
                "compact", db="d", collection="c", vnodes=(0, 3), bytes_per_s=1 << 20
            ),
            "POST",
            PLANS,
            {
                "kind": "compact",
                "db": "d",
                "collection": "c",
                "vnodes": [0, 3],
                "bytes_per_s": 1 << 20,
            },
        ),
        (operations.get_plan("p"), "GET", f"{PLANS}/p", None),
        (operations.get_plan(Plan(id="p")), "GET", f"{PLANS}/p", None),
        (operations.list_plans(page_size=9, cursor="x"), "GET", f"{PLANS}?limit=9&cursor=x", None),
        (operations.confirm_plan("p"), "POST", f"{PLANS}/p/confirm", None),
        (operations.pause_plan("p"), "POST", f"{PLANS}/p/pause", None),
        (operations.resume_plan("p"), "POST", f"{PLANS}/p/resume", None),
        (operations.cancel_plan("p"), "POST", f"{PLANS}/p/cancel", None),
        (operations.issue_join_token(), "POST", "/v1/cluster/join-tokens", {}),
        (
            operations.issue_join_token(ttl_ms=60_000),
            "POST",
            "/v1/cluster/join-tokens",
            {"ttl_ms": 60_000},
        ),
        (operations.get_settings(), "GET", "/v1/cluster/settings", None),
        (
            operations.put_settings(allowed_private_cidrs=("10.0.0.0/8",)),
            "PUT",
            "/v1/cluster/settings",
            {"allowed_private_cidrs": ["10.0.0.0/8"], "allowed_ports": []},
        ),
        (operations.ready(), "GET", "/readyz", None),
        (operations.version(), "GET", "/v1/version", None),
        (
            operations.request("POST", "/v1/x", query={"a": "b"}, json=[1]),
            "POST",
            "/v1/x?a=b",
            [1],
        ),
    ],
)
def test_operation(call: Call[Any], method: str, target: str, body: object) -> None:
    """Each operation has its method, its address and its body."""
    assert (method, target, body) == (call.method, call.target, call.body)


@pytest.mark.parametrize(
    ("job_id", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("a:b", "a%3Ab"),
        ("_", "_"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("a b?c#d%", "a%20b%3Fc%23d%25"),
        ("a.b", "a.b"),
    ],
)
def test_ids_are_percent_encoded(job_id: str, segment: str) -> None:
    """Any id that the cluster takes works in an address."""
    assert f"/v1/dbs/d/collections/c/jobs/{segment}" == operations.get_job("d", "c", job_id).path


@pytest.mark.parametrize(("value", "error"), [("", ValueError), (7, TypeError), (None, TypeError)])
def test_names_that_would_change_the_address_are_refused(
    value: Any, error: type[Exception]
) -> None:
    """An empty id would be another address."""
    with pytest.raises(error):
        operations.get_job("d", "c", value)


@pytest.mark.parametrize("path", ["v1/x", "/v1/a b", "/v1/x\r\nHost: y", "/v1/ä", ""])
def test_free_requests_need_an_encoded_path(path: str) -> None:
    """A path cannot break out of the request line."""
    with pytest.raises(ValueError, match="percent-encoded"):
        operations.request("GET", path)


def test_conditions_are_headers() -> None:
    """`if_match` and `create_only` become If-Match and If-None-Match."""
    call: Call[Any] = operations.put_job("d", "c", "j", route="r", delay_ms=1, if_match=3)
    assert (("If-Match", '"3"'),) == call.headers
    call = operations.put_route("d", "r", webhook_url="http://x", create_only=True)
    assert (("If-None-Match", "*"),) == call.headers


# --- times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1667659342626, 1667659342626),
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(2022, 11, 5, 14, 42, 22, 626_999, tzinfo=UTC), 1667659342626),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
        (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), 253402300799999),
    ],
)
def test_times(value: int | datetime, expected: int) -> None:
    """Times are milliseconds or aware datetimes; what is finer than a millisecond is cut off."""
    assert expected == time_ms(value)


def test_naive_datetimes_are_refused() -> None:
    """Whose clock a naive datetime means is anybody's guess."""
    with pytest.raises(ValueError, match="time zone"):
        time_ms(datetime(2022, 11, 5))


@pytest.mark.parametrize("value", [1.5, "2022-11-05T00:00:00Z", True, timedelta(1)])
def test_other_times_are_refused(value: Any) -> None:
    """A float is as likely seconds as milliseconds."""
    with pytest.raises(TypeError):
        time_ms(value)


@pytest.mark.parametrize("times", [{}, {"trigger_time": 1, "delay_ms": 1}])
def test_job_has_one_time(times: dict[str, int]) -> None:
    """Either a trigger time or a delay."""
    with pytest.raises(ValueError, match="either"):
        operations.create_job("d", "c", route="r", **times)  # type: ignore[arg-type]


def test_one_text_is_no_list_of_tags() -> None:
    """tags="cart" would otherwise be four tags."""
    with pytest.raises(TypeError, match="tags"):
        operations.create_job("d", "c", route="r", delay_ms=1, tags="cart")


def test_one_text_is_no_list_of_nodes() -> None:
    """nodes="n2" would otherwise be two nodes."""
    with pytest.raises(TypeError, match="nodes"):
        operations.make_plan("drain", nodes="n2")


def test_misspelt_route_setting_is_refused() -> None:
    """A misspelt option must not pass silently."""
    with pytest.raises(TypeError, match="webhook_uri"):
        operations.put_route("d", "r", webhook_uri="http://x")  # type: ignore[call-arg]


# --- pages and clients -------------------------------------------------------------------------


def test_next_page_replaces_the_cursor() -> None:
    """The next page is the same list from another place; after the last there is none."""
    call = operations.list_jobs("d", "c", state="dead", cursor="one")
    second = next_page(call, "two")
    assert second is not None
    assert "/v1/dbs/d/collections/c/jobs?state=dead&cursor=two" == second.target
    assert next_page(call, None) is None


def test_pages_are_typed() -> None:
    """A page's items are what its list is of."""
    page = msgspec.json.decode(b'{"items":[{"id":"a"}],"next_cursor":null}', type=Page[Job])
    assert Page(items=(Job(id="a"),)) == page


COMPOSED = {"batcher", "create_many", "wait_task"}
"""Methods that are made of more than one call."""


def public_methods(client: type) -> dict[str, Any]:
    """The operations of a client class."""
    return {
        name: member
        for name, member in vars(client).items()
        if not name.startswith("_") and name != "close" and name not in COMPOSED
    }


def test_both_clients_have_the_same_methods() -> None:
    """What works with one client works with the other, with the same arguments."""
    asynchronous, synchronous = public_methods(Client), public_methods(SyncClient)
    assert asynchronous.keys() == synchronous.keys()
    for name, method in asynchronous.items():
        assert inspect.signature(method) == inspect.signature(synchronous[name])
        assert method.__doc__ == synchronous[name].__doc__ == getattr(operations, name).__doc__
        assert name == method.__name__
    for name in COMPOSED:
        one, other = (inspect.signature(getattr(each, name)) for each in (Client, SyncClient))
        assert [*one.parameters] == [*other.parameters]


def test_every_operation_is_a_method() -> None:
    """No operation is forgotten."""
    found = {
        name
        for name, member in vars(operations).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert found == public_methods(Client).keys()


def test_secrets_do_not_show() -> None:
    """A secret that was read can be logged by accident without harm."""
    secret = RouteSecret(
        secret="whsec_a", previous=(PreviousSecret(secret="whsec_b", expires_time=9),)
    )
    assert "whsec" not in repr(secret)
    assert "whsec" not in repr(secret.previous)
