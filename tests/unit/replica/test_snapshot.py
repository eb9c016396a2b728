"""The image of a replica: complete, checked, and independent of its prefix."""

import pytest

from timemachine.errors import CodecError
from timemachine.replica.snapshot import ImageEnd, ImageIn, image_out
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore


def _store(keys: ReplicaKeys) -> MemoryStore:
    rows = {keys.job + b"%05d" % number: b"v" * (number % 50) for number in range(1_234)}
    rows[keys.log + b"1"] = b"entry"
    rows[keys.hard_state] = b"vote"
    rows[keys.state] = b"state"
    return MemoryStore(rows | {b"\xff other": b"not ours"})


def _image(store: MemoryStore, keys: ReplicaKeys) -> tuple[list[bytes], ImageEnd]:
    *chunks, end = image_out(store, keys, applied_index=9, applied_term=2, chunk_bytes=4_000)
    assert isinstance(end, ImageEnd)
    return [chunk for chunk in chunks if isinstance(chunk, bytes)], end


def test_an_image_installs_under_another_incarnation() -> None:
    """Every row of the machine arrives, the log and the vote do not."""
    old, new = ReplicaKeys(3), ReplicaKeys(8)
    store = _store(old)
    chunks, end = _image(store, old)
    assert len(chunks) > 5
    taking = ImageIn(new)
    for chunk in chunks:
        store.write(store.prepare(taking.chunk(chunk)))
    taking.finish(end)
    before = {k[4:]: v for k, v in store.scan(old.prefix, old.stop, 9_999)}
    after = {k[4:]: v for k, v in store.scan(new.prefix, new.stop, 9_999)}
    assert {k: v for k, v in before.items() if k[:1] not in b"hl"} == after
    assert (9, 2) == (end.applied_index, end.applied_term)


def test_a_damaged_chunk_is_refused() -> None:
    """One flipped bit is noticed."""
    keys = ReplicaKeys(3)
    chunks, _ = _image(_store(keys), keys)
    broken = bytearray(chunks[0])
    broken[100] ^= 1
    with pytest.raises(CodecError):
        ImageIn(keys).chunk(bytes(broken))


def test_a_missing_or_repeated_chunk_is_refused() -> None:
    """Chunks come in turn, and all of them."""
    keys = ReplicaKeys(3)
    chunks, end = _image(_store(keys), keys)
    with pytest.raises(CodecError):
        ImageIn(keys).chunk(chunks[1])
    taking = ImageIn(keys)
    taking.chunk(chunks[0])
    with pytest.raises(CodecError):
        taking.chunk(chunks[0])
    with pytest.raises(CodecError):
        taking.finish(end)
