"""What two nodes say before anything else, and whether they may talk.

Whoever dials says hello: who it is, whom it wants, which versions of the protocol it speaks. The
other one accepts or refuses, with the reason. Newer versions may append fields; these stay.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from node.rpc.packing import pack, unpacker
from timemachine import limits
from timemachine.errors import CodecError

MAGIC: Final = "timemachine rpc"
VERSION_FIRST: Final = 1
VERSION_LAST: Final = 1
"""The versions of the protocol that this node speaks."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What who dials says.

    first, last  the versions of the protocol that it speaks
    number       which it has in its cluster; `to` is that of the node that it wants
    epoch        counts its lives
    address      where it takes connections of other nodes, as HOST:PORT
    formats      of stored and sent bytes that its program knows, see `timemachine.formats`
    finalised    the one that its cluster uses, as far as it has heard
    """

    magic: str
    first: int
    last: int
    cluster_id: str
    node_id: str
    number: int
    epoch: int
    to: int
    address: str
    formats: tuple[int, ...] = (1,)
    finalised: int = 1


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """The answer: who was dialled. `refused` says why not, as a code; then `version` is 0."""

    magic: str
    version: int
    cluster_id: str
    node_id: str
    number: int
    epoch: int
    refused: str = ""


class Self(NamedTuple):
    """Who this node is. `address` is where others reach it, as HOST:PORT.

    `formats` are those that its program knows, see `timemachine.formats`.
    """

    cluster_id: str
    node_id: str
    number: int
    epoch: int
    address: str
    formats: tuple[int, ...] = (1,)


class Known(NamedTuple):
    """What this node knows of a number: whose it is, and whether that node is gone for good.

    The id is empty for a number that was not given yet when this node last heard of the others: a
    node may have joined since, and only its own frames may tell so.
    """

    node_id: str
    retired: bool = False


REFUSALS: Final = {
    "other_cluster": "it belongs to another cluster",
    "other_version": "no version of the protocol is spoken by both",
    "older_program": "our program does not know the format that the cluster has finalised",
    "newer_format": "its program does not know the format that the cluster has finalised",
    "other_node": "another node is at this address",
    "unknown_node": "it does not know a node of our number (yet)",
    "retired_node": "our number has been retired",
    "number_taken": "our number is another node's",
    "older_life": "a later life of this node has been there",
    "damaged": "it could not make sense of what we said",
    "not_served": "it does not take nodes that join",
    "stopping": "it is stopping",
}
"""Why a hello is refused, as codes, and what each means to who dialled."""


def read_hello(data: bytes) -> Hello:
    """The hello of these bytes. Raises CodecError."""
    hello: Hello = _read_hello(data)
    if hello.magic != MAGIC:
        raise CodecError("no hello of a node")
    return hello


def read_welcome(data: bytes) -> Welcome:
    """The answer of these bytes. Raises CodecError."""
    welcome: Welcome = _read_welcome(data)
    if welcome.magic != MAGIC:
        raise CodecError("no answer of a node")
    return welcome


def write_hello(own: Self, to: int, finalised: int) -> bytes:
    """What this node says to the one of number `to`; `finalised` is its cluster's format."""
    return pack(
        Hello(
            MAGIC,
            VERSION_FIRST,
            VERSION_LAST,
            own.cluster_id,
            own.node_id,
            own.number,
            own.epoch,
            to,
            own.address,
            own.formats,
            finalised,
        )
    )


def write_welcome(own: Self, version: int, refused: str = "") -> bytes:
    """What this node answers; the version that is spoken from here on, or why none is."""
    return pack(
        Welcome(MAGIC, version, own.cluster_id, own.node_id, own.number, own.epoch, refused)
    )


def common_version(first: int, last: int) -> int:
    """The newest version of the protocol that both speak, or 0."""
    newest = min(last, VERSION_LAST)
    return newest if newest >= max(first, VERSION_FIRST) else 0


def refusal(
    hello: Hello, own: Self, known: Callable[[int], Known | None], epoch: int, finalised: int
) -> str:
    """Why not to talk with who says this, as a code of REFUSALS, or "".

    `epoch` is that of the latest life of that node which was here, or 0; `finalised` the format
    of the cluster, as far as this node has heard.
    """
    if hello.cluster_id != own.cluster_id:
        return "other_cluster"
    if not common_version(hello.first, hello.last):
        return "other_version"
    if finalised not in hello.formats:
        return "older_program"
    if hello.finalised not in own.formats:
        return "newer_format"
    if hello.to != own.number:
        return "other_node"
    if hello.number == own.number or not 0 < hello.number <= limits.NODE_NUMBER_MAX:
        return "number_taken"
    whose = known(hello.number)
    if whose is None:
        return "unknown_node"
    if whose.node_id not in ("", hello.node_id):
        return "number_taken"
    if whose.retired:
        return "retired_node"
    return "older_life" if hello.epoch < epoch else ""


_read_hello = unpacker(Hello)
_read_welcome = unpacker(Welcome)
