"""Mutations of commands on their way to their leader."""

from typing import Any

from node.engine import Engine
from tests.sim.mutations.planting import Mutation, nothing, swap
from timemachine.replica import answers
from timemachine.replica.commands import MADE_BY_NODE


def _every_time_another(original: Any) -> Any:
    def once(self: Any, keeper: Any, request: Any, command: Any, run: Any) -> Any:
        if request.fingerprint == MADE_BY_NODE:
            return run(keeper, command)
        return original(self, keeper, request, command, run)

    return once


MUTATIONS = {
    "repeat-done-again": Mutation(
        "A command that a node offers again, for it has no answer, is done once more.",
        ("C6",),
        swap(answers.Answers, "once", _every_time_another),
    ),
    "late-settle-lost": Mutation(
        "What became of a send is not told to who leads its vnode by then.",
        ("C3",),
        swap(Engine, "_late", nothing),
    ),
}
