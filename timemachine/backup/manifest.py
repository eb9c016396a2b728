"""What belongs to a backup: the JSON that is written when everything else is there.

Files are named from the place where backups lie, so a part that has not changed since an earlier
backup is that one's file.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from timemachine import limits
from timemachine.errors import CodecError

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
"""Of the manifest, and of the pages in its parts."""

_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
_File = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The file of one vnode.

    position  where in its log it was read: collection's uid, vnode, term, index
    content   names the jobs that it held there
    jobs      how many there are, and `states` how many by state
    """

    index: Annotated[int, Meta(ge=0, lt=limits.VNODES_PER_COLLECTION_MAX)]
    file: _File
    size_bytes: int
    sha256: _Sha256
    position: str
    content: str
    jobs: int
    states: dict[str, int]


class BackupCollection(msgspec.Struct, frozen=True, kw_only=True):
    """A collection, and a part for each of its vnodes."""

    db: _Name
    name: _Name
    uid: int
    num_vnodes: Annotated[int, Meta(ge=1, le=limits.VNODES_PER_COLLECTION_MAX)]
    replicas: Annotated[int, Meta(ge=1, le=limits.REPLICAS_MAX)]
    history_retention_ms: Annotated[int, Meta(ge=0)]
    content_retention_ms: Annotated[int, Meta(ge=0)] | None = None
    parts: list[Part] = []


class BackupRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route. `record` is how a node stores it, its secrets sealed with the master key."""

    db: _Name
    name: _Name
    uid: int
    record: bytes


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A backup.

    created_ms  when it was begun; no part is older
    base        the backup whose files it uses, if it uses any of another one
    """

    format: int
    id: _Name
    created_ms: int
    finished_ms: int
    cluster_id: str
    version: str
    restore_epoch: int
    databases: list[_Name]
    collections: list[BackupCollection]
    routes: list[BackupRoute]
    allowed_private_cidrs: list[str] = []
    base: str | None = None
    allowed_ports: list[int] = []

    @property
    def jobs(self) -> int:
        """How many there are."""
        return sum(part.jobs for each in self.collections for part in each.parts)

    @property
    def files(self) -> set[str]:
        """The files of its parts."""
        return {part.file for each in self.collections for part in each.parts}

    def unchanged(self, cluster_id: str) -> dict[str, Part]:
        """Its parts by their contents, for another backup of the same cluster."""
        if cluster_id != self.cluster_id:
            return {}
        return {part.content: part for each in self.collections for part in each.parts}


class _Format(msgspec.Struct):
    format: int


def written_manifest(manifest: Manifest) -> bytes:
    """The JSON of a manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def read_manifest(data: bytes) -> Manifest:
    """The manifest of a JSON. Raises CodecError for what is none, or of a newer format."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise CodecError(f"The backup has the format {found}, which is not known here.")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"This is no manifest of a backup: {error}") from error
    for each in manifest.collections:
        if [part.index for part in each.parts] != list(range(each.num_vnodes)):
            raise CodecError(f"The backup lacks a part of {each.db}/{each.name}.")
    return manifest
