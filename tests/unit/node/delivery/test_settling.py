"""Settles of one turn become commands."""

from types import SimpleNamespace
from typing import Any

from node.delivery.settling import Settles
from tests.sim.world import SimWorld
from tests.unit.delivery.made import head
from timemachine import codec, limits
from timemachine.delivery.window import Window
from timemachine.replica.commands import Settle, SettleItem


def _settle(number: int, record: bytes) -> SettleItem:
    return SettleItem(f"j{number}", b"u" * 16, 1, 1, 1, 1, record)


def test_long_answers_of_one_turn_are_cut_to_entries() -> None:
    """500 answers of 16 KiB that came together were one command of 8 MB and more."""
    proposed: list[Settle] = []
    runtime: Any = SimpleNamespace(propose=lambda _, command, *__: proposed.append(command))
    settles = Settles(
        Window(lambda: None),
        SimWorld(1),
        runtime,
        node_id="n",
        disable_route=lambda _: None,
        flushed=lambda: None,
        late=lambda _, __: None,
        waits=SimpleNamespace(),  # type: ignore[arg-type]
        breakers=SimpleNamespace(),  # type: ignore[arg-type]
        failures=SimpleNamespace(),  # type: ignore[arg-type]
    )
    of = head()
    records = [b"x" * limits.ATTEMPT_BODY_BYTES_MAX] * 500 + [b"y"] * 1_200
    items = [_settle(number, record) for number, record in enumerate(records)]
    for item in items:
        settles.add(of, item)
    settles.flush()
    assert items == [item for command in proposed for item in command.items]
    for command in proposed:
        assert len(command.items) <= limits.CLAIMS_PER_COMMAND_MAX
        assert len(codec.encode([command])) < limits.ENTRY_BYTES_MAX
    assert len(proposed) < 500 // (limits.ENTRY_BYTES_TARGET // limits.ATTEMPT_BODY_BYTES_MAX) + 6
