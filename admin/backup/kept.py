"""The backups that a place keeps: which can be used, and what goes when one is deleted."""

import re
from typing import Final, NamedTuple

from admin.backup.places import Place
from admin.backup.reading import Damaged, manifest_of
from timemachine.backup.manifest import Manifest

_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Nodes name backups so. A place may hold folders of others, which are none of ours to delete."""


class Kept(NamedTuple):
    """What a place keeps.

    sound    the complete backups, the oldest first
    damaged  why others that are complete cannot be used
    partial  the ids of those that are under way, or broke off
    """

    sound: list[Manifest]
    damaged: list[Damaged]
    partial: list[str]


def kept_in(place: Place) -> Kept:
    """What a place keeps."""
    sound: list[Manifest] = []
    damaged: list[Damaged] = []
    complete = place.backups()
    for name in complete:
        try:
            sound.append(manifest_of(place, name))
        except Damaged as error:
            damaged.append(error)
    sound.sort(key=lambda each: (each.created_ms, each.id))
    used = {file.partition("/")[0] for each in sound for file in each.files}
    others = set(place.folders()) - used - set(complete)
    return Kept(sound, damaged, sorted(name for name in others if _ID.fullmatch(name)))


def base_of(place: Place, cluster_id: str) -> Manifest | None:
    """The newest backup of a cluster in a place, whose files another one may use.

    What cannot be used keeps nobody from taking another one.
    """
    usable = [each for each in kept_in(place).sound if each.cluster_id == cluster_id]
    return usable[-1] if usable else None


def files_of(place: Place, id: str, manifest: Manifest | None) -> list[str]:
    """The files that go with a backup, its manifest aside: those that no other one uses.

    `manifest` is None where it has none that can be read. Raises Damaged where that of another one
    cannot be, for nobody knows what that uses.
    """
    others = [manifest_of(place, name) for name in place.backups() if name != id]
    used = {file for each in others for file in each.files}
    files = set() if manifest is None else manifest.files
    folders = {name for file in files if _ID.fullmatch(name := file.partition("/")[0])}
    # Files that another backup has left to this one go with the last that uses them.
    gone = (folders | {id}) - {each.id for each in others}
    return [name for folder in sorted(gone) for name in place.files(folder) if name not in used]
