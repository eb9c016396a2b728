"""All ways to and from the other nodes: the `Network` of production."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import structlog

from node.config import split_address
from node.env import Timer, World
from node.rpc.dial import source_address
from node.rpc.framing import Kind
from node.rpc.hello import (
    REFUSALS,
    Hello,
    Known,
    Self,
    common_version,
    read_hello,
    refusal,
    write_welcome,
)
from node.rpc.inbound import Inbound
from node.rpc.joindesk import JoinDesk
from node.rpc.link import Dialling, Link, LinkStatistics
from node.rpc.listener import Listener, bound_address
from node.rpc.tls import MutualTls
from timemachine import limits
from timemachine.errors import CodecError, ConfigError

_FAREWELL_S: Final = 1.0
"""How long what was written last may take to leave when the node stops."""

_REFUSED_KEPT: Final = 100
"""Refused nodes that are remembered, so that each is logged once and not twice a second."""

_STRANGE_LOGGED_MS: Final = 1_000.0
"""How often it is logged that somebody has connected who is no node."""

Address = tuple[str, int]

log = structlog.get_logger()


class Received(NamedTuple):
    """What came from one node since the start."""

    connected: bool
    frames: int
    bytes: int


class Rpc:
    """Sends frames to other nodes, and gives those that come to `take`, with the sender's number.

    addresses   where a node is, by its number; asked at each attempt to connect
    known       whose number it is, None if nobody's (yet)
    on_address  told when a node says that it is elsewhere than `addresses` has it. It is dialled
                there at once; that others learn of it is the caller's affair
    tls         what connections are secured with; without, everything is readable on the way
    desk        who takes nodes that want to join; without, they are refused
    finalised   the format of the cluster, as far as this node has heard (`timemachine.formats`)
    retired     called when another node says that this one was removed; perhaps again and again

    A frame of `send` may be lost, doubled by nobody, late by RPC_WAITING_MS_MAX at most here, and
    overtaken only by such as are not bulk.
    """

    def __init__(
        self,
        world: World,
        *,
        take: Callable[[int, bytes], None],
        addresses: Callable[[int], Address | None],
        known: Callable[[int], Known | None],
        on_address: Callable[[int, str, int], None] = lambda *_: None,
        tls: MutualTls | None = None,
        desk: JoinDesk | None = None,
        finalised: Callable[[], int] = lambda: 1,
        retired: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._take = take
        self._addresses = addresses
        self._known = known
        self._on_address = on_address
        self._tls = tls
        self._desk = desk
        self._finalised = finalised
        self._retired = retired
        self._own: Self | None = None
        self._dialling: Dialling | None = None
        self._listener: Listener | None = None
        self._timer: Timer | None = None
        self._stopping = False
        self._peers: frozenset[int] = frozenset()
        self._links: dict[int, Link] = {}
        self._strangers: dict[Inbound, None] = {}
        self._inbound: dict[int, Inbound] = {}
        self._received: dict[int, tuple[int, int]] = {}
        self._epochs: dict[int, int] = {}
        self._heard: dict[int, Address] = {}
        self._refused_before: dict[tuple[str, int], str] = {}
        self._refused = 0
        self._strange_logged_ms = -_STRANGE_LOGGED_MS
        self._to_nobody = 0

    # --- life ------------------------------------------------------------------------------

    async def start(self, listening: socket.socket, own: Self) -> None:
        """Take connections at a socket of `listener.bind`, and dial the peers.

        Not before the epoch in `own` is durable: a later life would begin with the same one.
        """
        self._own = own
        self._dialling = Dialling(
            world=self._world,
            loop=asyncio.get_running_loop(),
            own=own,
            source=source_address(bound_address(listening)[0]),
            addresses=self._places,
            tls=lambda: None if self._tls is None else self._tls.client,
            finalised=self._finalised,
            retired=self._retired,
        )
        self._listener = Listener(
            lambda: Inbound(self, self._take),
            None if self._tls is None else self._tls.server,
            lambda: len(self._strangers),
        )
        await self._listener.start(listening)
        self._timer = self._world.call_later(limits.RPC_PING_MS, self._tick)
        self.set_peers(self._peers)

    def set_peers(self, numbers: Iterable[int]) -> None:
        """Whom to send to from now on; may change at any time, also before `start`."""
        self._peers = frozenset(numbers)
        if self._dialling is None or self._stopping:
            return
        for number in self._links.keys() - self._peers:
            self._links.pop(number).stop()
            self._heard.pop(number, None)
        for number in sorted(self._peers - self._links.keys()):
            link = self._links[number] = Link(number, self._dialling)
            link.start()
        for number, connection in list(self._inbound.items()):
            whose = self._known(number)
            if whose is None or whose.retired:
                connection.cut("it is no node of this cluster any more")

    async def stop(self) -> None:
        """Take nobody's call and call nobody; what was sent has a second to leave."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            await self._listener.stop()
        ends = [end for link in self._links.values() for end in link.stop()]
        self._links.clear()
        connections = [*self._inbound.values(), *self._strangers]
        for connection in connections:
            connection.cut("this node stops")
        if ends:
            await asyncio.wait(ends, timeout=_FAREWELL_S)
        # A turn of the loop for the connections to learn of their end.
        await asyncio.sleep(0)

    def reload(self) -> None:
        """Read the files of TLS again; connections from now on go by them.

        What was in force stays so when this raises ConfigError.
        """
        if self._tls is not None:
            self._tls.reload()
            if self._listener is not None:
                self._listener.use(self._tls.server)

    # --- sending ---------------------------------------------------------------------------

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        """See Network."""
        link = self._links.get(node)
        if link is None:
            self._to_nobody += 1
            return
        link.send(frame, bulk=bulk)

    def connected(self, node: int) -> bool:
        """Whether frames for that node leave now."""
        link = self._links.get(node)
        return link is not None and link.connected

    def _places(self, number: int) -> list[Address]:
        """Where a node may be: as it said itself, then as the cluster has it."""
        places = [self._heard.get(number), self._addresses(number)]
        return list(dict.fromkeys(place for place in places if place is not None))

    def _tick(self) -> None:
        self._timer = self._world.call_later(limits.RPC_PING_MS, self._tick)
        for link in self._links.values():
            link.tick()
        for connection in (*self._inbound.values(), *self._strangers):
            connection.tick()

    # --- what inbound connections ask ----------------------------------------------------------

    def opened(self, connection: Inbound) -> None:
        """See Desk. Too many strangers: the first of them has had the most time already."""
        if self._stopping:
            connection.cut("this node stops")
            return
        self._strangers[connection] = None
        if len(self._strangers) > limits.RPC_STRANGERS_MAX:
            first = next(iter(self._strangers))
            # Now, since it ends only with the next turn of the loop, and more may come in this one.
            del self._strangers[first]
            first.cut("too many others have connected since")

    def greeted(self, connection: Inbound, hello: bytes) -> None:
        """See Desk."""
        said = read_hello(hello)
        own = self._own
        assert own is not None
        if self._stopping:
            refused = "stopping"
        else:
            epoch = self._epochs.get(said.number, 0)
            refused = refusal(said, own, self._known, epoch, self._finalised())
        before = self._inbound.get(said.number)
        if not refused and before is not None and before.hello is not None:
            # Two processes with the data of one node; or one that has lost its connection.
            there = (before.hello.epoch, before.hello.address)
            if there[0] == said.epoch and there[1] != said.address:
                refused = "number_taken"
        if refused:
            self._refuse(connection, said, refused)
            return
        place = _place(said.address)
        if before is not None:
            before.cut("it has connected anew")
            self._forget(before)
        self._strangers.pop(connection, None)
        self._inbound[said.number] = connection
        self._epochs[said.number] = said.epoch
        self._refused_before.pop((said.node_id, said.number), None)
        version = common_version(said.first, said.last)
        connection.accept(said, write_welcome(own, version))
        log.info("a node has connected", node=said.number, id=said.node_id, peer=connection.peer)
        if place != self._addresses(said.number):
            self._heard[said.number] = place
            self._on_address(said.number, *place)
        else:
            self._heard.pop(said.number, None)
        link = self._links.get(said.number)
        if link is not None and not link.connected:
            link.hurry()

    def _refuse(self, connection: Inbound, said: Hello, refused: str) -> None:
        assert self._own is not None
        self._refused += 1
        who = (said.node_id[:100], said.number)
        if self._refused_before.get(who) != refused:
            if len(self._refused_before) >= _REFUSED_KEPT:
                self._refused_before.clear()
            self._refused_before[who] = refused
            log.warning(
                "refused a node",
                node=said.number,
                id=who[0],
                peer=connection.peer,
                code=refused,
                told=REFUSALS[refused],
            )
        connection.part(Kind.WELCOME, write_welcome(self._own, 0, refused), refused)

    def joining(self, connection: Inbound, kind: Kind, payload: bytes) -> None:
        """See Desk."""
        if self._desk is None or self._stopping:
            raise CodecError("nobody joins here")
        self._desk.hear(connection, kind, payload)

    def closed(self, connection: Inbound, why: str) -> None:
        """See Desk."""
        if self._desk is not None:
            self._desk.closed(connection)
        if connection in self._strangers:
            del self._strangers[connection]
            self._log_stranger(connection, why)
            return
        hello = connection.hello
        if hello is not None and self._inbound.get(hello.number) is connection:
            self._forget(connection)
            log.info("a node has disconnected", node=hello.number, reason=why)

    def _forget(self, connection: Inbound) -> None:
        """Count what came over a connection that is no longer a node's."""
        assert connection.hello is not None
        number = connection.hello.number
        frames, count = self._received.get(number, (0, 0))
        self._received[number] = (frames + connection.frames, count + connection.bytes)
        del self._inbound[number]

    def _log_stranger(self, connection: Inbound, why: str) -> None:
        mono_ms = self._world.mono_ms()
        if connection.spoke and mono_ms - self._strange_logged_ms >= _STRANGE_LOGGED_MS:
            self._strange_logged_ms = mono_ms
            log.info("a connection of no node has ended", peer=connection.peer, reason=why)

    # --- what is shown ---------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Plain numbers, for the metrics.

        links      by number, see LinkStatistics
        received   by number, see Received
        refused    hellos that were refused
        strangers  connections of whom nothing is known yet
        to_nobody  frames for nodes that are no peers
        """
        received: dict[int, Received] = {}
        for number in sorted(self._received.keys() | self._inbound.keys()):
            frames, count = self._received.get(number, (0, 0))
            connection = self._inbound.get(number)
            if connection is not None:
                frames, count = frames + connection.frames, count + connection.bytes
            received[number] = Received(connection is not None, frames, count)
        links: dict[int, LinkStatistics] = {
            number: link.statistics() for number, link in sorted(self._links.items())
        }
        return {
            "links": links,
            "received": received,
            "refused": self._refused,
            "strangers": len(self._strangers),
            "to_nobody": self._to_nobody,
        }


def _place(text: str) -> Address:
    try:
        host, port = split_address(text, "address", default_port=0)
    except ConfigError as error:
        raise CodecError(error.detail) from None
    if not port:
        raise CodecError("an address without a port")
    return host, port
