"""A node's engine and API on the test's own event loop: a store in memory, recipients that obey.

Requests go through a socket, byte for byte as a test writes them.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from node.api.server import ApiServer
from node.clock import RealWorld
from node.engine import Engine
from node.members import Cluster
from tests.sim.node import ALONE
from timemachine.errors import InvalidRequest, StoreError, TimeMachineError
from timemachine.model import Node, Settings
from timemachine.outbound import Outcome, Request, Target
from timemachine.sealing import MasterKey
from timemachine.storage.memory import MemoryStore

KEY = MasterKey(b"k" * 32)
JOBS = "/v1/dbs/default/collections/carts/jobs"
ROUTE = "/v1/dbs/default/routes/hello"
FAR_MS = 4_000_000_000_000
"""A trigger time that no test lives to see."""


class Disk:
    """A `Disk` that is done at once; `hold` keeps what comes from then on."""

    def __init__(self, world: RealWorld, store: MemoryStore) -> None:
        self._world = world
        self._store = store
        self.held: list[Callable[[], None]] | None = None

    def write(self, prepared: Any, done: Callable[[StoreError | None], None]) -> None:
        def written() -> None:
            self._store.write(prepared)
            done(None)

        if self.held is not None:
            self.held.append(written)
        else:
            self._world.call_soon(written)

    def hold(self) -> None:
        """Finish no write from now on."""
        self.held = []

    def release(self) -> None:
        """Finish what is held, and whatever comes."""
        held, self.held = self.held or [], None
        for written in held:
            written()


class Handle:
    """A request under way."""

    def abort_if_unsent(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class Recipient:
    """A `Sender` whose requests end at once with what `answer` says."""

    def __init__(self, world: RealWorld) -> None:
        self._world = world
        self.received: list[Request] = []
        self.answer = Outcome(status=200, bytes_sent=True)

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> Handle:
        self.received.append(request)
        self._world.call_soon(lambda: done(self.answer))
        return Handle()


class Reply(msgspec.Struct, frozen=True):
    """What the API answered; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert "application/problem+json" == self.headers["content-type"], self.body
        problem = self.json
        assert self.status == problem["status"]
        assert problem["detail"] == problem["error"]
        assert {"type", "title"} <= set(problem)
        return str(problem["code"])

    @property
    def pointers(self) -> list[str]:
        """Where a bad request is wrong."""
        return [error["pointer"] for error in self.json.get("errors", [])]


class Api:
    """The API of one engine, and what stands around it.

    `options` are those of its server, `cluster` is what the node belongs to. With a `token` all
    requests of `ask` carry it, with a `trust` they go through TLS.
    """

    def __init__(self, world: RealWorld, *, cluster: Cluster = ALONE, **options: Any) -> None:
        self.world = world
        number = cluster.number
        self.store = MemoryStore()
        self.disk = Disk(world, self.store)
        self.recipient = Recipient(world)
        self.failures: list[TimeMachineError] = []
        self.targets: list[Target] = []
        self.refused_host = "blocked.example"
        self.check_s = 0.0
        self.engine = Engine(
            world,
            self.store,
            self.disk,
            self.recipient,
            cluster_id="c0ffee",
            node=Node(id=f"n{number}", name="one", http="h:1", rpc="r:1", zone="z", version="0"),
            master_keys=[KEY],
            on_failure=self.failures.append,
            cluster=cluster,
        )
        self.server = ApiServer(self.engine, self.check, **options)
        self.token: str | None = None
        self.trust: ssl.SSLContext | None = None
        self.host = ""
        self.port = 0

    async def check(self, target: Target) -> None:
        """Stands for the check of addresses."""
        self.targets.append(target)
        await asyncio.sleep(self.check_s)
        if target.host == self.refused_host:
            detail = "Allow it with --allow-private 10.0.0.0/8."
            raise InvalidRequest(detail, errors=[("/webhook_url", detail)])

    async def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of its own, and read what comes until it is closed."""
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.trust)
        try:
            writer.write(data)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request; a body that is no bytes is sent as JSON."""
        given = {"Host": "test", "Connection": "close"}
        content = b""
        if body is not None:
            content = body if isinstance(body, bytes) else msgspec.json.encode(body)
            given |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        if self.token is not None:
            given["Authorization"] = f"Bearer {self.token}"
        given |= headers or {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {given[name]}" for name in given)]
        head = "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n"
        reply = parse(await self.raw(head + content))
        self.check_described(method, path, reply)
        return reply

    def check_described(self, method: str, path: str, reply: Reply) -> None:
        """Whatever is answered to any test here, the description of the operation foresees."""
        try:
            _, operation, _ = self.server._dispatch.find(method, path.partition("?")[0])
        except TimeMachineError:
            return  # no operation
        told = operation.answers.get(reply.status)
        if told is None:
            packed = reply.headers["content-type"] == "application/msgpack"
            decode = msgspec.msgpack.decode if packed else msgspec.json.decode
            problem = decode(reply.body) if method != "HEAD" else None
            code = dict(operation.refusals)[reply.status] if problem is None else problem["code"]
            where = f"{operation.id}: {reply.status} {code} is not described"
            assert (reply.status, code) in operation.refusals, where
            return
        if told.body is None:
            assert b"" == reply.body
            assert not {"content-type", "content-length"} & reply.headers.keys()
        else:
            kinds = {told.media, *told.also}
            if "application/json" in kinds:
                kinds.add("application/msgpack")
            assert reply.headers["content-type"] in kinds, f"{operation.id}: {reply.headers}"
        described = {"etag", "location", "idempotent-replayed", "cache-control"}
        sent = described & reply.headers.keys()
        assert sent <= {each.lower() for each in told.headers}, f"{operation.id}: {sent}"


def parse(data: bytes) -> Reply:
    """One answer, whole."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    return Reply(int(first.split(" ")[1]), headers, body)


@asynccontextmanager
async def started(
    *, token: str | None = None, trust: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[Api]:
    """A started API, with the collection `carts` and the route `hello`. See Api."""
    loop = asyncio.get_running_loop()
    api = Api(RealWorld(loop), **options)
    api.token, api.trust = token, trust
    ready = asyncio.Event()
    api.engine.start(Settings(), ready.set)
    await ready.wait()
    api.host, api.port = await api.server.start("127.0.0.1", 0)
    assert 201 == (await api.ask("PUT", JOBS.removesuffix("/jobs"), {"num_vnodes": 3})).status
    assert 201 == (await api.ask("PUT", ROUTE, {"webhook_url": "http://one.example/x"})).status
    try:
        yield api
    finally:
        api.disk.release()
        stopped = asyncio.Event()
        api.server.stop_accepting()
        api.engine.stop(stopped.set)
        await stopped.wait()
        await api.server.stop()
    assert [] == api.failures
