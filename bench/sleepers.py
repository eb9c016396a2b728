"""Three nodes in one process, with groups that have nothing to do: what they cost.

`python -m bench.sleepers GROUPS SECONDS [awake]`: makes the groups, all voted for by all three
nodes, waits until every group has a leader and sleeps, does nothing for so many seconds, and
prints what that took as one JSON object, a `Cost`. With `awake` no leader ever offers its group to
sleep. A process of its own, so that its memory and CPU time are of nothing else.

Stores, commit threads, clocks and the event loop are production's. Frames are handed over by the
loop as they are, so what sockets would cost is not in it.
"""

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import uvloop

from node.clock import RealWorld
from node.disk import CommitThread
from node.engine import Engine
from node.members import Cluster
from node.sleeping import Sleeping
from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.model import Node, Settings
from timemachine.outbound import Handle, Outcome, Request
from timemachine.replica.meta import MetaResult, PutCollection
from timemachine.sealing import MasterKey
from timemachine.storage.leveldb import FORMAT, Identity, open_store

_NUMBERS = (1, 2, 3)
_PATIENCE_S = 300.0
_LOOK_S = 0.05


class Cost(msgspec.Struct):
    """Of one run; CPU time is user and system time of the whole process, so of three nodes.

    idle_cpu_s    of as many seconds of idleness as were asked for, which took `idle_s`
    empty_cpu_s   of half as many of the same nodes before there were groups, which took `empty_s`
    idle_frames   what all nodes sent each other while idle
    create_s      until all groups had leaders, from the first request on
    create_cpu_s  likewise
    asleep_s      until all groups slept, from the same moment on
    grown_bytes   anonymous memory that groups take on all nodes
    """

    idle_cpu_s: float
    idle_s: float
    empty_cpu_s: float
    empty_s: float
    idle_frames: int
    create_s: float
    create_cpu_s: float
    asleep_s: float
    grown_bytes: int


class _Wire:
    """The network of one loop: frames arrive in its next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.engines: dict[int, Engine] = {}
        self.frames = 0

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        self.frames += 1
        self._loop.call_soon(self.engines[node].receive, frame)


class _NoSender:
    """There is nothing to send."""

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> Handle:
        raise AssertionError(request)


def _failed(error: TimeMachineError) -> None:
    sys.exit(f"a node failed: {error}")


class _Nodes:
    """The three nodes, from `start` to `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self.wire = _Wire(loop)
        self._disks = []
        self._stores = []
        self._started = 0  # how many of them run
        for number in _NUMBERS:
            identity = Identity(FORMAT, "bench", f"n{number}", 0, b"")
            store, _ = open_store(folder / str(number), create=identity)
            disk = CommitThread(loop, store)
            self._stores.append(store)
            self._disks.append(disk)
            name = f"n{number}"
            self.wire.engines[number] = Engine(
                RealWorld(loop),
                store,
                disk,
                _NoSender(),
                cluster_id="bench",
                node=Node(id=name, name=name, http="", rpc="", zone="", version="0"),
                master_keys=[MasterKey(b"k" * 32)],
                on_failure=_failed,
                cluster=Cluster(number=number, members=_NUMBERS, network=self.wire),
            )
        self.engines = list(self.wire.engines.values())

    async def start(self) -> None:
        """Start all, and wait until each knows the meta group."""

        def started() -> None:
            self._started += 1

        for engine in self.engines:
            engine.start(Settings(), started)
        await _until(lambda: self._started == len(self.engines))

    async def make_groups(self, count: int) -> None:
        """Make collections with so many vnodes together, and wait until all have leaders."""
        largest = limits.VNODES_PER_COLLECTION_MAX
        for first in range(0, count, largest):
            last = min(count, first + largest)
            await self._make_collection(f"c{first}", last - first)
            await _until(partial(self._led, last))

    async def _make_collection(self, name: str, vnodes: int) -> None:
        now_ms = self.engines[0].now_ms()
        command = PutCollection(now_ms=now_ms, db="default", name=name, num_vnodes=vnodes)
        answers: list[Any] = []
        asked = 0
        while not any(isinstance(answer, MetaResult) for answer in answers):
            # One of them leads the meta group; the others say that they do not.
            for engine in self.engines:
                engine.propose_meta(command, answers.append)
            asked += len(self.engines)
            await _until(partial(_all_there, answers, asked))

    def _led(self, count: int) -> bool:
        """Whether so many groups, and the meta group, have a leader that serves."""
        serving = [
            vnode.serving for engine in self.engines for vnode in engine.runtime.vnodes.values()
        ]
        return sum(serving) == count + 1

    def asleep(self) -> bool:
        """Whether no replica of any node is ticked."""
        return not any(engine.consensus.sleeping.awake for engine in self.engines)

    async def stop(self) -> None:
        """Stop all in good order, as a node does."""

        def stopped() -> None:
            self._started -= 1

        for engine in self.engines:
            engine.stop(stopped)
        await _until(lambda: not self._started)
        for disk, store in zip(self._disks, self._stores, strict=True):
            disk.close()
            store.close()


def _all_there(answers: list[Any], asked: int) -> bool:
    return len(answers) == asked


async def _until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, "the nodes do not get there"
        await asyncio.sleep(_LOOK_S)


async def _rest(seconds: float) -> tuple[float, float]:
    """Do nothing for a while: CPU time that passed, and time."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return time.process_time() - began_cpu_s, time.perf_counter() - began_s


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


async def _measure(groups: int, seconds: float, *, sleep: bool) -> Cost:
    with tempfile.TemporaryDirectory(prefix="timemachine-bench-") as folder:
        nodes = _Nodes(asyncio.get_running_loop(), Path(folder))
        await nodes.start()
        if sleep:
            await _until(nodes.asleep)
        empty_cpu_s, empty_s = await _rest(seconds / 2)
        before = _anonymous_bytes()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await nodes.make_groups(groups)
        create_s, create_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        if sleep:
            await _until(nodes.asleep)
        asleep_s = time.perf_counter() - began_s
        # What is done once after the birth of a group is done: its due index is looked at.
        await asyncio.sleep(1.0)
        grown = _anonymous_bytes() - before
        frames = nodes.wire.frames
        idle_cpu_s, idle_s = await _rest(seconds)
        frames = nodes.wire.frames - frames
        assert nodes.asleep() or not sleep, "something woke"
        await nodes.stop()
    return Cost(
        idle_cpu_s,
        idle_s,
        empty_cpu_s,
        empty_s,
        frames,
        create_s,
        create_cpu_s,
        asleep_s,
        grown,
    )


def _main(groups: int, seconds: float, *, sleep: bool) -> None:
    # As a node does it: `node/wiring.py`.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    if sleep:
        cost = uvloop.run(_measure(groups, seconds, sleep=True))
    else:
        with patch.object(Sleeping, "_announce", lambda *_: None):
            cost = uvloop.run(_measure(groups, seconds, sleep=False))
    print(msgspec.json.encode(cost).decode(), flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), sleep=sys.argv[3:] != ["awake"])
