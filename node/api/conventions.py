"""What all operations share: names, times, conditions, idempotency, the call itself."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import msgspec

from node.api.media import JSON
from node.api.problems import from_validation, invalid, refusal
from node.engine import Engine
from node.gathering import Asking
from node.gathering.questions import Listed, Polled, Summed
from timemachine import errors, limits
from timemachine.model import Collection
from timemachine.replica.commands import Request
from timemachine.replica.results import JobResult

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DIGITS = re.compile(r"[0-9]{1,18}")
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

NO_VERSION: Final = 0
"""No job and no route ever has it: as a condition it never holds."""

Ignored = Annotated[
    msgspec.Raw | msgspec.UnsetType,
    msgspec.Meta(description="Shown by GET, ignored here.", extra_json_schema={"readOnly": True}),
]
"""Members that GET shows and that PUT takes back without looking at them. Their default: UNSET."""

encode_json = msgspec.json.Encoder().encode
encode_content = msgspec.msgpack.Encoder().encode
"""What was asked, in one form whatever its spelling: for the fingerprints of requests."""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A body without members."""


_decode_nothing = msgspec.json.Decoder(Nothing).decode


class Call(msgspec.Struct, kw_only=True):
    """One request: `names` are the variable parts of the path, decoded.

    `operation` is the path with a star for each of them. Only known parameters are in `query`.
    """

    method: str
    operation: str
    names: list[str]
    query: dict[str, str]
    headers: Any
    body: bytes

    def flag(self, name: str) -> bool:
        """A true/false query parameter; absent is False."""
        return self.query.get(name) in ("true", "1")

    def no_members(self) -> None:
        """Refuse a body that says anything: this operation has no options there."""
        decoded(_decode_nothing, self.body or b"{}")


class Answer(msgspec.Struct, kw_only=True):
    """What is answered; `body` is JSON unless `content_type` says otherwise."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {}
    content_type: str = JSON


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
    if not text.isprintable() and CONTROL.search(text):
        raise invalid(pointer, "A job id has no control characters.")
    return text


def checked_time(value: Any, pointer: str) -> int:
    """Milliseconds since the Unix epoch, from an integer or an RFC 3339 string with an offset."""
    if type(value) is int:
        time_ms = value
    elif isinstance(value, str):
        time_ms = _parsed_time(value, pointer)
    else:
        raise invalid(pointer, "A time is an integer of milliseconds or an RFC 3339 string.")
    if not 0 <= time_ms <= limits.TIME_MS_MAX:
        raise invalid(pointer, f"A time is 0 to {limits.TIME_MS_MAX} (year 9999).")
    return time_ms


def _parsed_time(text: str, pointer: str) -> int:
    if _RFC_3339.fullmatch(text) is None:
        raise invalid(
            pointer,
            "This is no RFC 3339 time with an offset, such as 2030-01-31T08:00:00Z"
            " or 2030-01-31T08:00:00.250+01:00.",
        )
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        raise invalid(pointer, "There is no such time.") from None


def query_time(call: Call, name: str) -> int | None:
    """A time from the query, or None."""
    text = call.query.get(name)
    if text is None:
        return None
    return checked_time(int(text) if DIGITS.fullmatch(text) else text, f"?{name}")


def query_number(call: Call, name: str, low: int, high: int, default: int) -> int:
    """A number from the query, within its bounds."""
    text = call.query.get(name)
    if text is None:
        return default
    if DIGITS.fullmatch(text) is None or not low <= int(text) <= high:
        raise invalid(f"?{name}", f"This is a number from {low} to {high}.")
    return int(text)


def if_match(call: Call, version: Callable[[], int]) -> int | None:
    """The version that If-Match asks for, or None without one.

    `version` tells the one that is stored, `NO_VERSION` when there is none; it is asked where the
    header names several, or `*`, any. A weak tag is taken for a strong one: proxies that compress
    weaken tags, and a version stands for one content whatever its coding.
    """
    text = call.headers.get("If-Match")
    if text is None:
        return None
    if text.strip() == "*":
        return version()
    wanted = []
    for part in text.split(","):
        found = _ETAG.fullmatch(part.strip())
        if found is None:
            raise invalid("If-Match", 'This takes entity tags, such as "3", or *.')
        wanted.append(int(found[1]))
    if len(wanted) == 1:
        return wanted[0]
    stored = version()
    return stored if stored in wanted else NO_VERSION


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
    text: str | None = call.headers.get("Idempotency-Key")
    if text is None:
        return None
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if not 1 <= len(text) <= limits.IDEMPOTENCY_KEY_BYTES_MAX or not text.isascii():
        raise invalid(
            "Idempotency-Key",
            f"The key has 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters.",
        )
    return text


def request_of(key: str | None, scope: str, content: bytes, item: int = 0) -> Request | None:
    """The identity of a write with a key.

    `scope` is what the key is unique in, `content` what is asked, `item` the place in a batch.
    """
    if key is None:
        return None
    hashed = hashlib.sha256(f"{scope}\0{item}\0{key}".encode()).digest()[:16]
    return Request(hashed, hashlib.sha256(content).digest()[:16])


def job_request(
    call: Call, collection: Collection, job_id: str, content: tuple[Any, ...]
) -> Request | None:
    """The identity of a write to a job, if its call has a key."""
    key = idempotency_key(call)
    if key is None:
        return None
    return request_of(key, f"{collection.uid}/{job_id}", encode_content(content))


def decoded(decoder: Callable[[bytes], T], body: bytes, prefix: str = "") -> T:
    """A body as its type, or a 400 that points at what is wrong with it."""
    try:
        return decoder(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise from_validation(error, prefix) from None


async def gathered(
    engine: Engine,
    question: Summed | Listed,
    collections: Iterable[Collection],
    call: Call | None = None,
) -> Any:
    """The answer to a question about all vnodes of these collections, from their leaders.

    A `call` that asks for `consistency=stale` is content with what this node has.
    """
    groups = [(each.uid, index) for each in collections for index in range(each.num_vnodes)]
    own = call is not None and stale(call)
    return await asked(partial(engine.gathering.ask, question, groups, stale=own))


async def polled(engine: Engine, question: Polled, call: Call) -> tuple[Any, frozenset[int]]:
    """What the nodes say of themselves, put together, and which have answered.

    A `call` that asks for `consistency=stale` is content with this one.
    """
    others = [] if stale(call) else engine.others()
    found: tuple[Any, frozenset[int]] = await asked(
        partial(engine.gathering.poll, question, others)
    )
    return found


async def asked(ask: Callable[[Callable[[Any], None]], Asking]) -> Any:
    """Wait for what was asked of vnodes or nodes; who is not waited for any more is not asked."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(result: Any) -> None:
        if future.done():
            return  # the request was given up in this turn of the loop
        if isinstance(result, errors.TimeMachineError):
            future.set_exception(result)
        else:
            future.set_result(result)

    asking = ask(done)
    try:
        return await future
    finally:
        asking.cancel()


