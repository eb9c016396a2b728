"""How a mutation is put into production's classes for a while, and taken out again."""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

Plant = Callable[[], AbstractContextManager[None]]
"""Makes what plants a mutation when it is entered, and restores all when it is left."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A fault in production's code that the simulator must find.

    breaks  what it does, in one sentence
    checks  those that may find it: S1 to S14, C1 to C16; "crash" for what production's own
            assertions and refusals, or Python, say to it
    plant   puts it there
    core    whether it concerns the core alone, and what finds it is the chaos of `tests.raft`
    """

    breaks: str
    checks: tuple[str, ...]
    plant: Plant
    core: bool = False


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a class or a module is another one."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def swapped_item(table: MutableMapping[Any, Any], key: Any, value: Any) -> Iterator[None]:
    """An entry of a table is another one."""
    before = table[key]
    table[key] = value
    try:
        yield
    finally:
        table[key] = before


def nothing(_: Any) -> Any:
    """Made in place of a method or a function, it does nothing."""
    return lambda *_: None


def swap(owner: Any, name: str, make: Callable[[Any], Any]) -> Plant:
    """Plants `make(original)` in place of a method or a function."""

    def plant() -> AbstractContextManager[None]:
        return swapped(owner, name, make(vars(owner)[name]))

    return plant
