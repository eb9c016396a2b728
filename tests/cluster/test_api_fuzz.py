"""Schemathesis asks a real node what its OpenAPI document allows, and much that it does not.

Judged are the status, the body, the headers and the media type of each answer, and whether what
the document allows is taken and anything else refused. The cases are the same in every run.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote
from zlib import crc32

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from schemathesis.core import NotSet
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
    use_after_free,
)

from node.api import openapi
from node.api.dispatch import OPERATIONS
from node.api.route_views import MASK
from tests.cluster.process import JOBS, NodeProcess
from tests.unit.backup.test_fates import ROUTE
from timemachine import codec, limits
from timemachine.backup.uploads import Upload, written_upload
from timemachine.ed25519 import SEED_BYTES, PrivateKey

_CLOSED = "http://127.0.0.1:1024/hook"
_CONFIG = {
    "generation": {"deterministic": True, "max-examples": 20, "database": "none"},
    "checks": {
        # A machine may be short of disk or of time, and say so.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 503, 507]},
        # A condition may not hold, a key may have been used: that is no fault of the data.
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "3xx", 404, 409, 412, 413, 422, 429, 503, 507]
        },
        "negative_data_rejection": {"expected-statuses": [400, 404, 405, 409, 412, 413, 415, 422]},
    },
}
_SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_EXISTING: dict[str, list[Any]] = {
    "db": ["default"],
    "collection": ["jobs"],
    "route": ["hook", "once"],
    "id": ["waiting", "dead", "batch"],
    "n": [1, 2],
}
_FITS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_BYTES_MAX = {"id": limits.JOB_ID_BYTES_MAX, "tags": limits.TAG_BYTES_MAX}
_BESIDE_JOBS = {
    operation.id
    for operation in OPERATIONS
    if re.fullmatch(r"/v1/dbs/\{db\}/collections/\{collection\}/jobs/[a-z]+", operation.path)
}
"""They are POSTed to, and what is read, put or deleted there is a job of that id."""

schemathesis.openapi.format("cidr", st.sampled_from(["127.0.0.0/8", "::1/128", "10.1.0.0/16"]))
schemathesis.openapi.format(
    "date-time",
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)).map(lambda at: f"{at.isoformat()}Z"),
)
schemathesis.openapi.format(
    "webhook-secret",
    st.one_of(
        st.binary(
            min_size=limits.SECRET_BYTES_MIN,
            max_size=limits.SECRET_BYTES_MAX,
        ).map(lambda key: "whsec_" + b64encode(key).decode()),
        st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES).map(
            lambda seed: PrivateKey(seed).secret()
        ),
    ),
)
_BACKED_UP = {
    "backup-jobs": b64encode(written_upload(Upload(0, 0, {}, []))).decode(),
    "backup-route": b64encode(codec.encode(ROUTE)).decode(),
}
for _format, _text in _BACKED_UP.items():
    schemathesis.openapi.format(_format, st.just(_text))
schemathesis.openapi.format("uri", st.sampled_from([_CLOSED, "http://u:p@127.0.0.1:1024/?a=b"]))


@schemathesis.serializer("application/x-ndjson")
def _lines(context: Any, value: Any) -> bytes:
    """What schemathesis makes of the array, an item a line."""
    rows = value if isinstance(value, list) else [value]
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


@schemathesis.serializer("application/msgpack")
def _packed(context: Any, value: Any) -> bytes:
    """What MessagePack cannot hold, integers of many digits, becomes text of these digits."""
    return msgspec.msgpack.encode(_held(value))


def _held(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, list):
        return [_held(each) for each in value]
    if isinstance(value, dict):
        return {key: _held(each) for key, each in value.items()}
    return value


@schemathesis.deserializer("application/x-ndjson")
def _items(context: Any, response: Any) -> list[Any]:
    return [msgspec.json.decode(line) for line in response.content.splitlines()]


schema = schemathesis.openapi.from_dict(
    openapi.document(OPERATIONS), config=schemathesis.Config.from_dict(_CONFIG)
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node for all of these tests. It serves the document that they are made from."""
    with NodeProcess(tmp_path_factory.mktemp("fuzz") / "data") as node:
        node.start()
        assert (200, schema.raw_schema) == node.ask("GET", "/openapi.json")
        yield node


