"""The twin in memory: its views cost a copy only where one is needed."""

import pytest

from timemachine.errors import StoreError, StoreFailed
from timemachine.storage.memory import MemoryStore


def _write(store: MemoryStore, key: bytes, value: bytes | None) -> None:
    store.write(store.prepare({key: value}))


def test_a_view_shows_what_was_there() -> None:
    """Two views of different times, and the store itself."""
    store = MemoryStore({b"a": b"1", b"b": b"1"})
    first = store.view()
    _write(store, b"a", b"2")
    second = store.view()
    _write(store, b"b", None)
    assert [(b"a", b"1"), (b"b", b"1")] == first.scan(b"", b"z")
    assert [(b"a", b"2"), (b"b", b"1")] == second.scan(b"", b"z")
    assert [(b"a", b"2")] == store.scan(b"", b"z")


def test_rows_are_copied_once_and_only_for_an_open_view() -> None:
    """The simulator has a node's whole store in one dict."""
    store = MemoryStore({b"a": b"1"})
    rows = store._rows
    store.view().close()
    _write(store, b"a", b"2")
    assert store._rows is rows
    view = store.view()
    _write(store, b"a", b"3")
    copied = store._rows
    assert copied is not rows
    _write(store, b"a", b"4")
    assert store._rows is copied
    assert b"2" == view.get(b"a")


def test_a_view_is_closed_with_its_store() -> None:
    """As LevelDB's."""
    store = MemoryStore({b"a": b"1"})
    view = store.view()
    store.close()
    for read in (lambda: view.get(b"a"), lambda: view.scan(b"", b"z"), store.view):
        with pytest.raises(StoreError):
            read()
    with pytest.raises(StoreFailed):
        _write(store, b"a", b"2")
