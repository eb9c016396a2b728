"""The first row of a table, while batches are on their way to the disk."""

from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

TABLES = (b"a\0", b"b\0")
KEYS = st.integers(0, 9).map(lambda number: b"%d" % number)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("put", "put", "delete", "delete", "seal", "settle", "look", "discard")),
        st.sampled_from(TABLES),
        KEYS,
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_it_is_that_of_all_batches_together(steps: list[tuple[str, bytes, bytes]]) -> None:
    """Compared with a dictionary, whatever is durable of it and whatever is not yet."""
    store = MemoryStore()
    store.write(store.prepare({table + b"%d" % n: b"old" for table in TABLES for n in (1, 4, 7)}))
    overlay = Overlay(store)
    rows: dict[bytes, bytes] = dict(store.scan(b"", b"z"))
    durable, flying = dict(rows), []
    for action, table, key in steps:
        if action == "put":
            overlay.put_listed(table, key, b"new")
            rows[table + key] = b"new"
        elif action == "delete":
            overlay.put_listed(table, key, None)
            rows.pop(table + key, None)
        elif action == "seal":
            flying.append((overlay.seal(), dict(rows)))
        elif action == "settle" and flying:
            batch, durable = flying.pop(0)
            store.write(store.prepare(batch))
            overlay.settled()
        elif action == "discard":
            overlay.discard()
            rows, flying = dict(durable), []
        among = sorted(each for each in rows if each.startswith(table) and each >= table + key)
        expected = (among[0][len(table) :], rows[among[0]]) if among else None
        assert expected == overlay.first(table, key)
