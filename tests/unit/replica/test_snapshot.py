"""The image of a replica: complete, checked, and independent of its prefix."""

import zlib

import pytest

from timemachine import codec, limits
from timemachine.errors import CodecError, StoreError
from timemachine.replica.meta import MetaState
from timemachine.replica.records import MachineState
from timemachine.replica.snapshot import ImageChunk, ImageEnd, ImageIn, applied_in, image_out
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.memory import MemoryStore


def _store(keys: ReplicaKeys) -> MemoryStore:
    rows = {keys.job + b"%05d" % number: b"v" * (number % 50) for number in range(1_234)}
    for letter in b"acdfijkmnqrstwxy":
        rows[keys.prefix + bytes((letter,)) + u64(9_000)] = b"row"
    rows[keys.log + b"1"] = b"entry"
    rows[keys.hard_state] = b"vote"
    rows[keys.members] = b"members"
    rows[keys.state] = codec.encode(MachineState(9, 2, offset_due_ms=8_000))
    return MemoryStore(rows | {b"\xff other": b"not ours", b"\0\0\0\2zz": b"neither"})


def _image(
    store: MemoryStore, keys: ReplicaKeys, chunk_bytes: int = 4_000
) -> tuple[list[bytes], ImageEnd]:
    *chunks, end = image_out(store.view(), keys, chunk_bytes=chunk_bytes)
    assert isinstance(end, ImageEnd)
    return [chunk for chunk in chunks if isinstance(chunk, bytes)], end


@pytest.mark.parametrize("chunk_bytes", [1, 100, 4_000, 1_000_000])
def test_an_image_installs_under_another_incarnation(chunk_bytes: int) -> None:
    """Every row of the machine arrives; the log, the vote and the members do not."""
    old, new = ReplicaKeys(3), ReplicaKeys(8)
    store = _store(old)
    chunks, end = _image(store, old, chunk_bytes)
    taking = ImageIn(new)
    for chunk in chunks:
        store.write(store.prepare({**taking.chunk(chunk)}))
    taking.finish(end)
    before = {k[4:]: v for k, v in store.scan(old.prefix, old.stop, 9_999)}
    after = {k[4:]: v for k, v in store.scan(new.prefix, new.stop, 9_999)}
    assert {k: v for k, v in before.items() if k[:1] not in (b"h", b"l", b"b")} == after
    assert (9, 2) == (end.applied_index, end.applied_term)
    assert len(after) == end.rows


def test_an_image_is_of_the_view() -> None:
    """What is applied meanwhile is in the next one, and so is its index."""
    keys = ReplicaKeys(3)
    store = _store(keys)
    view = store.view()
    image = image_out(view, keys, chunk_bytes=4_000)
    first = next(image)
    state = codec.encode(MachineState(10, 3))
    store.write(store.prepare({keys.state: state, keys.job + b"00001": None}))
    *rest, end = image
    assert isinstance(end, ImageEnd)
    assert (9, 2) == (end.applied_index, end.applied_term) == applied_in(view, keys)
    assert 1_234 + 16 + 1 == end.rows
    assert 1 + len(rest) == end.chunks
    assert isinstance(first, bytes)
    view.close()
    with pytest.raises(StoreError):
        list(image_out(view, keys, chunk_bytes=4_000))


def test_both_machines_say_what_they_applied() -> None:
    """Their state rows begin alike; a replica that has none has applied nothing."""
    keys = ReplicaKeys(3)
    for state in (MachineState(7, 4, 90, "job"), MetaState(7, 4, 90, 1)):
        view = MemoryStore({keys.state: codec.encode(state)}).view()
        assert (7, 4) == applied_in(view, keys)
    assert (0, 0) == applied_in(MemoryStore().view(), keys)


def test_a_chunk_is_bounded_in_bytes_and_in_rows() -> None:
    """However small or large the rows are: a step of an image holds nothing up."""
    keys = ReplicaKeys(3)
    rows = {keys.state_listing + u64(number): b"" for number in range(3_000)}
    rows |= {keys.meta + u64(number): b"m" * 40_000 for number in range(20)}
    chunks, end = _image(MemoryStore(rows), keys, limits.SNAPSHOT_CHUNK_BYTES)
    assert max(len(chunk) for chunk in chunks) < limits.SNAPSHOT_CHUNK_BYTES + 41_000
    read = codec.decoder(ImageChunk)
    sizes = [len(read(chunk[4:]).rows) for chunk in chunks]
    assert limits.SNAPSHOT_CHUNK_ROWS_MAX == max(sizes)
    assert 3_020 == sum(sizes) == end.rows


def test_what_lies_below_the_offset_is_not_looked_at() -> None:
    """There are no rows, but LevelDB would walk over all those that were deleted."""
    keys = ReplicaKeys(3)
    store = _store(keys)
    asked: list[tuple[bytes, bytes]] = []
    view = store.view()
    scan = view.scan

    def watched(start: bytes, stop: bytes, limit: int = 1000, **options: int) -> object:
        asked.append((start, stop))
        return scan(start, stop, limit, bytes_max=options["bytes_max"])

    view.scan = watched  # type: ignore[method-assign,assignment]
    list(image_out(view, keys, chunk_bytes=4_000))
    for start, stop in asked:
        assert not start <= keys.due < stop
        assert not start <= keys.log < stop
        assert not start <= keys.members < stop
        assert not start <= keys.hard_state < stop


def test_a_damaged_chunk_is_refused() -> None:
    """One flipped bit is noticed, and the undamaged chunk is still taken."""
    keys = ReplicaKeys(3)
    chunks, _ = _image(_store(keys), keys)
    broken = bytearray(chunks[0])
    broken[100] ^= 1
    taking = ImageIn(keys)
    with pytest.raises(CodecError):
        taking.chunk(bytes(broken))
    assert taking.chunk(chunks[0])


@pytest.mark.parametrize("letter", [b"h", b"l", b"b"])
def test_an_image_cannot_bring_a_vote_a_log_or_members(letter: bytes) -> None:
    """These are written with the switch, and by nobody else."""
    data = codec.encode(ImageChunk(0, [(b"j1", b"job"), (letter, b"row")]))
    with pytest.raises(CodecError):
        ImageIn(ReplicaKeys(3)).chunk(zlib.crc32(data).to_bytes(4, "big") + data)


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
