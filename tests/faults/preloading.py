"""Builds the shim between a program and its disk, and tells it what to do."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("shim.c")


def build_shim(directory: Path) -> Path:
    """Compile the library that goes into LD_PRELOAD; returns its path."""
    library = directory / "shim.so"
    command = ["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def shimmed(library: Path, data: Path, rule: Path) -> Mapping[str, str]:
    """The environment of a node with this data directory, which obeys the file `rule`."""
    return {"LD_PRELOAD": str(library), "SHIM_DIR": str(data), "SHIM_RULE": str(rule)}


def give(rule: Path, line: str) -> None:
    """Put a rule into force; see shim.c."""
    new = rule.with_name(rule.name + ".new")
    new.write_text(line + "\n")
    new.rename(rule)
