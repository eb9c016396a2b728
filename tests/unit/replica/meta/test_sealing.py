"""Which master key seals is agreed on, and what it has sealed takes the place of older seals."""

from typing import Any

import msgspec
import pytest

from tests.unit.replica.meta.driven import DrivenMeta, node
from timemachine.model import NodeState, PastDue, Restore, Route, SealedKey
from timemachine.replica.meta import (
    BeginRestore,
    DeleteRoute,
    PutNode,
    PutRoute,
    Reseal,
    RestoreRoutes,
    SealedAgain,
)
from timemachine.sealing import MasterKey, key_check, seal

OLD, NEW, OTHER = (MasterKey(bytes([number]) * 32) for number in (1, 2, 3))


def sealed(key: MasterKey, number: int) -> bytes:
    """A secret, sealed with a nonce of its own."""
    return seal(key, b"secret", nonce=number.to_bytes(12, "big"), context=b"c")


def route(key: MasterKey, name: str = "r", **fields: Any) -> Route:
    """A route with a secret of every kind."""
    first = sum(name.encode()) * 10
    return Route(
        uid=0,
        db="default",
        name=name,
        version=0,
        webhook_url="http://recipient.test/",
        created_ms=0,
        updated_ms=0,
        secrets=(
            SealedKey(sealed=sealed(key, first)),
            SealedKey(sealed=sealed(key, first + 1), expires_ms=9),
        ),
        headers={"a": sealed(key, first + 2)},
        basic_auth=sealed(key, first + 3),
        client_key_pem=sealed(key, first + 4),
        **fields,
    )


def put(meta: DrivenMeta, wanted: Route, version: int = 0) -> Any:
    """Write a route."""
    return meta.apply(PutRoute(now_ms=5, route=wanted, expected_version=version))


def change(key: MasterKey, *seals: SealedAgain, now_ms: int = 6) -> Reseal:
    """Seal with this key from now on."""
    return Reseal(now_ms=now_ms, key_id=key.id, key_check=key_check(key), seals=list(seals))


def tell(meta: DrivenMeta, number: int, *keys: MasterKey, **fields: Any) -> None:
    """A node says which keys it has."""
    told = node(number, keys=tuple(key.id for key in keys), **fields)
    meta.apply(PutNode(now_ms=3, node=told))


@pytest.fixture
def meta() -> DrivenMeta:
    """Three nodes whose key files begin with the new key, and one route of the old one."""
    made = DrivenMeta(3)
    for number in (1, 2, 3):
        tell(made, number, NEW, OLD)
    assert "created" == put(made, route(OLD)).kind
    return made


def test_every_secret_of_a_route_is_sealed_again(meta: DrivenMeta) -> None:
    """In a row of its own; its version and times stay, since what is in it is the same."""
    before = meta.machine.routes["default", "r"]
    assert 5 == len(before.seals)
    seals = [
        SealedAgain(before.uid, each, sealed(NEW, number))
        for number, each in enumerate(before.seals)
    ]
    assert "replaced" == meta.apply(change(NEW, *seals)).kind
    after = meta.reloaded().routes["default", "r"]
    assert [each.after for each in seals] == after.seals
    assert 9 == after.secrets[1].expires_ms
    fields = {name: getattr(before, name) for name in ("secrets", "headers", "basic_auth")}
    same = msgspec.structs.replace(after, client_key_pem=before.client_key_pem, **fields)
    assert before == same
    assert (NEW.id, key_check(NEW)) == (meta.machine.state.key_id, meta.machine.state.key_check)
    assert "unchanged" == meta.apply(change(NEW, *seals)).kind


