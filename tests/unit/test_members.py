"""The members row: every part of a membership comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timemachine.errors import CodecError
from timemachine.members import members_row, read_members
from timemachine.raft import ConfState

IDS = st.lists(st.integers(1, 2**63), max_size=5, unique=True).map(tuple)


@given(
    st.builds(
        ConfState,
        voters=IDS,
        learners=IDS,
        voters_outgoing=IDS,
        learners_next=IDS,
        auto_leave=st.booleans(),
    )
)
def test_a_membership_is_read_as_it_was_written(members: ConfState) -> None:
    """Voters, learners, and a change that is under way."""
    assert members == read_members(members_row(members))


def test_foreign_bytes_are_refused() -> None:
    """A replica does not begin with a membership that it made up."""
    for row in (b"", b"\x01", b"\x02\x90", members_row(ConfState((1, 2)))[:-1]):
        with pytest.raises(CodecError):
            read_members(row)
