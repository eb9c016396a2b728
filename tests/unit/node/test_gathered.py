"""Results that are told together."""

from typing import Any

from node.gathered import Gathered


def test_results_are_told_together_in_their_order() -> None:
    """Whichever comes first."""
    heard: list[Any] = []
    gathered = Gathered(3, heard.append)
    for number, result in ((2, "c"), (0, "a"), (1, "b")):
        assert [] == heard
        gathered.take(number, result)
    assert [["a", "b", "c"]] == heard
