"""How backups and restores look in JSON."""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.schemas import Time, one_of
from timemachine import limits
from timemachine.model import PastDue

_Name = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=limits.NAME_CHARACTERS_MAX),
]
_NUMBER_MAX = (1 << 53) - 1
"""What every reader of JSON can take."""
_Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=63)]


class BackupCollectionView(msgspec.Struct, frozen=True, kw_only=True):
    """A collection of the cluster, with what a restore needs to make it again."""

    db: str
    name: str
    uid: int
    num_vnodes: int
    replicas: int
    history_retention_ms: int
    content_retention_ms: int | None


class BackupRouteView(msgspec.Struct, frozen=True, kw_only=True):
    """A route of the cluster."""

    db: str
    name: str
    uid: int
    record: Annotated[
        bytes,
        Meta(description="The route as nodes store it, its secrets sealed with the master key."),
    ]


class BackupView(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup of the cluster consists of, beside the jobs of its vnodes."""

    id: str
    format: Annotated[int, Meta(description="Of the pages of its vnodes.")]
    created_time: Time
    cluster_id: str
    version: str
    restore_epoch: int
    databases: list[str]
    collections: list[BackupCollectionView]
    routes: list[BackupRouteView]
    allowed_private_cidrs: list[str]
    allowed_ports: list[int]


class PageBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which page of a vnode is wanted."""

    view: Annotated[
        _Id,
        Meta(
            description="Names the view, such as the backup's id: the pages of one show one moment."
        ),
    ]
    page: Annotated[
        int,
        Meta(ge=0, le=_NUMBER_MAX),
        Meta(description="0 begins a view; then each by its turn. The last one may be repeated."),
    ] = 0
    unless: Annotated[
        str | None,
        Meta(
            description="The content of an earlier backup: a vnode that still has it has one empty"
            " page."
        ),
    ] = None
    position: Annotated[
        str | None,
        Meta(
            description="Where the first page was read. A page of a view that another node has"
            " begun, at another moment, is refused."
        ),
    ] = None


class RestoredCollectionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A collection that is to be made."""

    db: _Name
    name: _Name
    num_vnodes: Annotated[int, Meta(ge=1, le=limits.VNODES_PER_COLLECTION_MAX)]
    replicas: Annotated[int, Meta(ge=1, le=limits.REPLICAS_MAX)]
    history_retention_ms: Annotated[int, Meta(ge=0, le=limits.RETENTION_MS_MAX)]
    content_retention_ms: Annotated[int, Meta(ge=0, le=limits.RETENTION_MS_MAX)] | None = None


class RouteNameBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A route by its name."""

    db: _Name
    name: _Name


class RestoreBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST /v1/cluster/restore takes: what the manifest of a backup says."""

    backup: Annotated[_Id, Meta(description="The backup's id.")]
    restore_epoch: Annotated[int, Meta(ge=0, le=_NUMBER_MAX)] = 0
    databases: list[_Name] = []
    collections: list[RestoredCollectionBody] = []
    routes: Annotated[
        list[RouteNameBody], Meta(description="Those that will be restored; none may be here.")
    ] = []
    keys: Annotated[
        list[str], Meta(description="Ids of the master keys that their secrets are sealed with.")
    ] = []
    past_due: Annotated[
        PastDue,
        one_of(
            "What becomes of jobs that are past due: they are held until an admin decides, sent at"
            " once, or end as dead with the reason `expired`.",
            *PastDue,
        ),
    ] = PastDue.HOLD
    dry_run: bool = False


class RestoreView(msgspec.Struct, frozen=True, kw_only=True):
    """A restore."""

    id: str
    backup: str
    restore_epoch: Annotated[int, Meta(description="The first part of `TimeMachine-Fence`.")]
    cut_time: Annotated[int, Meta(description="What is due until then is past due.")]
    past_due: Annotated[str, one_of("What becomes of that.", *PastDue)]
    finished_time: Time | None
    resumed: Annotated[bool, Meta(description="Whether it had begun before.")] = False


class RoutesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Routes of a backup."""

    routes: Annotated[
        list[Annotated[bytes, Meta(extra_json_schema={"format": "backup-route"})]],
        Meta(description="Records of routes, as the backup has them."),
    ]


class UploadBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Jobs of a backup."""

    data: Annotated[
        bytes,
        Meta(
            description="Some jobs of a part, as the admin's commands cut it.",
            extra_json_schema={"format": "backup-jobs"},
        ),
    ]


class UploadView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them."""

    counts: Annotated[
        dict[str, int],
        Meta(
            description="Jobs that `ended` before, are `pending`, `held`, `fired` or `dropped` for"
            " being past due, dead for an `unknown` outcome, or dead as `routeless`."
        ),
    ]


class PastDueBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What becomes of jobs that a restore holds."""

    choice: Annotated[str, one_of("They are sent at once, or end as dead.", "fire", "drop")]
    after: Annotated[str | None, Meta(description="What the answer before said.")] = None


class PastDueStepView(msgspec.Struct, frozen=True, kw_only=True):
    """How many of them there were in one step, and where the next one begins."""

    jobs: int
    after: Annotated[str | None, Meta(description="Null when there are no more.")]
