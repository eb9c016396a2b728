"""Leaders spread evenly over the nodes: the node leader looks now and then, and has some moved.

A leadership goes where its log is, so it costs next to nothing to move; but everything that a node
leads is on its processor. After a restart, or when a node has joined, some lead much and others
nothing, until this has looked.

A vnode whose members are being changed is left alone. Another leader would have to send its image
from the beginning; and who is to leave would be given what it has just handed over.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from node.calls import Answer, Calls
from node.env import World
from node.gathering import Gathering, Reports
from node.gathering.questions import Group
from node.overview import VnodeReport
from node.runtime import Runtime
from timemachine import codec, limits
from timemachine.errors import NotLeader, TimeMachineError
from timemachine.group import node_of
from timemachine.placement import leader_moves
from timemachine.vnode import Vnode

KIND: Final = "hand over"

_read: Any = codec.decoder(tuple[int, int, int])


class Balancing:
    """Has leaders moved while this node leads the meta group, and moves those that others ask for.

    `others` gives the numbers of all other nodes; `hand_over(vnode, node, done)` moves one.
    `wanted` gives the ids of the replicas that a vnode is to have.
    `fit` says whether a node should lead more, as long as one that should is a voter; `weights`
    gives how much each is to have beside the others, by its number.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        meta_vnode: Vnode,
        calls: Calls,
        gathering: Gathering,
        *,
        others: Callable[[], Iterable[int]],
        hand_over: Callable[[Vnode, int, Callable[[bool], None]], None],
        wanted: Callable[[Group], Collection[int]],
        fit: Callable[[int], bool] = lambda _: True,
        weights: Callable[[], Mapping[int, int]] = dict,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._calls = calls
        self._gathering = gathering
        self._others = others
        self._hand_over = hand_over
        self._wanted = wanted
        self._fit = fit
        self._weights = weights
        calls.serve(KIND, self._asked)

    def start(self) -> None:
        """Look now and then, until the node stops."""
        self._world.call_later(limits.BALANCE_EVERY_MS, self._look)

    def _look(self) -> None:
        if not self._runtime.working:
            return
        self.start()
        others = list(self._others())
        if others and self._meta_vnode.serving:
            self._gathering.poll(Reports(), others, self._told)

    def _told(self, result: Any) -> None:
        if isinstance(result, TimeMachineError) or not self._meta_vnode.serving:
            return
        reports, answered = result
        leaders = {group: each.leader for group, each in reports.items()}
        voters = {
            group: [
                node
                for member in each.replicas
                if member.voter
                and member.lag <= limits.LEARNER_BEHIND_MAX
                and (node := node_of(member.replica)) in answered
            ]
            for group, each in reports.items()
        }
        for group, nodes in voters.items():
            voters[group] = [node for node in nodes if self._fit(node)] or nodes
            if self._changes(group, reports[group]):
                voters[group] = [leaders[group]]
        for move in leader_moves(leaders, voters, self._weights())[: limits.BALANCE_MOVES_MAX]:
            body = codec.encode((move.uid, move.index, move.target))
            self._calls.call(move.source, KIND, body, lambda _: None)

    def _changes(self, group: Group, report: VnodeReport) -> bool:
        """Whether a vnode has other members than it is to have, or some that do not vote."""
        voting = {member.replica for member in report.replicas if member.voter}
        return len(voting) < len(report.replicas) or voting != set(self._wanted(group))

    def _asked(self, sender: int, body: bytes, answer: Answer) -> None:
        """The node leader wishes that another node leads a vnode."""
        uid, index, target = _read(body)
        vnode = self._runtime.vnodes.get((uid, index))
        if vnode is None or not vnode.serving:
            answer(NotLeader(0 if vnode is None else vnode.leader))
            return
        self._hand_over(vnode, target, lambda moved: answer(b"1" if moved else b""))
