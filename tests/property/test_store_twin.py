"""LevelDB against its twin in memory: the same answers to everything, also after reopening."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.storage.leveldb import FORMAT, Identity, open_store
from timemachine.storage.memory import MemoryStore

KEYS = st.binary(min_size=1, max_size=3).map(lambda key: b"k" + key)
BATCHES = st.lists(
    st.dictionaries(KEYS, st.none() | st.binary(max_size=20), max_size=8), max_size=8
)
SCANS = st.tuples(KEYS, KEYS, st.integers(1, 10), st.booleans())


@settings(max_examples=40, deadline=None)
@given(BATCHES, st.lists(SCANS, max_size=5))
def test_both_engines_agree(
    batches: list[dict[bytes, bytes | None]], scans: list[tuple[bytes, bytes, int, bool]]
) -> None:
    """Whatever is written and read, both give the same, before and after a restart."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        real, _ = open_store(path, create=Identity(FORMAT, "c", "n", 1, b""))
        twin = MemoryStore()
        for batch in batches:
            real.write(real.prepare(batch))
            twin.write(twin.prepare(batch))
        for _ in range(2):
            assert twin.scan(b"k", b"l") == real.scan(b"k", b"l")
            for start, stop, limit, back in scans:
                expected = twin.scan(start, stop, limit, reverse=back)
                assert expected == real.scan(start, stop, limit, reverse=back)
                assert twin.get(start) == real.get(start)
            real.close()
            real, _ = open_store(path)
        real.close()
