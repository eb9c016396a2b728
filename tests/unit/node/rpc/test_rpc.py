"""All ways between nodes, over real connections."""

import asyncio
import socket
import time
from typing import Any, cast

import pytest

from node.rpc.framing import Kind, write
from node.rpc.hello import Known, write_hello
from tests.unit.node.rpc.nodes import all_connected, nodes, until
from timemachine import limits


async def test_everybody_sends_to_everybody() -> None:
    """In order, with the number of the sender, and nothing to oneself or strangers."""
    async with nodes(3) as cluster:
        for sender, one in cluster.members.items():
            for receiver in (1, 2, 3, 4):
                for count in range(50):
                    one.rpc.send(receiver, b"%d to %d: %d" % (sender, receiver, count))
        for receiver, one in cluster.members.items():
            await until(lambda one=one: len(one.taken) == 100)  # type: ignore[misc]
            for sender in {1, 2, 3} - {receiver}:
                expected = [b"%d to %d: %d" % (sender, receiver, count) for count in range(50)]
                assert expected == [frame for number, frame in one.taken if number == sender]
        assert 100 == cluster.members[1].rpc.statistics()["to_nobody"]


async def test_large_frames_arrive_whole() -> None:
    """Also such as are cut into pieces, with others between."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        large = bytes(range(256)) * (limits.RPC_FRAME_BYTES_MAX // 256)
        one.rpc.send(2, large, bulk=True)
        one.rpc.send(2, large)
        one.rpc.send(2, b"small")
        one.rpc.send(2, large + b"x")
        await until(lambda: len(two.taken) == 3)
        assert {(1, large), (1, b"small")} == set(two.taken)
        assert (1, large) == two.taken[-1]
        assert 1 == one.rpc.statistics()["links"][2].dropped


async def test_a_node_that_comes_back_is_found_again() -> None:
    """At the same address, or at another one, which the others are told."""
    async with nodes(3) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        for elsewhere in (False, True):
            two.taken.clear()
            await two.restart(elsewhere=elsewhere)
            await until(lambda: one.rpc.connected(2) and two.rpc.connected(1))
            one.rpc.send(2, b"are you there?")
            await until(lambda: two.taken)
            two.rpc.send(1, b"yes")
            await until(lambda: one.taken)
        assert [(2, *two.address)] == one.moved
        await asyncio.sleep(0)


async def test_who_is_not_let_in() -> None:
    """Another cluster, a number that is another's, one that nobody or nobody any more has."""
    for changed, why in (
        ({"cluster_id": "c2"}, "it belongs to another cluster"),
        ({"node_id": "n3"}, "our number is another node's"),
        ({"number": 4}, "it does not know a node of our number (yet)"),
        ({"number": 5}, "our number has been retired"),
        ({"number": 1}, "our number is another node's"),
        ({"formats": (0,)}, "our program does not know the format that the cluster has finalised"),
    ):
        async with nodes(2, start=False) as cluster:
            one, two = cluster.members[1], cluster.members[2]
            cluster.known[5] = Known("n2", retired=True)
            await one.start()
            await two.start(**changed)
            await until(lambda two=two: two.rpc.statistics()["links"][1].failure)  # type: ignore[misc]
            assert why == two.rpc.statistics()["links"][1].failure
            assert not one.taken
            assert not two.rpc.connected(1)
            # Nobody ends for what a node of another cluster, or one that knows less, tells it.
            assert (two.gone > 0) == ("retired" in why)
            assert one.rpc.statistics()["refused"] >= 1


