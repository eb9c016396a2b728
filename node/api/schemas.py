"""What types say of their members for the documents, where the checks stand in the handlers.

msgspec would check a `Meta(ge=...)` itself, for every job again, and with sentences of its own.
"""

from typing import Annotated, Any

from msgspec import Meta

Time = Annotated[int, Meta(description="Milliseconds since the Unix epoch, UTC.")]
Version = Annotated[int, Meta(description="1 at first, one more with each change.")]


def between(low: float, high: float) -> Meta:
    """A number within these bounds, both included."""
    return Meta(extra_json_schema={"minimum": low, "maximum": high})


def one_of(description: str, *values: object) -> Meta:
    """One of these values."""
    return Meta(description=description, extra_json_schema={"enum": list(values)})


def exactly_one(one: str, other: str) -> dict[str, Any]:
    """What a Struct says as its `SCHEMA`: one of two members is given, the other absent or null."""
    return {
        "oneOf": [
            {
                "required": [given],
                "properties": {given: {"not": {"type": "null"}}, absent: {"type": "null"}},
            }
            for given, absent in ((one, other), (other, one))
        ]
    }
