"""Parts as files: frames of pages, and what is to be known of all of them.

A frame is the length of a page (4 bytes) and the page. What stands in the manifest is the SHA-256
of the file as it lies there, compressed; each page has a checksum of its own beside.
"""

from collections.abc import Callable, Iterator
from typing import Final

from timemachine import limits
from timemachine.backup.pages import Page, read_page
from timemachine.errors import CodecError

_LENGTH_BYTES: Final = 4
_PAGE_BYTES_MAX: Final = 2 * limits.CALL_BODY_BYTES_MAX
"""More than any node sends: a made-up file must not fill the memory of who reads it."""


def frame(page: bytes) -> bytes:
    """A page as it stands in a file. Raises CodecError for one that nobody would read again."""
    if len(page) > _PAGE_BYTES_MAX:
        raise CodecError(f"A page has {len(page)} bytes.")
    return len(page).to_bytes(_LENGTH_BYTES, "big") + page


def pages_in(read: Callable[[int], bytes]) -> Iterator[Page]:
    """The pages of a file, in order. `read` gives so many bytes, fewer only at the end.

    Raises CodecError for damage, and where a page is missing.
    """
    number = 0
    while True:
        head = read(_LENGTH_BYTES)
        length = int.from_bytes(head, "big")
        if len(head) < _LENGTH_BYTES or length > _PAGE_BYTES_MAX:
            raise CodecError("A part of the backup ends before its last page.")
        data = read(length)
        if len(data) < length:
            raise CodecError("A part of the backup ends before its last page.")
        page = read_page(data)
        if page.number != number or (page.head is None) != (number > 0):
            raise CodecError("A page of the backup is missing.")
        yield page
        if page.last:
            break
        number += 1
    if read(1):
        raise CodecError("Something follows the last page of a part of the backup.")
