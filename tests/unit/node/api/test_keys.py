"""Master keys through the API: shown by their ids, changed, everything sealed again."""

from typing import Any

from tests.unit.node.api.harness import KEY, ROUTE, Api
from timemachine import limits
from timemachine.replica.meta import sealed_by
from timemachine.sealing import MasterKey

NEW = MasterKey(b"n" * 32)
KEYS = "/v1/cluster/keys"
RESEAL = "/v1/cluster/reseal"


async def put_route(api: Api, path: str = ROUTE, **fields: Any) -> None:
    """A route with secrets of several kinds."""
    body = {"webhook_url": "https://user:pass@recipient.test/", "headers": {"x": "y"}, **fields}
    assert (await api.ask("PUT", path, body)).status in (200, 201)


async def keys(api: Api) -> dict[str, dict[str, Any]]:
    """The keys by id."""
    reply = await api.ask("GET", KEYS)
    assert 200 == reply.status
    return {each["id"]: each for each in reply.json["items"]}


def sealers(api: Api) -> set[str]:
    """Which keys have sealed something."""
    return {sealed_by(each) for route in api.engine.meta.routes.values() for each in route.seals}


async def test_one_key(api: Api) -> None:
    """It seals, and nothing has to be sealed again."""
    await put_route(api)
    (key,) = (await keys(api)).values()
    one = {"id": KEY.id, "current": True, "routes": 1, "needed": True}
    assert one.items() <= key.items()
    assert ["n1"] == key["nodes"] == key["first_of"]
    reply = await api.ask("POST", RESEAL)
    assert {"current": KEY.id, "resealed": 0, "left": 0} == reply.json
    assert [KEY.id] == (await api.ask("GET", "/v1/cluster")).json["nodes"][0]["keys"]


async def test_a_change_of_the_key(api: Api) -> None:
    """The old one seals until the change; then all is sealed again, and it is not needed."""
    await put_route(api)
    secret = (await api.ask("GET", f"{ROUTE}/secret")).json
    rotated = await api.ask("POST", f"{ROUTE}/secret/rotate", headers={"Idempotency-Key": "k"})
    etag = (await api.ask("GET", ROUTE)).headers["etag"]
    api.engine.replace_keys([NEW, KEY])
    await put_route(api, f"{ROUTE}2")
    assert {KEY.id} == sealers(api)
    reply = await api.ask("POST", RESEAL)
    assert {"current": NEW.id, "resealed": 7, "left": 0} == reply.json
    assert {NEW.id} == sealers(api)
    shown = await keys(api)
    assert [NEW.id, KEY.id] == list(shown)
    assert (2, True, True) == tuple(shown[NEW.id][each] for each in ("routes", "current", "needed"))
    assert (0, False, False) == tuple(
        shown[KEY.id][each] for each in ("routes", "current", "needed")
    )
    api.engine.replace_keys([NEW])
    after = (await api.ask("GET", f"{ROUTE}/secret")).json
    assert secret["secret"] == after["previous"][0]["secret"]
    assert etag == (await api.ask("GET", ROUTE)).headers["etag"]
    # A repeat is answered as before, though its answer was kept with the old key's seals.
    repeat = await api.ask("POST", f"{ROUTE}/secret/rotate", headers={"Idempotency-Key": "k"})
    assert rotated.json == repeat.json
    assert "true" == repeat.headers["idempotent-replayed"]
    await put_route(api, f"{ROUTE}3")
    assert {NEW.id} == sealers(api)


async def test_many_secrets_take_several_requests(api: Api) -> None:
    """Each does some; what is left is told."""
    headers = {f"x{number}": "y" for number in range(30)}
    for number in range(8):
        await put_route(api, f"{ROUTE}{number}", headers=headers)
    api.engine.replace_keys([NEW, KEY])
    total = sum(len(route.seals) for route in api.engine.meta.routes.values())
    assert total > 8 * 32
    first = (await api.ask("POST", RESEAL)).json
    assert limits.RESEAL_COUNT_MAX == first["resealed"] == total - first["left"]
    second = (await api.ask("POST", RESEAL)).json
    assert (total - limits.RESEAL_COUNT_MAX, 0) == (second["resealed"], second["left"])


async def test_a_key_that_is_not_first(api: Api) -> None:
    """Added below the others it changes nothing."""
    await put_route(api)
    api.engine.replace_keys([KEY, NEW])
    reply = await api.ask("POST", RESEAL)
    assert {"current": KEY.id, "resealed": 0, "left": 0} == reply.json
    assert not (await keys(api))[NEW.id]["needed"]
    assert 400 == (await api.ask("POST", RESEAL, {"key": NEW.id})).status
