"""The SDK where nothing else is installed: what a service that creates jobs has."""

import subprocess
import sys
from pathlib import Path

from tests.cluster.process import NodeProcess
from tests.unit.project import ROOT


def test_sdk_needs_only_msgspec(tmp_path: Path) -> None:
    """Both clients and the receiver import and work with msgspec and the standard library."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        done = subprocess.run(
            [
                sys.executable,
                *("-I", "-W", "error"),
                str(ROOT / "tests" / "integration" / "alone.py"),
                *(str(ROOT), f"http://{node.address}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert ("[]\n", "", 0) == (done.stdout, done.stderr, done.returncode)
