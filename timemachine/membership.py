"""From the members that a group has to those that it is to have, one safe change after the other.

Who comes first gets the log as a learner, and votes once it has nearly all of it (dissertation
4.2.1): until then it could only hold the others up. Who goes, goes in the same step in which its
substitute begins to vote, through a joint configuration (4.3); but where nobody stays, the first to
come votes before. So a group never has fewer voters
that can be counted on than before, unless fewer are wanted; and then only while a majority of those
that stay is there.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from timemachine import limits
from timemachine.group import replica_id
from timemachine.model import Node, Placement
from timemachine.placement import present
from timemachine.raft import (
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
)

_ADD: Final = ConfChangeType.ADD_NODE
_LEARN: Final = ConfChangeType.ADD_LEARNER
_REMOVE: Final = ConfChangeType.REMOVE_NODE


class Wanted(NamedTuple):
    """The replicas that a group is to have, by id; whoever is in neither is to leave."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()


class Standing(NamedTuple):
    """What a leader knows of a member: up to where it has the log, and if it was heard lately."""

    match: int
    heard: bool


def wanted_of(placement: Placement) -> Wanted:
    """The members that a vnode is to have."""
    return Wanted(placement.replicas)


def wanted_in_meta(nodes: Iterable[Node], going: Collection[int] = ()) -> Wanted:
    """The members that the meta group is to have: every node, the first of them as voters.

    Nodes that are `going` are not to be members: they are about to be removed.
    """
    ids = [replica_id(number) for number in sorted(present(nodes).difference(going))]
    first = limits.META_VOTERS_MAX
    return Wanted(tuple(ids[:first]), tuple(ids[first:]))


def settled(wanted: Wanted, members: ConfState) -> bool:
    """Whether a group has just the members that it is to have."""
    return (
        not members.voters_outgoing
        and set(members.voters) == set(wanted.voters)
        and set(members.learners) == set(wanted.learners)
    )


def is_taken_in(id: int, wanted: Wanted, members: ConfState) -> bool:
    """Whether a replica is in its group as it is to be: who is to vote, votes."""
    return id in members.voters or (id in members.learners and id not in wanted.voters)


def next_change(
    wanted: Wanted, members: ConfState, standings: Mapping[int, Standing], last_index: int
) -> ConfChangeV2 | None:
    """What a leader should propose now, None if nothing, or nothing yet.

    `last_index` is the end of its log. A joint configuration ends by itself before anything else
    can be done.
    """
    if members.voters_outgoing or not wanted.voters:
        return None
    voters, learners = set(members.voters), set(members.learners)
    for each in sorted(learners - set(wanted.voters) - set(wanted.learners)):
        return _change((_REMOVE, each))
    for each in (*wanted.voters, *wanted.learners):
        if each not in voters and each not in learners:
            return _change((_LEARN, each))
    ready = [
        each
        for each in wanted.voters
        if each in learners and _has_caught_up(standings.get(each), last_index)
    ]
    going = sorted(voters - set(wanted.voters))
    if not going:
        return _change((_ADD, ready[0])) if ready else None
    if ready and voters.isdisjoint(wanted.voters):
        # The leader goes as well, and hands over first: to somebody who votes.
        return _change((_ADD, ready[0]))
    staying = (voters - set(going)) | set(ready)
    if len(staying) < min(len(voters), len(wanted.voters)):
        return None
    if 2 * sum(_is_heard(standings.get(each)) for each in staying) <= len(staying):
        return None  # it could neither do anything nor go back
    demoted = [each for each in going if each in wanted.learners]
    return _change(
        *[(_ADD, each) for each in ready],
        *[(_LEARN if each in demoted else _REMOVE, each) for each in going],
    )


def _is_heard(standing: Standing | None) -> bool:
    return standing is not None and standing.heard


def _has_caught_up(standing: Standing | None, last_index: int) -> bool:
    return (
        standing is not None
        and standing.heard
        and standing.match + limits.LEARNER_BEHIND_MAX >= last_index
        and standing.match > 0
    )


def _change(*changes: tuple[ConfChangeType, int]) -> ConfChangeV2:
    return ConfChangeV2(
        ConfChangeTransition.AUTO, tuple([ConfChangeSingle(*each) for each in changes])
    )
