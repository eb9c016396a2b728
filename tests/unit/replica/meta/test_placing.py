"""Placements in meta: made with a collection, changed from the version that was seen."""

import pytest

from tests.unit.replica.meta.driven import DrivenMeta
from timemachine import codec
from timemachine.group import node_of, replica_id
from timemachine.model import Collection, Placement
from timemachine.placement import Move
from timemachine.replica.meta import (
    DeleteCollection,
    DeleteDatabase,
    Place,
    PutCollection,
    Removed,
    Retire,
)


def _made(nodes: int = 3, vnodes: int = 3, replicas: int = 3) -> tuple[DrivenMeta, int]:
    meta = DrivenMeta(nodes)
    result = meta.apply(
        PutCollection(now_ms=2, db="default", name="c", num_vnodes=vnodes, replicas=replicas)
    )
    assert result.collection is not None
    return meta, result.collection.uid


def _place(meta: DrivenMeta, *moves: Move) -> str | None:
    return meta.apply(Place(now_ms=3, moves=list(moves))).code


def test_a_collection_is_placed_when_it_is_made() -> None:
    """Each vnode has a row of its own; who begins is who is wanted."""
    meta, uid = _made()
    placements = meta.machine.placements_of(meta.machine.collections_by_uid[uid])
    assert [0, 1, 2] == [each.index for each in placements]
    assert all(each.born == each.replicas and set(each.born) == {1, 2, 3} for each in placements)
    assert {1, 2, 3} == {each.replicas[0] for each in placements}
    assert meta.reloaded().placements == meta.machine.placements


def test_a_vnode_from_before_there_was_placement_is_on_node_one() -> None:
    """It has no row until somebody moves it."""
    meta = DrivenMeta(2)
    meta.machine.keep(
        Collection(
            uid=50,
            db="default",
            name="old",
            num_vnodes=2,
            replicas=3,
            history_retention_ms=0,
            created_ms=0,
        )
    )
    assert meta.machine.placement(50, 1) == Placement(50, 1, (1,), (1,))
    assert not meta.machine.placements
    assert _place(meta, Move(50, 1, 1, (2,))) is None
    assert meta.machine.placements == {(50, 1): Placement(50, 1, (1,), (1, 2), version=2)}


@pytest.mark.parametrize("command", [
    DeleteCollection(now_ms=5, db="default", name="c"), DeleteDatabase(now_ms=5, name="default"),
])  # fmt: skip
def test_placements_go_with_their_collection(
    command: DeleteCollection | DeleteDatabase,
) -> None:
    """However it goes."""
    meta, _ = _made()
    meta.apply(command)
    assert {} == meta.machine.placements == meta.reloaded().placements
    assert {} == meta.machine.collections_by_uid


def test_two_placers_do_not_mix() -> None:
    """The second one did not see what the first one did."""
    meta, uid = _made(nodes=4, replicas=2)
    placement = meta.machine.placement(uid, 0)
    free = next(number for number in (1, 2, 3, 4) if number not in placement.replicas)
    assert _place(meta, Move(uid, 0, 1, (free,))) is None
    assert _place(meta, Move(uid, 0, 1, (free,))) == "version_moved"
    assert meta.machine.placement(uid, 0).replicas == (*placement.replicas, free)


@pytest.mark.parametrize("move", [
    (0, 1, (1,), ()),  # there already
    (0, 1, (9,), ()),  # no member
    (0, 1, (), (9,)),  # no replica
    (0, 1, (), (1, 2, 3)),  # nothing would be left
    (3, 1, (), (1,)),  # no such vnode
    (0, 1, (4, 4), ()),
])  # fmt: skip
def test_a_move_that_is_not_possible_is_void(
    move: tuple[int, int, tuple[int, ...], tuple[int, ...]],
) -> None:
    """Others of the same command are done."""
    meta, uid = _made(nodes=4)
    meta.machine.keep(Placement(uid, 0, (1, 2, 3), (1, 2, 3)))
    meta.machine.keep(Placement(uid, 1, (1, 2, 3), (1, 2, 3)))
    assert _place(meta, Move(uid, *move), Move(uid, 1, 1, (4,), (1,))) is None
    assert meta.machine.placement(uid, 0) == Placement(uid, 0, (1, 2, 3), (1, 2, 3))
    changed = meta.machine.placement(uid, 1)
    assert ((2, 3, 1 << 16 | 4), (1,)) == (changed.replicas, changed.removing)


