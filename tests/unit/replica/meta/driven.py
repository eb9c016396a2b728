"""One meta machine for these tests, driven entry by entry."""

from typing import Any

from timemachine import codec
from timemachine.model import Node, Settings
from timemachine.replica.meta import Bootstrap, MetaMachine, MetaResult
from timemachine.storage.keys import ReplicaKeys, after_prefix
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

HASH = b"h" * 32


def node(number: int, *, host: str | None = None, zone: str = "", **more: Any) -> Node:
    """A node of its own host, unless that is given."""
    return Node(
        id=f"n{number}",
        name="",
        http="",
        rpc=f"{host or f'10.0.0.{number}'}:9001",
        zone=zone,
        version="1",
        number=number,
        **more,
    )


class DrivenMeta:
    """A meta machine over a memory store; it begins with so many nodes, 0 for none."""

    def __init__(self, nodes: int = 1) -> None:
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.keys = ReplicaKeys(7)
        self.machine = MetaMachine(self.keys, self.overlay)
        if nodes:
            others = [node(number) for number in range(2, nodes + 1)]
            self.apply(Bootstrap(now_ms=1, node=node(1), settings=Settings(), nodes=others))

    def apply(self, command: Any) -> MetaResult:
        """Apply an entry of one command, make it durable, and return its result."""
        index = self.machine.applied_index + 1
        (result,) = self.machine.apply(index, 1, codec.encode([command]), None)
        self.machine.flush()
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        assert isinstance(result, MetaResult)
        return result

    def reloaded(self) -> MetaMachine:
        """A machine that has read these rows."""
        machine = MetaMachine(self.keys, self.overlay)
        record = self.keys.record
        rows = self.store.scan(record, after_prefix(record), 100_000)
        machine.load(self.store.get(self.keys.state), rows)
        return machine