async def finished(steps: Iterator[T | None]) -> T:
    """What an iterator yields at last; for each None before, others have their turn."""
    for step in steps:
        if step is not None:
            return step
        await asyncio.sleep(0)
    raise AssertionError("it ended without a result")


def stale(call: Call) -> bool:
    """Whether a read may be answered from this node's own replicas, as they are."""
    return call.query.get("consistency") == "stale"


def ask(propose: Callable[..., None], *arguments: Any) -> asyncio.Future[Any]:
    """Call `propose(*arguments, done)`, and wait for what `done` is called with.

    An error is raised. No coroutine: this is on the way of every write.
    """
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(result: Any) -> None:
        if future.done():
            return  # the request was given up; its command goes on
        if isinstance(result, errors.TimeMachineError):
            future.set_exception(result)
        else:
            future.set_result(result)

    propose(*arguments, done)
    return future


async def ask_meta(
    engine: Engine, command: Any, *, missing: str = "not_found", limit: str | None = None
) -> Any:
    """Run a meta command; a refusal is raised.

    `missing` is the code for what is not there, `limit` the sentence for too many.
    """
    result = await ask(engine.propose_meta, command)
    if result.kind == "refused":
        code = missing if result.code == "not_found" else result.code
        raise refusal(code, limit if code == "limit_reached" else None)
    return result


def replayed(result: Any) -> dict[str, str]:
    """The header of an answer that was given before; of any other none."""
    return {"Idempotent-Replayed": "true"} if result.replayed else {}


def meta_answer(value: Any, result: Any) -> Answer:
    """The answer to a meta command: 201 where something was created."""
    return json_answer(value, 201 if result.kind == "created" else 200, replayed(result))


async def ask_job(engine: Engine, collection: Collection, job_id: str, command: Any) -> JobResult:
    """Run a command on a job; a refusal is raised."""
    result: JobResult = await ask(engine.propose_job, collection, job_id, command)
    if result.kind == "refused":
        raise refusal(result.code)
    return result
