"""Which master key seals the secrets of routes, and secrets that are sealed again with it."""

from collections.abc import Iterable

import msgspec

from timemachine.errors import SealError
from timemachine.model import Node, Route
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables
from timemachine.sealing import sealed_key_id


def _is_first_of_all(nodes: Iterable[Node], key_id: str) -> bool:
    """Whether the key files of all members begin with this key."""
    return all(node.keys[:1] == (key_id,) for node in nodes if node.present)


def sealed_by(blob: bytes) -> str:
    """The id of the key that sealed it; empty for what is no sealed secret."""
    try:
        return sealed_key_id(blob)
    except SealError:
        return ""


def may_store(tables: Tables, route: Route, existing: Route | None) -> bool:
    """Whether what is new among a route's seals is of the key that seals now.

    Who proposed it may not have heard yet that this is another one; a key that is given up must
    not come back by that.
    """
    key_id = tables.state.key_id
    if not key_id:
        return True
    kept = set() if existing is None else set(existing.seals)
    return all(each in kept or sealed_by(each) == key_id for each in route.seals)


def reseal(tables: Tables, command: c.Reseal) -> MetaResult:
    """Seal with this key from now on, and take what was sealed with it in place of older seals.

    A seal that is not there any more was changed meanwhile, and is left out. Versions of routes
    stay: what is in them is the same.
    """
    state = tables.state
    changed = state.key_id != command.key_id
    if changed:
        if not _is_first_of_all(tables.nodes.values(), command.key_id):
            return refused("keys_differ")
        state.key_id, state.key_check = command.key_id, command.key_check
    elif state.key_check != command.key_check:
        return refused("keys_differ")
    by_route: dict[int, dict[bytes, bytes]] = {}
    for each in command.seals:
        if sealed_by(each.after) == command.key_id:
            by_route.setdefault(each.route_uid, {})[each.before] = each.after
    for uid, seals in by_route.items():
        route = tables.routes_by_uid.get(uid)
        if route is not None and not seals.keys().isdisjoint(route.seals):
            tables.keep(with_seals(route, seals))
            changed = True
    return MetaResult(kind="replaced" if changed else "unchanged")


def with_seals(route: Route, seals: dict[bytes, bytes]) -> Route:
    """A route with other seals of the same secrets."""

    def now(sealed: bytes | None) -> bytes | None:
        return None if sealed is None else seals.get(sealed, sealed)

    return msgspec.structs.replace(
        route,
        secrets=tuple(
            msgspec.structs.replace(each, sealed=seals.get(each.sealed, each.sealed))
            for each in route.secrets
        ),
        headers={name: seals.get(sealed, sealed) for name, sealed in route.headers.items()},
        basic_auth=now(route.basic_auth),
        client_key_pem=now(route.client_key_pem),
    )
