"""The cluster over HTTP: nodes, vnodes, and tokens for nodes that join."""

import msgspec
import pytest

from tests.unit.node.api.harness import KEY, Api
from timemachine import limits
from timemachine.jointokens import read_token
from timemachine.model import Node
from timemachine.sealing import MasterKey

CARTS = "/v1/dbs/default/collections/carts"
TOKENS = "/v1/cluster/join-tokens"


def _node(number: int) -> Node:
    return Node(
        id=f"n{number}", name="", http="", rpc=f"r{number}:1", zone="", version="", number=number
    )


async def test_a_token_is_shown_once_and_its_hash_is_kept(api: Api) -> None:
    """It is void after an hour."""
    before_ms = api.engine.now_ms()
    issued = await api.ask("POST", TOKENS)
    assert (201, "no-store") == (issued.status, issued.headers["cache-control"])
    token = read_token(issued.json["token"])
    kept = api.engine.meta.tokens[token.id]
    assert kept.secret_hash == token.secret_hash
    left_ms = issued.json["expires_time"] - before_ms
    assert 0 <= left_ms - limits.JOIN_TOKEN_TTL_MS_DEFAULT < 60_000
    assert kept.expires_ms == issued.json["expires_time"]
    secret = token.text.partition(".")[2].encode()
    assert not [row for row in api.store.scan(b"", b"\xff", 10_000) if secret in row[1]]
    other = await api.ask("POST", TOKENS, {"ttl_ms": 5_000})
    assert other.json["token"] != token.text
    assert 5_000 <= other.json["expires_time"] - before_ms < 65_000


async def test_a_repeat_with_the_key_gets_the_same_token(api: Api) -> None:
    """Though the cluster does not keep it; another request with that key is 422."""
    key = {"Idempotency-Key": "k"}
    first = await api.ask("POST", TOKENS, headers=key)
    again = await api.ask("POST", TOKENS, {}, headers=key)
    assert (201, first.json) == (again.status, again.json)
    assert "true" == again.headers["idempotent-replayed"]
    assert 1 == len(api.engine.meta.tokens)
    reused = await api.ask("POST", TOKENS, {"ttl_ms": 5_000}, headers=key)
    assert (422, "idempotency_key_reused") == (reused.status, reused.code)
    assert first.json != (await api.ask("POST", TOKENS, headers={"Idempotency-Key": "l"})).json


async def test_a_repeat_after_a_change_of_the_master_key(api: Api) -> None:
    """The older keys are still there; if not, the token cannot be told again."""
    key = {"Idempotency-Key": "k"}
    first = await api.ask("POST", TOKENS, headers=key)
    keys = api.engine.master_keys
    keys.insert(0, MasterKey(b"n" * limits.MASTER_KEY_BYTES))
    assert first.json == (await api.ask("POST", TOKENS, headers=key)).json
    keys.remove(KEY)
    lost = await api.ask("POST", TOKENS, headers=key)
    assert (500, "internal") == (lost.status, lost.code)


@pytest.mark.parametrize(
    "body",
    [{"ttl_ms": 0}, {"ttl_ms": limits.JOIN_TOKEN_TTL_MS_MAX + 1}, {"ttl_ms": "1h"}, {"ttl": 1}, []],
)
async def test_bad_bodies_are_refused(api: Api, body: object) -> None:
    """No token is made of them."""
    assert 400 == (await api.ask("POST", TOKENS, body)).status
    assert {} == api.engine.meta.tokens


async def test_there_are_so_many_tokens_and_not_more(api: Api) -> None:
    """The refusal is not kept: the same request succeeds when there is room."""
    for _ in range(limits.JOIN_TOKENS_MAX):
        await api.ask("POST", TOKENS)
    key = {"Idempotency-Key": "k"}
    full = await api.ask("POST", TOKENS, headers=key)
    assert (429, "too_many_tokens") == (full.status, full.code)
    assert "retry-after" in full.headers
    meta = api.engine.meta
    meta.drop(next(iter(meta.tokens.values())))
    assert 201 == (await api.ask("POST", TOKENS, headers=key)).status