def test_some_at_a_time(meta: DrivenMeta) -> None:
    """A route may have seals of several keys meanwhile; what was changed meanwhile is left out."""
    before = meta.machine.routes["default", "r"]
    first = SealedAgain(before.uid, before.seals[0], sealed(NEW, 1))
    gone = SealedAgain(before.uid, sealed(OLD, 99), sealed(NEW, 2))
    nowhere = SealedAgain(77, before.seals[1], sealed(NEW, 3))
    wrong = SealedAgain(before.uid, before.seals[1], sealed(OTHER, 4))
    meta.apply(change(NEW, first, gone, nowhere, wrong))
    after = meta.machine.routes["default", "r"]
    assert [first.after, *before.seals[1:]] == after.seals
    meta.apply(DeleteRoute(now_ms=7, db="default", name="r"))
    later = SealedAgain(before.uid, before.seals[1], sealed(NEW, 5))
    assert "unchanged" == meta.apply(change(NEW, later)).kind


@pytest.mark.parametrize("keys", [(), (OLD,), (OLD, NEW), (OTHER, NEW)])
def test_every_node_has_to_have_it_first(meta: DrivenMeta, keys: tuple[MasterKey, ...]) -> None:
    """Or what is sealed could not be opened there, or another one would be asked for."""
    tell(meta, 2, *keys)
    before = meta.machine.routes["default", "r"]
    again = SealedAgain(before.uid, before.seals[0], sealed(NEW, 1))
    assert "keys_differ" == meta.apply(change(NEW, again)).code
    assert ("", before) == (meta.machine.state.key_id, meta.machine.routes["default", "r"])
    # What is no member any more is not asked.
    gone = meta.machine.nodes["n2"]
    meta.machine.keep(msgspec.structs.replace(gone, state=NodeState.REMOVED))
    assert "replaced" == meta.apply(change(NEW, again)).kind


def test_an_older_round_does_not_take_it_back(meta: DrivenMeta) -> None:
    """Whoever seals again with a key that is not the first any more is refused."""
    meta.apply(change(NEW))
    for number in (1, 2, 3):
        tell(meta, number, OTHER, NEW)
    assert "replaced" == meta.apply(change(OTHER)).kind
    assert "keys_differ" == meta.apply(change(NEW)).code
    assert OTHER.id == meta.machine.state.key_id


def test_what_is_written_with_the_key_of_before_is_refused(meta: DrivenMeta) -> None:
    """A node that has not heard of the change must not bring the old key back; old seals stay."""
    assert "created" == put(meta, route(OLD, "before")).kind
    meta.apply(change(NEW))
    assert "key_moved" == put(meta, route(OLD, "after")).code
    assert "created" == put(meta, route(NEW, "after")).kind
    stored = meta.machine.routes["default", "r"]
    kept = msgspec.structs.replace(stored, timeout_ms=2_000)
    assert "replaced" == put(meta, kept, 1).kind
    mixed = msgspec.structs.replace(kept, basic_auth=sealed(OLD, 1_000))
    assert "key_moved" == put(meta, mixed, 2).code
    foreign = msgspec.structs.replace(kept, basic_auth=b"no seal")
    assert "key_moved" == put(meta, foreign, 2).code
    # Sealed again meanwhile: what was kept then is old now.
    again = SealedAgain(stored.uid, stored.seals[0], sealed(NEW, 1))
    meta.apply(change(NEW, again))
    assert "key_moved" == put(meta, msgspec.structs.replace(kept, timeout_ms=3_000), 2).code


def test_what_is_restored_is_sealed_with_the_key_of_now(meta: DrivenMeta) -> None:
    """The key of a backup does not come back with it."""
    meta.apply(change(NEW))
    restore = Restore("r", "b", 50, 1_000, PastDue.HOLD)
    meta.apply(BeginRestore(now_ms=7, restore=restore, databases=[], collections=[]))
    old = RestoreRoutes(now_ms=8, id=restore.id, routes=[route(OLD, "back")])
    assert "key_moved" == meta.apply(old).code
    new = RestoreRoutes(now_ms=8, id=restore.id, routes=[route(NEW, "back")])
    assert "created" == meta.apply(new).kind