async def test_the_first_of_too_many_strangers_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever means something has said it by then; nodes still get in."""
    monkeypatch.setattr(limits, "RPC_STRANGERS_MAX", 4)
    async with nodes(2, start=False) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        await one.start()
        silent = [socket.create_connection(one.address) for _ in range(9)]
        await until(lambda: one.rpc.statistics()["strangers"] == 4)
        await two.start()
        await until(lambda: all_connected(cluster))
        assert one.rpc.statistics()["strangers"] <= 4
        for each in silent:
            each.close()
        await until(lambda: not one.rpc.statistics()["strangers"])


async def test_strangers_that_say_nothing_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that have said hello do."""
    monkeypatch.setattr(limits, "RPC_PING_MS", 20)
    monkeypatch.setattr(limits, "RPC_HELLO_MS", 60)
    async with nodes(2) as cluster:
        one = cluster.members[1]
        with socket.create_connection(one.address):
            await until(lambda: one.rpc.statistics()["strangers"])
            await until(lambda: not one.rpc.statistics()["strangers"])
        assert all_connected(cluster)


JUNK = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"\xff" * 10_000,
    bytes(10_000),
    b"\0\0\0\3\5hi",
    b"\0\0\x0f\xff\1" + b"\x91" * 4094,
    b"\0\0\0\2\1\xc0" * 100,
    b"\0\0\0\2\x08\xc0" * 100,
    b"\0\0\0\2\x0a\xc0" * 100,
)


async def test_junk_hurts_nobody() -> None:
    """Nodes go on meanwhile, and nothing of it is taken for a frame."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        faults: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        hello = write(Kind.HELLO, write_hello(two.own(number=9), 1, 1))
        for junk in (*JUNK, hello, hello + hello, hello[:20]):
            with socket.create_connection(one.address) as stream:
                stream.setblocking(False)
                await loop.sock_sendall(stream, junk)
                two.rpc.send(1, b"meanwhile")
                await until(lambda: one.taken)
                one.taken.clear()
        await until(lambda: not one.rpc.statistics()["strangers"])
        assert all_connected(cluster)
        assert [] == faults
        assert [2] == list(one.rpc.statistics()["received"])


async def test_a_later_life_takes_the_place_of_an_earlier_one() -> None:
    """And not the other way round: the earlier one is a process that should have ended."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        old = two.rpc
        two.epoch += 1
        two.begin()
        await two.start()
        await until(lambda: two.rpc.connected(1))
        await until(lambda: not old.connected(1))
        await until(lambda: "later life" in old.statistics()["links"][1].failure)
        two.rpc.send(1, b"new")
        await until(lambda: one.taken)
        await old.stop()
        assert [(2, b"new")] == one.taken


async def test_two_processes_with_one_life() -> None:
    """A copy of the data of a node is refused as long as that node is there."""
    async with nodes(2) as cluster:
        two = cluster.members[2]
        first, listening = two.rpc, two.listening
        two.begin()
        await two.start()
        await until(lambda: two.rpc.statistics()["links"][1].failure)
        assert "our number is another node's" == two.rpc.statistics()["links"][1].failure
        assert first.connected(1)
        await first.stop()
        listening.close()


async def test_all_have_moved() -> None:
    """They find each other by who dials: whoever is dialled learns from where."""
    async with nodes(3) as cluster:
        for member in cluster.members.values():
            await member.rpc.stop()
        for member in cluster.members.values():
            member.epoch += 1
            member.begin()
        # The cluster has heard of one of them only.
        cluster.places[1] = cluster.members[1].address
        for member in cluster.members.values():
            await member.start()
        one = cluster.members[1]
        await until(lambda: one.rpc.connected(2) and one.rpc.connected(3))
        moved = {(2, *cluster.members[2].address), (3, *cluster.members[3].address)}
        assert moved == set(one.moved)


async def test_a_node_that_leaves() -> None:
    """It is dialled no more, and not let in any more; and it is told that it was removed."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        cluster.known[2] = Known("n2", retired=True)
        one.rpc.set_peers([])
        await until(lambda: two.rpc.statistics()["links"][1].failure)
        assert "our number has been retired" == two.rpc.statistics()["links"][1].failure
        assert (0, True) == (one.gone, two.gone > 0)
        one.rpc.send(2, b"x")
        assert 1 == one.rpc.statistics()["to_nobody"]
        assert not one.rpc.connected(2)


async def test_what_was_sent_last_arrives() -> None:
    """A leader that stops hands over first; that must not be lost with it."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        sent = [b"1", bytes(limits.RPC_WRITE_BUFFER_BYTES // 2), b"3"]
        for frame in sent:
            one.rpc.send(2, frame)
        await one.rpc.stop()
        await until(lambda: len(two.taken) == 3)
        assert [(1, frame) for frame in sent] == two.taken


