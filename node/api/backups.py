"""Backups: what the cluster consists of, and the vnodes page by page.

A backup is taken by whoever asks for the pages, usually `timemachine admin backup`; nodes keep
nothing of it but the views that are being read.
"""

import msgspec

from node.api.backup_views import BackupCollectionView, BackupRouteView, BackupView, PageBody
from node.api.conventions import DIGITS, Answer, Call, Nothing, ask, decoded, json_answer
from node.api.lookups import find_collection
from node.api.operations import IN_COLLECTION, Example, Told, operation
from node.api.problems import refusal
from node.engine import Engine
from timemachine import __version__, codec
from timemachine.backup.manifest import FORMAT
from timemachine.errors import Unavailable
from timemachine.identifiers import UUID7_RANDOM_BYTES, uuid7
from timemachine.vnode import Vnode

_TAG = "Backups"
OCTETS = "application/octet-stream"

_decode_page = msgspec.json.Decoder(PageBody).decode


class BackupHandlers:
    """Operations that a backup is made of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "POST",
        "/v1/cluster/backup",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="All but the jobs.", body=BackupView)},
    )
    async def describe_backup(self, call: Call) -> Answer:
        """Begin a backup.

        Answers what the cluster consists of, and an id. The jobs are read vnode by vnode. Nothing
        is kept of it here. Nodes, tokens, plans and tasks are no part of a backup.
        """
        call.no_members()
        engine, meta = self._engine, self._engine.meta
        now_ms = engine.now_ms()
        view = BackupView(
            id=uuid7(now_ms, engine.random_bytes(UUID7_RANDOM_BYTES)),
            format=FORMAT,
            created_time=now_ms,
            cluster_id=engine.cluster_id,
            version=__version__,
            restore_epoch=meta.settings.restore_epoch,
            databases=sorted(meta.databases),
            collections=[
                BackupCollectionView(
                    db=each.db,
                    name=each.name,
                    uid=each.uid,
                    num_vnodes=each.num_vnodes,
                    replicas=each.replicas,
                    history_retention_ms=each.history_retention_ms,
                    content_retention_ms=each.content_retention_ms,
                )
                for _, each in sorted(meta.collections.items())
            ],
            routes=[
                BackupRouteView(db=each.db, name=each.name, uid=each.uid, record=codec.encode(each))
                for _, each in sorted(meta.routes.items())
            ],
            allowed_private_cidrs=list(meta.settings.allowed_private_cidrs),
            allowed_ports=list(meta.settings.allowed_ports),
        )
        return json_answer(view)

    @operation(
        "POST",
        "/v1/cluster/backup/{db}/{collection}/{vnode}",
        tag=_TAG,
        body=PageBody,
        answers={200: Told(meaning="A page of jobs.", body=bytes, media=OCTETS)},
        refusals=[*IN_COLLECTION, "404 vnode_not_found", "409 backup_view_gone"],
        example=Example(body={"view": "nightly", "page": 0}),
    )
    async def read_backup_page(self, call: Call) -> Answer:
        """Read a page of a vnode's jobs.

        The pages of one view show the vnode as it was when the first one was asked for, with
        everything in it that had been acknowledged by then. Its leader answers. A view that is not
        asked for a minute is gone, and is begun anew.
        """
        body = decoded(_decode_page, call.body)
        vnode = find_vnode(self._engine, call)
        page = await ask(
            self._engine.backups.page, body.view, vnode, body.page, body.unless, body.position
        )
        if page is None:
            raise refusal("backup_view_gone")
        return Answer(body=page, content_type=OCTETS)


def find_vnode(engine: Engine, call: Call) -> Vnode:
    """The vnode that a path names, which this node leads; or 404, or 503."""
    db, name, number = call.names[-3:]
    collection = find_collection(engine, db, name)
    if DIGITS.fullmatch(number) is None or int(number) >= collection.num_vnodes:
        raise refusal("vnode_not_found")
    vnode = engine.runtime.vnodes.get((collection.uid, int(number)))
    if vnode is None or not vnode.serving:
        raise Unavailable("The vnode has no leader yet.")
    return vnode
