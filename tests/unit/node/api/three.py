"""Three nodes with their APIs on one event loop, and a network between them that loses nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from node.clock import RealWorld
from node.members import Cluster, Rhythm
from tests.unit.node.api.harness import JOBS, ROUTE, Api
from timemachine.frames import Frame, read_frame
from timemachine.model import Settings
from timemachine.ring import vnode_of

NUMBERS = (1, 2, 3)
COLLECTION = JOBS.removesuffix("/jobs")
_RHYTHM = Rhythm(tick_ms=20.0)
PATIENCE_S = 20


class _Port:
    """The network as one node sees it."""

    def __init__(self, nodes: "Three", number: int) -> None:
        self._nodes = nodes
        self._number = number

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        nodes = self._nodes
        if nodes.cut.isdisjoint({node, self._number}) and not nodes.loses(self._number, frame):
            nodes.loop.call_soon(partial(nodes.deliver, node, frame))


class Three:
    """The nodes by their numbers. `cut` are those that hear and say nothing.

    `lose` decides which frames do not arrive; it is given their senders, too.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.cut: set[int] = set()
        self.lose: Callable[[int, Frame], bool] | None = None
        world = RealWorld(self.loop)
        self.apis = {
            number: Api(
                world,
                cluster=Cluster(
                    number=number, members=NUMBERS, network=_Port(self, number), rhythm=_RHYTHM
                ),
            )
            for number in NUMBERS
        }

    def loses(self, sender: int, frame: bytes) -> bool:
        """Whether a frame is lost."""
        return self.lose is not None and self.lose(sender, read_frame(frame))

    def deliver(self, node: int, frame: bytes) -> None:
        """A frame has arrived."""
        if node not in self.cut:
            self.apis[node].engine.receive(frame)

    def group(self, job_id: str) -> tuple[int, int]:
        """The vnode of a job of the collection."""
        for number in NUMBERS:
            found = self.apis[number].engine.meta.collections.get(("default", "carts"))
            if found is not None:
                return found.uid, vnode_of(job_id, found.num_vnodes)
        raise AssertionError("there is no collection")

    def leader(self, group: tuple[int, int]) -> int:
        """The number of the node that serves a group, 0 if there is none."""
        for number in NUMBERS:
            vnode = self.apis[number].engine.runtime.vnodes.get(group)
            if vnode is not None and vnode.serving and number not in self.cut:
                return number
        return 0

    async def led(self, group: tuple[int, int]) -> int:
        """The node that leads a group, as soon as there is one."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.leader(group):
                await asyncio.sleep(0.01)
        return self.leader(group)

    def others(self, number: int) -> list[int]:
        """All nodes but one."""
        return [each for each in NUMBERS if each != number]


@asynccontextmanager
async def three() -> AsyncIterator[Three]:
    """A started cluster, with the collection `carts` and the route `hello`."""
    nodes = Three()
    ready = []
    for api in nodes.apis.values():
        started = asyncio.Event()
        ready.append(started.wait())
        api.engine.start(Settings(), started.set)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*ready)
    for api in nodes.apis.values():
        api.host, api.port = await api.server.start("127.0.0.1", 0)
    # Each by another node: none has to wait until it knows what another one has done.
    assert 201 == (await nodes.apis[2].ask("PUT", COLLECTION, {"num_vnodes": 6})).status
    url = {"webhook_url": "http://one.example/x"}
    assert 201 == (await nodes.apis[3].ask("PUT", ROUTE, url)).status
    try:
        yield nodes
    finally:
        nodes.cut, nodes.lose = set(), None
        for api in nodes.apis.values():
            api.server.stop_accepting()
        for api in nodes.apis.values():
            stopped = asyncio.Event()
            api.engine.stop(stopped.set)
            await stopped.wait()
            await api.server.stop()
    assert all([] == api.failures for api in nodes.apis.values())
