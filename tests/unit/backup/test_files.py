"""Parts as files: nothing that is damaged or missing goes unnoticed."""

import io

import pytest

from timemachine.backup.files import frame, pages_in
from timemachine.backup.pages import Page, PartHead, Position, read_page, written_page
from timemachine.errors import CodecError

HEAD = PartHead(Position(3, 1, 40, 2, 37), 7, [1, 0, 0, 0, 0, 0, 0])
PAGES = [
    Page(0, HEAD, [(b"a", b"1")], [], []),
    Page(1, None, [(b"b", b"2")], [(b"b", b"m")], []),
    Page(2, None, [], [], [], last=True),
]


def _file(*pages: Page) -> bytes:
    return b"".join(frame(written_page(page)) for page in pages)


def _read(data: bytes) -> list[Page]:
    return list(pages_in(io.BytesIO(data).read))


def test_pages_come_back() -> None:
    """All of them, as they were, in their order."""
    assert PAGES == _read(_file(*PAGES))
    assert ("3.1.2.40", "3.1.37") == (HEAD.position.text, HEAD.position.content)


@pytest.mark.parametrize(
    "pages", [PAGES[:2], PAGES[1:], [PAGES[0], PAGES[2]], [*PAGES, PAGES[2]], []]
)
def test_a_page_that_is_missing_or_too_many_is_noticed(pages: list[Page]) -> None:
    """At the front, in the middle, at the end."""
    with pytest.raises(CodecError):
        _read(_file(*pages))


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    """Wherever it is."""
    whole = _file(*PAGES)
    for at in range(len(whole)):
        for damaged in (
            whole[:at],
            whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
            whole[:at] + bytes([whole[at] ^ 128]) + whole[at + 1 :],
        ):
            with pytest.raises(CodecError):
                _read(damaged)


def test_a_page_that_is_larger_than_any_is_neither_written_nor_read() -> None:
    """Named regression: a made-up file of some kilobytes, compressed, took a gigabyte to read."""
    with pytest.raises(CodecError):
        frame(bytes((1 << 27) + 1))
    asked: list[int] = []

    def read(count: int) -> bytes:
        asked.append(count)
        return ((1 << 27) + 1).to_bytes(4, "big")

    with pytest.raises(CodecError):
        list(pages_in(read))
    assert [4] == asked


def test_bytes_that_are_no_page() -> None:
    """They are refused as such."""
    for data in (b"", b"1234", b"12345", b"\0" * 9):
        with pytest.raises(CodecError):
            read_page(data)
