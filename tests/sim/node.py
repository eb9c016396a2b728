"""One simulated node: the production engine over a `SimWorld`, started and crashed at will."""

import re
from typing import Any

import msgspec

from node.engine import Engine
from node.members import Cluster
from node.secrets import seal_value
from tests.sim.world import SimDisk, SimSender, SimWorld
from timemachine.model import Collection, Node, Rate, Retry, Route, SealedKey, Settings
from timemachine.outbound import Request
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.sealing import MasterKey
from timemachine.signing import format_secret
from timemachine.smearing import smear_of

KEY = MasterKey(b"k" * 32)
_HEADER = re.compile(rb"^([A-Za-z-]+): (.*)\r$", re.MULTILINE)


def headers_of(request: Request) -> dict[str, str]:
    """The headers of a captured request, names in lower case."""
    return {name.decode().lower(): value.decode() for name, value in _HEADER.findall(request.head)}


class _NoNetwork:
    """There is nobody to send to."""

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        """See Network."""
        raise AssertionError((node, frame, bulk))


ALONE = Cluster(number=1, members=(1,), network=_NoNetwork())
"""A cluster of one node."""


class SimNode:
    """An engine and its durable image, over lives that end in crashes."""

    def __init__(self, seed: int) -> None:
        self.world = SimWorld(seed)
        self.sender = SimSender(self.world)
        self.image: dict[bytes, bytes] = {}
        self.failures: list[Exception] = []
        self.crashed = False
        self.engine: Engine
        self.disk: SimDisk

    def start(self, crash_at: int | None = None, *, keep: bool = False) -> bool:
        """Start on the durable image; False when it crashed before it was ready."""
        self.crashed = False
        self.world.life += 1
        self.world.up = True
        disk = self.disk = SimDisk(self.world, self.image)
        disk.crash_at = crash_at
        disk.keep = keep
        disk.on_crash = self.crash
        self.engine = Engine(
            self.world,
            disk.store,
            disk,  # type: ignore[arg-type]
            self.sender,
            cluster_id="cluster",
            node=Node(id="n1", name="n1", http="", rpc="", zone="", version="0"),
            master_keys=[KEY],
            on_failure=self.failures.append,
            cluster=ALONE,
        )
        ready: list[bool] = []
        self.engine.start(Settings(), lambda: ready.append(True))
        self.world.run_until(lambda: bool(ready) or self.crashed)
        return not self.crashed

    def crash(self) -> None:
        """Power off: what was not synced is gone, and so is the process."""
        self.image = self.disk.store.image()
        self.world.up = False
        self.crashed = True

    def ask_meta(self, command: Any) -> m.MetaResult | None:
        """Run a meta command to its answer; None when the node crashed first."""
        answers: list[Any] = []
        self.engine.propose_meta(command, answers.append)
        self.world.run_until(lambda: bool(answers) or self.crashed)
        return answers[0] if answers else None

    def now_ms(self) -> int:
        """The node's wall clock."""
        return self.world.wall_ms()

    def put_collection(self, name: str = "jobs", num_vnodes: int = 3) -> Collection | None:
        """Create a collection in `default`."""
        result = self.ask_meta(
            m.PutCollection(now_ms=self.now_ms(), db="default", name=name, num_vnodes=num_vnodes)
        )
        return None if result is None else result.collection

    def put_route(self, name: str = "hook", **fields: Any) -> Route | None:
        """Create a route with a short retry schedule, or change it."""
        existing = self.engine.meta.routes.get(("default", name))
        secret = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name=name)
        route = existing or Route(
            uid=0,
            db="default",
            name=name,
            version=0,
            webhook_url="http://recipient.test/hook",
            created_ms=0,
            updated_ms=0,
            secrets=(SealedKey(sealed=secret),),
            retry=Retry(schedule_ms=(50, 100, 200), max_attempts=50),
            rate=Rate(),
        )
        route = msgspec.structs.replace(route, **fields)
        version = existing.version if existing is not None else 0
        result = self.ask_meta(
            m.PutRoute(now_ms=self.now_ms(), route=route, expected_version=version)
        )
        return None if result is None else result.route

    def delete_route(self, name: str = "hook") -> m.MetaResult | None:
        """Delete a route of `default`."""
        return self.ask_meta(m.DeleteRoute(now_ms=self.now_ms(), db="default", name=name))

    def put_job(
        self,
        collection: Collection,
        job_id: str,
        trigger_ms: int,
        route: Route,
        answers: list[Any],
        *,
        meta: bytes = b"null",
        create_only: bool = False,
    ) -> None:
        """Propose a job; the answer is appended to `answers` when it comes."""
        command = c.PutJob(
            now_ms=self.now_ms(),
            job_id=job_id,
            uid=self.engine.random_bytes(16),
            trigger_ms=trigger_ms,
            delay_ms=None,
            route=route.name,
            route_uid=route.uid,
            meta=meta,
            create_only=create_only,
            revoked=self.engine.revoke(collection, job_id),
            smear_ms=smear_of(job_id, route.smear_ms),
        )
        self.engine.propose_job(collection, job_id, command, answers.append)

    def delete_job(self, collection: Collection, job_id: str, answers: list[Any]) -> None:
        """Propose a deletion."""
        command = c.DeleteJob(
            now_ms=self.now_ms(), job_id=job_id, revoked=self.engine.revoke(collection, job_id)
        )
        self.engine.propose_job(collection, job_id, command, answers.append)
