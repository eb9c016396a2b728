"""What is asked of a node for backups and restores."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from timemachine.backup.manifest import BackupCollection, Manifest
from timemachine.backup.pages import PartHead
from timemachine.client.call import Call, path_of
from timemachine.client.operations import request

BACKUP = path_of("cluster", "backup")
RESTORE = path_of("cluster", "restore")


class Described(msgspec.Struct, frozen=True):
    """What a cluster consists of."""

    id: str
    format: int
    created_time: int
    cluster_id: str
    version: str
    restore_epoch: int
    databases: list[str]
    collections: list["DescribedCollection"]
    routes: list["DescribedRoute"]
    allowed_private_cidrs: list[str]
    allowed_ports: list[int] = []


class DescribedCollection(msgspec.Struct, frozen=True):
    """A collection of a cluster."""

    db: str
    name: str
    uid: int
    num_vnodes: int
    replicas: int
    history_retention_ms: int
    content_retention_ms: int | None = None


class DescribedRoute(msgspec.Struct, frozen=True):
    """A route of a cluster; its secrets are sealed."""

    db: str
    name: str
    uid: int
    record: bytes


class Begun(msgspec.Struct, frozen=True):
    """A restore."""

    id: str
    backup: str
    restore_epoch: int
    cut_time: int
    past_due: str
    finished_time: int | None = None
    resumed: bool = False


class Uploaded(msgspec.Struct, frozen=True):
    """What became of jobs."""

    counts: dict[str, int]


class Decided(msgspec.Struct, frozen=True):
    """How many held jobs one step has found, and where the next one begins."""

    jobs: int
    after: str | None


def describe() -> Call[Described]:
    """What the cluster consists of, and an id for a backup."""
    return replace(request("POST", BACKUP, json={}), answer=Described)


def page(
    view: str,
    db: str,
    collection: str,
    vnode: int,
    number: int,
    *,
    unless: str | None = None,
    head: PartHead | None = None,
) -> Call[bytes]:
    """A page of a vnode; `head` is what the first one said."""
    path = path_of("cluster", "backup", db, collection, str(vnode))
    position = None if head is None else head.position.text
    body = {"view": view, "page": number, "unless": unless, "position": position}
    return replace(request("POST", path, json=body), answer=bytes)


def begin(
    manifest: Manifest,
    collections: Sequence[BackupCollection],
    routes: Sequence[tuple[str, str]],
    keys: Sequence[str],
    past_due: str,
    *,
    dry_run: bool,
) -> Call[Begun]:
    """Begin a restore, or go on with it."""
    body: dict[str, Any] = {
        "backup": manifest.id,
        "restore_epoch": manifest.restore_epoch,
        "databases": manifest.databases,
        "collections": [
            {
                "db": each.db,
                "name": each.name,
                "num_vnodes": each.num_vnodes,
                "replicas": each.replicas,
                "history_retention_ms": each.history_retention_ms,
                "content_retention_ms": each.content_retention_ms,
            }
            for each in collections
        ],
        "routes": [{"db": db, "name": name} for db, name in routes],
        "keys": list(keys),
        "past_due": past_due,
        "dry_run": dry_run,
    }
    return replace(request("POST", RESTORE, json=body), answer=Begun)


def routes(restore: str, records: Sequence[bytes]) -> Call[Begun]:
    """Make routes again."""
    path = path_of("cluster", "restore", restore, "routes")
    return replace(request("POST", path, json={"routes": list(records)}), answer=Begun)


def jobs(restore: str, db: str, collection: str, data: bytes) -> Call[Uploaded]:
    """Restore some jobs."""
    path = path_of("cluster", "restore", restore, "jobs", db, collection)
    return replace(request("POST", path, json={"data": data}), answer=Uploaded)


def end(restore: str) -> Call[Begun]:
    """All of it is restored."""
    path = path_of("cluster", "restore", restore, "end")
    return replace(request("POST", path, json={}), answer=Begun)


def decide(db: str, collection: str, vnode: int, choice: str, after: str | None) -> Call[Decided]:
    """Send, or give up, some held jobs of a vnode."""
    path = path_of("cluster", "past-due", db, collection, str(vnode))
    return replace(request("POST", path, json={"choice": choice, "after": after}), answer=Decided)