async def test_what_is_counted() -> None:
    """Over all connections of a node."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        for count in (1, 2):
            one.rpc.send(2, b"12345")
            await until(lambda count=count: len(two.taken) == count)  # type: ignore[misc]
            shown = one.rpc.statistics()["links"][2]
            assert (True, count, 5 * count, 0, "") == (
                shown.connected,
                shown.frames,
                shown.bytes,
                shown.dropped,
                shown.failure,
            )
            received = two.rpc.statistics()["received"][1]
            assert (True, count) == (received.connected, received.frames)
            assert received.bytes >= 10 * count
            two.rpc._inbound[1].cut("for the test")
            while one.rpc.statistics()["links"][2].connects <= count:
                await asyncio.sleep(0.002)


class _Way(asyncio.Protocol):
    """A way between two nodes that may be cut: what comes then is lost, and nobody is told."""

    def __init__(self, target: tuple[str, int], cut: set[str]) -> None:
        self._target = target
        self._cut = cut
        self._held: list[bytes] = []
        self.other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        back = _Back(self)
        self.task = loop.create_task(loop.create_connection(lambda: back, *self._target))

    def data_received(self, data: bytes) -> None:
        if "there" in self._cut:
            return
        if self.other is None:
            self._held.append(data)
        else:
            self.other.write(data)

    def connected(self, other: asyncio.Transport) -> None:
        """The other half is there."""
        self.other = other
        for each in self._held:
            other.write(each)

    def back(self, data: bytes) -> None:
        """From the other half."""
        if "back" not in self._cut:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and not self._cut:
            self.other.abort()


class _Back(asyncio.Protocol):
    def __init__(self, way: _Way) -> None:
        self._way = way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._way.connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._way.back(data)


@pytest.mark.parametrize("direction", ["there", "back"])
async def test_a_cut_is_noticed_and_a_mended_way_used_at_once(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though TCP on both ends believes that all is well."""
    monkeypatch.setattr(limits, "RPC_PING_MS", 20)
    monkeypatch.setattr(limits, "RPC_HELLO_MS", 100)
    cut: set[str] = set()
    async with nodes(2, start=False) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        loop = asyncio.get_running_loop()
        way = await loop.create_server(lambda: _Way(two.address, cut), "127.0.0.1", 0)
        cluster.places[2] = way.sockets[0].getsockname()
        two.options["addresses"] = None
        await one.start()
        await two.rpc.start(two.listening, two.own(address=f"127.0.0.1:{cluster.places[2][1]}"))
        await until(lambda: one.rpc.connected(2))
        cut.add(direction)
        await until(lambda: not one.rpc.connected(2))
        await until(lambda: not two.rpc.statistics()["received"][1].connected)
        one.rpc.send(2, b"while it is cut")
        cut.clear()
        await until(lambda: one.rpc.connected(2))
        one.rpc.send(2, b"after it is mended")
        await until(lambda: (1, b"after it is mended") in two.taken)
        way.close()


async def test_after_a_stall_what_has_come_is_read_before_timers() -> None:
    """Or an election would begin against a leader whose heartbeats lie there."""
    async with nodes(2) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        loop = asyncio.get_running_loop()
        order: list[str] = []
        two.rpc._take = lambda *_: order.append("frame")
        for connection in two.rpc._inbound.values():
            connection._take = two.rpc._take

        def stall() -> None:
            # The heartbeat is in this process's socket before the timer is due.
            loop.call_later(0.02, order.append, "timer")
            time.sleep(0.1)

        one.rpc.send(2, b"heartbeat")
        # uvloop writes at the end of a turn of the loop, so the stall has to come after it.
        loop.call_soon(loop.call_soon, stall)
        await until(lambda: len(order) == 2)
        assert ["frame", "timer"] == order
