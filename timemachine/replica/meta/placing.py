"""Which replicas each vnode is to have: from its birth on, and through every change.

A change names the nodes that are to come and the replicas that are to go. The ids of those that
come are given here, where their generation is known: an id that has left a group never comes back.
"""

from collections.abc import Sequence

import msgspec

from timemachine import limits
from timemachine.group import node_of, replica_id
from timemachine.model import Collection, Placement
from timemachine.placement import Move, initial, may_retire, members, present
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables


def place_new(tables: Tables, collection: Collection) -> None:
    """Place the vnodes of a collection that is being created, over the members known now."""
    others = [each for each in tables.all_placements() if each.uid != collection.uid]
    for placement in initial(collection, tables.nodes.values(), others):
        tables.keep(placement)


def place(tables: Tables, command: c.Place) -> MetaResult:
    """Do the moves that are still possible; `version_moved` if none was."""
    assert len(command.moves) <= limits.MOVES_PER_COMMAND_MAX
    moved = do_moves(tables, command.moves)
    return MetaResult(kind="replaced") if any(moved) else refused("version_moved")


def do_moves(tables: Tables, moves: Sequence[Move]) -> list[bool]:
    """Do moves; which of them were possible."""
    there = members(tables.nodes.values())
    return [_move(tables, move, there) for move in moves]


def _move(tables: Tables, move: Move, there: frozenset[int]) -> bool:
    """Do one move, unless it is void: made from another version, or from other members.

    A replica that is still to go may be the one that all others are to be copied from. Its node
    takes up no other one before that: it would erase this one.
    """
    before = _found(tables, move.uid, move.index)
    if before is None or before.version != move.version:
        return False
    stay = {node_of(each) for each in before.replicas if each not in move.remove}
    leaving = {node_of(each) for each in before.removing}
    if (
        not there.issuperset(move.add)
        or not leaving.isdisjoint(move.add)
        or not set(before.replicas).issuperset(move.remove)
        or len(stay.union(move.add)) != len(stay) + len(move.add)
        or not 0 < len(stay) + len(move.add) <= limits.REPLICAS_MAX
    ):
        return False
    _change(tables, before, move.add, move.remove)
    return True


def removed(tables: Tables, command: c.Removed) -> MetaResult:
    """A replica has left its group."""
    placement = _found(tables, command.uid, command.index)
    if placement is None:
        return refused("not_found")
    if command.replica not in placement.removing:
        return MetaResult(kind="unchanged")
    tables.keep(
        msgspec.structs.replace(
            placement,
            removing=tuple(each for each in placement.removing if each != command.replica),
            version=placement.version + 1,
        )
    )
    return MetaResult(kind="replaced")


def retire(tables: Tables, command: c.Retire) -> MetaResult:
    """Replace a damaged replica by another on its node.

    Not a sole one, which has nobody to learn from; nor one without which no majority would be left
    that is whole: the group could not take another in, and what is left of this one may be all
    that there is of something. It may be asked for again when others have come.
    """
    placement = _found(tables, command.uid, command.index)
    if placement is None:
        return refused("not_found")
    if command.replica not in placement.replicas:
        return MetaResult(kind="unchanged")
    if len(placement.replicas) == 1:
        return refused("sole_replica")
    # Removed nodes are forgotten some day: who is not there is gone.
    gone = set(map(node_of, placement.removing)) - present(tables.nodes.values())
    if not may_retire(placement, command.replica, gone):
        return refused("no_majority")
    if len(placement.removing) >= limits.REPLICAS_LEAVING_MAX:
        return refused("limit_reached")
    _change(tables, placement, (node_of(command.replica),), (command.replica,))
    return MetaResult(kind="replaced")


def replace_node(tables: Tables, lost: int, by: int) -> None:
    """A node takes the place of another, whose disk is lost, in every group.

    Not where that had the sole replica: there is nothing to copy, and an empty one must not pass
    for it. Such a vnode stays where it was, and nobody leads it. But one that was on its way to the
    lost node is copied from where it was: that one is still to go.
    """
    there = present(tables.nodes.values())
    for placement in list(tables.placements.values()):
        gone = tuple(each for each in placement.replicas if node_of(each) == lost)
        leaving = there.intersection(map(node_of, placement.removing))
        if gone and (len(placement.replicas) > 1 or leaving):
            _change(tables, placement, (by,), gone)


def _found(tables: Tables, uid: int, index: int) -> Placement | None:
    collection = tables.collections_by_uid.get(uid)
    if collection is None or not 0 <= index < collection.num_vnodes:
        return None
    return tables.placement(uid, index)


def _change(tables: Tables, before: Placement, add: tuple[int, ...], gone: tuple[int, ...]) -> None:
    """Have replicas of the nodes `add` come, and the replicas `gone` go.

    The generation rises with each replica that goes, so that no id is given twice: that of one
    that goes is of a lower generation than all that come from then on.
    """
    generation = before.generation + bool(gone)
    stay = tuple(each for each in before.replicas if each not in gone)
    tables.keep(
        msgspec.structs.replace(
            before,
            replicas=stay + tuple(replica_id(node, generation) for node in add),
            removing=before.removing + gone,
            version=before.version + 1,
            generation=generation,
        )
    )
