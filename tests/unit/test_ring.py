"""Where jobs lie. Stored data depends on it, so it is fixed by vectors."""

import pytest

from timemachine.ring import vnode_of

FULL = 1 << 32
"""With this many vnodes the vnode is the hash itself."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("\0", 0x514E28B7),
        ("\0\0", 0x30F4C306),
        ("\0\0\0", 0x85F0B427),
        ("\0\0\0\0", 0x2362F9DE),
        ("!", 0x72661CF4),
        ("!C", 0xA0F7B07A),
        ("!Ce", 0x7E4A8634),
        ("a", 0x3C2569B2),
        ("abc", 0xB3DD93FA),
        ("test", 0xBA6BD213),
        ("Hello, world!", 0xC0363E43),
        ("The quick brown fox jumps over the lazy dog", 0x2E4FF723),
    ],
)
def test_hash_is_the_published_murmur3(text: str, expected: int) -> None:
    """The hash is murmur3_x86_32 with seed 0, as in the published test vectors."""
    assert expected == vnode_of(text, FULL)


@pytest.mark.parametrize(
    ("job_id", "num_vnodes", "expected"),
    [
        ("", 12, 0),
        ("nxz123bnj", 12, 5),
        ("abc", 12, 8),
        ("test", 1024, 745),
        ("ππππππππ", 1024, 945),
        ("日本語/ключ:é", 12, 0),
        ("Hello, world!", 1, 0),
    ],
)
def test_vnode_never_changes(job_id: str, num_vnodes: int, expected: int) -> None:
    """These jobs lie in these vnodes in every release."""
    assert expected == vnode_of(job_id, num_vnodes)