def test_an_id_that_left_never_comes_back() -> None:
    """A node that had a replica gets one of another generation, also after that has gone."""
    meta, uid = _made()
    ids = set(meta.machine.placement(uid, 0).replicas)
    for _ in range(4):
        placement = meta.machine.placement(uid, 0)
        gone = next(each for each in placement.replicas if each & 0xFFFF == 2)
        assert _place(meta, Move(uid, 0, placement.version, (), (gone,))) is None
        assert meta.apply(Removed(now_ms=4, uid=uid, index=0, replica=gone)).kind == "replaced"
        placement = meta.machine.placement(uid, 0)
        assert () == placement.removing
        assert _place(meta, Move(uid, 0, placement.version, (2,))) is None
        new = meta.machine.placement(uid, 0).replicas[-1]
        assert new not in ids
        ids.add(new)


def test_a_damaged_replica_is_followed_by_another_on_its_node() -> None:
    """A repeat changes nothing; a sole one has nobody to learn from."""
    meta, uid = _made()
    command = Retire(now_ms=4, uid=uid, index=1, replica=2)
    assert meta.apply(command).kind == "replaced"
    placement = meta.machine.placement(uid, 1)
    assert {1, 3, 1 << 16 | 2} == set(placement.replicas)
    assert (2,) == placement.removing
    assert meta.apply(command).kind == "unchanged"
    again = Retire(now_ms=4, uid=uid, index=1, replica=1 << 16 | 2)
    assert meta.apply(again).kind == "replaced"
    assert 2 << 16 | 2 in meta.machine.placement(uid, 1).replicas
    assert meta.apply(Retire(now_ms=4, uid=9, index=1, replica=2)).code == "not_found"
    alone, sole = _made(nodes=1)
    assert alone.apply(Retire(now_ms=4, uid=sole, index=0, replica=1)).code == "sole_replica"


def test_a_second_replica_is_not_retired_before_the_first_has_its_successor() -> None:
    """No majority would be left that is whole; afterwards it may be."""
    meta, uid = _made()
    before = set(meta.machine.placement(uid, 0).replicas)
    assert meta.apply(Retire(now_ms=4, uid=uid, index=0, replica=2)).kind == "replaced"
    refused = Retire(now_ms=5, uid=uid, index=0, replica=3)
    assert meta.apply(refused).code == "no_majority"
    assert before - {2} | {1 << 16 | 2} == set(meta.machine.placement(uid, 0).replicas)
    # Another vnode is another matter.
    assert meta.apply(Retire(now_ms=5, uid=uid, index=1, replica=3)).kind == "replaced"
    assert meta.apply(Removed(now_ms=6, uid=uid, index=0, replica=2)).kind == "replaced"
    assert meta.apply(refused).kind == "replaced"


def test_who_was_removed_and_forgotten_is_as_lost_as_before() -> None:
    """Named regression: then a second replica was retired while the first voted in vain."""
    meta, uid = _made(nodes=4)
    place = meta.machine.placement(uid, 0)
    gone, other, _ = map(node_of, place.replicas)
    (free,) = {1, 2, 3, 4} - {node_of(each) for each in place.replicas}
    assert _place(meta, Move(uid, 0, 1, (free,), (replica_id(gone),))) is None
    meta.machine.drop(meta.machine.nodes[f"n{gone}"])
    assert meta.apply(Retire(now_ms=5, uid=uid, index=0, replica=other)).code == "no_majority"


def test_replicas_that_are_leaving_are_bounded() -> None:
    """Where nobody leads the group none leaves it."""
    meta, uid = _made()
    codes = set()
    for _ in range(20):
        replica = meta.machine.placement(uid, 0).replicas[-1]
        codes.add(meta.apply(Retire(now_ms=4, uid=uid, index=0, replica=replica)).code)
    assert {None, "limit_reached"} == codes


def test_removed_is_told_any_number_of_times() -> None:
    """Leaders tell it again."""
    meta, uid = _made()
    assert meta.apply(Removed(now_ms=4, uid=uid, index=0, replica=2)).kind == "unchanged"
    assert meta.apply(Removed(now_ms=4, uid=uid, index=7, replica=2)).code == "not_found"
    meta.apply(Retire(now_ms=4, uid=uid, index=0, replica=2))
    assert meta.apply(Removed(now_ms=4, uid=uid, index=0, replica=2)).kind == "replaced"
    assert meta.machine.placement(uid, 0).removing == ()


def test_an_old_placement_is_read_with_defaults() -> None:
    """Fields come at the end."""
    meta = DrivenMeta(0)
    row = meta.keys.record + b"p" + bytes(12)
    meta.machine.load(None, [(row, codec.encode([5, 2]))])
    assert {(5, 2): Placement(5, 2)} == meta.machine.placements
