"""Manifests: what they say comes back, and what cannot be is refused."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from timemachine.backup.manifest import (
    BackupCollection,
    BackupRoute,
    Manifest,
    Part,
    read_manifest,
    written_manifest,
)
from timemachine.errors import CodecError


def _part(index: int) -> Part:
    return Part(
        index=index,
        file=f"b-1/default/carts/{index}.zst",
        size_bytes=10,
        sha256="a" * 64,
        position=f"3.{index}.1.40",
        content=f"3.{index}.37",
        jobs=2,
        states={"scheduled": 2},
    )


MANIFEST = Manifest(
    format=1,
    id="b-1",
    created_ms=1,
    finished_ms=2,
    cluster_id="c0ffee",
    version="0",
    restore_epoch=1,
    databases=["default"],
    collections=[
        BackupCollection(
            db="default",
            name="carts",
            uid=3,
            num_vnodes=2,
            replicas=3,
            history_retention_ms=5,
            parts=[_part(0), _part(1)],
        )
    ],
    routes=[BackupRoute(db="default", name="hello", uid=2, record=b"\x01sealed")],
)


def test_a_manifest_comes_back() -> None:
    """As it was, with the bytes of its routes."""
    assert MANIFEST == read_manifest(written_manifest(MANIFEST))
    assert 4 == MANIFEST.jobs


def test_only_the_same_cluster_knows_positions() -> None:
    """A position names a log, and each cluster has its own."""
    assert {"3.0.37", "3.1.37"} == set(MANIFEST.unchanged("c0ffee"))
    assert {} == MANIFEST.unchanged("other")


def _changed(**members: Any) -> bytes:
    return json.dumps(json.loads(written_manifest(MANIFEST)) | members).encode()


def test_what_is_no_manifest_is_refused() -> None:
    """Foreign bytes, a cut, another format, a part that is missing."""
    whole = written_manifest(MANIFEST)
    lacking = replace(MANIFEST.collections[0], parts=[_part(0)])
    for data in (
        b"",
        b"[]",
        b"\xff",
        whole[:-20],
        _changed(format=2),
        _changed(id="../b"),
        written_manifest(replace(MANIFEST, collections=[lacking])),
    ):
        with pytest.raises(CodecError):
            read_manifest(data)


@pytest.mark.parametrize("file", ["/etc/passwd", "../x", "b/../../x", "b//x", "", "b/.x"])
def test_no_file_lies_elsewhere(file: str) -> None:
    """A manifest that somebody has made leads nowhere but below its place."""
    part = replace(_part(0), file=file)
    collection = replace(MANIFEST.collections[0], num_vnodes=1, parts=[part])
    with pytest.raises(CodecError):
        read_manifest(written_manifest(replace(MANIFEST, collections=[collection])))
