"""The meta of a job: any JSON, kept byte for byte as it came."""

import json
import re
from typing import Any

import msgspec

from node.api.problems import from_validation, invalid, too_large
from timemachine import limits

_decode_any = msgspec.json.Decoder().decode
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def checked_meta(raw: bytes, pointer: str) -> bytes:
    """`raw` itself, once it is known to be JSON within the limits. Raises 400 or 413.

    Numbers may be of any size: they are not ours to read. What is no Unicode text is refused,
    since recipients could not read it: bytes that are no UTF-8, and lone surrogates.
    """
    if len(raw) > limits.META_BYTES_MAX:
        raise too_large(pointer, f"The meta has at most {limits.META_BYTES_MAX} bytes.")
    # Before it is decoded, since a decoder goes down as deep as the input says.
    if len(raw) > 2 * limits.META_DEPTH_MAX and _is_deep(raw):
        raise invalid(pointer, f"The meta is nested at most {limits.META_DEPTH_MAX} levels deep.")
    try:
        _decode_any(raw)
    except msgspec.ValidationError:
        # JSON, but with a number that this decoder does not hold.
        _check_slowly(raw, pointer)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise from_validation(error, pointer) from None
    return raw


def _is_deep(raw: bytes) -> bool:
    """Whether JSON is nested deeper than the limit."""
    if raw.count(b"[") + raw.count(b"{") <= limits.META_DEPTH_MAX:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", raw).translate(None, _ALL_BUT_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > limits.META_DEPTH_MAX:
                return True
        else:
            depth -= 1
    return False


def _check_slowly(raw: bytes, pointer: str) -> None:
    def refuse(word: str) -> Any:
        raise invalid(pointer, f"{word} is not JSON.")

    try:
        value = json.loads(raw, parse_int=len, parse_float=len, parse_constant=refuse)
        msgspec.json.encode(value)
    except (ValueError, RecursionError):
        raise invalid(pointer, "This is not valid JSON.") from None
