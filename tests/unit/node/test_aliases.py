"""Aliases of jobs that are gone are forgotten as fast as jobs are purged."""

from types import SimpleNamespace
from typing import Any

from node.aliases import Aliases
from node.gathering.questions import MissingJobs
from tests.sim.world import SimWorld
from timemachine import codec, forgetting, limits
from timemachine.replica.records import Alias
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore

_PURGED = forgetting._JOBS
"""Jobs that one visit to a vnode purges, in `Ended.look`."""


class _Vnode:
    """A vnode of as many aliases as two visits purge jobs, none of which is there any more."""

    group = (1, 0)
    serving = True

    def __init__(self) -> None:
        self.keys = ReplicaKeys(7)
        self.store = MemoryStore()
        alias = codec.encode(Alias("k", 1))
        rows: dict[bytes, bytes | None] = {
            self.keys.alias + b"%05d" % number: alias for number in range(2 * _PURGED)
        }
        self.store.write(self.store.prepare(rows))


def test_a_visit_looks_at_as_many_aliases_as_it_purges_jobs() -> None:
    """Named regression: it was a tenth, so aliases of a busy collection grew without end."""
    vnode, world = _Vnode(), SimWorld(1)
    told: list[Any] = []
    parts: list[Any] = []

    def ask(question: MissingJobs, _: Any, done: Any) -> None:
        here: Any = SimpleNamespace(store=vnode.store)
        nodes_vnodes: Any = [vnode]
        parts.extend(question.steps(here, nodes_vnodes))
        done(question.merge(parts[-1:]))

    runtime: Any = SimpleNamespace(
        working=True, holds=lambda _: True, propose=lambda _, command: told.append(command)
    )
    gathering: Any = SimpleNamespace(ask=ask)
    collections: Any = {1: SimpleNamespace(num_vnodes=1)}
    aliases = Aliases(world, vnode.store, runtime, gathering, collections)
    fake: Any = vnode
    aliases.look(fake)
    assert [_PURGED] == [len(each.items) for each in told]
    assert _PURGED == len({each.job_id for each in told[0].items})
    assert len(parts) > 1, "the loop gets its turn between"
    assert {None} == set(parts[:-1])
    worst = limits.JOB_ID_BYTES_MAX + limits.ORDERING_KEY_BYTES_MAX + 32
    assert worst * _PURGED < limits.COMMAND_BYTES_MAX
