"""The format of the cluster, as this node minds it: see `timemachine.formats` for the rule."""

from collections.abc import Callable
from typing import Any

from timemachine import formats
from timemachine.errors import Conflict, StoreForeign, TimeMachineError
from timemachine.replica import meta as m
from timemachine.vnode import Vnode


class Finalising:
    """Stops a node whose program the cluster has left behind, and tells what may be finalised.

    known   the formats that the program of this node knows
    stop    the cluster has finalised one that is not among them
    ready   told by the node leader when every member knows a format that is newer than the
            finalised one: (that format, the finalised one), once each
    """

    def __init__(
        self,
        meta: m.MetaMachine,
        meta_vnode: Vnode,
        known: tuple[int, ...],
        *,
        stop: Callable[[TimeMachineError], None],
        ready: Callable[[int, int], None],
    ) -> None:
        self._meta = meta
        self._meta_vnode = meta_vnode
        self._known = known
        self._stop = stop
        self._ready = ready
        self._told = 0
        formats.check(self.finalised, known)

    @property
    def finalised(self) -> int:
        """The format of the cluster, as far as this node has heard."""
        return self._meta.state.cluster_version

    def reconcile(self) -> None:
        """Meta has changed."""
        finalised = self.finalised
        try:
            formats.check(finalised, self._known)
        except StoreForeign as error:
            # What comes next it may not be able to read.
            self._stop(error)
            return
        newest = formats.known_by_all(self._meta.nodes.values())
        if newest > finalised and newest != self._told and self._meta_vnode.serving:
            self._told = newest
            self._ready(newest, finalised)

    def refusal(self, command: Any) -> TimeMachineError | None:
        """Why a command must not be proposed (yet): it came with a format that is not finalised."""
        if formats.may_propose(command.since, self.finalised):
            return None
        return Conflict(
            f"This needs format {command.since}; the cluster has finalised {self.finalised}.",
            code="format_not_finalised",
        )
