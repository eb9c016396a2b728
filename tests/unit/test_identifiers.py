"""Webhook ids and job ids: fixed for ever, so fixed by vectors."""

import base64
import hashlib
import re
import uuid

import pytest

from timemachine.identifiers import uuid7, uuid8, webhook_id

UID = bytes(range(16))


@pytest.mark.parametrize(
    ("uid", "version", "occurrence"),
    [(UID, 1, 0), (UID, 2, 0), (UID, 1, 1), (b"\xff" * 16, 2**63, 2**64 - 1), (bytes(16), 0, 0)],
)
def test_webhook_id_is_base32_of_a_hash(uid: bytes, version: int, occurrence: int) -> None:
    """A webhook id is the unpadded base32 of the first 128 bits of the SHA-256."""
    content = b"timemachine webhook-id\0" + uid
    content += version.to_bytes(8, "big") + occurrence.to_bytes(8, "big")
    expected = base64.b32encode(hashlib.sha256(content).digest()[:16]).decode().rstrip("=")
    assert expected == webhook_id(uid, version, occurrence)


def test_webhook_id_never_changes() -> None:
    """Recipients remember these ids: this one is the same in every release."""
    assert "DSKHW7ZU2GFNH3JLOP7AZW5PGU" == webhook_id(UID, 1, 0)


def test_webhook_ids_differ_by_life_version_and_occurrence() -> None:
    """Every fire has its own id."""
    ids = {
        webhook_id(uid, version, occurrence)
        for uid in (UID, bytes(16), b"\xff" * 16)
        for version in range(1, 40)
        for occurrence in range(40)
    }
    assert 3 * 39 * 40 == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", each) for each in ids)


def test_webhook_id_refuses_a_uid_of_another_length() -> None:
    """A uid of another length is a bug, not an id."""
    with pytest.raises(AssertionError):
        webhook_id(b"short", 1, 0)


def test_uuid7_vector_of_the_rfc() -> None:
    """RFC 9562, A.6: 2022-02-22 19:22:22 UTC."""
    random_bits = 0xCC3 << 64 | 0b01 << 62 | 0x18C4DC0C0C07398F
    assert "017f22e2-79b0-7cc3-98c4-dc0c0c07398f" == uuid7(
        0x017F22E279B0, random_bits.to_bytes(10, "big")
    )


def test_uuid7_is_a_uuid_whatever_the_dice_say() -> None:
    """Version and variant are right for all random bytes."""
    for random_bytes in (bytes(10), b"\xff" * 10, bytes(range(10))):
        parsed = uuid.UUID(uuid7(1, random_bytes))
        assert (7, uuid.RFC_4122) == (parsed.version, parsed.variant)


def test_uuid7_sorts_by_time() -> None:
    """A later millisecond is a greater id, whatever the dice say."""
    times = [0, 1, 255, 256, 1_700_000_000_000, 1_700_000_000_001, 2**48 - 1]
    ids = [uuid7(now_ms, (b"\xff" if i % 2 else b"\0") * 10) for i, now_ms in enumerate(times)]
    assert sorted(ids) == ids


def test_uuid8_is_a_uuid_of_the_key() -> None:
    """Version and variant are right, and the same key names the same job."""
    made = uuid8(7, "key", 3)
    parsed = uuid.UUID(made)
    assert (8, uuid.RFC_4122) == (parsed.version, parsed.variant)
    assert made == uuid8(7, "key", 3)


def test_uuid8_never_changes() -> None:
    """A repeat may come after an upgrade: this id is the same in every release."""
    assert "19c5defc-7ff8-835e-b055-ddb26123ba04" == uuid8(1, "key")


def test_uuid8_differs_by_collection_key_and_item() -> None:
    """Another collection, key or item is another job."""
    ids = {
        uuid8(uid, key, item)
        for uid in (0, 1, 2**64 - 1)
        for key in ("", "a", "aa", "é")
        for item in (0, 1, 9999)
    }
    assert 36 == len(ids)
