"""Where backups lie: a directory, or a bucket of S3 or of what speaks like it.

A file is there as a whole or not at all, under whatever name it was written.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self
from urllib.parse import urlsplit

import click

from timemachine.backup.manifest import MANIFEST

_PARTIAL: Final = ".partial"


class Place(Protocol):
    """Files by their names, which have `/` between their parts."""

    name: str

    def backups(self) -> list[str]:
        """The ids of all complete backups, in order."""

    def folders(self) -> list[str]:
        """The names of all that has files: of backups, complete or not."""

    def read(self, name: str) -> BinaryIO:
        """A file, to be read once and closed. Raises FileNotFoundError."""

    def size(self, name: str) -> int | None:
        """How many bytes a file has; None if it is not there."""

    def write(self, name: str) -> Any:
        """A context manager with a file to write to, which is there once it ends well."""

    def files(self, folder: str) -> list[str]:
        """All files below a folder."""

    def delete(self, name: str) -> None:
        """Delete a file; harmless where there is none."""


def place_of(text: str) -> Place:
    """The place that somebody has named. Raises UsageError."""
    if text.startswith("s3://"):
        return _bucket(text)
    if "://" in text and not text.startswith("file://"):
        raise click.UsageError("A backup lies in a directory, or at s3://BUCKET/PREFIX.")
    return Directory(Path(text.removeprefix("file://")))


class Directory:
    """A directory, which is made when something is written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = str(root)

    def backups(self) -> list[str]:
        """See Place."""
        return sorted(path.parent.name for path in self._root.glob(f"*/{MANIFEST}"))

    def folders(self) -> list[str]:
        """See Place."""
        if not self._root.exists():
            return []
        return sorted(path.name for path in self._root.iterdir() if path.is_dir())

    def read(self, name: str) -> BinaryIO:
        """See Place."""
        return (self._root / name).open("rb")

    def size(self, name: str) -> int | None:
        """See Place."""
        try:
            return (self._root / name).stat().st_size
        except FileNotFoundError:
            return None

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """See Place."""
        path = self._root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(path.name + _PARTIAL)
        try:
            with os.fdopen(_private(partial), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        for folder in (path.parent, *path.parent.parents):
            _sync(folder)
            if folder == self._root:
                break

    def files(self, folder: str) -> list[str]:
        """See Place."""
        found = (self._root / folder).rglob("*")
        return sorted(str(path.relative_to(self._root)) for path in found if path.is_file())

    def delete(self, name: str) -> None:
        """See Place; folders that hold nothing any more go too."""
        path = self._root / name
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._root or (folder.exists() and any(folder.iterdir())):
                break
            if folder.exists():
                folder.rmdir()


def _private(path: Path) -> int:
    """A new file that nobody else reads: metas are in there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _bucket(url: str) -> Place:
    try:
        import boto3  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError:
        raise click.ClickException(
            "Backups in S3 need the extra `s3`: pip install 'timemachine[node,s3]'."
        ) from None
    parts = urlsplit(url)
    if not parts.netloc or parts.query or parts.fragment:
        raise click.UsageError("Name it as s3://BUCKET or s3://BUCKET/PREFIX.")
    try:
        client = boto3.client("s3")
    except BotoCoreError as error:
        raise click.ClickException(f"S3 cannot be used: {error}") from None
    return Bucket(client, parts.netloc, parts.path.strip("/"))


class Bucket:
    """A bucket of S3, below a prefix. Who asks, and where, is told in the ways of AWS's tools.

    What goes wrong becomes an OSError, as with a directory.
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")

    def backups(self) -> list[str]:
        """See Place."""
        return [name for name in self.folders() if self.size(f"{name}/{MANIFEST}") is not None]

    def folders(self) -> list[str]:
        """See Place."""
        with _faults():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"
            )
            found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]
        return sorted(each.removeprefix(self._prefix).rstrip("/") for each in found)

    def read(self, name: str) -> BinaryIO:
        """See Place."""
        with _faults():
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
        return _Body(found["Body"])  # type: ignore[return-value]

    def size(self, name: str) -> int | None:
        """See Place."""
        try:
            with _faults():
                found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
        except FileNotFoundError:
            return None
        return int(found["ContentLength"])

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """See Place. It is gathered in a temporary file, and sent when it is whole."""
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with _faults():
                self._client.upload_fileobj(file, self._bucket, self._prefix + name)

    def files(self, folder: str) -> list[str]:
        """See Place."""
        with _faults():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"
            )
            keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return sorted(key.removeprefix(self._prefix) for key in keys)

    def delete(self, name: str) -> None:
        """See Place."""
        with _faults():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)


class _Body:
    """The body of an object, as a file to be read."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, count: int = -1) -> bytes:
        """Up to so many bytes."""
        with _faults():
            return bytes(self._body.read(None if count < 0 else count))

    def close(self) -> None:
        """Let go of the connection."""
        self._body.close()

    def __enter__(self) -> Self:
        """The body itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


@contextmanager
def _faults() -> Iterator[None]:
    """Errors of the S3 library as those of files; none of them shows credentials."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("404", "NoSuchKey"):
            raise FileNotFoundError(2, "There is no such object") from None
        raise OSError(5, f"S3 has refused: {code or error}") from None
    except (BotoCoreError, Boto3Error) as error:
        raise OSError(5, f"S3 cannot be used: {error}") from None
