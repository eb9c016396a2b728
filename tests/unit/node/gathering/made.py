"""Three engines with a collection whose vnodes are led by all of them, and one that leads all."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from node.gathering.questions import Group, Listed, Summed
from node.secrets import seal_value
from tests.sim.node import KEY, SimNode
from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine.model import Collection, JobState, Route, SealedKey
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.ring import vnode_of
from timemachine.signing import format_secret

VNODES = 6
FIRST_MS = 1_800_000_000_000


class Spread:
    """Three nodes, and a collection that each of them leads two vnodes of."""

    def __init__(self, seed: int = 1) -> None:
        self.nodes = ThreeNodes(seed)
        self.world = self.nodes.world
        result = self.nodes.ask_meta(
            lambda now_ms: m.PutCollection(
                now_ms=now_ms, db="default", name="jobs", num_vnodes=VNODES
            )
        )
        assert result.collection is not None
        self.collection: Collection = result.collection
        self.groups: list[Group] = [(self.collection.uid, index) for index in range(VNODES)]
        self.world.run_until(lambda: all(self.nodes.leader(group) for group in self.groups))
        self.world.run_for(300)
        for group in self.groups:
            self.move(group, MEMBERS[group[1] % 3])

    def move(self, group: Group, to: int) -> None:
        """Have a node lead a vnode."""
        leader = self.nodes.leader(group)
        if leader != to:
            self.nodes.engines[leader].hand_over(
                self.nodes.vnode(leader, group), to, lambda _: None
            )
            self.world.run_until(lambda: self.nodes.leader(group) == to)

    def begin(self, number: int, question: Summed | Listed, **options: Any) -> list[Any]:
        """Ask one node; the answer appears in the list."""
        answers: list[Any] = []
        gathering = self.nodes.engines[number].gathering
        gathering.ask(question, self.groups, answers.append, **options)
        return answers

    def ask(self, number: int, question: Summed | Listed, **options: Any) -> Any:
        """The answer of one node."""
        answers = self.begin(number, question, **options)
        self.world.run_until(lambda: bool(answers))
        return answers[0]

    def put_route(self) -> Route:
        """A route that leads to a recipient that obeys."""
        secret = seal_value(
            KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name="hook"
        )
        route = Route(
            uid=0,
            db="default",
            name="hook",
            version=0,
            webhook_url="http://recipient.test/hook",
            created_ms=0,
            updated_ms=0,
            secrets=(SealedKey(sealed=secret),),
        )
        result = self.nodes.ask_meta(
            lambda now_ms: m.PutRoute(now_ms=now_ms, route=route, expected_version=0)
        )
        assert result.route is not None
        return result.route

    def put(
        self,
        jobs: Sequence[tuple[str, int]],
        meta: bytes = b"null",
        route: Route | None = None,
    ) -> None:
        """Create jobs by id and trigger time, at the leaders of their vnodes."""
        answers: list[Any] = []
        for job_id, trigger_ms in jobs:
            group = (self.collection.uid, vnode_of(job_id, VNODES))
            engine = self.nodes.engines[self.nodes.leader(group)]
            command = put_command(job_id, trigger_ms, engine.now_ms(), meta)
            if route is not None:
                command = replace(command, route=route.name, route_uid=route.uid)
            engine.runtime.propose(engine.runtime.vnodes[group], command, answers.append)
        self.world.run_until(lambda: len(answers) == len(jobs))
        assert all(not isinstance(answer, Exception) for answer in answers), answers


class Alone:
    """One node with the same collection."""

    def __init__(self) -> None:
        self.node = SimNode(1)
        assert self.node.start()
        collection = self.node.put_collection(num_vnodes=VNODES)
        assert collection is not None
        self.collection = collection
        self.groups = [(collection.uid, index) for index in range(VNODES)]

    def ask(self, question: Summed | Listed) -> Any:
        """Its answer."""
        answers: list[Any] = []
        self.node.engine.gathering.ask(question, self.groups, answers.append)
        self.node.world.run_until(lambda: bool(answers))
        return answers[0]

    def put(self, jobs: Sequence[tuple[str, int]], meta: bytes = b"null") -> None:
        """Create jobs by id and trigger time."""
        answers: list[Any] = []
        for job_id, trigger_ms in jobs:
            command = put_command(job_id, trigger_ms, self.node.now_ms(), meta)
            self.node.engine.propose_job(self.collection, job_id, command, answers.append)
        self.node.world.run_until(lambda: len(answers) == len(jobs))


def put_command(job_id: str, trigger_ms: int, now_ms: int, meta: bytes) -> c.PutJob:
    """A job without a route that is there."""
    return c.PutJob(
        now_ms=now_ms,
        job_id=job_id,
        uid=b"u" * 16,
        trigger_ms=trigger_ms,
        delay_ms=None,
        route="r",
        route_uid=0,
        meta=meta,
    )


SCHEDULED = JobState.SCHEDULED
