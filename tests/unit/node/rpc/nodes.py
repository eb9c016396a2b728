"""Nodes of one cluster that are nothing but their RPC, on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from node.clock import RealWorld
from node.rpc.hello import Known, Self
from node.rpc.listener import bind, bound_address, shown
from node.rpc.rpc import Rpc

CLUSTER = "c1"


class Member:
    """One node. `taken` is what it got, as (sender, frame); `gone` counts who told it to go."""

    def __init__(self, cluster: "Nodes", number: int, **options: Any) -> None:
        self.cluster = cluster
        self.number = number
        self.epoch = 1
        self.id = f"n{number}"
        self.taken: list[tuple[int, bytes]] = []
        self.moved: list[tuple[int, str, int]] = []
        self.gone = 0
        self.options = options
        self.begin()

    def begin(self, port: int = 0) -> None:
        """A new life, in front of a port."""
        self.rpc = Rpc(
            RealWorld(asyncio.get_running_loop()),
            take=lambda sender, frame: self.taken.append((sender, frame)),
            addresses=self.cluster.places.get,
            known=self.cluster.known.get,
            on_address=lambda *moved: self.moved.append(moved),
            retired=self._retired,
            **self.options,
        )
        self.listening = bind("127.0.0.1", port)
        self.address = bound_address(self.listening)

    def _retired(self) -> None:
        self.gone += 1

    def own(self, **changed: Any) -> Self:
        """Who it says it is."""
        own = Self(CLUSTER, self.id, self.number, self.epoch, shown(*self.address))
        return own._replace(**changed)

    async def start(self, **changed: Any) -> None:
        """Listen and dial."""
        self.rpc.set_peers(number for number in self.cluster.known if number != self.number)
        await self.rpc.start(self.listening, self.own(**changed))

    async def restart(self, *, elsewhere: bool = False) -> None:
        """Stop, and begin the next life."""
        await self.rpc.stop()
        self.epoch += 1
        self.begin(0 if elsewhere else self.address[1])
        await self.start()


class Nodes:
    """What they all know. `places` are the addresses, `known` whose numbers are whose."""

    def __init__(self) -> None:
        self.places: dict[int, tuple[str, int]] = {}
        self.known: dict[int, Known] = {}
        self.members: dict[int, Member] = {}

    def add(self, number: int, **options: Any) -> Member:
        """A node that all know, and that is not started yet."""
        member = self.members[number] = Member(self, number, **options)
        self.places[number] = member.address
        self.known[number] = Known(member.id)
        return member


@asynccontextmanager
async def nodes(count: int, *, start: bool = True, **options: Any) -> AsyncIterator[Nodes]:
    """So many nodes, connected if they are started."""
    cluster = Nodes()
    for number in range(1, count + 1):
        cluster.add(number, **options)
    try:
        if start:
            for member in cluster.members.values():
                await member.start()
            await until(lambda: all_connected(cluster))
        yield cluster
    finally:
        for member in cluster.members.values():
            await member.rpc.stop()
            member.listening.close()


def all_connected(cluster: Nodes) -> bool:
    """Whether everybody can send to everybody."""
    return all(
        one.rpc.connected(other)
        for number, one in cluster.members.items()
        for other in cluster.members
        if other != number
    )


async def until(condition: Callable[[], object]) -> None:
    """Wait for it; a test that waits in vain runs into its time-out."""
    while not condition():
        await asyncio.sleep(0.002)
