"""Nodes that fire for one vnode in turn, over one log that any of them may lead.

Only the deliveries are real. The log is one machine that all share; a proposal is answered a
millisecond later, by whether its node then leads in the same term.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from node.delivery import Delivery
from node.forwarding import Forwarding
from node.webhook import Prepared
from tests.sim.world import SimWorld
from tests.unit.replica.machines import UID, Driven
from timemachine.errors import NotLeader, TimeMachineError
from timemachine.model import Collection, JobRecord, Route, Settings
from timemachine.outbound import Outcome, Request, parse_target
from timemachine.replica import commands as c

GROUP = (1, 0)
ROUTE = Route(
    uid=1,
    db="d",
    name="r",
    version=1,
    webhook_url="http://recipient.test/",
    created_ms=0,
    updated_ms=0,
    secrets=(),
    timeout_ms=10_000,
)
OK = Outcome(status=200, bytes_sent=True)
ERROR = Outcome(status=500, bytes_sent=True)
_COLLECTION = Collection(
    uid=1, db="d", name="c", num_vnodes=1, replicas=3, history_retention_ms=0, created_ms=0
)


class _Vnode:
    """What a delivery and late settles ask of a vnode."""

    sole = False
    group = GROUP

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self._cluster = cluster
        self._number = number
        self.machine = cluster.log.machine
        self.keys = cluster.log.keys

    @property
    def term(self) -> int:
        return self._cluster.log.term

    @property
    def serving(self) -> bool:
        return self._cluster.leader == self._number

    def is_leader(self) -> bool:
        return self.serving

    def may_fire(self, _: float) -> bool:
        return self.serving and self._cluster.lease


class _Runtime:
    """What they ask of the runtime. `commands` are those that were committed."""

    working = True

    def __init__(self, cluster: "Cluster", node: "FiringNode") -> None:
        self._cluster = cluster
        self._node = node
        self.vnodes = {GROUP: node.vnode}

    def propose(self, vnode: Any, command: Any, done: Callable[[Any], None] | None = None) -> None:
        tell = done or (lambda _: None)
        cluster = self._cluster
        if not vnode.serving or cluster.moving:
            tell(NotLeader())
            return
        term = cluster.log.term

        def commit() -> None:
            if not vnode.serving or cluster.log.term != term:
                tell(NotLeader())
                return
            cluster.committed.append(command)
            (result,) = cluster.log.apply(command)
            tell(result)
            effects = cluster.log.machine.take_effects()
            self._node.delivery.on_effects(vnode, effects, cluster.log.index)

        now_ms = cluster.world.mono_ms()
        cluster.committed_ms = max(cluster.committed_ms, now_ms + cluster.commit_ms)
        cluster.world.call_later(cluster.committed_ms - now_ms, commit)


class _Handle:
    def __init__(self, *, connecting: bool) -> None:
        self._connecting = connecting

    def abort_if_unsent(self) -> bool:
        return self._connecting

    def abort(self) -> None:
        pass


class _Sender:
    """Requests wait until `answer`; while `connecting` they wait for their connection as well."""

    def __init__(self) -> None:
        self.requests: list[tuple[Request, Callable[[Outcome], None]]] = []
        self.may_leave: list[Callable[[], bool]] = []
        self.connecting = False

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> _Handle:
        assert may_leave is not None
        self.requests.append((request, done))
        self.may_leave.append(may_leave)
        return _Handle(connecting=self.connecting)

    def answer(self, number: int, outcome: Outcome = OK) -> None:
        """The request of that number comes to its end."""
        self.requests[number][1](outcome)


class FiringNode:
    """One node of the cluster."""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.vnode: Any = _Vnode(cluster, number)
        self.sender = _Sender()
        runtime: Any = _Runtime(cluster, self)
        self.runtime = runtime
        self.dropped: list[int] = []
        self.late = Forwarding(
            cluster.world,
            runtime,
            forward=lambda *told: cluster.forward(self, *told),
            on_dropped=self.dropped.append,
        )
        self.delivery = Delivery(
            cluster.world,
            cluster.log.store,
            runtime,
            cluster.meta,
            self.sender,
            node_id=f"n{number}",
            number=number,
            prepare=cluster.prepare,
            tell_meta=lambda _: None,
            late=self._late,
        )

    def _late(self, group: tuple[int, int], items: list[c.SettleItem]) -> None:
        self.late.add(group, c.Settle(now_ms=0, items=items))


class Cluster:
    """Nodes 1 and 2. `lease`: whether the leader has one; `moving`: it takes no proposals.

    `commit_ms`: how long a command takes.
    """

    def __init__(self) -> None:
        self.world = SimWorld(1)
        self.log = Driven()
        self.log.term = 0
        self.leader = 0
        self.lease = True
        self.moving = False
        self.commit_ms = 1.0
        self.committed_ms = 0.0
        self.committed: list[Any] = []
        self.meta: Any = SimpleNamespace(
            routes_by_uid={ROUTE.uid: ROUTE},
            routes={("d", "r"): ROUTE},
            settings=Settings(),
            may_come=lambda _: False,
            applied_index=0,
            nodes={f"n{each}": SimpleNamespace(id=f"n{each}", number=each) for each in (1, 2)},
        )
        self.nodes = {number: FiringNode(self, number) for number in (1, 2)}

    def set_route(self, route: Route) -> None:
        """Change the route, and tell both nodes."""
        self.meta.routes_by_uid[route.uid] = self.meta.routes["d", "r"] = route
        for node in self.nodes.values():
            node.delivery.route_changed(route.uid)

    @staticmethod
    def prepare(route: Route) -> Prepared:
        """Without secrets."""
        secrets: Any = SimpleNamespace(
            signing_keys=[b"s" * 32], headers={}, authorization=None, expires_ms=None
        )
        return Prepared(route, parse_target(route.webhook_url)[0], secrets)

    def forward(self, sender: FiringNode, group: Any, number: int, settles: Any) -> None:
        """Late settles reach the leader, if there is one."""
        if self.leader:
            to = self.nodes[self.leader]

            def done(error: TimeMachineError | None) -> None:
                if error is None:
                    sender.late.acknowledged(number)

            def arrive() -> None:
                to.late.receive(group, settles, done)

            self.world.call_later(1.0, arrive)

    def begin_again(self) -> None:
        """The leader did not fire for a while, and does so again in the same term."""
        node = self.nodes[self.leader]
        node.delivery.leave(node.vnode)
        node.delivery.lead(node.vnode, _COLLECTION)

    def elect(self, number: int) -> None:
        """That node leads from now on; 0 for none."""
        before, self.leader = self.leader, number
        self.log.term += 1
        if before:
            node = self.nodes[before]
            node.delivery.leave(node.vnode)
        if number:
            node = self.nodes[number]
            node.delivery.lead(node.vnode, _COLLECTION)

    def put(self, job_id: str, *, in_ms: int = 0) -> None:
        """Create a job; the leader hears of it."""
        command = c.PutJob(
            now_ms=self.world.wall_ms(),
            job_id=job_id,
            uid=UID,
            trigger_ms=self.world.wall_ms() + in_ms,
            delay_ms=None,
            route="r",
            route_uid=1,
            meta=b"null",
        )
        self.log.apply(command)
        effects = self.log.machine.take_effects()
        if self.leader:
            node = self.nodes[self.leader]
            node.delivery.on_effects(node.vnode, effects, self.log.index)

    def propose(self, command: Any) -> None:
        """Somebody asks the leader for something; it comes behind what was asked for before."""
        node = self.nodes[self.leader]
        node.runtime.propose(node.vnode, command)

    def job(self, job_id: str) -> JobRecord:
        """A job as it is."""
        return self.log.job(job_id)

    def sent(self, number: int) -> int:
        """How many requests that node has begun."""
        return len(self.nodes[number].sender.requests)

    def run(self, duration_ms: float) -> None:
        """Let time pass."""
        self.world.run_for(duration_ms)
