"""MessagePack in and out: the same jobs, the same refusals, and what JSON cannot hold is named."""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from node.api import msgpack
from tests.unit.node.api.harness import FAR_MS, JOBS, ROUTE, Api, Reply
from timemachine import limits
from timemachine.errors import InvalidRequest, TooLarge

KIND = {"Content-Type": "application/msgpack"}
WANTED = {"Accept": "application/msgpack"}
JOB = {"id": "a", "trigger_time": FAR_MS, "route": "hello"}
pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


async def send(api: Api, method: str, path: str, body: Any, **headers: str) -> Reply:
    """One request with a body in MessagePack; bytes go as they are."""
    content = body if isinstance(body, bytes) else pack(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask(method, path, content, headers=KIND | named)


# --- what comes ------------------------------------------------------------------------------


async def test_every_operation_takes_it(api: Api) -> None:
    """What can be sent as JSON can be sent as MessagePack, and is the same afterwards."""
    job = JOB | {"meta": {"n": [1, 2.5, None, True, "ä"]}, "tags": ["x"]}
    made = await send(api, "POST", JOBS, job)
    assert (201, job["meta"]) == (made.status, made.json["meta"])
    assert b'"meta":{"n":[1,2.5,null,true,"\xc3\xa4"]}' in made.body
    equal = await api.ask(
        "PUT",
        f"{JOBS}/a",
        b'{"trigger_time":%d,"route":"hello","tags":["x"],'
        b'"meta":{"n":[1,2.5,null,true,"\xc3\xa4"]}}' % FAR_MS,
    )
    assert (200, 1) == (equal.status, equal.json["version"])
    put = await send(api, "PUT", f"{JOBS}/a", job | {"meta": 1})
    patched = await send(api, "PATCH", f"{JOBS}/a", {"meta": 2})
    assert ((200, 1), (200, 2)) == (
        (put.status, put.json["meta"]),
        (patched.status, patched.json["meta"]),
    )
    route = await send(api, "PUT", ROUTE, {"webhook_url": "http://two.example/"})
    assert (200, "http://two.example/") == (route.status, route.json["webhook_url"])
    assert 201 == (await send(api, "PUT", "/v1/dbs/d", {})).status
    assert 201 == (await send(api, "PUT", "/v1/dbs/d/collections/c", {"num_vnodes": 1})).status
    settings = {"allowed_private_cidrs": ["10.0.0.0/8"], "allowed_ports": [25]}
    assert settings == (await send(api, "PUT", "/v1/cluster/settings", settings)).json


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (1.0, b"1.0"),
        (-0.0, b"-0.0"),
        (1e300, b"1e300"),
        (0.1, b"0.1"),
        (2**64 - 1, b"18446744073709551615"),
        (-(2**63), b"-9223372036854775808"),
        ("\x00\u2028", b'"\\u0000\xe2\x80\xa8"'),
        ({"": {}}, b'{"":{}}'),
    ],
)
async def test_values_are_stored_as_json(api: Api, value: Any, kept: bytes) -> None:
    """A float stays a float, an integer an integer of all its digits, a string what it is."""
    reply = await send(api, "POST", JOBS, JOB | {"meta": value})
    assert b'"meta":%b,' % kept in reply.body


def test_short_floats_are_the_numbers_that_they_are() -> None:
    """A float of 32 bits is written with the digits of its exact value as a double."""
    assert b"0.5" == msgpack.to_json(b"\xca\x3f\x00\x00\x00")
    assert b"0.10000000149011612" == msgpack.to_json(b"\xca\x3d\xcc\xcc\xcd")


