"""The rule for formats: who knows which, what may be used, and who takes part."""

from typing import get_args

import pytest
from msgspec.structs import replace

from timemachine import codec, formats, limits
from timemachine.errors import StoreForeign
from timemachine.model import Node, NodeState
from timemachine.replica import commands as c
from timemachine.replica import meta as m

OLD, BOTH, NEW = (1,), (1, 2), (2,)


def _node(number: int, known: tuple[int, ...]) -> Node:
    return Node(
        id=f"n{number}", name="", http="", rpc="", zone="", version="", number=number, formats=known
    )


def test_what_this_program_writes_it_knows() -> None:
    """And a format fits into the byte before each record."""
    assert codec.VERSION in formats.KNOWN
    assert max(formats.KNOWN) <= limits.FORMAT_MAX
    assert codec.encode(None)[:1] == bytes([codec.VERSION])


@pytest.mark.parametrize(
    "command",
    [*get_args(c.AnyCommand), *get_args(m.AnyMetaCommand)],
    ids=lambda each: each.__name__,
)
def test_every_command_came_with_a_format_that_is_known(command: type[c.Command]) -> None:
    """Nobody proposes it before that one is finalised."""
    assert command.since in formats.KNOWN


@pytest.mark.parametrize(
    ("known", "newest"),
    [
        ([], 0),
        ([OLD], 1),
        ([BOTH, OLD], 1),
        ([BOTH, BOTH], 2),
        ([BOTH, NEW], 2),
        ([OLD, NEW], 0),
    ],
)
def test_the_newest_that_all_know(known: list[tuple[int, ...]], newest: int) -> None:
    """One node that was not upgraded yet holds it back."""
    nodes = [_node(number, each) for number, each in enumerate(known, 1)]
    assert newest == formats.known_by_all(nodes)


def test_who_is_removed_holds_nothing_back() -> None:
    """But who is leaving does: it still takes part."""
    nodes = [_node(1, BOTH), _node(2, OLD)]
    assert [nodes[1]] == formats.behind(nodes, 2)
    leaving = replace(nodes[1], state=NodeState.LEAVING)
    assert [leaving] == formats.behind([nodes[0], leaving], 2)
    removed = replace(nodes[1], state=NodeState.REMOVED)
    assert [] == formats.behind([nodes[0], removed], 2)
    assert 2 == formats.known_by_all([nodes[0], removed])


def test_when_a_format_is_finalised() -> None:
    """When all know it; and never an older one."""
    upgraded = [_node(1, BOTH), _node(2, BOTH)]
    assert "" == formats.why_not_finalised(upgraded, 1, 2)
    assert "nodes_behind" == formats.why_not_finalised([*upgraded, _node(3, OLD)], 1, 2)
    assert "nodes_behind" == formats.why_not_finalised(upgraded, 1, 3)
    assert "format_finalised" == formats.why_not_finalised(upgraded, 2, 1)


def test_what_may_be_proposed() -> None:
    """What came with the finalised format, or before."""
    assert [True, True, False] == [formats.may_propose(since, 2) for since in (1, 2, 3)]


def test_a_program_that_was_taken_back_is_refused() -> None:
    """With what it knows, what it should know, and what to do."""
    formats.check(1, BOTH)
    with pytest.raises(StoreForeign, match="finalised format 3; this program knows 1 to 2"):
        formats.check(3, BOTH)
    assert ["none", "1", "1 to 2"] == [formats.told(each) for each in ((), OLD, BOTH)]
