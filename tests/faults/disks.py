"""Disks that are small, or lose their power."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_EXT4_IOC_SHUTDOWN: Final = 0x8004587D
_NOLOGFLUSH: Final = 2


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[None]:
    """A disk of that size is mounted at `path`, which must not be there yet. Needs root."""
    path.mkdir()
    size = f"size={size_mib}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class PoweredDisk:
    """An ext4 file system in a file. When its power goes, what was not synced is gone."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image = image
        self._path = path

    def mount(self) -> None:
        """Mount it; its journal is played back first."""
        self._run("mount", "-o", "loop", str(self._image), str(self._path))

    def unmount(self) -> None:
        """Nobody may have a file of it open."""
        self._run("umount", str(self._path))

    def lose_power(self) -> None:
        """From now on nothing reaches it, not even what the system has taken and not written yet.

        Whoever writes is told so with EIO. `unmount` and `mount` bring back what it holds.
        """
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(folder)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True)


@contextmanager
def powered_disk(path: Path, size_mib: int) -> Iterator[PoweredDisk]:
    """Such a disk, mounted at `path`, which must not be there yet. Needs root and a loop device."""
    path.mkdir()
    image = path.with_name(path.name + ".image")
    with image.open("wb") as file:
        file.truncate(size_mib * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-qF", str(image)], check=True)
    disk = PoweredDisk(image, path)
    disk.mount()
    try:
        (path / "lost+found").rmdir()
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
        image.unlink()
