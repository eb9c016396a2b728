"""The invariants of consensus beside a real core, in the chaos of `tests.raft.chaos`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from tests.checks.invariants import Invariants
from tests.checks.watching import CoreWatch
from tests.raft import chaos
from timemachine.raft import Config, ConfState, Entry, EntryType, HardState, Message, RawNode, Ready
from timemachine.raft.storage import Compacted, EntryUnavailable

GROUP: Final = "chaos"


class DurableDisk:
    """See Durable: the disks of the chaos are durable at once."""

    def __init__(self, disk: chaos.Disk) -> None:
        self.disk = disk

    def hard_state(self) -> HardState:
        return self.disk.initial_state()[0]

    def base(self) -> tuple[int, int]:
        index = self.disk.first_index() - 1
        return index, self.disk.term(index)

    def has(self, index: int, term: int) -> bool:
        try:
            return self.disk.term(index) == term
        except Compacted:
            return True
        except EntryUnavailable:
            return False


class JudgedNode(RawNode):
    """A core whose every step is judged."""

    __slots__ = ("_disk", "_watch")

    world: ClassVar["JudgedChaos"]

    def __init__(self, config: Config, storage: chaos.Disk) -> None:
        super().__init__(config, storage)
        self._disk = storage
        self._watch = CoreWatch(
            self.world.invariants, config.id, GROUP, self._raft, DurableDisk(storage)
        )

    def _looked(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        finally:
            self._watch.look()

    def tick(self) -> None:
        self._looked(super().tick)

    def campaign(self) -> None:
        self._looked(super().campaign)

    def step(self, message: Message) -> None:
        self._looked(super().step, message)

    def apply_conf_change(self, change: Any) -> ConfState:
        state = super().apply_conf_change(change)
        self._watch.look()
        return state

    def advance(self) -> None:
        self._looked(super().advance)
        self.world.invariants.synced(self._raft.id, GROUP, self._disk.applied)

    def ready(self) -> Ready:
        ready = super().ready()
        self._watch.handed_out(ready.snapshot, ready.entries)
        return ready


class JudgedHost(chaos.Host):
    """Without threads: the host of the chaos that has them lets a VOTE leave early."""

    def __init__(self, world: chaos.Chaos, id: int, disk: chaos.Disk, threaded: bool) -> None:
        super().__init__(world, id, disk, threaded=False)


class JudgedChaos(chaos.Chaos):
    """A group that is judged. `world` of its nodes is set before any of them is made."""

    def __init__(self, seed: int) -> None:
        self.invariants = Invariants()
        JudgedNode.world = self
        super().__init__(seed)

    def send(self, host: chaos.Host, message: Message) -> None:
        self.invariants.says(host.id, GROUP, message)
        super().send(host, message)

    def check_applied(self, host: chaos.Host, entry: Entry) -> None:
        data = entry.data if entry.type is EntryType.NORMAL else b""
        self.invariants.applied(host.id, GROUP, entry.index, entry.term, data)
        super().check_applied(host, entry)


@contextmanager
def judged(node: type[RawNode] = JudgedNode, host: type[chaos.Host] = JudgedHost) -> Iterator[None]:
    """Groups of the chaos are made of these."""
    chosen: Any = {"RawNode": node, "Host": host}
    before = {name: vars(chaos)[name] for name in chosen}
    try:
        vars(chaos).update(chosen)
        yield
    finally:
        vars(chaos).update(before)
