"""What ends a node, and what it only logs."""

import pytest

from node.wiring import _escaped_from_core

_SOURCE = "def run():\n    raise ZeroDivisionError"


@pytest.mark.parametrize(
    ("module", "fatal"),
    [
        ("node.delivery", True),
        ("node.delivery.sending", True),
        ("node.runtime", True),
        ("node.engine", True),
        ("node.handover", True),
        ("node.gathering.asking", True),
        ("node.router", True),
        ("node.rpc.inbound", False),
        ("node.sender.pool", False),
        ("aiohttp.web_protocol", False),
    ],
)
def test_only_a_fault_of_the_core_ends_the_node(module: str, *, fatal: bool) -> None:
    """A connection's fault is that connection's; where firing lost its place, the node ends."""
    space = {"__name__": module}
    exec(_SOURCE, space)  # noqa: S102 - a function whose frames say that they are of `module`
    with pytest.raises(ZeroDivisionError) as caught:
        space["run"]()  # type: ignore[operator]
    assert fatal is _escaped_from_core(caught.value)
