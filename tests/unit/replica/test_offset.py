"""The offset never passes a row, whichever leader asks, and however late what it asked is applied.

A leader asks on what it has seen, and its command may be applied after commands of its own that
came later, of the next leader, or of nobody at all. Here every order of a few steps is tried.
"""

from itertools import product

import pytest

from tests.unit.replica.machines import Driven
from timemachine.model import AttemptStatus
from timemachine.replica import commands as c
from timemachine.storage.keys import u64

_STEPS = ("insert", "insert early", "settle", "old looks", "old's is applied", "new raises")


def _rows(log: Driven) -> list[bytes]:
    return [key[len(log.keys.due) :] for key, _ in log.store.scan(log.keys.due, log.keys.due_stop)]


def _raised(log: Driven) -> c.MoveOffset:
    """What a leader that has seen all so far would ask for: to its lowest row, else far ahead."""
    low = _rows(log)[0] if _rows(log) else u64(1_000)
    due_ms = int.from_bytes(low[:8], "big")
    return c.MoveOffset(now_ms=5, due_ms=due_ms, job_id=low[8:].decode(), seen_index=log.index)


def _run(steps: tuple[str, ...]) -> None:
    log = Driven()
    log.put("first", 300)
    asked: list[c.MoveOffset] = []
    for number, step in enumerate(steps, 1):
        if step.startswith("insert"):
            log.put(f"job-{number}", 200 - number if step == "insert early" else 400 + number)
        elif step == "settle" and _rows(log):
            job_id = _rows(log)[0][8:].decode()
            log.settle(job_id, log.claim(job_id), AttemptStatus.SUCCEEDED)
        elif step == "old looks":
            asked.append(_raised(log))
        elif step == "old's is applied" and asked:
            log.term = 2  # it is in the log of the new leader, which commits it
            log.apply(asked.pop(0))
        elif step == "new raises":
            log.apply(_raised(log))
        state = log.machine.state
        offset = u64(state.offset_due_ms) + state.offset_job_id.encode()
        assert all(row >= offset for row in _rows(log)), f"a row was passed by: {steps}"


@pytest.mark.parametrize("first", _STEPS)
def test_no_order_of_steps_passes_a_row(first: str) -> None:
    """All orders of five steps, an old leader's command being applied at any later point."""
    for rest in product(_STEPS, repeat=4):
        _run((first, *rest))


def test_a_move_of_a_deposed_leader_cannot_undo_what_it_had_not_seen() -> None:
    """A move of the new leader resets what is remembered of inserts; the older one is then void."""
    log = Driven()
    log.put("far", 500)
    old = _raised(log)
    log.put("near", 100)
    log.term = 2
    log.apply(_raised(log))
    assert 100 == log.machine.state.offset_due_ms
    log.apply(old)
    assert 100 == log.machine.state.offset_due_ms


def test_a_leader_that_saw_all_raises_it_as_far_as_it_asked() -> None:
    """Also where the inserts since the last move are lower: it knows that they are settled."""
    log = Driven()
    log.put("near", 100)
    log.put("far", 500)
    log.settle("near", log.claim("near"), AttemptStatus.SUCCEEDED)
    log.apply(_raised(log))
    assert (500, "far") == (log.machine.state.offset_due_ms, log.machine.state.offset_job_id)
