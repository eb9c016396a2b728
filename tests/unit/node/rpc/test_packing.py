"""What is said beside frames: read as what it is, or refused."""

import pytest

from node.rpc.packing import pack, unpacker
from timemachine.errors import CodecError


def test_both_ways() -> None:
    """What was packed comes out."""
    assert [1, "a"] == unpacker(list[int | str])(pack([1, "a"]))


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\xa1\xff", b"\x01\x01", b"\x91" * 100_000])
def test_what_makes_no_sense(data: bytes) -> None:
    """Cut, no UTF-8, too much, nested without end."""
    with pytest.raises(CodecError):
        unpacker(list[str])(data)
