"""Mutations of how a replica goes on from an image."""

from typing import Any

from tests.sim.mutations.planting import Mutation, swap
from timemachine.replica.snapshot import ImageIn


def _loses_the_rest(original: Any) -> Any:
    def chunk(self: ImageIn, data: bytes) -> dict[bytes, bytes]:
        rows: dict[bytes, bytes] = original(self, data)
        return rows if self._chunks == 1 else {}

    return chunk


MUTATIONS = {
    "snapshot-half-installed": Mutation(
        "A replica goes on from an image of which only the first chunk was written.",
        ("C8", "C1", "C6", "C10", "S4", "S6", "crash"),
        swap(ImageIn, "chunk", _loses_the_rest),
    ),
}