async def test_what_one_node_lacks_is_told(api: Api) -> None:
    """Of the collection and of the cluster; a deleted collection lacks nothing."""
    read = (await api.ask("GET", CARTS)).json
    assert (True, True) == (read["under_replicated"], read["no_fault_tolerance"])
    cluster = (await api.ask("GET", "/v1/cluster")).json
    assert (3, True, 1) == (
        cluster["under_replicated"],
        cluster["no_fault_tolerance"],
        cluster["cluster_version"],
    )
    assert (1, "up", 3, 3) == tuple(
        cluster["nodes"][0][name] for name in ("number", "state", "vnodes", "leaders")
    )
    gone = (await api.ask("DELETE", f"{CARTS}?force=true")).json
    assert (False, False) == (gone["under_replicated"], gone["no_fault_tolerance"])


async def test_nodes_are_listed_by_their_numbers(api: Api) -> None:
    """This node hears nobody else, and does not say who leads what it has no word of."""
    meta = api.engine.meta
    for number in (3, 2):
        meta.keep(_node(number))
    assert [("n1", "up"), ("n2", "down"), ("n3", "down")] == [
        (node["id"], node["state"]) for node in (await api.ask("GET", "/v1/cluster")).json["nodes"]
    ]
    wide = "/v1/dbs/default/collections/wide"
    read = (await api.ask("PUT", wide, {"num_vnodes": 2})).json
    assert (False, False) == (read["under_replicated"], read["no_fault_tolerance"])
    rows = (await api.ask("GET", "/v1/cluster/vnodes")).json["items"]
    there = [row for row in rows if row["collection"] == "wide"]
    assert {"n1", "n2", "n3"} == {each["node"] for each in there[0]["replicas"]}
    # Its other voters are not there, so nobody leads it, and nobody waits long for that.
    assert {None} == {row["leader"] for row in there}
    carts = [row for row in rows if row["collection"] == "carts"]
    assert "n1" == carts[0]["leader"]
    assert {"node": "n1", "role": "voter", "lag": 0} == carts[0]["replicas"][0]


async def test_a_format_is_finalised_when_every_node_knows_it(api: Api) -> None:
    """Before that the answer names those that do not; afterwards there is no way back."""
    finalise = "/v1/cluster/finalise"
    shown = (await api.ask("GET", "/v1/cluster")).json
    assert (1, 1, [1]) == (
        shown["cluster_version"],
        shown["known_version"],
        shown["nodes"][0]["formats"],
    )
    again = await api.ask("POST", finalise, {"cluster_version": 1})
    assert (200, {"cluster_version": 1}) == (again.status, again.json)
    early = await api.ask("POST", finalise, {"cluster_version": 2})
    assert (409, "nodes_behind") == (early.status, early.code)
    assert "format 2 yet: " in early.json["detail"]
    assert "knows 1." in early.json["detail"]
    for version in (0, 256):
        assert 400 == (await api.ask("POST", finalise, {"cluster_version": version})).status
    assert 400 == (await api.ask("POST", finalise)).status
    engine = api.engine
    own = engine.meta.nodes[engine.node_id]
    engine.finalising._known = (1, 2)
    engine.say_node(msgspec.structs.replace(own, formats=(1, 2)))
    upgraded = (await api.ask("GET", "/v1/cluster")).json
    assert (1, 2) == (upgraded["cluster_version"], upgraded["known_version"])
    assert 200 == (await api.ask("POST", finalise, {"cluster_version": 2})).status
    assert 2 == (await api.ask("GET", "/v1/cluster")).json["cluster_version"]
    back = await api.ask("POST", finalise, {"cluster_version": 1})
    assert (409, "format_finalised") == (back.status, back.code)
