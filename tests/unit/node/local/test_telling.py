"""What people read when a local cluster cannot start: always what to do, as it can be typed."""

import pytest

from node.local.process import Said
from node.local.telling import what_helps
from node.rpc.listener import CANNOT_LISTEN

SEVERAL = "timemachine dev --nodes 3"


@pytest.mark.parametrize(
    ("code", "reason", "other", "sentences"),
    [
        (
            CANNOT_LISTEN,
            "http: cannot listen on [::1]:8002: Address already in use",
            SEVERAL,
            ["[::1]:8002 cannot be had", "timemachine dev --nodes 3 --data d --http 127.0.0.1:0"],
        ),
        (
            CANNOT_LISTEN,
            "rpc: cannot listen on 127.0.0.1:9002: Address already in use",
            SEVERAL,
            ["127.0.0.1:9002 cannot be had", "The nodes in d find each other there."],
        ),
        (
            CANNOT_LISTEN,
            "rpc: cannot listen on 127.0.0.1:9001: Address already in use",
            "timemachine dev",
            ["127.0.0.1:9001 cannot be had", "timemachine dev --data d --http 127.0.0.1:0"],
        ),
        (CANNOT_LISTEN, "http: cannot listen on 10.9.9.9:1: no such address", SEVERAL, ["10.9"]),
        ("store_in_use", "Another process.", SEVERAL, ["is in use", "--data other"]),
        ("store_damaged", "A row.", SEVERAL, ["A row.", "Delete that node's folder in d"]),
        ("store_damaged", "A row.", "timemachine dev", ["A row.", "--data other"]),
        ("seal_error", "No key.", SEVERAL, ["No key.", "--data other"]),
        ("config_error", "So not.", SEVERAL, ["So not."]),
    ],
)
def test_it_says_what_helps(code: str, reason: str, other: str, sentences: list[str]) -> None:
    """The address, the folder, the command."""
    told = what_helps(Said(code, reason), "d", other)
    assert all(sentence in told for sentence in sentences), told
