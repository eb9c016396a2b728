"""The format of the files: blocks of a command, its input, and the answer that is expected."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SEPARATOR = "----"
_WORD = re.compile(r"(?P<key>[^\s=()]+)(?:=(?:\((?P<list>[^)]*)\)|(?P<value>\S*)))?\s*")


class Malformed(Exception):
    """A file that is not in the format; the text says where."""


@dataclass(frozen=True)
class Command:
    """One line: a name, and arguments in their order: bare words, and options with their values."""

    name: str
    arguments: list[tuple[str, list[str]]] = field(default_factory=list)
    """A word has no values, an option one or more."""

    @property
    def words(self) -> list[str]:
        """The bare words."""
        return [key for key, values in self.arguments if not values]

    @property
    def options(self) -> dict[str, list[str]]:
        """The options; one that is given twice has the values of both."""
        found: dict[str, list[str]] = {}
        for key, values in self.arguments:
            if values:
                found.setdefault(key, []).extend(values)
        return found

    def option(self, key: str, default: str = "") -> str:
        """The one value of an option."""
        (value,) = self.options.get(key, [default])
        return value

    def flag(self, key: str) -> bool:
        """An option that is true or false; false if it is not given."""
        return {"true": True, "false": False}[self.option(key, "false")]


@dataclass(frozen=True)
class Block:
    """One step of a script: where it stands, what is asked, what etcd answers."""

    path: Path
    line: int
    """Of the command; the first line is 1."""
    command: Command
    input: str
    expected: str


def read_command(text: str) -> Command:
    """Parse `name word key=value key=(value, value)`. Raises Malformed."""
    name, *_ = text.split(maxsplit=1)
    arguments: list[tuple[str, list[str]]] = []
    rest = text.strip().removeprefix(name).strip()
    position = 0
    while position < len(rest):
        match = _WORD.match(rest, position)
        if match is None:
            raise Malformed(f"cannot read {text!r}")
        position = match.end()
        if match["list"] is not None:
            values = [value.strip() for value in match["list"].split(",")]
        elif match["value"] is not None:
            values = [match["value"]]
        else:
            values = []
        arguments.append((match["key"], values))
    return Command(name, arguments)


def read_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a file, in order. Raises Malformed.

    `#` begins a comment line outside of answers, a backslash at the end of a command continues it
    on the next line. An answer ends at an empty line, or, if it begins with a second line of
    `----`, at two such lines in a row, so that it can hold empty lines itself.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    position = 0
    while position < len(lines):
        text = lines[position].strip()
        if not text or text.startswith("#"):
            position += 1
            continue
        start = position
        while text.endswith("\\") and position + 1 < len(lines):
            position += 1
            text = text[:-1] + " " + lines[position].strip()
        position += 1
        given: list[str] = []
        while position < len(lines) and lines[position] != SEPARATOR:
            given.append(lines[position])
            position += 1
        if position == len(lines):
            raise Malformed(f"line {start + 1}: no answer")
        position += 1
        answer: list[str] = []
        if position < len(lines) and lines[position] == SEPARATOR:
            position += 1
            while lines[position : position + 2] != [SEPARATOR, SEPARATOR]:
                if position >= len(lines):
                    raise Malformed(f"line {start + 1}: the answer does not end")
                answer.append(lines[position])
                position += 1
            position += 2
        else:
            while position < len(lines) and lines[position]:
                answer.append(lines[position])
                position += 1
        try:
            command = read_command(text)
        except Malformed as error:
            raise Malformed(f"line {start + 1}: {error}") from None
        yield Block(path, start + 1, command, "\n".join(given).strip(), "\n".join(answer))
