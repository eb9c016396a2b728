"""Reading over many vnodes, as the engine has it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from node.calls import Calls
from node.env import World
from node.gathering.answering import Answering
from node.gathering.asking import KIND, Asking, Summing, Ways
from node.gathering.leaders import Leaders
from node.gathering.paging import Paging
from node.gathering.polling import Polling
from node.gathering.questions import (
    Group,
    Here,
    ListAttempts,
    Listed,
    ListJobs,
    Polled,
    Summed,
)
from node.runtime import Runtime


class Gathering:
    """Asks the leaders of vnodes, and answers for those that are led here.

    number    of this node
    nodes_of  which nodes have a replica of a vnode
    exists    whether there is still a collection of that uid
    alive     whether another node can be expected to answer
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        calls: Calls,
        here: Here,
        *,
        number: int,
        nodes_of: Callable[[Group], Sequence[int]],
        exists: Callable[[int], bool],
        alive: Callable[[int], bool],
    ) -> None:
        answering = Answering(world, runtime, here)
        self.leaders = Leaders(runtime, number, nodes_of)
        self._ways = Ways(
            world, calls, answering, self.leaders, number=number, exists=exists, alive=alive
        )
        self._number = number
        calls.serve(KIND, answering.take)

    def poll(self, question: Polled, others: Iterable[int], done: Callable[[Any], None]) -> Asking:
        """Ask this node and others about themselves.

        `done` gets what the question's `merge` gives and the numbers of those that answered, or
        an error. Nodes that are down are missing.
        """
        return Polling(self._ways, question, {self._number, *others}, done)

    def ask(
        self,
        question: Summed | Listed,
        groups: Sequence[Group],
        done: Callable[[Any], None],
        *,
        stale: bool = False,
        partly: bool = False,
        patience_ms: float | None = None,
    ) -> Asking:
        """Have a question about these vnodes answered by their leaders.

        `done` gets what the question's `merge` or `page` gives, or an error; perhaps before this
        returns. With `stale` replicas here answer as they are. With `partly` what was answered
        within `patience_ms` will do.
        """
        if isinstance(question, (ListJobs, ListAttempts)):
            return Paging(self._ways, question, groups, done, stale=stale)
        return Summing(
            self._ways,
            question,
            groups,
            done,
            stale=stale,
            partly=partly,
            patience_ms=patience_ms,
        )
