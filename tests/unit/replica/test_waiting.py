"""Seals: what the log says about routes that were closed."""

from tests.unit.replica.machines import Driven
from timemachine import codec
from timemachine.replica import commands as c
from timemachine.replica.machine import read_commands
from timemachine.replica.records import MachineState, read_state


def test_a_seal_only_rises() -> None:
    """A leader that knows less than one before cannot take its seal back."""
    driven = Driven()
    driven.apply(c.Seal(now_ms=1, meta_index=7), c.Seal(now_ms=1, meta_index=3))
    assert 7 == driven.machine.state.sealed
    driven.apply(c.Seal(now_ms=2, meta_index=9))
    assert 9 == driven.machine.state.sealed


def test_a_seal_is_kept_in_the_machines_row() -> None:
    """So snapshots carry it, and a start reads it."""
    driven = Driven()
    driven.apply(c.Seal(now_ms=1, meta_index=7))
    row = driven.store.get(driven.keys.state)
    assert row is not None
    assert 7 == read_state(row).sealed


def test_a_row_from_before_there_were_seals_has_none() -> None:
    """What a node has stored before is read."""
    before = bytes.fromhex("01" + "99" + "0502" + "0a" + "a1" + "78" + "0b" + "04" + "03")
    before += bytes.fromhex("97" + "00" * 7 + "02")
    state = MachineState(5, 2, 10, "x", 11, 4, 3, [0] * 7, 2)
    assert codec.encode(state) == before.replace(b"\x99", b"\x9f", 1) + b"\x00" * 6
    assert state == read_state(before)


def test_the_bytes_of_a_seal() -> None:
    """As they stand in logs; any change of them is a change of the format."""
    data = codec.encode([c.Seal(now_ms=1, meta_index=7)])
    assert bytes.fromhex("01" + "91" + "93" + "13" + "07" + "01") == data
    assert [c.Seal(now_ms=1, meta_index=7)] == read_commands(data)
