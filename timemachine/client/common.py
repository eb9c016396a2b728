"""What the async and the sync client share beside the conversation."""

import dataclasses
import functools
import inspect
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from timemachine import limits
from timemachine.client.answers import Page
from timemachine.client.call import Call
from timemachine.client.conversation import Broken

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

READ_BYTES: Final = 64 * 1024
ALL_BUSY: Final = f"all {limits.CLIENT_CONNECTIONS_MAX} connections of this client are busy"


def dress(method: F, build: Callable[..., Call[Any]]) -> F:
    """Give `method` the name, the docstring and the signature of the operation `build`."""
    functools.update_wrapper(method, build)
    del method.__wrapped__  # type: ignore[attr-defined]  # it would show a signature without self
    signature = inspect.signature(build)
    self_parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[self_parameter, *signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    return method


def next_page(call: Call[Page[T]], cursor: str | None) -> Call[Page[T]] | None:
    """The call for the page at `cursor`, None after the last one."""
    if cursor is None:
        return None
    others = tuple(pair for pair in call.query if pair[0] != "cursor")
    return dataclasses.replace(call, query=(*others, ("cursor", cursor)))


class Paging(Generic[T]):
    """Where a list is being read: the call for the next page, and the cursor behind the last."""

    def __init__(self, call: Call[Page[T]]) -> None:
        self._following: Call[Page[T]] | None = call
        self._left = call.items_max
        asked = dict(call.query).get("limit")
        self._page_size = limits.LIST_LIMIT_DEFAULT if asked is None else int(asked)
        self.next_cursor: str | None = None

    @property
    def call(self) -> Call[Page[T]] | None:
        """The call for the next page, None at the end; a page is never longer than what is left."""
        call, left = self._following, self._left
        if left == 0:
            return None
        if call is None or left is None or left >= self._page_size:
            return call
        others = tuple(pair for pair in call.query if pair[0] != "limit")
        return dataclasses.replace(call, query=(*others, ("limit", str(left))))

    def took(self, page: Page[T]) -> Page[T]:
        """A page came."""
        if self._left is not None:
            self._left = max(0, self._left - len(page.items))
        self.next_cursor = page.next_cursor
        assert self._following is not None
        self._following = next_page(self._following, page.next_cursor)
        return page


def broken(error: OSError, *, sent: bool) -> Broken:
    """What a failed exchange means for the conversation."""
    if isinstance(error, TimeoutError):
        return Broken("no answer in time", sent, cause=error)
    if isinstance(error, ssl.SSLCertVerificationError):
        # Trying again does not make a certificate valid.
        sentence = f"its certificate is not valid: {error.verify_message}"
        return Broken(sentence, sent, hopeless=True, cause=error)
    if isinstance(error, ssl.SSLError):
        # Its number is OpenSSL's: as one of the system it would mean something else.
        reason = (error.reason or "it broke off").replace("_", " ").lower()
        return Broken(f"no TLS: {reason}", sent, cause=error)
    if isinstance(error, socket.gaierror):
        return Broken("its name cannot be resolved", sent, cause=error)
    # asyncio puts a text of its own into strerror.
    sentence = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return Broken(sentence.lower(), sent, cause=error)
