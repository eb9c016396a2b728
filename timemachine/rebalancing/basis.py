"""What a plan was made from, as a hash: it is void when anything of that has changed."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from timemachine import codec
from timemachine.model import Collection, Node, Placement

_BYTES: Final = 16


def basis(
    nodes: Iterable[Node], collections: Iterable[Collection], placements: Iterable[Placement]
) -> bytes:
    """A hash of all that plans are made from; the same in whatever order these come.

    The version of a placement rises with each change, so it stands for all of it.
    """
    hashed = blake2b(digest_size=_BYTES)
    for row in sorted(
        (each.number, each.state.value, each.weight, each.zone, each.host)
        for each in nodes
        if each.present
    ):
        hashed.update(codec.encode(row))
    for counts in sorted((each.uid, each.num_vnodes, each.replicas) for each in collections):
        hashed.update(codec.encode(counts))
    for place in sorted((each.uid, each.index, each.version) for each in placements):
        hashed.update(codec.encode(place))
    return hashed.digest()
