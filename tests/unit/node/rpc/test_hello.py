"""Who may talk with whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc import hello
from node.rpc.hello import Hello, Known, Self, read_hello, read_welcome, refusal
from node.rpc.packing import pack
from timemachine.errors import CodecError

OWN = Self("c1", "n1", 1, 7, "h:1")
OTHER = Self("c1", "n2", 2, 3, "h:2")
KNOWN = {1: Known("n1"), 2: Known("n2"), 3: Known("n3"), 4: Known("n4", retired=True)}


def says(own: Self = OTHER, to: int = 1, finalised: int = 1) -> Hello:
    """The hello of a node."""
    return read_hello(hello.write_hello(own, to, finalised))


def refused(said: Hello, epoch: int = 0, finalised: int = 1) -> str:
    """What node 1 says to it."""
    return refusal(said, OWN, KNOWN.get, epoch, finalised)


def test_the_bytes_stay() -> None:
    """A node of any version reads them, or it could not say that versions do not fit."""
    said = b"\x9b\xaftimemachine rpc\x01\x01\xa2c1\xa2n2\x02\x03\x01\xa3h:2\x92\x01\x02\x01"
    assert said == hello.write_hello(OTHER._replace(formats=(1, 2)), 1, 1)
    assert b"\x97\xaftimemachine rpc\x01\xa2c1\xa2n1\x01\x07\xa0" == hello.write_welcome(OWN, 1)


def test_what_newer_versions_append_is_skipped() -> None:
    """They may say more."""
    said = ["timemachine rpc", 1, 9, "c1", "n2", 2, 3, 1, "h:2", [1], 1, {"more": [1]}]
    assert says().node_id == read_hello(pack(said)).node_id


def test_a_node_is_let_in() -> None:
    """In this life and in every later one."""
    assert "" == refused(says())
    assert "" == refused(says(), epoch=3)
    assert "" == refused(says(), epoch=2)


@pytest.mark.parametrize(
    ("said", "epoch", "code"),
    [
        (says(OTHER._replace(cluster_id="c2")), 0, "other_cluster"),
        (says(to=3), 0, "other_node"),
        (says(OTHER._replace(number=1)), 0, "number_taken"),
        (says(OTHER._replace(number=0)), 0, "number_taken"),
        (says(OTHER._replace(number=65_536)), 0, "number_taken"),
        (says(OTHER._replace(number=3)), 0, "number_taken"),
        (says(OTHER._replace(number=5)), 0, "unknown_node"),
        (says(Self("c1", "n4", 4, 1, "h:4")), 0, "retired_node"),
        (says(), 4, "older_life"),
    ],
)
def test_who_is_not(said: Hello, epoch: int, code: str) -> None:
    """Each with its reason, which has a sentence."""
    assert code == refused(said, epoch)
    assert hello.REFUSALS[code]


@pytest.mark.parametrize(
    ("first", "last", "common"), [(1, 1, 1), (1, 9, 1), (0, 1, 1), (2, 9, 0), (0, 0, 0), (9, 1, 0)]
)
def test_versions(first: int, last: int, common: int) -> None:
    """The newest that both speak."""
    assert common == hello.common_version(first, last)
    said = Hello("timemachine rpc", first, last, "c1", "n2", 2, 3, 1, "h:2")
    assert ("" if common else "other_version") == refused(said)


def test_who_says_nothing_of_formats_knows_the_first() -> None:
    """The hello of a program from before there was more than one."""
    said = read_hello(pack(["timemachine rpc", 1, 1, "c1", "n2", 2, 3, 1, "h:2"]))
    assert ((1,), 1) == (said.formats, said.finalised)


@pytest.mark.parametrize(
    ("knows", "says_finalised", "finalised", "code"),
    [
        ((1,), 1, 1, ""),
        ((1, 2), 1, 1, ""),
        ((1,), 1, 2, "older_program"),
        ((1, 2), 1, 2, ""),
        # It has heard of a newer format than this node, whose program knows the first alone.
        ((1, 2), 2, 1, "newer_format"),
    ],
)
def test_who_does_not_know_the_finalised_format_takes_no_part(
    knows: tuple[int, ...], says_finalised: int, finalised: int, code: str
) -> None:
    """Whichever of the two it is; as long as none is finalised, all work together."""
    said = says(OTHER._replace(formats=knows), finalised=says_finalised)
    assert code == refused(said, finalised=finalised)
    assert not code or hello.REFUSALS[code]


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """They are a hello or a CodecError."""
    for read in (read_hello, read_welcome):
        with pytest.raises(CodecError):
            read(data)


@pytest.mark.parametrize("read", [read_hello, read_welcome])
def test_others_that_speak_messagepack(read: object) -> None:
    """The first word tells who means us."""
    assert callable(read)
    for said in (["other", 1, 1, "", "", 1, 1, 1, ""], ["other", 1, "", "", 1, 1, ""], [], 1):
        with pytest.raises(CodecError):
            read(pack(said))
