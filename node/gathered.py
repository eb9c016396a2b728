"""Results that come one by one, told together."""

from collections.abc import Callable
from typing import Any


class Gathered:
    """Results that come one by one, and are told together; `told` gets them in their order."""

    def __init__(self, count: int, told: Callable[[list[Any]], None]) -> None:
        self._results: list[Any] = [None] * count
        self._left = count
        self._told = told

    def take(self, number: int, result: Any) -> None:
        """The result of one, counted from 0."""
        self._results[number] = result
        self._left -= 1
        if not self._left:
            self._told(self._results)
