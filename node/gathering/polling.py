"""Asking nodes, not vnodes: what each of those says that answer."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from node.gathering.answering import Part
from node.gathering.asking import Asking, Ways
from node.gathering.questions import Polled
from timemachine.errors import TimeMachineError


class Polling(Asking):
    """A question to nodes. `done` gets what is merged of the answers, and which nodes answered."""

    def __init__(
        self, ways: Ways, question: Polled, nodes: Iterable[int], done: Callable[[Any], None]
    ) -> None:
        super().__init__(ways, question, done, stale=False)
        self._polled = question
        self._answers: dict[int, Any] = {}
        self._left = set(nodes)
        for node in sorted(self._left):
            if not self.over:
                self._ask(node, question, None, partial(self._answered, node))

    def _answered(self, node: int, part: Part | TimeMachineError) -> None:
        if isinstance(part, Part):
            self._answers[node] = part.content
        self._left.discard(node)
        if not self._left:
            self._overdue()

    def _overdue(self) -> None:
        """Who has not answered by now is down, or as good as that."""
        answers = self._answers
        parts = [answers[node] for node in sorted(answers)]
        self._end((self._polled.merge(parts), frozenset(answers)))
