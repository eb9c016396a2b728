"""A program that all packets between nodes pass through: late, twice, overtaken, or never.

    python -m tests.cluster.switch DEVICE SEED

DEVICE is an inherited descriptor of a TUN device. What it reads there it writes there again, which
is how a packet arrives. Each line of standard input is a Sky in JSON that holds from now on; the
answer is a line of standard output with what has been done so far. It ends with standard input.
"""

import heapq
import json
import os
import random
import selectors
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

_PACKET_BYTES_MAX: Final = 65_536
_READ_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Sky:
    """What becomes of packets. Each is late by `delay_ms` and up to `jitter_ms` more.

    loss   the share that never arrives
    twice  the share that arrives twice, each copy with a delay of its own
    held   the share that is held back for as long again, so that others overtake it
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    twice: float = 0.0
    held: float = 0.0


@dataclass
class Seen:
    """How many packets came, were lost, were doubled, and were overtaken by a later one."""

    came: int = 0
    lost: int = 0
    doubled: int = 0
    overtaken: int = 0


class Packets:
    """The packets on their way, soonest first. Times are seconds on any clock."""

    def __init__(self, dice: random.Random) -> None:
        self.sky = Sky()
        self.seen = Seen()
        self._dice = dice
        self._way: list[tuple[float, int, bytes]] = []
        self._newest = 0

    def send(self, packet: bytes, now_s: float) -> None:
        """A packet has been sent."""
        self.seen.came += 1
        if self._drawn(self.sky.loss):
            self.seen.lost += 1
            return
        self._hold(packet, now_s)
        if self._drawn(self.sky.twice):
            self.seen.doubled += 1
            self._hold(packet, now_s)

    def next_s(self) -> float | None:
        """When the next one arrives, if any is on its way."""
        return self._way[0][0] if self._way else None

    def arrived(self, now_s: float) -> list[bytes]:
        """Those that arrive until now."""
        found = []
        while self._way and self._way[0][0] <= now_s:
            _, number, packet = heapq.heappop(self._way)
            self.seen.overtaken += number < self._newest
            self._newest = max(self._newest, number)
            found.append(packet)
        return found

    def _hold(self, packet: bytes, now_s: float) -> None:
        sky = self.sky
        delay_ms = sky.delay_ms + sky.jitter_ms * self._dice.random()
        if self._drawn(sky.held):
            delay_ms += sky.delay_ms + sky.jitter_ms
        heapq.heappush(self._way, (now_s + delay_ms / 1_000, self.seen.came, packet))

    def _drawn(self, share: float) -> bool:
        return self._dice.random() < share


def _run(device: int, packets: Packets) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(device, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            next_s = packets.next_s()
            wait_s = None if next_s is None else max(0.0, next_s - time.monotonic())
            for key, _ in selector.select(wait_s):
                if key.fd == device:
                    _read(device, packets)
                elif not _obey(packets):
                    return
            for packet in packets.arrived(time.monotonic()):
                os.write(device, packet)


def _read(device: int, packets: Packets) -> None:
    for _ in range(_READ_AT_ONCE):
        try:
            packet = os.read(device, _PACKET_BYTES_MAX)
        except BlockingIOError:
            return
        packets.send(packet, time.monotonic())


def _obey(packets: Packets) -> bool:
    """Take one line; False when there is none any more. Whoever writes waits for the answer."""
    line = sys.stdin.readline()
    if line:
        packets.sky = Sky(**json.loads(line))
        print(json.dumps(asdict(packets.seen)), flush=True)
    return bool(line)


if __name__ == "__main__":
    _run(int(sys.argv[1]), Packets(random.Random(int(sys.argv[2]))))
