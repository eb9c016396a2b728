"""Whatever is asked, the node answers with a status of the contract, and never with a fault."""

import random
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from node.api import original
from tests.unit.node.api.harness import Api

STATUSES = {200, 201, 202, 400, 404, 405, 409, 412, 413, 415, 422}
METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"]
PLACES = """
/v1/dbs /v1/dbs/{} /v1/dbs/{}/collections /v1/dbs/{}/collections/{} /v1/dbs/{}/routes
/v1/dbs/{}/routes/{} /v1/dbs/{}/routes/{}/secret /v1/dbs/{}/routes/{}/pause
/v1/dbs/{}/routes/{}/resume /v1/dbs/{}/routes/{}/send-example
/v1/dbs/{}/collections/{}/jobs /v1/dbs/{}/collections/{}/jobs/{}
/v1/dbs/{}/collections/{}/jobs/batch /v1/dbs/{}/collections/{}/jobs/{}/run
/v1/dbs/{}/collections/{}/jobs/{}/redrive /v1/dbs/{}/collections/{}/jobs/{}/attempts
/v1/cluster /v1/cluster/vnodes /v1/cluster/settings /healthz /metrics /version
/job/{} /job/{}/{} /job/{}/{}/{} /route /route/ /route/{} /route/{}/{}
""".split()
NAMES = ["default", "carts", "hello", "a", "b", "ä/ö", "..", "%", "x" * 200, "\x00", "batch"]
MEMBERS = """
id trigger_time delay_ms route meta tags ordering_key webhook_url headers retry rate secret batch
timeout_ms body delivery enabled num_vnodes replicas history_retention_ms breaker ca_pem
client_cert_pem client_key_pem non_retryable_status allowed_private_cidrs state version nonsense
""".split()
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    3.5,
    4_000_000_000_000,
    10**30,
    "",
    "hello",
    "2030-01-01T00:00:00Z",
    "http://one.example/",
    "http://u:p@one.example/%",
    "http://[::1",
    "***",
    "ä\x00\u2028",
    [],
    [1, "a", None],
    {},
    {"a": "b"},
    {"max_attempts": 2},
    [[[]]],
]
QUERIES = ["", "force=true", "purge=1", "limit=2", "state=dead", "cursor=AAAA", "from=x", "a=%ff"]
HEADERS = {
    "If-Match": ['"1"', "*", '"x"', ""],
    "If-None-Match": ["*", '"1"'],
    "Idempotency-Key": ["k", '"k"', "", "ä", "x" * 300],
    "Content-Type": [
        "application/json",
        "text/plain",
        "application/x-ndjson",
        ";",
        "application/msgpack",
    ],
    "Expect": ["100-continue", "miracles"],
}


@pytest.mark.parametrize("seed", range(8))
async def test_no_request_is_a_fault(api: Api, seed: int) -> None:
    """Random methods, places, members, values, conditions: no 5xx, and errors in one form."""
    rng = random.Random(seed)
    for _ in range(150):
        place = rng.choice(PLACES)
        while "{}" in place:
            # Mostly what exists, so that some requests get far.
            name = rng.choice(NAMES[: rng.choice([1, 2, 3, 5, len(NAMES)])])
            place = place.replace("{}", quote(name, safe=""), 1)
        members = rng.sample(MEMBERS, rng.randrange(6))
        body = {member: rng.choice(VALUES) for member in members}
        if rng.random() < 0.5:
            body |= {"route": "hello", "delay_ms": 10**6}
        if rng.random() < 0.3:
            body |= {"webhook_url": "http://one.example/"}
        value = rng.choice([body, body, [body, body], rng.choice(VALUES)])
        encode = rng.choice([msgspec.json.encode] * 3 + [msgspec.msgpack.encode])
        try:
            content = encode(value)
        except OverflowError:  # MessagePack cannot hold it
            content = msgspec.json.encode(value)
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
        headers = {name: rng.choice(HEADERS[name]) for name in rng.sample(list(HEADERS), 2)}
        method, query = rng.choice(METHODS), rng.choice(QUERIES)
        reply = await api.ask(
            method, f"{place}?{query}", content if rng.random() < 0.8 else None, headers=headers
        )
        told = (method, place, query, headers, content, reply)
        assert reply.status in STATUSES, told
        if reply.status == 400 and original.is_its_own(place) and method != "HEAD":
            assert {"error", "code"} == set(reply.json), told
        elif reply.status >= 400 and method != "HEAD":
            assert reply.code, told
