"""What all operations share: names, times, conditions, idempotency, cursors, the call itself."""

import asyncio
import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from node.api.problems import invalid, refusal
from timemachine import errors, limits
from timemachine.replica.commands import Request

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
encode_json = msgspec.json.Encoder().encode


class Call(msgspec.Struct, kw_only=True):
    """One request: `names` are the variable parts of the path, decoded."""

    method: str
    operation: str
    names: list[str]
    query: dict[str, str]
    headers: Any
    body: bytes

    def flag(self, name: str) -> bool:
        """A true/false query parameter; absent is False."""
        value = self.query.get(name)
        if value is None:
            return False
        if value not in ("true", "false", "1", "0"):
            raise invalid(f"?{name}", "This is true or false.")
        return value in ("true", "1")

    def only(self, *known: str) -> None:
        """Refuse query parameters that mean nothing here."""
        for name in self.query:
            if name not in known:
                raise invalid(f"?{name}", "This parameter is not known here.")


class Answer(msgspec.Struct, kw_only=True):
    """What is answered; `body` is JSON unless `content_type` says otherwise."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {}
    content_type: str = "application/json"


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer with a JSON body."""
    return Answer(status=status, body=encode_json(value), headers=headers or {})


def checked_name(text: str, what: str) -> str:
    """A name of a database, collection or route, or a 400."""
    if NAME.fullmatch(text) is None:
        raise invalid(
            f"/{what}",
            f"A {what} name is 1 to {limits.NAME_CHARACTERS_MAX} of A-Z a-z 0-9 _ . -"
            " and starts with a letter or digit.",
        )
    return text


def checked_job_id(text: str, pointer: str = "/id") -> str:
    """A job id, or a 400 that says what is wrong with it."""
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise invalid(pointer, "A job id is valid UTF-8.") from None
    if not 1 <= size <= limits.JOB_ID_BYTES_MAX:
        raise invalid(pointer, f"A job id has 1 to {limits.JOB_ID_BYTES_MAX} bytes of UTF-8.")
    if text in (".", ".."):
        raise invalid(pointer, "A job id is not . or .., since URL libraries remove them.")
    if not text.isprintable() and _CONTROL.search(text):
        raise invalid(pointer, "A job id has no control characters.")
    return text


def checked_time(value: Any, pointer: str) -> int:
    """Milliseconds since the Unix epoch, from an integer or an RFC 3339 string with an offset."""
    if type(value) is int:
        time_ms = value
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise invalid(pointer, "This is no RFC 3339 time.") from None
        if moment.tzinfo is None or "T" not in value.upper():
            raise invalid(pointer, "The time needs a date, a time and an offset, such as Z.")
        seconds = moment.replace(microsecond=0).timestamp()
        time_ms = int(seconds) * 1000 + moment.microsecond // 1000
    else:
        raise invalid(pointer, "A time is an integer of milliseconds or an RFC 3339 string.")
    if not 0 <= time_ms <= limits.TIME_MS_MAX:
        raise invalid(pointer, f"A time is 0 to {limits.TIME_MS_MAX} (year 9999).")
    return time_ms


def query_time(call: Call, name: str) -> int | None:
    """A time from the query, or None."""
    text = call.query.get(name)
    if text is None:
        return None
    return checked_time(int(text) if re.fullmatch(r"[0-9]{1,18}", text) else text, f"?{name}")


def query_limit(call: Call) -> int:
    """The `limit` of a list."""
    text = call.query.get("limit")
    if text is None:
        return limits.LIST_LIMIT_DEFAULT
    if re.fullmatch(r"[0-9]{1,9}", text) is None or not 1 <= int(text) <= limits.LIST_LIMIT_MAX:
        raise invalid("?limit", f"The limit is 1 to {limits.LIST_LIMIT_MAX}.")
    return int(text)


def if_match(call: Call) -> int | None:
    """The version that If-Match asks for, or None. `*` asks for any: version 0 stands for it."""
    text = call.headers.get("If-Match")
    if text is None:
        return None
    if text.strip() == "*":
        return 0
    found = _ETAG.fullmatch(text.strip())
    if found is None:
        raise invalid("If-Match", 'This is one entity tag, such as "3".')
    return int(found[1])


def if_none_match(call: Call) -> bool:
    """Whether If-None-Match: * makes this a creation only."""
    text = call.headers.get("If-None-Match")
    if text is None:
        return False
    if text.strip() != "*":
        raise invalid("If-None-Match", "Only * is supported here.")
    return True


def idempotency_key(call: Call) -> str | None:
    """The Idempotency-Key, without the quotes of a structured field."""
    text = call.headers.get("Idempotency-Key")
    if text is None:
        return None
    text = str(text).strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 1 <= len(text.encode()) <= limits.IDEMPOTENCY_KEY_BYTES_MAX:
        raise invalid(
            "Idempotency-Key", f"The key has 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} bytes."
        )
    return text


def request_of(key: str | None, scope: str, content: bytes) -> Request | None:
    """The identity of a write with a key: `scope` is what the key is unique in."""
    if key is None:
        return None
    hashed = hashlib.sha256(f"{scope}\0{key}".encode()).digest()[:16]
    return Request(hashed, hashlib.sha256(content).digest()[:16])


def write_cursor(position: list[Any], scope: str) -> str:
    """An opaque cursor that only fits the list it came from."""
    mark = hashlib.sha256(scope.encode()).digest()[:6]
    return urlsafe_b64encode(mark + msgspec.msgpack.encode(position)).decode().rstrip("=")


def read_cursor(call: Call, scope: str) -> list[Any] | None:
    """The position of a cursor, or None without one."""
    text = call.query.get("cursor")
    if text is None:
        return None
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        position = msgspec.msgpack.decode(data[6:])
    except (ValueError, msgspec.DecodeError):
        raise invalid("?cursor", "This is no cursor of ours.") from None
    if data[:6] != hashlib.sha256(scope.encode()).digest()[:6] or not isinstance(position, list):
        raise invalid("?cursor", "This cursor belongs to another list.")
    return position


async def ask(propose: Callable[[Callable[[Any], None]], None]) -> Any:
    """Propose something and wait for its result; an error that comes back is raised."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answered(result: Any) -> None:
        if not future.done():
            future.set_result(result)

    propose(answered)
    result = await future
    if isinstance(result, errors.TimeMachineError):
        raise result
    return result


async def ask_meta(engine: Any, command: Any) -> Any:
    """Run a meta command; a refusal is raised."""
    result = await ask(lambda done: engine.propose_meta(command, done))
    if result.kind == "refused":
        raise refusal(result.code)
    return result
