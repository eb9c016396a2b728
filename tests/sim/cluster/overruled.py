"""Which nodes' logs are overruled: entries of theirs are replaced by fewer others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.sim.cluster.members import Members
from tests.sim.mutations.planting import swapped
from timemachine.logrows import LogRows
from timemachine.raft import Entry


@contextmanager
def watched(members: Members, overruled: Callable[[int], None]) -> Iterator[None]:
    """Tell the number of each node that this happens to, when it is being written."""
    write = LogRows.write

    def told(self: LogRows, entries: Sequence[Entry]) -> None:
        if entries[-1].index < self.last:
            for number, member in members.members.items():
                engine = member.engine
                if engine is not None and any(
                    vnode._log is self for vnode in engine.runtime.vnodes.values()
                ):
                    overruled(number)
        write(self, entries)

    with swapped(LogRows, "write", told):
        yield