def _prepare(node: NodeProcess) -> None:
    """See to it that there is something to ask for, whatever the cases before have deleted."""
    for path, body in (
        ("/v1/cluster/settings", {"allowed_private_cidrs": ["127.0.0.0/8"]}),
        (JOBS.removesuffix("/jobs"), {}),
        ("/v1/dbs/default/routes/hook", {"webhook_url": _CLOSED}),
        ("/v1/dbs/default/routes/once", {"webhook_url": _CLOSED, "retry": {"max_attempts": 1}}),
        (f"{JOBS}/waiting", {"route": "hook", "trigger_time": 4_000_000_000_000}),
        (f"{JOBS}/batch", {"route": "hook", "trigger_time": 4_000_000_000_000}),
        (f"{JOBS}/dead", {"route": "once", "trigger_time": 1_000}),
    ):
        status, answer = node.ask("PUT", path, body)
        assert status in (200, 201), (path, answer)


def _check(node: NodeProcess, case: schemathesis.Case[Any]) -> None:
    """Send a case, mostly to what exists, and judge the answer."""
    if case.method == "DELETE":
        _prepare(node)
    path: dict[str, Any] = case.path_parameters
    for name, value in path.items():
        known = _EXISTING.get(name)
        number = crc32(str(value).encode("utf-8", "surrogatepass"))
        if known and number % 4 and _FITS.fullmatch(str(value)) is not None:
            path[name] = known[number % len(known)]
    _mend(case)
    case.call_and_validate(base_url=f"http://{node.address}", excluded_checks=_unfair(case))


def _mend(case: schemathesis.Case[Any]) -> None:
    """Make of a case what JSON Schema cannot say."""
    path: dict[str, Any] = case.path_parameters
    for name, value in path.items():
        if unquote(str(value)) in (".", "..", ""):
            # The HTTP library removes them, and asks for something else.
            path[name] = "x"
    case.body = body = _without_whole_floats(case.body)
    if isinstance(body, dict) and isinstance(body.get("id"), str) and "id" in path:
        body["id"] = unquote(path["id"])
    if isinstance(body, dict) and body.get("type") in ("v1", "v1a") and body.get("secret"):
        # A secret says itself of which type it is.
        del body["type"]
    headers: Any = case.headers
    for name, value in list(headers.items()):
        if any(character > "\xff" for character in str(value)):
            # Taken from an answer; a header cannot hold it.
            del headers[name]
    if headers.get("If-Match", "").isdigit():
        # Schemathesis makes "0" from the pattern, and then takes it for JSON.
        headers["If-Match"] = f'"{headers["If-Match"]}"'


def _unfair(case: schemathesis.Case[Any]) -> list[Any]:
    """The checks that ask more of this case than a schema can say."""
    unfair: list[Any] = []
    raw = case.operation.definition.raw
    if raw["operationId"] in _BESIDE_JOBS:
        unfair += [unsupported_method, allow_header_conformance]
    if not raw.get("requestBody", {}).get("required", True) and isinstance(case.body, NotSet):
        # Schemathesis takes it for a fault that a body is missing which may be missing.
        unfair.append(negative_data_rejection)
    if case.operation.path.startswith(("/job", "/route")):
        # The original's clients know one status for all that goes wrong, and send what they like.
        unfair += [positive_data_acceptance, negative_data_rejection, unsupported_method]
    if raw["operationId"] == "post_batch":
        # What is wrong with one job is told in its item.
        unfair.append(negative_data_rejection)
    query: Any = case.query
    if any(str(value) in ("0", "1") for value in query.values()):
        # They are other spellings of false and true, and no booleans.
        unfair.append(negative_data_rejection)
    # Only the node knows which cursors fit, what is a range, what too many buckets or secrets.
    judged = raw["operationId"] in {"forecast", "put_settings", "rotate_secret"}
    if "cursor" in query or judged or _too_long(case.path_parameters):
        unfair.append(positive_data_acceptance)
    if "restore" in raw["operationId"] and _is_of_no_backup(case.body):
        unfair.append(positive_data_acceptance)
    rows = case.body if isinstance(case.body, list) else [case.body]
    if any(_too_long(row) or _is_no_route(row) for row in rows):
        unfair.append(positive_data_acceptance)
    return unfair


