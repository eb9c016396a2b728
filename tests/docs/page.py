"""A page as its reader takes it: which blocks to type, to save, to compare, and which to leave.

The word after the opening fence says what a block is, for viewers and for us; the words behind it
say what a reader does with it, which the sentence before the block tells people:

    sh                     typed into the first terminal; every command has to succeed
    sh again               the same, repeated until it prints what the next block shows
    sh terminal=NAME       typed into a terminal of its own, and left running; if one of that name
                           is running, Ctrl-C is pressed there first
    LANGUAGE file=NAME     saved under that name
    text                   what the commands before printed
    text terminal=NAME     what that terminal prints
    json answer            what the commands before printed, as JSON; see `tests.docs.expected`
    LANGUAGE not-run       only shown, and the sentence before says "not run"

Nothing else is allowed: a block that a page neither plays nor marks is a promise nobody checks.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from markdown_it import MarkdownIt

from tests.unit.project import ROOT

_DOERS: Final = ("sh", "python", "json", "sql", "toml")


class Block(NamedTuple):
    """One fenced block: its language, what is done with it, its text, and the prose before it."""

    line: int
    language: str
    act: str
    name: str
    text: str
    before: str


class PageError(AssertionError):
    """A page that cannot be played as it is written."""


def blocks(page: str) -> list[str]:
    """The text of each fenced block of a page that is not played, in order."""
    tokens = MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8"))
    return [token.content for token in tokens if token.type == "fence"]


def fences(text: str) -> list[Block]:
    """The fenced blocks of a page, in order. Raises PageError where one has no meaning."""
    found = []
    before = ""
    for token in MarkdownIt().parse(text):
        if token.type == "inline":
            before = token.content
        elif token.type in {"fence", "code_block"}:
            line = 1 + (token.map[0] if token.map else 0)
            found.append(_block(line, token.info.split(), token.content, before))
            before = ""
    return found


def played(path: Path) -> list[Block]:
    """The blocks of a page that has to be played. Raises PageError where it cannot be."""
    found = fences(path.read_text(encoding="utf-8"))
    if not any(block.act in {"type", "again", "start"} for block in found):
        raise PageError(f"{path.name}: there is nothing to type")
    started = set()
    for number, block in enumerate(found):
        where = f"{path.name}:{block.line}"
        if block.act == "start":
            started.add(block.name)
        if block.act == "shown" and block.name not in started:
            raise PageError(f"{where}: there is no terminal {block.name} yet")
        follows = found[number - 1].act if number else ""
        if block.act in {"printed", "answer"} and follows not in {"type", "again"}:
            raise PageError(f"{where}: nothing was typed just before")
        if follows == "again" and block.act not in {"printed", "answer"}:
            raise PageError(f"{where}: until when is the block before typed again?")
    return found


def _block(line: int, info: list[str], text: str, before: str) -> Block:
    language, words = (info[0], info[1:]) if info else ("", [])
    act, name = _meaning(line, language, words)
    if act == "save" and f"`{name}`" not in before:
        raise PageError(f"line {line}: the sentence before does not name `{name}`")
    if act == "start" and "terminal" not in before:
        raise PageError(f"line {line}: the sentence before does not speak of a terminal")
    if act == "leave" and not re.search(r"\bnot run\b", before):
        raise PageError(f"line {line}: the sentence before does not say that this is not run")
    return Block(line, language, act, name, text, before)


def _meaning(line: int, language: str, words: list[str]) -> tuple[str, str]:
    """(what is done, the name given), from the words behind the fence."""
    match language, [word.partition("=")[::2] for word in words]:
        case "sh", []:
            return "type", ""
        case "sh", [("again", "")]:
            return "again", ""
        case "sh", [("terminal", name)] if name:
            return "start", name
        case "text", []:
            return "printed", ""
        case "text", [("terminal", name)] if name:
            return "shown", name
        case "json", [("answer", "")]:
            return "answer", ""
        case _, [("file", name)] if language in _DOERS and name:
            return "save", name
        case _, [("not-run", "")] if language:
            return "leave", ""
    raise PageError(f"line {line}: a block of {' '.join([language, *words])!r} means nothing")
