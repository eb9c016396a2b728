"""Media types: what bodies may be by their own account, and what answers are."""

from typing import Any, Final

from timemachine.errors import UnsupportedMediaType

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
NDJSON: Final = "application/x-ndjson"
MSGPACK: Final = "application/msgpack"

NDJSON_TYPES: Final = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
"""All names of it that are in use."""

_ANY_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""What tools put on a body when nobody tells them what it is."""


def content_type(headers: Any) -> str:
    """The media type of a body, without parameters; empty where none is named."""
    text: str = headers.get("Content-Type", "")
    return text.partition(";")[0].strip().lower()


def body_type(headers: Any) -> str:
    """The type of a body. Refuses what is neither JSON nor MessagePack by its own account."""
    if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":
        raise UnsupportedMediaType("Send the body without a content encoding.")
    if headers.get("Content-Type") == JSON:
        return JSON
    kind = content_type(headers)
    if kind in (JSON, MSGPACK) or kind in NDJSON_TYPES:
        return kind
    # Tools send these when nobody names a type. So do pages of other sites that a browser shows:
    # it tells their origin, and without this check would let them write here.
    if kind in _ANY_TYPES and "Origin" not in headers:
        return JSON
    raise UnsupportedMediaType(
        f"Send {JSON} or {MSGPACK}"
        + (f", not {kind}." if kind else "; the body has no Content-Type.")
    )