WRONG: dict[str, tuple[Any, str]] = {
    "bin": ({"x": [1, b"b"]}, "/meta/x/1"),
    "empty bin": (b"", "/meta"),
    "ext": ({"x": msgspec.msgpack.Ext(5, b"e")}, "/meta/x"),
    "timestamp": ([datetime(2030, 1, 1, tzinfo=UTC)], "/meta/0"),
    "NaN": ({"x": math.nan}, "/meta/x"),
    "infinity": ([[math.inf]], "/meta/0/0"),
    "a number as a key": ({"x": {1: 2}}, "/meta/x"),
    "bytes as a key": ({"x": {b"k": 2}}, "/meta/x"),
    "nothing as a key": ({None: 2}, "/meta"),
    "odd names": ({"a/b~c": {"ä": math.nan}}, "/meta/a~1b~0c/ä"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_json_cannot_hold(api: Api, case: str) -> None:
    """It is 400, and the place is named; within a batch it is the item's own refusal."""
    meta, pointer = WRONG[case]
    reply = await send(api, "POST", JOBS, JOB | {"meta": meta})
    assert (400, "invalid_request", [pointer]) == (reply.status, reply.code, reply.pointers)
    items = [JOB | {"id": "b"}, JOB | {"meta": meta}, JOB | {"id": "c"}]
    batch = await send(api, "POST", f"{JOBS}/batch", items)
    assert [201, 400, 201] == [item["status"] for item in batch.json["items"]]
    problem = batch.json["items"][1]["error"]
    assert [f"/1{pointer}"] == [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\x81",
        b"\x80\x80",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xa1\xff",
        b"\x81\x80\x01",
        b"\x91" * 100_000,
        pack([]),
        pack(7),
        pack(None),
        pack("{}"),
        b"{}",
    ],
    ids=lambda body: repr(body[:6]),
)
async def test_what_is_no_body(api: Api, body: bytes) -> None:
    """Broken MessagePack, and MessagePack of something else, is 400 wherever it is sent."""
    for method, path in (("POST", JOBS), ("PUT", ROUTE), ("PUT", "/v1/cluster/settings")):
        reply = await send(api, method, path, body)
        assert (400, "invalid_request") == (reply.status, reply.code)
    if body not in (pack([]), b"\xdd\xff\xff\xff\xff"):
        assert 400 == (await send(api, "POST", f"{JOBS}/batch", body)).status


async def test_nesting(api: Api) -> None:
    """A meta is nested as deep as in JSON, and refused with the same words beyond."""
    for over, status in ((0, 201), (1, 400), (200, 400)):
        meta: Any = 1
        for _ in range(limits.META_DEPTH_MAX + over):
            meta = [meta]
        packed = await send(api, "POST", JOBS, JOB | {"meta": meta})
        assert status == packed.status
        if status == 400:
            assert ["/meta"] == packed.pointers
        batch = await send(api, "POST", f"{JOBS}/batch", [JOB | {"id": f"b{over}", "meta": meta}])
        assert status == batch.json["items"][0]["status"]


async def test_sizes(api: Api) -> None:
    """The bounds of JSON hold; what is far beyond all of them is not even read."""
    fits = "x" * (limits.META_BYTES_MAX - 2)
    assert 201 == (await send(api, "POST", JOBS, JOB | {"meta": fits})).status
    over = await send(api, "POST", JOBS, JOB | {"id": "b", "meta": fits + "x"})
    assert (413, "too_large") == (over.status, over.code)
    # The least that JSON takes for what MessagePack takes most for.
    wide = b"\xdd\x00\x01\xff\xf0" + (b"\xd3" + bytes(8)) * 0x1FFF0
    body = b"\x84" + pack(JOB)[1:] + pack("meta") + wide
    assert 200 == (await send(api, "PUT", f"{JOBS}/a", body)).status
    far = await send(api, "POST", JOBS, JOB | {"meta": "x" * limits.MSGPACK_VALUE_BYTES_MAX})
    assert (413, "too_large") == (far.status, far.code)
    with pytest.raises(TooLarge):
        msgpack.to_json(bytes(limits.MSGPACK_VALUE_BYTES_MAX + 1))


async def test_batches(api: Api) -> None:
    """An array of jobs is a batch; far too many are refused by the number that it announces."""
    items = [{"id": f"j{n}", "trigger_time": FAR_MS, "route": "hello"} for n in range(2_000)]
    reply = await send(api, "POST", f"{JOBS}/batch", items)
    assert (200, 2_000, 0) == (reply.status, reply.json["created"], reply.json["failed"])
    assert ["j0", "j1"] == [item["job"]["id"] for item in reply.json["items"][:2]]
    assert 200 == (await send(api, "POST", f"{JOBS}/batch", [])).status
    for many in (limits.BATCH_JOBS_MAX + 1, 2**32 - 1):
        body = b"\xdd" + many.to_bytes(4, "big") + bytes(100)
        over = await send(api, "POST", f"{JOBS}/batch", body)
        assert (413, "too_large") == (over.status, over.code)
    assert str(limits.BATCH_JOBS_MAX) in over.json["detail"]
    mixed = [{"colour": 1}, 7, JOB | {"id": "j0"}, JOB | {"route": "nowhere"}]
    reply = await send(api, "POST", f"{JOBS}/batch", mixed)
    assert [400, 400, 200, 409] == [item["status"] for item in reply.json["items"]]


async def test_repeats_are_harmless(api: Api) -> None:
    """The same bytes with the same key are the same request, and so is the same job in JSON."""
    first = await send(api, "POST", JOBS, JOB, Idempotency_Key="k")
    again = await send(api, "POST", JOBS, JOB, Idempotency_Key="k")
    as_json = await api.ask("POST", JOBS, JOB, headers={"Idempotency-Key": "k"})
    assert first.json == again.json == as_json.json
    assert "true" == as_json.headers["idempotent-replayed"]


# --- what goes -------------------------------------------------------------------------------


async def test_answers(api: Api) -> None:
    """With Accept an answer is MessagePack of what it is in JSON, its other headers unchanged."""
    meta = b'{"one":1.0,"n":1,"e":1e2,"s":"\xc3\xa4","l":[[]],"big":[],"z":-0}'
    body = b'{"id":"a","trigger_time":%d,"route":"hello","meta":%b}' % (FAR_MS, meta)
    made = await api.ask("POST", JOBS, body, headers=WANTED)
    assert (201, "application/msgpack", '"1"') == (
        made.status,
        made.headers["content-type"],
        made.headers["etag"],
    )
    job = unpack(made.body)
    assert (FAR_MS, "scheduled") == (job["trigger_time"], job["state"])
    assert [float, int, float] == [type(job["meta"][name]) for name in ("one", "n", "e")]
    for path in (f"{JOBS}/a", JOBS, ROUTE, "/v1/dbs", "/v1/cluster", "/healthz", "/version"):
        packed = await api.ask("GET", path, headers=WANTED)
        plain = await api.ask("GET", path)
        assert unpack(packed.body) == plain.json
        head = await api.ask("HEAD", path, headers=WANTED)
        assert (b"", str(len(packed.body))) == (head.body, head.headers["content-length"])


async def test_problems(api: Api) -> None:
    """A refusal is MessagePack too, whatever way the request failed."""
    ways = [
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/v1/cluster", None, 405),
        ("GET", f"{JOBS}/none", None, 404),
        ("POST", JOBS, b"{broken", 400),
        ("GET", f"{JOBS}?limit=x", None, 400),
    ]
    for method, path, body, status in ways:
        reply = await api.ask(method, path, body, headers=WANTED)
        assert (status, "application/msgpack") == (reply.status, reply.headers["content-type"])
        problem = unpack(reply.body)
        assert (status, problem["detail"]) == (problem["status"], problem["error"])
    reply = await api.ask("POST", JOBS, b"", headers=WANTED | {"Content-Type": "text/plain"})
    assert "application/msgpack" == reply.headers["content-type"]


async def test_other_answers_stay_what_they_are(api: Api) -> None:
    """NDJSON is answered with NDJSON, and metrics are text."""
    kinds = WANTED | {"Content-Type": "application/x-ndjson"}
    reply = await api.ask("POST", f"{JOBS}/batch", msgspec.json.encode(JOB), headers=kinds)
    assert ("application/x-ndjson", 201) == (reply.headers["content-type"], reply.json["status"])
    metrics = await api.ask("GET", "/metrics", headers=WANTED)
    assert metrics.headers["content-type"].startswith("text/plain")


async def test_numbers_that_messagepack_cannot_hold(api: Api) -> None:
    """They are sent as strings of their digits; none is lost, and those beside them stay."""
    digits = "9" * 5_000
    meta = f'{{"big":{2**64},"low":{-(2**63) - 1},"most":{2**64 - 1},"d":{digits},"f":1e400}}'
    body = b'{"id":"a","trigger_time":%d,"route":"hello","meta":%b}' % (FAR_MS, meta.encode())
    assert 201 == (await api.ask("POST", JOBS, body)).status
    for path in (f"{JOBS}/a", JOBS):
        answer = unpack((await api.ask("GET", path, headers=WANTED)).body)
        job = answer["items"][0] if "items" in answer else answer
        assert {
            "big": str(2**64),
            "low": str(-(2**63) - 1),
            "most": 2**64 - 1,
            "d": digits,
            "f": "1e400",
        } == job["meta"]
        assert FAR_MS == job["trigger_time"]


async def test_long_lists(api: Api) -> None:
    """A long answer is the same whether it is made at once or in pieces."""
    items = [JOB | {"id": f"j{n}", "meta": ["x" * 100, {"n": n}]} for n in range(900)]
    made = await send(api, "POST", f"{JOBS}/batch", items, Accept="application/msgpack")
    assert [201] * 900 == [item["status"] for item in unpack(made.body)["items"]]
    plain = await api.ask("GET", f"{JOBS}?limit=1000")
    packed = await api.ask("GET", f"{JOBS}?limit=1000", headers=WANTED)
    assert plain.json == unpack(packed.body)
    assert len(packed.body) > msgpack._AT_ONCE_BYTES_MAX


@pytest.mark.parametrize(
    ("accept", "ours"),
    [
        ("application/msgpack", True),
        ("Application/MsgPack", True),
        ("application/msgpack;q=0.5", True),
        ("application/msgpack; q=0.5, application/json;q=0.4", True),
        ("application/json;q=0.4,application/msgpack;q=0.5", True),
        ("application/msgpack, application/json", True),
        ("application/msgpack, */*", True),
        ("*/*, application/msgpack", True),
        ("application/msgpack, application/*;q=0.9, text/html", True),
        ("application/msgpack;version=5", True),
        ("application/json, application/msgpack", False),
        ("application/json, application/msgpack;q=0.9", False),
        ("application/msgpack;q=0.9, application/json", False),
        ("application/msgpack;q=0.5, */*", False),
        ("application/msgpack;q=0", False),
        ("application/msgpack;q=0.000, application/json;q=0", False),
        ("application/msgpack;q=maybe", False),
        ("application/msgpack;q=2", False),
        ("application/msgpacked", False),
        ("*/*", False),
        ("application/*", False),
        ("text/html", False),
        ("", False),
        (";;,,=", False),
    ],
)
def test_negotiation(accept: str, ours: bool) -> None:
    """MessagePack has to be named; the higher weight wins, then who is named first."""
    assert ours is msgpack.wanted(CIMultiDict({"Accept": accept}))


def test_negotiation_over_several_headers() -> None:
    """Headers of one name are one list."""
    headers = CIMultiDict([("Accept", "text/html"), ("Accept", "application/msgpack")])
    assert msgpack.wanted(headers)
    assert not msgpack.wanted(CIMultiDict())


async def test_unknown_types_are_answered_in_json(api: Api) -> None:
    """Whoever wants something else gets JSON."""
    for accept in ("text/html", "application/xml;q=1", "nonsense", "application/json;q=0"):
        reply = await api.ask("GET", "/v1/dbs", headers={"Accept": accept})
        assert (200, "application/json") == (reply.status, reply.headers["content-type"])


# --- properties ------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@given(VALUES)
def test_there_and_back(value: Any) -> None:
    """What JSON can hold comes back as it went, types and all."""
    back = unpack(msgpack.from_json(msgpack.to_json(pack(value))))
    assert repr(value) == repr(back)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_pieces_are_the_whole(value: dict[str, Any]) -> None:
    """An object made in pieces is the object."""
    data = msgspec.json.encode(value)
    assert repr(unpack(msgpack.from_json(data))) == repr(unpack(msgpack._in_pieces(data)))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes is JSON or a refusal, and never a fault."""
    try:
        msgspec.json.decode(msgpack.to_json(data))
    except InvalidRequest as error:
        told = error.errors
    else:
        told = [("", "none")]
    assert told
