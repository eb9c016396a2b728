"""Errors on their way to another node: told there with the same class, code and sentence."""

from typing import Any, Final

import msgspec

from timemachine import codec, errors
from timemachine.errors import (
    ClientError,
    InvalidRequest,
    InvalidSecret,
    NotLeader,
    Overloaded,
    TimeMachineError,
)

_KINDS: Final[dict[str, type[TimeMachineError]]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, TimeMachineError)
    and not issubclass(kind, ClientError)  # the SDK's: no node has one
}


class CarriedError(msgspec.Struct, frozen=True, array_like=True):
    """A TimeMachineError as a value. `kind` is the name of its class in `timemachine.errors`."""

    kind: str
    detail: str
    code: str
    retry_after_s: int = 1
    leader: int = 0
    errors: list[tuple[str, str]] = []
    rule: str = ""


def carry(error: TimeMachineError) -> CarriedError:
    """The error as a value; of a class that others do not know, the nearest one that they do."""
    kind = next(each.__name__ for each in type(error).__mro__ if _KINDS.get(each.__name__) is each)
    return CarriedError(
        kind,
        error.detail,
        error.specific_code,
        error.retry_after_s if isinstance(error, Overloaded) else 1,
        error.leader if isinstance(error, NotLeader) else 0,
        error.errors if isinstance(error, InvalidRequest) else [],
        error.rule if isinstance(error, InvalidSecret) else "",
    )


def arrived(carried: CarriedError) -> TimeMachineError:
    """The error of a value. A class that is not known here is as TimeMachineError."""
    kind = _KINDS.get(carried.kind, TimeMachineError)
    detail, code = carried.detail, carried.code
    if issubclass(kind, NotLeader):
        return kind(carried.leader)
    if issubclass(kind, InvalidSecret):
        return kind(detail, rule=carried.rule)
    if issubclass(kind, Overloaded):
        return kind(detail, retry_after_s=carried.retry_after_s, code=code)
    if issubclass(kind, InvalidRequest):
        return kind(detail, errors=carried.errors, code=code)
    return kind(detail, code=code)


_read: Any = codec.decoder(CarriedError)


def write_error(error: TimeMachineError) -> bytes:
    """The bytes of an error."""
    return codec.encode(carry(error))


def read_error(data: bytes) -> TimeMachineError:
    """The error of these bytes. Raises CodecError."""
    return arrived(_read(data))
