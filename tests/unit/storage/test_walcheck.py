"""A torn tail is told from damage, wherever the log is cut or damaged."""

import random
from pathlib import Path
from struct import pack

import google_crc32c
import plyvel
import pytest

from timemachine.storage.walcheck import WalState, check_wal

BLOCK_BYTES = 32_768
HEADER_BYTES = 7


def _record(kind: int, data: bytes) -> bytes:
    crc = google_crc32c.value(bytes((kind,)) + data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return pack("<IHB", masked, len(data), kind) + data


def _log(writes: list[bytes]) -> tuple[bytes, list[int]]:
    """A log as `doc/log_format.md` of LevelDB says, and where each write ends."""
    log, ends = b"", []
    for write in writes:
        begin = True
        rest = write
        while begin or rest:
            left = BLOCK_BYTES - len(log) % BLOCK_BYTES
            if left < HEADER_BYTES:
                log += bytes(left)
                continue
            part, rest = rest[: left - HEADER_BYTES], rest[left - HEADER_BYTES :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}
            log += _record(kind[begin, not rest], part)
            begin = False
        ends.append(len(log))
    return log, ends


def _some_log(seed: int) -> tuple[bytes, list[int]]:
    rng = random.Random(seed)
    sizes = (0, 1, 40, 300, 3_000, BLOCK_BYTES - HEADER_BYTES, 2 * BLOCK_BYTES + 5)
    return _log([rng.randbytes(rng.choice(sizes)) for _ in range(rng.randrange(3, 12))])


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_log_is_whole(seed: int) -> None:
    """Writes of all sizes, also over several blocks: nothing is damaged, nothing to cut."""
    log, ends = _some_log(seed)
    assert WalState(False, ends[-1], len(log)) == check_wal(log)


def test_nothing_is_whole() -> None:
    """A log that was just begun."""
    assert WalState(False, 0, 0) == check_wal(b"")


@pytest.mark.parametrize("left_bytes", range(10))
def test_the_end_of_a_block(left_bytes: int) -> None:
    """Fewer than seven bytes are filled up; in exactly seven an empty first part is written."""
    log, ends = _log([bytes(BLOCK_BYTES - HEADER_BYTES - left_bytes), b"next" * 20, b"last"])
    assert WalState(False, ends[-1], len(log)) == check_wal(log)


@pytest.mark.parametrize("seed", range(10))
def test_a_log_cut_anywhere_is_torn_and_never_damaged(seed: int) -> None:
    """Whatever part of the last write is there: what is kept is every write before it."""
    log, ends = _some_log(seed)
    rng = random.Random(seed)
    near = {end + step for end in (0, *ends) for step in range(-8, 9)}
    for cut in near | {rng.randrange(len(log)) for _ in range(50)}:
        if 0 <= cut <= len(log):
            whole = max((end for end in ends if end <= cut), default=0)
            state = check_wal(log[:cut])
            assert not state.damaged, cut
            assert whole == state.good_end_bytes, cut


@pytest.mark.parametrize("seed", range(10))
def test_garbage_behind_the_end_is_torn(seed: int) -> None:
    """Old blocks of the disk, or zeroes, where the last write should have been."""
    log, ends = _some_log(seed)
    for tail in (bytes(5_000), random.Random(seed).randbytes(70_000), b"\xff" * 100):
        assert WalState(False, ends[-1], len(log) + len(tail)) == check_wal(log + tail)


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_is_damage_where_a_write_follows(seed: int) -> None:
    """In the header or in the data: if any later write is whole, something acknowledged is gone."""
    rng = random.Random(seed)
    log, ends = _log([rng.randbytes(rng.randrange(1, 400)) for _ in range(20)])
    starts = [0, *ends[:-1]]
    headers = [start + step for start in starts for step in range(HEADER_BYTES)]
    for place in headers + [rng.randrange(len(log)) for _ in range(100)]:
        content = bytearray(log)
        content[place] ^= 1 << rng.randrange(8)
        state = check_wal(bytes(content))
        number = next(n for n, end in enumerate(ends) if place < end)
        assert state.damaged == (number < len(ends) - 1), (place, number)
        assert starts[number] == state.good_end_bytes


@pytest.mark.parametrize("seed", range(10))
def test_a_zeroed_page_is_damage_where_a_write_follows(seed: int) -> None:
    """LevelDB takes zeroes for a file that was made longer ahead of its use, and skips them."""
    rng = random.Random(seed)
    log, _ = _log([rng.randbytes(rng.randrange(1, 900)) for _ in range(200)])
    page = rng.randrange(len(log) // 4_096 - 1) * 4_096
    content = log[:page] + bytes(4_096) + log[page + 4_096 :]
    assert check_wal(content).damaged


def test_it_reads_what_leveldb_writes(tmp_path: Path) -> None:
    """The format is LevelDB's, not only our idea of it: cut where it says, and no key is lost."""
    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    rng = random.Random(5)
    for number in range(100):
        database.put(b"%03d" % number, rng.randbytes(rng.choice([1, 100, 50_000])), sync=True)
    [path] = (tmp_path / "db").glob("*.log")
    content = path.read_bytes()
    database.close()
    assert WalState(False, len(content), len(content)) == check_wal(content)
    assert check_wal(content[:40_000] + b"?" + content[40_001:]).damaged
