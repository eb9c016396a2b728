"""What some tests need of the machine, and whether it is there.

A test says `@pytest.mark.root("loop", "preload")`; where one of these, or root itself, cannot be
had, it is skipped and the reason is printed (`tests/conftest.py`).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Final

from tests.faults.groups import PIDS


def _fails(*command: str) -> bool:
    """Does this command fail, or is there no such program?"""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        return True


def _loop() -> str | None:
    """Can an ext4 image be made and mounted?"""
    with tempfile.TemporaryDirectory() as folder:
        image, mounted = Path(folder, "image"), Path(folder, "mounted")
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(8 * 1024 * 1024)
        if _fails("mkfs.ext4", "-qF", str(image)):
            return "needs mkfs.ext4 (e2fsprogs)"
        if _fails("mount", "-o", "loop", str(image), str(mounted)):
            return "needs loop devices, and mounting them"
        subprocess.run(["umount", str(mounted)], check=True)
    return None


def _tmpfs() -> str | None:
    """Can a small tmpfs be mounted?"""
    with tempfile.TemporaryDirectory() as folder:
        if _fails("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder):
            return "needs mounting tmpfs"
        subprocess.run(["umount", folder], check=True)
    return None


def _namespace() -> str | None:
    """Can network namespaces be made, and packets dropped in them?"""
    if _fails("unshare", "--net", "true"):
        return "needs network namespaces"
    return "needs nft (nftables)" if shutil.which("nft") is None else None


def _mounts() -> str | None:
    """Can a process have mounts of its own, and mount over a file?"""
    script = "mount --bind /dev/null /etc/resolv.conf"
    if _fails("unshare", "--mount", "sh", "-c", script):
        return "needs namespaces of mounts"
    return None


def _tun() -> str | None:
    """Can packets be routed through a program?"""
    if shutil.which("ip") is None:
        return "needs ip (iproute2)"
    return None if Path("/dev/net/tun").exists() else "needs /dev/net/tun"


def _pids() -> str | None:
    """Can the threads of a process be limited?"""
    return None if (PIDS / "cgroup.procs").exists() else "needs the pids control group, version 1"


def _preload() -> str | None:
    """Can a shared library be built, to stand between a program and the disk?"""
    return "needs a C compiler" if shutil.which("cc") is None else None


def faketime_library() -> Path | None:
    """The library that fakes the wall clock of a program of several threads, if installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _faketime() -> str | None:
    """Is there a library that fakes clocks?"""
    return "needs libfaketime (faketime)" if faketime_library() is None else None


PROBES: Final[dict[str, Callable[[], str | None]]] = {
    "loop": cache(_loop),
    "tmpfs": cache(_tmpfs),
    "namespace": cache(_namespace),
    "mounts": cache(_mounts),
    "tun": cache(_tun),
    "pids": cache(_pids),
    "preload": cache(_preload),
    "faketime": cache(_faketime),
}


def missing(needs: Iterable[str]) -> str | None:
    """Why a test with these needs cannot run here; None if it can.

    A need that is not in PROBES is a KeyError: a misspelt one must not skip a test for ever.
    """
    probes = [PROBES[need] for need in needs]
    if os.geteuid() != 0:
        return "needs root"
    return next((reason for probe in probes if (reason := probe()) is not None), None)
