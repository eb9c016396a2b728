"""MessagePack: bodies become JSON before a handler sees them, and answers stop being JSON after it.

Handlers know JSON alone, and what is stored is JSON. So both ways in give the same job, and a job
is read in either form, whichever it came in.

What comes. JSON holds less than MessagePack: bin and ext (timestamps among them), keys that are
no strings, NaN and infinity are refused, and the place is named. A key that comes twice counts
with its last value. Floats stay floats: 1.0 becomes `1.0`.

What goes. MessagePack holds less than JSON in one thing, numbers: an integer of more than 64 bits,
and a number beyond a double, are sent as strings of their digits, so that none is lost. `1.0` is
sent as a float, `1` as an integer.
"""

import asyncio
import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import msgspec

from node.api.conventions import Answer, encode_json
from node.api.media import JSON, MSGPACK, PROBLEM
from node.api.problems import invalid, step, too_large
from timemachine import limits
from timemachine.errors import InvalidRequest, TimeMachineError

_JSON_TYPES: Final = frozenset({JSON, PROBLEM})
_WILD: Final = ("application/*", "*/*")
_Q: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")

_AT_ONCE_BYTES_MAX: Final = 64 * 1024
"""More is left to a thread, with the loop going on beside it."""

_DEPTH_MAX: Final = 2 * limits.META_DEPTH_MAX
"""Where this looks no deeper. That a meta is too deep says the check of all metas."""

_INTEGERS: Final = range(-(2**63), 2**64)
_DIGITS_MAX: Final = len(str(2**64)) + 1

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_Place = tuple[Any, Any] | None
"""Where a value stands: the place of what holds it, and its key or index there."""

_decode = msgspec.msgpack.Decoder().decode
_decode_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


# --- what is asked for -----------------------------------------------------------------------


def wanted(headers: Any) -> bool:
    """Whether `Accept` asks for MessagePack before JSON (RFC 9110, 12.5.1).

    It has to be named. JSON is answered where it is named too with a higher weight, or with the
    same weight and first; and to whatever cannot be read.
    """
    accept = ",".join(headers.getall("Accept", ())).lower()
    if MSGPACK not in accept:
        return False
    weights: dict[str, tuple[float, int]] = {}
    for number, each in enumerate(accept.split(",")):
        name, *parameters = [part.strip() for part in each.split(";")]
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                weight = float(value) if _Q.fullmatch(value.strip()) is not None else 0.0
        weights.setdefault(name, (weight, -number))
    ours = weights.get(MSGPACK, (0.0, 0))
    theirs = weights.get(JSON)
    if theirs is None:
        # A wildcard of the same weight says less than a name.
        wild = next((weights[name][0] for name in _WILD if name in weights), 0.0)
        return ours[0] > 0 and ours[0] >= wild
    return ours[0] > 0 and ours > theirs


# --- what comes ------------------------------------------------------------------------------


async def unpacked(body: bytes) -> bytes:
    """The JSON of a body. Raises InvalidRequest for what JSON cannot hold, TooLarge."""
    if len(body) <= _AT_ONCE_BYTES_MAX:
        return to_json(body)
    return await asyncio.to_thread(to_json, body)


async def unpacked_items(
    body: bytes, too_many: Callable[[int], TimeMachineError]
) -> list[bytes | TimeMachineError]:
    """The JSON of each item of an array, or what is wrong with that item.

    Raises InvalidRequest for what is no array, and `too_many` of the number of its items.
    """
    count = _announced(body)
    if count > limits.BATCH_JOBS_MAX:
        raise too_many(count)
    if len(body) <= _AT_ONCE_BYTES_MAX:
        return _items(body)
    return await asyncio.to_thread(_items, body)


def _announced(body: bytes) -> int:
    """How many items an array says that it has. Told before they are made; 0 for no array."""
    first = body[:1]
    if b"\x90" <= first <= b"\x9f":
        return first[0] & 0x0F
    width = {b"\xdc": 2, b"\xdd": 4}.get(first, 0)
    return int.from_bytes(body[1 : 1 + width], "big")


