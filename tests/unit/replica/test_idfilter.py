"""The filter of job ids: never a false denial, seldom a look in vain, little memory."""

from hypothesis import given
from hypothesis import strategies as st

from timemachine.replica.idfilter import IdFilter


@given(st.lists(st.binary(max_size=20)))
def test_an_id_that_was_added_is_known(ids: list[bytes]) -> None:
    """Whatever came before and after it."""
    known = IdFilter(complete=True)
    for raw_id in ids:
        known.add(raw_id)
    assert all(known.add(raw_id) for raw_id in ids)


def test_growth() -> None:
    """Over several layers no id is lost, and few new ones are taken for old ones."""
    known = IdFilter(complete=True)
    mistaken = sum(known.add(b"old-%d" % number) for number in range(50_000))
    assert all(known.add(b"old-%d" % number) for number in range(50_000))
    mistaken += sum(known.add(b"new-%d" % number) for number in range(50_000))
    assert mistaken < 5_000
    assert 3 <= len(known._layers) <= 4


def test_empty_filter_takes_no_memory() -> None:
    """A node may hold thousands of vnodes without a job."""
    assert [] == IdFilter(complete=True)._layers
