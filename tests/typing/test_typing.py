"""The public types mean what their users take them for."""

import subprocess
import sys

import pytest

from tests.unit.project import ROOT


@pytest.mark.timeout(300)  # without its cache mypy reads the whole library first
def test_public_types() -> None:
    """Everything in this folder passes the type checker, strictly."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/typing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == run.returncode, run.stdout + run.stderr
