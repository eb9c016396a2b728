"""Master keys: who has which, what is sealed with which, and sealing all of it again."""

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.conventions import Answer, Call, Nothing, ask, json_answer, stale
from node.api.operations import Told, operation
from node.api.problems import refusal
from node.engine import Engine
from node.secrets import route_context
from timemachine import limits
from timemachine.errors import SealError
from timemachine.model import Route
from timemachine.replica import meta as m
from timemachine.sealing import MasterKey, key_check, open_sealed, seal

_TAG = "Cluster"
_DIFFER = "keys_differ"
_SEALS_IN_TURN = 32
"""Sealing takes some microseconds each; others come to their turn in between."""


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A master key, as far as anything is known of it but the key itself."""

    id: Annotated[str, Meta(description="The first 8 hex digits of its SHA-256.")]
    current: Annotated[bool, Meta(description="Whether it seals what is written now.")]
    routes: Annotated[int, Meta(description="How many have a secret that it has sealed.")]
    nodes: Annotated[list[str], Meta(description="Ids of those that have it.")]
    first_of: Annotated[
        list[str], Meta(description="Ids of those in whose key files it stands first.")
    ]
    needed: Annotated[bool, Meta(description="Whether nodes must have it.")]


class KeysView(msgspec.Struct, frozen=True):
    """All master keys that a node has, or that something is sealed with."""

    items: list[KeyView]


class ResealedView(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is; asked again until `left` is 0."""

    current: Annotated[str, Meta(description="The id of the key that seals.")]
    resealed: Annotated[int, Meta(description="Secrets that were sealed again by this request.")]
    left: Annotated[int, Meta(description="Secrets that are sealed with other keys.")]


class KeyHandlers:
    """Operations on master keys."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "GET",
        "/v1/cluster/keys",
        tag=_TAG,
        answers={200: Told(meaning="The keys, the current one first.", body=KeysView)},
    )
    async def get_keys(self, call: Call) -> Answer:
        """List the master keys.

        By their ids: what they are is told nowhere.
        """
        engine = self._engine
        if not stale(call):
            await ask(engine.router.read_meta)
        current = engine.master_keys[0].id
        routes: dict[str, int] = {current: 0}
        for route in engine.meta.routes.values():
            for key_id in {m.sealed_by(each) for each in route.seals} - {""}:
                routes[key_id] = routes.get(key_id, 0) + 1
        nodes = [node for node in engine.meta.nodes.values() if node.present]
        known = {key_id for node in nodes for key_id in node.keys} | routes.keys()
        items = [
            KeyView(
                id=key_id,
                current=key_id == current,
                routes=routes.get(key_id, 0),
                nodes=[node.id for node in nodes if key_id in node.keys],
                first_of=[node.id for node in nodes if node.keys[:1] == (key_id,)],
                needed=key_id in routes,
            )
            for key_id in sorted(known, key=lambda key_id: (key_id != current, key_id))
        ]
        return json_answer(KeysView(items))

    @operation(
        "POST",
        "/v1/cluster/reseal",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="Some secrets are sealed again.", body=ResealedView)},
        refusals=["409 keys_differ"],
    )
    async def reseal(self, call: Call) -> Answer:
        """Seal with the first key of the key files.

        From the first request on all that is written is sealed with it, and each request seals some
        of what is stored with it. Asked again until nothing is left, through any node; what was
        done before an interruption stays done.
        """
        call.no_members()
        engine = self._engine
        # Of what was written before this request nothing must be overlooked.
        await ask(engine.router.read_meta)
        key = self._wanted()
        seals = await self._sealed_again(key)
        command = m.Reseal(
            now_ms=engine.now_ms(), key_id=key.id, key_check=key_check(key), seals=seals
        )
        result = await ask(engine.propose_meta, command)
        if result.kind == "refused":
            raise refusal(result.code)
        left = sum(len(self._others(route, key.id)) for route in engine.meta.routes.values())
        return json_answer(ResealedView(current=key.id, resealed=len(seals), left=left))

    def _wanted(self) -> MasterKey:
        """The key that stands first in the files of all members; a refusal where they differ.

        Who is asked does not matter: any node may be the one that answers.
        """
        firsts: dict[str, list[str]] = {}
        for node in self._engine.meta.nodes.values():
            if node.present:
                first = node.keys[0] if node.keys else "none that is known"
                firsts.setdefault(first, []).append(node.name or node.id)
        for key in self._engine.keys.in_file:
            if firsts.keys() == {key.id}:
                return key
        told = "; ".join(
            f"{first} on {', '.join(names[: limits.NODES_NAMED_MAX])}"
            for first, names in sorted(firsts.items())
        )
        raise refusal(
            _DIFFER,
            "The same master key has to stand first in the key file of every node. Now it is"
            f" {told}. Change the files, and restart these nodes one by one.",
        )

    @staticmethod
    def _others(route: Route, key_id: str) -> list[bytes]:
        return [each for each in route.seals if m.sealed_by(each) != key_id]

    async def _sealed_again(self, key: MasterKey) -> list[m.SealedAgain]:
        """Some of what other keys have sealed, sealed with this one."""
        engine = self._engine
        found: list[m.SealedAgain] = []
        size = 0
        for route in list(engine.meta.routes.values()):
            context = route_context(route.db, route.name)
            for before in self._others(route, key.id):
                if len(found) >= limits.RESEAL_COUNT_MAX or size >= limits.RESEAL_BYTES:
                    return found
                try:
                    text = open_sealed(engine.master_keys, before, context=context)
                except SealError as error:
                    raise SealError(f"Route {route.db}/{route.name}: {error.detail}") from None
                nonce = engine.random_bytes(limits.SEAL_NONCE_BYTES)
                after = seal(key, text, nonce=nonce, context=context)
                found.append(m.SealedAgain(route.uid, before, after))
                size += len(before) + len(after)
                if len(found) % _SEALS_IN_TURN == 0:
                    await asyncio.sleep(0)
        return found
