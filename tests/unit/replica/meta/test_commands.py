"""The bytes of commands and rows of the meta group, as other versions read them.

They change only together with the version byte; fields come at the end, with defaults.
"""

from typing import Any, get_args

import pytest

from tests.unit.replica.meta.driven import HASH, node
from timemachine import codec
from timemachine.model import JoinToken, Placement, Settings
from timemachine.placement import Move
from timemachine.replica.commands import Request
from timemachine.replica.meta import (
    AnyMetaCommand,
    Bootstrap,
    Finalise,
    IssueToken,
    JoinNode,
    MetaResult,
    MetaState,
    Place,
    Removed,
    Retire,
    read_meta_commands,
)
from timemachine.replica.meta.records import MetaRecord, read_record, row_of

COMMANDS = {
    "bootstrap": (
        Bootstrap(now_ms=1, node=node(1), settings=Settings(), nodes=[node(2, zone="z")]),
        (
            "019195648ca26964a26e31a46e616d65a0a468747470a0a3727063ad31302e302e302e313a393030"
            "31a47a6f6e65a0a776657273696f6ea131a56874747073c2a66e756d62657201a57374617465a66d"
            "656d626572a7666f726d6174739101a677656967687464a46b6579739083b5616c6c6f7765645f70"
            "7269766174655f636964727390ad726573746f72655f65706f636801ad616c6c6f7765645f706f72"
            "74739001918ca26964a26e32a46e616d65a0a468747470a0a3727063ad31302e302e302e323a3930"
            "3031a47a6f6e65a17aa776657273696f6ea131a56874747073c2a66e756d62657202a57374617465"
            "a66d656d626572a7666f726d6174739101a677656967687464a46b65797390"
        ),
    ),
    "issue": (
        IssueToken(
            now_ms=1, id="t", secret_hash=HASH, expires_ms=9, request=Request(b"k" * 16, b"f" * 16)
        ),
        (
            "01919672a174c4206868686868686868686868686868686868686868686868686868686868686868"
            "0992c4106b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6bc4106666666666666666666666666666666601"
        ),
    ),
    "join": (
        JoinNode(now_ms=1, token_id="t", secret_hash=HASH, node=node(0), replaces="n9"),
        (
            "01919673a174c4206868686868686868686868686868686868686868686868686868686868686868"
            "8ca26964a26e30a46e616d65a0a468747470a0a3727063ad31302e302e302e303a39303031a47a6f"
            "6e65a0a776657273696f6ea131a56874747073c2a66e756d62657200a57374617465a66d656d6265"
            "72a7666f726d6174739101a677656967687464a46b65797390a26e3901"
        ),
    ),
    "place": (
        Place(now_ms=1, moves=[Move(1 << 40, 2, 3, (4,), (5 << 16 | 6,)), Move(1, 0, 1)]),
        "019193749295cf00000100000000000203910491ce0005000695010001909001",
    ),
    "removed": (Removed(now_ms=1, uid=7, index=3, replica=1 << 16 | 2), "019195750703ce0001000201"),
    "retire": (Retire(now_ms=1, uid=7, index=3, replica=2), "0191957607030201"),
    "finalise": (Finalise(now_ms=1, version=2), "0191947702c001"),
}
ROWS: dict[str, tuple[MetaRecord, str, str]] = {
    "node": (
        node(3, zone="z"),
        "6e6e33",
        (
            "018ca26964a26e33a46e616d65a0a468747470a0a3727063ad31302e302e302e333a39303031a47a"
            "6f6e65a17aa776657273696f6ea131a56874747073c2a66e756d62657203a57374617465a66d656d"
            "626572a7666f726d6174739101a677656967687464a46b65797390"
        ),
    ),
    "token": (JoinToken("t", b"h", 9, "n1"), "6a74", "0194a174c4016809a26e31"),
    "placement": (
        Placement(1 << 40, 2, (1, 2), (1, 65539), (2,), 4, 1),
        "70000001000000000000000002",
        "0197cf0000010000000000029201029201ce0001000391020401",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_these_bytes(name: str) -> None:
    """Written and read."""
    command, golden = COMMANDS[name]
    assert codec.encode([command]).hex() == golden
    assert read_meta_commands(bytes.fromhex(golden)) == [command]


@pytest.mark.parametrize("name", ROWS)
def test_rows_have_these_keys_and_bytes(name: str) -> None:
    """Written and read."""
    record, key, golden = ROWS[name]
    assert row_of(record).hex() == key
    assert codec.encode(record).hex() == golden
    assert read_record(bytes.fromhex(key), bytes.fromhex(golden)) == record


def test_what_was_written_before_there_were_several_nodes_is_read() -> None:
    """An entry, the machine's row and an answer, cut where they ended then."""
    named = {"id": "n1", "name": "", "http": "", "rpc": "10.0.0.1:9001", "zone": "", "version": "1"}
    old = codec.encode([[100, named, {}, 1]])
    assert read_meta_commands(old) == [Bootstrap(now_ms=1, node=node(1), settings=Settings())]
    state: MetaState = codec.decoder(MetaState)(codec.encode([5, 1, 9, 2]))
    assert state == MetaState(5, 1, 9, 2, next_number=2, cluster_version=1)
    answer: Any = codec.decoder(MetaResult)(
        codec.encode(["created", None, None, None, None, False])
    )
    assert answer == MetaResult(kind="created")


def test_no_tag_is_given_twice() -> None:
    """The number of a command is stored."""
    tags = [kind.__struct_config__.tag for kind in get_args(AnyMetaCommand)]
    assert sorted(tags) == list(range(100, 100 + len(tags)))
