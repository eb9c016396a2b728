"""Secrets at rest: only the right key opens them, only at the right place, and nothing shows."""

import base64
import copy
import hashlib
import pickle

import pytest

from timemachine.errors import ConfigError, SealError
from timemachine.sealing import (
    MasterKey,
    derived,
    find_checked_key,
    format_key_file,
    key_check,
    open_sealed,
    parse_key_file,
    seal,
    sealed_key_id,
)

RAW, RAW_OLD = bytes(range(32)), bytes(range(32, 64))
KEY, KEY_OLD = MasterKey(RAW), MasterKey(RAW_OLD)
NONCE = bytes(range(12))
CONTEXT = b"route-secret:7"
GOLDEN = "a1630dcd29000102030405060708090a0b3467b569a091b59ef9a03ea28f95ad8813a2ba549b6a"
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_what_is_sealed_opens() -> None:
    """A sealed secret opens with its key at its place, and the blob does not hold it."""
    blob = seal(KEY, SECRET, nonce=NONCE, context=CONTEXT)
    assert SECRET == open_sealed([KEY], blob, context=CONTEXT)
    assert SECRET not in blob
    assert b"whsec" not in blob


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(64 * 1024)])
def test_any_plaintext_seals(plaintext: bytes) -> None:
    """Empty and large values seal too."""
    blob = seal(KEY, plaintext, nonce=NONCE, context=CONTEXT)
    assert plaintext == open_sealed([KEY], blob, context=CONTEXT)


def test_sealed_form_never_changes() -> None:
    """Blobs on disk must open after an upgrade: marker, key id, nonce, ciphertext, tag."""
    blob = seal(KEY, b"secret", nonce=NONCE, context=CONTEXT)
    assert "a1" + KEY.id + NONCE.hex() == blob[:17].hex()
    assert GOLDEN == blob.hex()
    assert b"secret" == open_sealed([KEY], bytes.fromhex(GOLDEN), context=CONTEXT)


def test_key_id_is_the_start_of_its_hash() -> None:
    """The id is 8 hex digits of the key's SHA-256."""
    assert hashlib.sha256(RAW).hexdigest()[:8] == KEY.id
    assert KEY.id == sealed_key_id(seal(KEY, SECRET, nonce=NONCE, context=CONTEXT))


def test_old_key_among_several_opens() -> None:
    """After the master key was replaced, what the old one sealed still opens."""
    blob = seal(KEY_OLD, SECRET, nonce=NONCE, context=CONTEXT)
    assert SECRET == open_sealed([KEY, KEY_OLD], blob, context=CONTEXT)


def test_missing_key_is_named() -> None:
    """Without the right key the refusal names the key that is needed, and nothing else."""
    blob = seal(KEY_OLD, SECRET, nonce=NONCE, context=CONTEXT)
    with pytest.raises(SealError, match=KEY_OLD.id) as caught:
        open_sealed([KEY], blob, context=CONTEXT)
    assert "whsec" not in str(caught.value)


def test_another_place_does_not_open() -> None:
    """A blob moved to another route does not open there."""
    blob = seal(KEY, SECRET, nonce=NONCE, context=CONTEXT)
    with pytest.raises(SealError, match=KEY.id):
        open_sealed([KEY], blob, context=b"route-secret:8")


def test_every_flipped_byte_is_noticed() -> None:
    """Damage anywhere in a blob raises SealError, never garbage."""
    blob = seal(KEY, SECRET, nonce=NONCE, context=CONTEXT)
    for at in range(len(blob)):
        damaged = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        with pytest.raises(SealError):
            open_sealed([KEY], damaged, context=CONTEXT)


def test_every_shorter_blob_is_noticed() -> None:
    """A cut blob raises SealError."""
    blob = seal(KEY, SECRET, nonce=NONCE, context=CONTEXT)
    for length in range(len(blob)):
        with pytest.raises(SealError):
            open_sealed([KEY], blob[:length], context=CONTEXT)


def test_plaintext_is_not_taken_for_sealed() -> None:
    """A secret that was never sealed is refused."""
    with pytest.raises(SealError, match="marker"):
        open_sealed([KEY], SECRET, context=CONTEXT)


def test_nonce_has_its_length() -> None:
    """A nonce of another length is a bug of the caller."""
    with pytest.raises(ValueError, match="12 bytes"):
        seal(KEY, SECRET, nonce=b"short", context=CONTEXT)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_master_key_has_its_length(length: int) -> None:
    """A key of another length is refused."""
    with pytest.raises(ConfigError):
        MasterKey(bytes(length))


def test_key_bytes_never_show() -> None:
    """A key is neither in its repr nor leaves by pickling or copying."""
    assert f"MasterKey(id='{KEY.id}')" == repr(KEY) == str(KEY)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(KEY)


# --- the key check -----------------------------------------------------------------------------


def test_key_check_tells_keys_apart() -> None:
    """The check value finds its key and no other; none found means the wrong key file."""
    check = key_check(KEY)
    assert 16 == len(check)
    assert check == key_check(MasterKey(RAW))
    assert KEY is find_checked_key([KEY_OLD, KEY], check)
    assert find_checked_key([KEY_OLD], check) is None
    assert find_checked_key([KEY], b"") is None
    assert RAW[:4] not in check


# --- the key file ------------------------------------------------------------------------------


def test_key_file_round_trips() -> None:
    """What is written is read: the first key is current."""
    text = format_key_file([KEY, KEY_OLD])
    assert [KEY.id, KEY_OLD.id] == [key.id for key in parse_key_file(text)]


def test_key_file_may_have_comments_and_windows_lines() -> None:
    """Comments, empty lines, spaces around and CRLF do not matter."""
    encoded = base64.b64encode(RAW).decode()
    text = f"# made by hand\r\n\r\n  {encoded}  \r\n# old\n{base64.b64encode(RAW_OLD).decode()}"
    assert [KEY.id, KEY_OLD.id] == [key.id for key in parse_key_file(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no key"),
        ("# only a comment\n", "no key"),
        ("\n\nnonsense!\n", "Line 3"),
        (base64.b64encode(bytes(31)).decode(), "Line 1"),
        (base64.b64encode(RAW).decode() + " # comment behind", "Line 1"),
        ((base64.b64encode(RAW).decode() + "\n") * 2, "Line 2 .* repeats"),
        (
            "\n".join(base64.b64encode(bytes([n]) * 32).decode() for n in range(33)),
            "33 keys",
        ),
    ],
)
def test_wrong_key_file_is_refused_without_showing_it(text: str, message: str) -> None:
    """A wrong key file is a configuration error that names the line but not its content."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_key_file(text)
    assert base64.b64encode(RAW).decode()[:12] not in str(caught.value)
    assert "nonsense" not in str(caught.value)


def test_what_is_derived_follows_from_key_and_context() -> None:
    """The same again, something else for anything else."""
    first = derived(KEY, 38, context=b"a")
    assert first == derived(KEY, 38, context=b"a")
    assert first[:16] == derived(KEY, 16, context=b"a")
    assert 38 == len(first)
    assert 3 == len({first, derived(KEY, 38, context=b"b"), derived(KEY_OLD, 38, context=b"a")})
