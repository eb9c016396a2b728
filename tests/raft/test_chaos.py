"""Whatever happens to a group, it stays one: seeds of `chaos.Chaos`, always the same ones."""

import pytest

from tests.raft.chaos import Chaos


@pytest.mark.parametrize("seed", range(60))
def test_a_group_survives(seed: int) -> None:
    """No two leaders, no lost entry, no stale read; and peace when it is calm again."""
    Chaos(seed).run(3_000)
