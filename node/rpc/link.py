"""The way to one other node: what waits for it, and a connection that is dialled anew."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog

from node.env import World
from node.rpc.dial import attach, dial, sentence
from node.rpc.framing import Kind
from node.rpc.hello import REFUSALS, VERSION_FIRST, VERSION_LAST, Self, Welcome, write_hello
from node.rpc.lane import Lane
from node.rpc.outbound import Outbound
from timemachine import limits

_RETIRED: Final = "retired_node"

log = structlog.get_logger()


class LinkStatistics(NamedTuple):
    """What went to one node since the start, and what waits for it now.

    frames, bytes  handed to the system; `dropped` were not, for being too many or too old
    dials          attempts to connect; `connects` those that were accepted
    failure        why the last attempt failed, "" when it did not
    """

    connected: bool
    frames: int
    bytes: int
    dropped: int
    waiting: int
    waiting_bytes: int
    dials: int
    connects: int
    failure: str


class Dialling(NamedTuple):
    """How a link gets at its connections.

    own        who this node is
    source     the address to dial from, or None
    addresses  where the other node may be, in the order in which to try; asked at each attempt
    tls        the context of now, or None
    finalised  the format of the cluster, as far as this node has heard
    retired    to be called when another node says that this one was removed
    """

    world: World
    loop: asyncio.AbstractEventLoop
    own: Self
    source: str | None
    addresses: Callable[[int], list[tuple[str, int]]]
    tls: Callable[[], ssl.SSLContext | None]
    finalised: Callable[[], int]
    retired: Callable[[], None]


class Link:
    """Sends to node `number`, over one connection at a time."""

    def __init__(self, number: int, dialling: Dialling) -> None:
        self.number = number
        self._dialling = dialling
        self._world = dialling.world
        self._urgent = Lane(
            limits.RPC_WAITING_FRAMES_MAX, limits.RPC_WAITING_BYTES_MAX, limits.RPC_WAITING_MS_MAX
        )
        self._bulk = Lane(
            limits.RPC_BULK_WAITING_FRAMES_MAX,
            limits.RPC_BULK_WAITING_BYTES_MAX,
            limits.RPC_WAITING_MS_MAX,
        )
        self._cut_up: bytes | None = None
        self._cut_at = 0
        self._up: Outbound | None = None
        self._frames = 0
        self._bytes = 0
        self._lost = 0
        self._dials = 0
        self._connects = 0
        self._failure = ""
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    # --- sending ---------------------------------------------------------------------------

    def send(self, frame: bytes, *, bulk: bool) -> None:
        """Send now, or as soon as can be; or never."""
        if len(frame) > limits.RPC_FRAME_BYTES_MAX:
            self._lost += 1
            log.error("a frame is too large to be sent", node=self.number, bytes=len(frame))
            return
        up = self._up
        if up is not None and not up.paused and not bulk:
            # Nothing else waits: whatever did has left when the connection became able to write.
            self._frames += 1
            self._bytes += len(frame)
            up.write(Kind.FRAME, frame)
            return
        (self._bulk if bulk else self._urgent).push(frame, self._world.mono_ms())
        self._drain()

    def _drain(self) -> None:
        up = self._up
        if up is None or up.paused:
            return
        mono_ms = self._world.mono_ms()
        while not up.paused:
            frame = self._urgent.pop(mono_ms)
            if frame is not None:
                self._frames += 1
                self._bytes += len(frame)
                up.write(Kind.FRAME, frame)
            elif not self._write_piece(up, mono_ms):
                return

    def _write_piece(self, up: Outbound, mono_ms: float) -> bool:
        """Write a piece of what is bulk; False when there is none."""
        if self._cut_up is None:
            self._cut_up = self._bulk.pop(mono_ms)
            self._cut_at = 0
            if self._cut_up is None:
                return False
        start = self._cut_at
        end = self._cut_at = start + limits.RPC_PIECE_BYTES
        whole = self._cut_up
        self._bytes += min(end, len(whole)) - start
        if end < len(whole):
            up.write(Kind.PART, memoryview(whole)[start:end])
        else:
            self._cut_up = None
            self._frames += 1
            up.write(Kind.LAST_PART, memoryview(whole)[start:])
        return True

    # --- the connection --------------------------------------------------------------------

    def start(self) -> None:
        """Dial, and dial again whenever the connection is gone."""
        self._task = self._dialling.loop.create_task(self._run())

    def stop(self) -> list[asyncio.Future[Any]]:
        """Dial no more, and end the connection when what was written has left.

        What is returned ends with that, or never if the other side does not read.
        """
        ends: list[asyncio.Future[Any]] = []
        if self._up is not None:
            self._up.close("this node ends it")
            ends.append(self._up.ended)
            self._up = None
        if self._task is not None:
            self._task.cancel()
            ends.append(self._task)
        return ends

    def hurry(self) -> None:
        """The other node is there: do not wait until the next attempt."""
        self._hurry.set()

    def tick(self) -> None:
        """Ask whether the other side is there, or give the connection up."""
        if self._up is not None and not self._up.ping():
            self._up.cut("silent for too long")

    async def _run(self) -> None:
        delay_ms = float(limits.RPC_REDIAL_MS_MIN)
        attempt = 0
        while True:
            self._hurry.clear()
            addresses = self._dialling.addresses(self.number)
            if not addresses:
                self._fail("no address is known", "")
            else:
                host, port = addresses[attempt % len(addresses)]
                attempt += 1
                if await self._attempt(host, port):
                    delay_ms, attempt = float(limits.RPC_REDIAL_MS_MIN), 0
                    self._hurry.clear()
            # Not in step with others that have lost the same node at the same moment.
            wait_ms = delay_ms * (0.5 + self._world.random())
            delay_ms = min(delay_ms * 2, limits.RPC_REDIAL_MS_MAX)
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _attempt(self, host: str, port: int) -> bool:
        """Connect, and stay so as long as it lasts; whether it came to that."""
        dialling = self._dialling
        self._dials += 1
        shown = f"{host}:{port}"
        hello = write_hello(dialling.own, self.number, dialling.finalised())
        outbound = Outbound(hello, self._drain)
        try:
            stream = await dial(dialling.loop, host, port, dialling.source)
            try:
                async with asyncio.timeout(limits.RPC_HELLO_MS / 1000):
                    await attach(dialling.loop, outbound, stream, host, dialling.tls())
                    welcome = await outbound.welcome
            except BaseException:
                outbound.cut("given up")
                stream.close()
                raise
        except (OSError, ValueError) as error:
            self._fail(sentence(error), shown)
            return False
        refused = welcome.refused
        if not refused and not self._is_right(welcome):
            refused = "other_node"
        if refused:
            outbound.cut("refused")
            self._fail(REFUSALS.get(refused, refused[:100]), shown)
            if refused == _RETIRED and self._is_right(welcome, refused=True):
                dialling.retired()
            return False
        self._failure = ""
        self._connects += 1
        log.info("connected to a node", node=self.number, id=welcome.node_id, address=shown)
        self._up = outbound
        try:
            self._drain()
            why = await outbound.ended
        except BaseException:
            outbound.close("this node ends it")
            raise
        finally:
            self._up = None
            if self._cut_up is not None:
                self._cut_up = None
                self._lost += 1
        log.warning("lost the connection to a node", node=self.number, address=shown, reason=why)
        return True

    def _is_right(self, welcome: Welcome, *, refused: bool = False) -> bool:
        """Whether the node is there that is meant; one that refuses names no version."""
        return (
            welcome.cluster_id == self._dialling.own.cluster_id
            and welcome.number == self.number
            and (refused or VERSION_FIRST <= welcome.version <= VERSION_LAST)
        )

    def _fail(self, why: str, address: str) -> None:
        if why != self._failure:
            # Once, and not at each attempt.
            log.warning("cannot reach a node", node=self.number, address=address, reason=why)
        self._failure = why

    # --- what is shown ---------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether frames leave."""
        return self._up is not None

    def statistics(self) -> LinkStatistics:
        """See LinkStatistics."""
        return LinkStatistics(
            connected=self._up is not None,
            frames=self._frames,
            bytes=self._bytes,
            dropped=self._urgent.dropped + self._bulk.dropped + self._lost,
            waiting=len(self._urgent) + len(self._bulk),
            waiting_bytes=self._urgent.bytes + self._bulk.bytes,
            dials=self._dials,
            connects=self._connects,
            failure=self._failure,
        )
