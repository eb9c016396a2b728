"""The style guide as a test: what a reader should never meet in any file.

Formatting, naming, types and layers are judged by `make check`; the Markdown pages by
test_docs_links.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.unit.project import ROOT, files

# Written so that this file does not break its own rules.
FORBIDDEN = {
    "a note of work left undone": re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X|NotImplemented[E]rror)\b"),
    "a path of somebody's machine": re.compile(r"(?<![\w.-])/(?:work|farm|home|root)/"),
    "the host of a package registry": re.compile(
        r"p[y]pi\.org|p[y]thonhosted\.org|n[p]mjs|c[r]ates\.io|p[r]oxy\.golang|d[e]bian\.org"
        r"|-[-](?:extra-)?index-url"
    ),
    "the number of an issue, which says nothing here": re.compile(r"\b[Ii]ssue #?[0-9]"),
    "a test that never runs": re.compile(r"pytest\.mark\.(?:skip|xfail)\b|pytest\.mark\.skip[i]f"),
    "white space at the end of a line": re.compile(r"[ \t\r]$", re.MULTILINE),
}


# All text that people write: not the licence, the locks, what golden scripts answer, and pictures.
SOURCES = [
    path
    for path in files()
    if path.name != "LICENSE"
    and path.suffix != ".lock"
    and "scripts" not in path.parts
    and b"\0" not in path.read_bytes()
]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_contains(what: str) -> None:
    """No file holds what nobody should have to read."""
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for match in FORBIDDEN[what].finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match.group()!r}")
    assert [] == found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_ends_with_one_newline(path: Path) -> None:
    """A file is empty or ends with exactly one newline."""
    text = path.read_text(encoding="utf-8")
    assert text == "" or (text.endswith("\n") and not text.endswith("\n\n"))


def test_every_module_says_what_it_is() -> None:
    """Every Python file begins with a docstring, also those that the linter takes for private."""
    silent = [
        str(path.relative_to(ROOT))
        for path in files(".py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert [] == silent


def test_every_test_folder_is_a_package() -> None:
    """Two tests of one name in two folders are two modules, for pytest and for mypy."""
    folders = {path.parent for path in files(".py") if "tests" in path.parts}
    assert [] == [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]
