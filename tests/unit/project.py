"""The files of this project, for tests that read them."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FOLDERS = (
    ".ci",
    "admin",
    "bench",
    "docs",
    "examples",
    "node",
    "requirements",
    "tests",
    "timemachine",
)


def files(suffix: str = "") -> Iterator[Path]:
    """All files of the project whose names end in `suffix`, in order; nothing that tools left."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in _FOLDERS:
        found.extend(path for path in (ROOT / folder).rglob("*") if path.is_file())
    for path in sorted(found):
        if path.name.endswith(suffix) and "__pycache__" not in path.parts:
            yield path
