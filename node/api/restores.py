"""Restores: what a backup held is made again, and jobs that were past due are decided on."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from node.api.backup_views import (
    PastDueBody,
    PastDueStepView,
    RestoreBody,
    RestoreView,
    RoutesBody,
    UploadBody,
    UploadView,
)
from node.api.backups import find_vnode
from node.api.conventions import (
    Answer,
    Call,
    Nothing,
    ask,
    ask_meta,
    checked_name,
    decoded,
    encode_content,
    idempotency_key,
    json_answer,
    replayed,
    request_of,
)
from node.api.lookups import find_collection
from node.api.operations import IDEMPOTENCY_KEY, IN_COLLECTION, Example, Told, operation
from node.api.problems import invalid, refusal
from node.api.route_checks import check_header_name, check_ranges
from node.api.route_seals import Seals
from node.engine import Engine
from timemachine import codec, limits
from timemachine.backup.uploads import Upload, commands_of, read_upload, written_upload
from timemachine.errors import CodecError, InvalidRequest, SealError
from timemachine.identifiers import UUID7_RANDOM_BYTES, uuid7, uuid8
from timemachine.model import Restore, Route
from timemachine.outbound import parse_target
from timemachine.replica import commands as c
from timemachine.replica import meta as m

_TAG = "Backups"
_RESTORE = "/v1/cluster/restore/{restore}"
_MISSING = "404 restore_not_found"
_ENDED = "409 restore_ended"
_SEALED = "409 sealed_with_another_key"
_COMMAND_BYTES: Final = 256
_ROWS: Final = 500
_ROUTES_IN_TURN: Final = 100
"""Each has its secrets opened; then others have their turn."""
_FIRE, _DROP = "fire", "drop"

_decode_restore = msgspec.json.Decoder(RestoreBody).decode
_decode_routes = msgspec.json.Decoder(RoutesBody).decode
_decode_upload = msgspec.json.Decoder(UploadBody).decode
_decode_past_due = msgspec.json.Decoder(PastDueBody).decode
_encode_json = msgspec.json.encode
_read_route = codec.decoder(Route)


class RestoreHandlers:
    """Operations that a restore is made of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- what meta has ---------------------------------------------------------------------

    @operation(
        "POST",
        "/v1/cluster/restore",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=RestoreBody,
        answers={
            200: Told(
                meaning="A restore of this backup that goes on, or had ended already.",
                body=RestoreView,
            ),
            201: Told(
                meaning="The restore; its collections are there.",
                body=RestoreView,
                headers=("Idempotent-Replayed",),
            ),
        },
        refusals=[
            "404 database_not_found",
            "409 restore_conflict",
            _ENDED,
            _SEALED,
            "413 limit_reached",
        ],
        example=Example(body={"backup": "nightly", "databases": ["default"]}),
    )
    async def begin_restore(self, call: Call) -> Answer:
        """Begin a restore.

        Its databases and collections are made, with as many vnodes as one likes, and its restore
        epoch begins. Nothing that is here is overwritten: where one of the collections or routes is
        here it is refused. A restore of the same backup that has not ended goes on; one that has,
        and whose collections are here, is shown with its `finished_time`. With `dry_run` nothing is
        made.
        """
        body = decoded(_decode_restore, call.body)
        key = idempotency_key(call)
        engine, meta = self._engine, self._engine.meta
        scope = _scope(body)
        for known in meta.restores.values():
            if known.backup == body.backup and known.finished_ms is None:
                if known.past_due is not body.past_due:
                    raise refusal(
                        "restore_conflict",
                        "This backup is being restored, with another choice for what is past due:"
                        f" {known.past_due.value}.",
                    )
                if known.scope != scope:
                    raise refusal(
                        "restore_conflict",
                        "This backup is being restored, with other collections or another number of"
                        " vnodes: it goes on when all is as it was at first.",
                    )
                return json_answer(_view(known, resumed=True))
        done = self._done(body, scope)
        if done is not None:
            return json_answer(_view(done, resumed=True))
        self._check(body)
        now_ms = engine.now_ms()
        restore = Restore(
            id=uuid7(now_ms, engine.random_bytes(UUID7_RANDOM_BYTES))
            if key is None
            else uuid8(0, f"restore/{key}", 0),
            backup=body.backup,
            # Seconds: of several restores of one backup, wherever, the later one has the higher.
            epoch=max(body.restore_epoch + 1, now_ms // 1_000),
            cut_ms=now_ms,
            past_due=body.past_due,
            scope=scope,
        )
        if body.dry_run:
            return json_answer(_view(restore))
        command = m.BeginRestore(
            now_ms=now_ms,
            restore=restore,
            databases=list(body.databases),
            collections=[
                m.RestoredCollection(
                    each.db,
                    each.name,
                    each.num_vnodes,
                    each.replicas,
                    each.history_retention_ms,
                    each.content_retention_ms,
                )
                for each in body.collections
            ],
            request=request_of(key, "restore", encode_content(("restore", call.body))),
        )
        result = await ask_meta(engine, command)
        return json_answer(_view(result.restore), 201, replayed(result))

    def _done(self, body: RestoreBody, scope: str) -> Restore | None:
        """The restore that has made all of this here: who asks did not hear that it ended."""
        meta = self._engine.meta
        if any((each.db, each.name) not in meta.collections for each in body.collections):
            return None
        same = [
            known
            for known in meta.restores.values()
            if (known.backup, known.past_due, known.scope) == (body.backup, body.past_due, scope)
        ]
        return max(same, key=lambda known: known.cut_ms, default=None)

    def _check(self, body: RestoreBody) -> None:
        """Refuse what would overwrite something, or could not be sent."""
        meta = self._engine.meta
        names = {(each.db, each.name) for each in body.collections}
        if len(names) < len(body.collections):
            raise invalid("/collections", "A collection is named twice.")
        for collection in body.collections:
            if (collection.db, collection.name) in meta.collections:
                raise refusal(
                    "restore_conflict",
                    f"The collection {collection.db}/{collection.name} is here already;"
                    " a restore overwrites nothing.",
                )
        for route in body.routes:
            if (route.db, route.name) in meta.routes:
                raise refusal(
                    "restore_conflict",
                    f"The route {route.db}/{route.name} is here already;"
                    " a restore overwrites nothing.",
                )
        lacking = set(body.keys) - {key.id for key in self._engine.master_keys}
        if lacking:
            named = ", ".join(sorted(lacking))[:80]
            raise refusal(
                "sealed_with_another_key",
                f"The secrets of the backup are sealed with the master key {named},"
                " which this node does not have: add it to the key file below the others, restart"
                " the node, and restore through it.",
            )

    @operation(
        "POST",
        f"{_RESTORE}/routes",
        tag=_TAG,
        body=RoutesBody,
        answers={200: Told(meaning="They are there.", body=RestoreView)},
        refusals=[_MISSING, _ENDED, _SEALED, "409 key_moved", "413 limit_reached"],
        example=Example(body={"routes": []}),
    )
    async def restore_routes(self, call: Call) -> Answer:
        """Make routes of a backup again.

        Those whose names are here are left as they are.
        """
        body = decoded(_decode_routes, call.body)
        restore = self._find(call.names[0])
        routes = []
        for at, record in enumerate(body.routes):
            if at % _ROUTES_IN_TURN == 0:
                await asyncio.sleep(0)
            routes.append(self._route(record, at))
        size = 0
        some: list[Route] = []
        for route, record in zip(routes, body.routes, strict=True):
            if some and size + len(record) > limits.RESTORE_ROUTES_BYTES:
                await self._put(restore, some)
                some, size = [], 0
            some.append(route)
            size += len(record)
        await self._put(restore, some)
        return json_answer(_view(restore))

    def _route(self, record: bytes, at: int) -> Route:
        """A route that can be used here, or a refusal."""
        try:
            route: Route = _read_route(record)
        except CodecError:
            raise invalid(f"/routes/{at}", "This is no route of a backup.") from None
        try:
            _check_route(route)
        except InvalidRequest as error:
            raise invalid(f"/routes/{at}", error.detail) from None
        keys, seals = self._engine.master_keys, Seals(self._engine, route.db, route.name)
        again: dict[bytes, bytes] = {}
        try:
            for each in route.seals:
                text = seals.open(each)
                if m.sealed_by(each) != keys[0].id:
                    # No other node need ever have had the key of the backup.
                    again[each] = seals.seal(text)
        except SealError as error:
            raise refusal("sealed_with_another_key", error.detail) from None
        return m.with_seals(route, again)

    async def _put(self, restore: Restore, routes: list[Route]) -> None:
        command = m.RestoreRoutes(now_ms=self._engine.now_ms(), id=restore.id, routes=routes)
        await ask_meta(self._engine, command, missing="restore_not_found")

    @operation(
        "POST",
        f"{_RESTORE}/end",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=Nothing,
        body_required=False,
        answers={
            200: Told(
                meaning="The restore; it has ended.",
                body=RestoreView,
                headers=("Idempotent-Replayed",),
            )
        },
        refusals=[_MISSING],
    )
    async def end_restore(self, call: Call) -> Answer:
        """End a restore: all of it is here."""
        call.no_members()
        restore = self._find(call.names[0], ended=True)
        key = idempotency_key(call)
        command = m.EndRestore(
            now_ms=self._engine.now_ms(),
            id=restore.id,
            request=request_of(key, "restore", encode_content(("end", restore.id))),
        )
        result = await ask_meta(self._engine, command, missing="restore_not_found")
        return json_answer(_view(result.restore), 200, replayed(result))

    def _find(self, name: str, *, ended: bool = False) -> Restore:
        restore = self._engine.meta.restores.get(name)
        if restore is None:
            raise refusal("restore_not_found")
        if restore.finished_ms is not None and not ended:
            raise refusal("restore_ended")
        return restore

    # --- jobs ------------------------------------------------------------------------------

    @operation(
        "POST",
        f"{_RESTORE}/jobs/{{db}}/{{collection}}",
        tag=_TAG,
        body=UploadBody,
        answers={200: Told(meaning="They are here.", body=UploadView)},
        refusals=[
            *IN_COLLECTION,
            _MISSING,
            _ENDED,
            "429 too_many_requests",
            "507 disk_full",
        ],
        example=Example(
            body=msgspec.json.decode(
                _encode_json(UploadBody(data=written_upload(Upload(0, 0, {}, []))))
            )
        ),
    )
    async def restore_jobs(self, call: Call) -> Answer:
        """Restore some jobs of a backup.

        What was restored before stays as it is now: a repeat changes nothing. The uploads of a part
        come one after the other.
        """
        body = decoded(_decode_upload, call.body)
        engine = self._engine
        name, db, collection_name = call.names
        restore = self._find(name)
        collection = find_collection(engine, db, collection_name)
        # The routes of the restore are known to the node leader; here they may not have come yet.
        await ask(engine.router.read_meta)

        def named(route: str) -> Route | None:
            return engine.meta.routes.get((db, route))

        try:
            upload = read_upload(body.data)
            commands, counts = commands_of(
                upload, restore, collection.num_vnodes, named, engine.now_ms()
            )
        except CodecError as error:
            raise invalid("/data", error.detail) from None
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._one_by_one((collection.uid, index), steps))
                for index, steps in commands.items()
            ]
        for failure in [task.result() for task in tasks]:
            if failure is not None:
                raise failure
        return json_answer(UploadView(counts=counts))

    async def _one_by_one(
        self, group: tuple[int, int], steps: list[c.RestoreJobs]
    ) -> Exception | None:
        """Commit the steps of one vnode in their order: a later one makes an earlier one void."""
        try:
            for step in steps:
                size = sum([_size(item) for item in step.items])
                await ask(partial(self._propose, size), group, step)
        except Exception as error:  # noqa: BLE001
            return error
        return None

    def _propose(
        self, size: int, group: tuple[int, int], command: Any, done: Callable[[Any], None]
    ) -> None:
        self._engine.router.propose(group, command, done, size)

    # --- what is past due ------------------------------------------------------------------

    @operation(
        "POST",
        "/v1/cluster/past-due/{db}/{collection}/{vnode}",
        tag=_TAG,
        body=PastDueBody,
        answers={200: Told(meaning="A step was done.", body=PastDueStepView)},
        refusals=[*IN_COLLECTION, "404 vnode_not_found", "429 too_many_requests", "507 disk_full"],
        example=Example(body={"choice": "fire"}),
    )
    async def decide_past_due(self, call: Call) -> Answer:
        """Send, or give up, jobs that a restore holds.

        Some of one vnode; those that are held for their route's sake are left alone.
        """
        body = decoded(_decode_past_due, call.body)
        if body.choice not in (_FIRE, _DROP):
            raise invalid("/choice", "This is `fire` or `drop`.")
        try:
            after = bytes.fromhex(body.after or "")
        except ValueError:
            raise invalid("/after", "This is what the answer before said.") from None
        vnode = find_vnode(self._engine, call)
        items, following = await ask(self._engine.read_held, vnode, after, _ROWS)
        if items:
            command = c.Unpark(now_ms=self._engine.now_ms(), items=items, drop=body.choice == _DROP)
            size = _COMMAND_BYTES * len(items)
            await ask(partial(self._propose, size), vnode.group, command)
        return json_answer(
            PastDueStepView(jobs=len(items), after=None if following is None else following.hex())
        )


def _scope(body: RestoreBody) -> str:
    """Names the collections of a restore; see `Restore`."""
    made = sorted((each.db, each.name, each.num_vnodes) for each in body.collections)
    content = _encode_json([sorted(set(body.databases)), made])
    return hashlib.sha256(content).hexdigest()[:16]


def _check_route(route: Route) -> None:
    """Refuse what no node can have stored: whoever sends to it relies on these."""
    checked_name(route.db, "database")
    checked_name(route.name, "route")
    check_ranges(route)
    for name in route.headers:
        check_header_name(name, "/headers")
    parse_target(route.webhook_url)


def _size(item: c.RestoreItem) -> int:
    return (
        _COMMAND_BYTES
        + len(item.record.meta or item.meta)
        + len(item.record.delivering)
        + sum([len(row) for _, row in item.attempts])
    )


def _view(restore: Restore, *, resumed: bool = False) -> RestoreView:
    return RestoreView(
        id=restore.id,
        backup=restore.backup,
        restore_epoch=restore.epoch,
        cut_time=restore.cut_ms,
        past_due=restore.past_due.value,
        finished_time=restore.finished_ms,
        resumed=resumed,
    )
