"""What the async and the sync client share beside the conversation."""

import dataclasses
import functools
import inspect
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar

from timemachine.client.answers import Page
from timemachine.client.call import Call
from timemachine.client.conversation import Broken

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

READ_BYTES: Final = 64 * 1024


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


def broken(error: OSError, *, sent: bool) -> Broken:
    """What a failed exchange means for the conversation."""
    if isinstance(error, TimeoutError):
        return Broken("no answer in time", sent)
    if isinstance(error, ssl.SSLCertVerificationError):
        # Trying again does not make a certificate valid.
        return Broken(f"its certificate is not valid: {error.verify_message}", sent, hopeless=True)
    if isinstance(error, socket.gaierror):
        return Broken("its name cannot be resolved", sent)
    # asyncio puts a text of its own into strerror.
    sentence = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return Broken(sentence.lower(), sent)
