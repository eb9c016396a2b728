"""Run files through our core, and say what differs."""

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.etcd import interaction, majorities, memberships
from tests.etcd.blocks import Block, read_blocks

_LOG_LINE = re.compile(r"\s*(?:DEBUG|INFO|WARN|ERROR|FATAL) ")


class Judge(Protocol):
    """One file's world, which lives from its first block to its last."""

    def answer(self, block: Block) -> str:
        """What our core answers."""


@dataclass(frozen=True)
class Outcome:
    """A block, and what our core answered."""

    block: Block
    found: str
    equal: bool


def judge_for(block: Block) -> Judge:
    """A new world of the kind that a file's first block asks for."""
    if block.command.name in majorities.COMMANDS:
        return majorities.Majorities()
    if block.command.name in memberships.COMMANDS:
        return memberships.Memberships()
    return interaction.Interaction()


def run_file(path: Path) -> list[Outcome]:
    """Answer every block of a file, also behind one that differs. Raises Malformed."""
    judge: Judge | None = None
    outcomes = []
    for block in read_blocks(path):
        judge = judge or judge_for(block)
        try:
            found = judge.answer(block)
        except Exception:  # noqa: BLE001 - what our core raises here is its answer
            found = traceback.format_exc()
        outcomes.append(Outcome(block, found, without_log(found) == without_log(block.expected)))
    return outcomes


def without_log(answer: str) -> str:
    """An answer without what a logger said; `ok` stands for nothing at all."""
    kept = [line for line in answer.rstrip("\n").split("\n") if not _LOG_LINE.match(line)]
    return "\n".join(kept) or "ok"


def files(folder: Path) -> Iterator[Path]:
    """The scripts below `folder`, sorted."""
    yield from sorted(folder.rglob("*.txt"))
