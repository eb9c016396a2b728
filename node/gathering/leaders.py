"""Who probably leads a vnode: what the replica here says, what others have said, or a guess."""

from collections.abc import Callable, Sequence

from node.gathering.questions import Group
from node.runtime import Runtime


class Leaders:
    """Finds whom to ask about a vnode.

    `number` is this node, `nodes_of` tells which nodes have a replica of a vnode.
    """

    def __init__(
        self, runtime: Runtime, number: int, nodes_of: Callable[[Group], Sequence[int]]
    ) -> None:
        self._runtime = runtime
        self._number = number
        self._nodes_of = nodes_of
        # Only of vnodes without a replica here: that one knows better.
        self._heard: dict[Group, int] = {}

    def of(self, group: Group, tries: int = 0, last: int = 0, told: int = 0) -> int:
        """The node to ask.

        So many were asked in vain, the last of them `last`, which said that it is `told`; 0 for
        nobody.
        """
        vnode = self._runtime.vnodes.get(group)
        if vnode is not None and vnode.is_leader():
            return self._number
        if told not in (0, last):
            return told
        known = self._heard.get(group, 0) if vnode is None else vnode.leader
        if known and (known != last or tries % 2 == 0):
            return known
        nodes = [each for each in self._nodes_of(group) if each != self._number]
        return nodes[(group[1] + tries) % len(nodes)] if nodes else self._number

    def heard(self, group: Group, node: int) -> None:
        """A node has said that this one leads a vnode; 0 for that what was heard is wrong."""
        if node and group not in self._runtime.vnodes:
            self._heard[group] = node
        else:
            self._heard.pop(group, None)

    def forget(self, uid: int) -> None:
        """A collection is gone."""
        for group in [each for each in self._heard if each[0] == uid]:
            del self._heard[group]
