"""Raft: commits of three replicas in this process, beside appends of the same entries alone.

All of it is done by one thread that waits for nothing. So seconds are those of its CPU time, and
what else runs on the machine has little part in them.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.tools import median, report
from timemachine.frames import Frame, GroupMessage, read_frame, write_frame
from timemachine.raft import (
    Config,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    RawNode,
    Snapshot,
    SnapshotMetadata,
)

_IN_FLIGHT = 64
_COMMAND = b"c" * 200
_VOTERS = (1, 2, 3)


class _Replica:
    """A replica and its host, whose disk is memory; `applied` counts commands."""

    def __init__(self, id: int) -> None:
        self.storage = MemoryStorage()
        members = SnapshotMetadata(conf_state=ConfState(voters=_VOTERS))
        self.storage.apply_snapshot(Snapshot(metadata=members))
        self.node = RawNode(Config(id=id), self.storage)
        self.applied = 0

    def cycle(self) -> Sequence[Message]:
        """Do a host's duties for one Ready; returns what is to be sent."""
        ready = self.node.ready()
        self.storage.append(ready.entries)
        if ready.hard_state is not None:
            self.storage.set_hard_state(ready.hard_state)
        for entry in ready.committed_entries:
            self.applied += bool(entry.data)  # the empty entry is the leader's own
        self.node.advance()
        return ready.messages


_Replicas = dict[int, _Replica]
_Deliver = Callable[[_Replicas, Sequence[Message]], None]


def _as_they_are(replicas: _Replicas, messages: Sequence[Message]) -> None:
    """Hand messages over."""
    for message in messages:
        replicas[message.to].node.step(message)


def _as_frames(replicas: _Replicas, messages: Sequence[Message]) -> None:
    """Encode and decode messages on their way: a frame for each receiver, as nodes send them."""
    frames: dict[int, list[GroupMessage]] = defaultdict(list)
    for message in messages:
        frames[message.to].append(GroupMessage(1, 0, message))
    for to, parts in frames.items():
        frame = read_frame(write_frame(Frame(parts[0].message.from_, 1, parts)))
        for part in frame.messages:
            replicas[to].node.step(part.message)


def _commits_per_s(count: int, deliver: _Deliver) -> float:
    """How fast the leader applies so many commands, `_IN_FLIGHT` of them on their way."""
    replicas = {voter: _Replica(voter) for voter in _VOTERS}
    leader = replicas[1]

    def settle() -> bool:
        """Let each replica that has something to do make one cycle; whether one had."""
        busy = [replica for replica in replicas.values() if replica.node.has_ready()]
        for replica in busy:
            deliver(replicas, replica.cycle())
        return bool(busy)

    leader.node.campaign()
    while settle():
        pass
    assert leader.node.leads
    proposed = 0
    began_s = time.process_time()
    while leader.applied < count:
        for _ in range(min(count - proposed, _IN_FLIGHT - (proposed - leader.applied))):
            leader.node.propose(_COMMAND)
            proposed += 1
        settle()
    took_s = time.process_time() - began_s
    while settle():
        pass
    assert [count] * len(_VOTERS) == [replica.applied for replica in replicas.values()]
    return count / took_s


def _appends_per_s(count: int) -> float:
    """How fast three storages and three lists take entries that nobody has to agree on."""
    storages = [MemoryStorage() for _ in _VOTERS]
    machines: list[list[Entry]] = [[] for _ in _VOTERS]
    began_s = time.process_time()
    for first in range(1, count + 1, _IN_FLIGHT):
        last = min(count, first + _IN_FLIGHT - 1)
        entries = [Entry(1, index, data=_COMMAND) for index in range(first, last + 1)]
        for storage, machine in zip(storages, machines, strict=True):
            storage.append(entries)
            storage.set_hard_state(HardState(1, 1, last))
            for entry in entries:
                machine.append(entry)
    return count / (time.process_time() - began_s)


def run(*, quick: bool) -> None:
    """Measure, five times side by side."""
    rounds, count = (3, 20_000) if quick else (5, 200_000)
    ways: dict[str, _Deliver] = {"as they are": _as_they_are, "as frames": _as_frames}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        bare = _appends_per_s(count)
        for name, deliver in ways.items():
            rate = _commits_per_s(count, deliver)
            rates[name].append(rate)
            ratios[name].append(bare / rate)
        times = ", ".join(f"{name} {1e6 / rates[name][-1]:.1f}" for name in ways)
        print(f"  round: bare append {1e6 / bare:.2f} us; commit, messages {times} us")
    for name in ways:
        rate_text, ratio = f"{median(rates[name]):.0f} commits/s", f"{median(ratios[name]):.0f}"
        report(f"raft, messages {name}: rate", rate_text, "-", holds=None)
        report(f"raft, messages {name}: times a bare append", ratio, "-", holds=None)
