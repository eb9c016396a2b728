"""Keys sort as the numbers and names in them do, and no table reaches into another."""

import random

import pytest

from timemachine.storage import keys as k
from timemachine.storage.keys import ReplicaKeys

TABLES = "hlsbcjmdwirtaykfqxnopvzENAOT"


def test_every_table_has_its_own_letter() -> None:
    """No two tables share a range, and the list above is complete."""
    own = ReplicaKeys(7)
    prefixes = {getattr(own, name) for name in ReplicaKeys.__slots__ if not name.endswith("stop")}
    letters = prefixes - {own.prefix, own.fence}
    assert sorted(TABLES) == sorted(row[len(own.prefix) :].decode() for row in letters)
    assert len(TABLES) == len(set(TABLES))


def test_due_rows_sort_by_time_and_then_by_id() -> None:
    """The order of bytes is the order in which jobs are due."""
    rng = random.Random(3)
    due = [(rng.choice([0, 1, 255, 256, 1 << 40, (1 << 48) - 1]), f"j{n}ü") for n in range(50)]
    rows = sorted(ReplicaKeys(7).due + k.u64(due_ms) + name.encode() for due_ms, name in due)
    at = len(ReplicaKeys(7).due)
    read = [(k.read_u64(row[at : at + 8]), row[at + 8 :].decode()) for row in rows]
    assert sorted(due, key=lambda pair: (pair[0], pair[1].encode())) == read


@pytest.mark.parametrize("incarnation", [1, 2, 255, 256, 65_535, (1 << 32) - 3])
def test_a_replica_is_one_range(incarnation: int) -> None:
    """Every key of a replica lies between its prefix and its stop; the neighbours' do not."""
    own = ReplicaKeys(incarnation)
    for letter in TABLES:
        for row in (own.prefix + letter.encode(), own.prefix + letter.encode() + b"\xff" * 40):
            assert own.prefix <= row < own.fence < own.stop
    assert own.stop <= ReplicaKeys(incarnation + 1).prefix
    assert ReplicaKeys(incarnation - 1).stop <= own.prefix


def test_fences_stand_between_tables() -> None:
    """Behind what they fence, before what comes next, and in no table."""
    own = ReplicaKeys(3)
    tables = [own.prefix + letter.encode() for letter in TABLES]
    assert len(own.fences) == len(set(own.fences)) == 5
    for fenced, fence in zip((own.alias, own.due, own.finished, own.tag), own.fences, strict=False):
        assert fenced + b"\xff" * 60 < fence < min(each for each in tables if each > fenced)
    assert not [table for table in tables if any(each.startswith(table) for each in own.fences)]


def test_ranges_of_an_index_hold_their_own_rows_only() -> None:
    """A route's, a state's and a job's rows, also beside numbers and names that begin alike."""
    own = ReplicaKeys(3)
    for uid in (0, 1, 255, 256, (1 << 64) - 2):
        for range_of, prefix in ((own.waiting_range, own.waiting), (own.route_range, own.route)):
            start, stop = range_of(uid)
            assert start <= prefix + k.u64(uid) + b"\xff" * 60 < stop
            assert stop <= prefix + k.u64(uid + 1)
    start, stop = own.state_range(4)
    assert start <= own.state_listing + b"\x04" + b"\xff" * 60 < stop <= own.state_listing + b"\x05"
    start, stop = own.attempts_range(b"job")
    assert start <= own.attempts + b"job\0" + b"\xff" * 4 < stop
    for other in (b"jo", b"job1", b"job ", b"joc"):
        assert not start <= own.attempts + other + b"\0" + b"\0" * 4 < stop


def test_a_due_value_is_read_as_it_was_written() -> None:
    """What a claim needs to know."""
    uid = bytes(range(16))
    for attempts in (0, 12, (1 << 31) - 1):
        for value in (k.due_value, k.ordered_value):
            row = value(1 << 63, 7, attempts, uid)
            assert (1 << 63, 7, attempts, uid) == k.read_due_value(row)
            assert k.is_ordered(row) == (value is k.ordered_value)


def test_node_rows_lie_outside_of_every_replica() -> None:
    """Incarnation 0 is the node's own; a group is found again from its key."""
    row = k.group_key(1 << 40, 17)
    assert ((1 << 40), 17) == k.group_of_key(row)
    assert k.GROUPS_START <= row < k.GROUPS_STOP
    assert k.ERASE_START <= k.erase_key((1 << 32) - 1) < k.ERASE_STOP
    for node_row in (row, k.INCARNATION_KEY, k.erase_key(9)):
        assert node_row < ReplicaKeys(1).prefix


def test_the_key_after_a_prefix() -> None:
    """A byte of 255 carries over."""
    assert b"\x01\x00" == k.after_prefix(b"\x00\xff")