def _is_of_no_backup(members: Any) -> bool:
    """Whether stories have put a text of another answer where what is meant is of a format."""
    if not isinstance(members, dict):
        return False
    routes = members.get("routes")
    texts = [*(routes if isinstance(routes, list) else []), members.get("data")]
    return any(isinstance(each, str) and each not in _BACKED_UP.values() for each in texts)


def _is_no_route(members: Any) -> bool:
    """Whether members of a route do not fit each other, are no certificates, or are masked."""
    if not isinstance(members, dict):
        return False
    if MASK in str(members):
        return True
    return any(members[name] is not None for name in members if name.endswith("_pem")) or bool(
        members.get("https_only")
    )


def _too_long(members: Any) -> bool:
    """Whether a text has too many bytes: JSON Schema counts characters."""
    if not isinstance(members, dict):
        return False
    for name, bytes_max in _BYTES_MAX.items():
        given = members.get(name)
        texts = given if isinstance(given, list) else [given]
        for text in texts:
            if isinstance(text, str) and len(text.encode("utf-8", "surrogatepass")) > bytes_max:
                return True
    return False


def _without_whole_floats(value: Any) -> Any:
    """JSON Schema takes 6.0 for an integer. The node does not, since few mean it."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_without_whole_floats(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_whole_floats(each) for key, each in value.items()}
    return value


@schema.parametrize()
@pytest.mark.usefixtures("_prepared")
def test_answers_are_as_described(node: NodeProcess, case: schemathesis.Case[Any]) -> None:
    """Examples, bounds, and random data, right and wrong, for each operation."""
    _check(node, case)


@pytest.fixture
def _prepared(node: NodeProcess) -> None:
    _prepare(node)


def _tell_stories(node: NodeProcess, count: int, *, steps: int) -> None:
    """What one answer tells is asked for in the next request, some steps on.

    Hypothesis wants the same choices to lead to the same choices. A node's answers depend on what
    was done to it before, so each story has a seed of its own, and may end early.
    """
    failures: list[Exception] = []

    class Story(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            _prepare(node)

        def before_call(self, case: schemathesis.Case[Any]) -> None:
            _mend(case)

        def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
            return {"base_url": f"http://{node.address}"}

        def validate_response(
            self, response: Any, case: schemathesis.Case[Any], **options: Any
        ) -> None:
            # A job that was cancelled stays readable.
            unfair = [*_unfair(case), use_after_free]
            try:
                case.validate_response(response, excluded_checks=unfair, transport_kwargs=options)
            except Exception as error:
                failures.append(error)
                raise

    told = settings(_SETTINGS, max_examples=4, stateful_step_count=steps, phases=[Phase.generate])
    for number in range(count):
        try:
            seed(number)(Story).run(settings=told)
        except Flaky:
            # Also what fails, and does not fail again: it is told here then.
            if failures:
                raise failures[0] from None


def test_stories_are_as_described(node: NodeProcess) -> None:
    """Several requests, each with what the one before has told."""
    _tell_stories(node, 10, steps=8)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_many_answers_are_as_described(node: NodeProcess) -> None:
    """More of the same: hundreds of random cases for each operation, and of stories."""
    failures: list[Exception] = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        asked = found.ok()
        _prepare(node)

        @given(
            case=asked.as_strategy()
            | asked.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
        )
        @settings(_SETTINGS, max_examples=300)
        def ask(case: schemathesis.Case[Any]) -> None:
            _check(node, case)

        try:
            ask()
        except Exception as error:  # noqa: BLE001 - all are told at the end
            failures.append(error)
    if failures:
        raise ExceptionGroup("answers that are not as described", failures)
    _tell_stories(node, 60, steps=15)
