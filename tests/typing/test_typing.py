"""The public types mean what their users take them for.

The other files of this folder are programs as users write them. `assert_type` is what they expect,
and `type: ignore` stands where a type checker must find a mistake: if it found none there, it would
complain about the comment.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.project import ROOT
from timemachine.client import Client, SyncClient

FOLDER = Path(__file__).parent
PROGRAMS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in ("__init__", __name__))


def mypy(folder: Path, *arguments: str, path: Path | None = None) -> str:
    """What mypy has to say, nothing when all is well."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=folder,
        env=None if path is None else {"MYPYPATH": str(path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if run.returncode == 0 else run.stdout + run.stderr


@pytest.mark.timeout(300)  # without its cache mypy reads the whole library first
def test_public_types() -> None:
    """Everything in this folder passes the type checker, strictly, with our settings."""
    assert "" == mypy(ROOT, "tests/typing")


@pytest.mark.timeout(300)
def test_public_types_at_a_user(tmp_path: Path) -> None:
    """The same programs pass in a project of somebody else, with mypy's own settings, strictly."""
    library, project = tmp_path / "library", tmp_path / "project"
    library.mkdir()
    project.mkdir()
    (library / "timemachine").symlink_to(ROOT / "timemachine")
    for program in PROGRAMS:
        if not program.name.startswith("test_"):
            shutil.copy(program, project)
    arguments = ["--config-file=", "--strict", "--follow-imports=silent", "."]
    assert "" == mypy(project, *arguments, path=library)


@pytest.mark.parametrize(
    ("client", "program"), [(Client, "asynchronous.py"), (SyncClient, "synchronous.py")]
)
def test_every_method_is_written_down(client: type, program: str) -> None:
    """No public method of a client is left out."""
    tree = ast.parse((FOLDER / program).read_text())
    used = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    methods = {name for name in vars(client) if not name.startswith("_")}
    assert set() == methods - used
