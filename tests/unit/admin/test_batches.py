"""Reading many jobs: lines or an array, cut into bounded batches."""

import io

import click
import pytest

from admin import batches
from admin.batches import Item, Outcome, Reader, Refused


def read(data: bytes, batch_jobs: int = 2) -> list[list[Item]]:
    """The batches of a stream."""
    return list(Reader(io.BytesIO(data), batch_jobs))


def test_lines() -> None:
    """A job a line; empty lines count, but are none; the last line may end anyhow."""
    assert [[Item(1, b"{}"), Item(3, b'{"a": 1}')], [Item(4, b"[")]] == read(
        b'\xef\xbb\xbf{}\r\n\n {"a": 1} \n['
    )


def test_an_array() -> None:
    """Its items keep their bytes, whatever lines they stand on."""
    assert [[Item(1, b'{"a":\n1.0}'), Item(2, b"2")], [Item(3, b"[]")]] == read(
        b'\n  [{"a":\n1.0},\n2, []]'
    )
    assert [] == read(b"[]")
    assert [] == read(b"")


def test_a_broken_array_is_refused() -> None:
    """Before anything of it is sent."""
    with pytest.raises(click.UsageError, match="no JSON array"):
        read(b'[{"a": 1},')


def test_batches_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large jobs make small batches; one that is larger than the bound goes alone."""
    monkeypatch.setattr(batches, "_BATCH_BYTES", 10)
    sizes = [[len(item.content) for item in batch] for batch in read(b"4444\n4444\n4444\n" * 2, 9)]
    assert [[4, 4], [4, 4], [4, 4]] == sizes
    assert [[1], [20], [1]] == [
        [len(item.content) for item in batch] for batch in read(b"1\n" + b"2" * 20 + b"\n1", 9)
    ]


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever comes through a pipe."""
    monkeypatch.setattr(batches, "_LINE_BYTES_MAX", 10)
    with pytest.raises(click.UsageError, match="Line 2 is longer"):
        read(b"{}\n" + b"x" * 11)


def test_it_reads_no_further_than_asked() -> None:
    """A pipe is read only as fast as batches are taken."""
    source = io.BytesIO(b"{}\n" * 100)
    reader = Reader(source, 10)
    next(iter(reader))
    assert 33 == source.tell() == reader.bytes_read


def test_a_refusal_for_people() -> None:
    """Where, and why; nothing in it steers the terminal, and parameters are options."""
    refused = Refused(7, "No \x9b31m? send ?force=true.", "{}")
    assert "line 7: No \\x9b31m? add --force." == refused.sentence()


def test_the_outcome() -> None:
    """For people and for programs."""
    assert "2 created, 0 refused" == Outcome(created=2).sentence()
    assert "0 created, 3 were there already, 1 refused" == Outcome(existing=3, failed=1).sentence()
    assert '{"created": 2, "existing": 0, "failed": 1}' == Outcome(created=2, failed=1).as_json()