def _items(body: bytes) -> list[bytes | TimeMachineError]:
    try:
        raws = _decode_items(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _unreadable(error, "") from None
    items: list[bytes | TimeMachineError] = []
    for number, raw in enumerate(raws):
        try:
            items.append(to_json(bytes(raw), f"/{number}"))
        except TimeMachineError as error:
            items.append(error)
    return items


def to_json(body: bytes, prefix: str = "") -> bytes:
    """JSON of one value. `prefix` points at it. Raises InvalidRequest or TooLarge."""
    if len(body) > limits.MSGPACK_VALUE_BYTES_MAX:
        raise too_large(
            prefix, f"In MessagePack this has at most {limits.MSGPACK_VALUE_BYTES_MAX} bytes."
        )
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _unreadable(error, prefix) from None
    _check(value, None, 0, prefix)
    return encode_json(value)


def _check(value: Any, place: _Place, depth: int, prefix: str) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if depth > _DEPTH_MAX:
        raise invalid(_pointer(place, prefix, 1), "This is nested too deeply.")
    if kind is dict:
        for key, each in value.items():
            if type(key) is not str:
                raise invalid(_pointer(place, prefix), "The keys of a map are strings.")
            _check(each, (place, key), depth + 1, prefix)
    elif kind is list:
        for number, each in enumerate(value):
            if type(each) not in _PLAIN:
                _check(each, (place, number), depth + 1, prefix)
    elif kind is float:
        if not isfinite(value):
            raise invalid(_pointer(place, prefix), "JSON has no NaN and no infinity.")
    elif kind is bytes:
        raise invalid(_pointer(place, prefix), "JSON has no bin; send a string.")
    else:
        # A timestamp comes as a datetime.
        raise invalid(_pointer(place, prefix), "JSON has no ext types, timestamps among them.")


def _pointer(place: _Place, prefix: str, steps_max: int | None = None) -> str:
    steps: list[str] = []
    while place is not None:
        place, key = place
        steps.append(step(str(key)))
    return prefix + "".join(steps[::-1][:steps_max])


def _unreadable(error: Exception, prefix: str) -> InvalidRequest:
    if isinstance(error, RecursionError):
        return invalid(prefix, "This is nested too deeply.")
    if isinstance(error, UnicodeDecodeError):
        return invalid(prefix, "A string is not valid UTF-8.")
    if isinstance(error, msgspec.ValidationError):
        return invalid(prefix, "This is an array.")
    said = str(error).removeprefix("MessagePack data is malformed: ")
    return invalid(prefix, f"This is not valid MessagePack: {said}.")


# --- what goes -------------------------------------------------------------------------------


async def packed(answer: Answer) -> Answer:
    """The same answer in MessagePack, where it is JSON: problems are, NDJSON is not."""
    if answer.content_type not in _JSON_TYPES:
        return answer
    if len(answer.body) <= _AT_ONCE_BYTES_MAX:
        body = from_json(answer.body)
    else:
        body = await asyncio.to_thread(_in_pieces, answer.body)
    return msgspec.structs.replace(answer, body=body, content_type=MSGPACK)


def from_json(body: bytes) -> bytes:
    """MessagePack of one JSON value."""
    try:
        return _encode(_decode_json(body))
    except (msgspec.ValidationError, OverflowError):
        return _encode(json.loads(body, parse_int=_held_integer, parse_float=_held_float))


def _held_integer(digits: str) -> int | str:
    if len(digits) <= _DIGITS_MAX and (number := int(digits)) in _INTEGERS:
        return number
    return digits


def _held_float(digits: str) -> float | str:
    number = float(digits)
    return number if isfinite(number) else digits


def _in_pieces(body: bytes) -> bytes:
    """The same of an object with long lists: item by item, so that other threads come between."""
    if not body.startswith(b"{"):
        return from_json(body)
    members = _decode_members(body)
    parts = [b"\xdf", len(members).to_bytes(4, "big")]
    for name, raw in members.items():
        value = bytes(raw)
        parts.append(_encode(name))
        if value.startswith(b"["):
            elements = _decode_elements(value)
            parts += [b"\xdd", len(elements).to_bytes(4, "big")]
            parts += [from_json(bytes(each)) for each in elements]
        else:
            parts.append(from_json(value))
    return b"".join(parts)
