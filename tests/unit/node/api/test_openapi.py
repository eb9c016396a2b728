"""Every operation is described where it is handled, and the document says what the types say."""

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from node.api import openapi
from node.api.credentials import OPEN_PATHS
from node.api.dispatch import HANDLERS, OPERATIONS, Dispatch
from node.api.job_bodies import JobBody, JobPatchBody
from node.api.operations import Operation, operations_of
from tests.unit.node.api.harness import JOBS, ROUTE, Api
from timemachine import limits

REFERENCE = Path(__file__).resolve().parents[4] / "docs" / "reference"
DOCUMENT = openapi.document(OPERATIONS)
SCHEMAS = DOCUMENT["components"]["schemas"]


def _ids(operation: Operation) -> str:
    return operation.id


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _references(each)


@pytest.mark.parametrize("kind", HANDLERS, ids=lambda kind: kind.__name__)
def test_no_handler_is_undescribed(kind: type) -> None:
    """What takes a call and can be reached from outside its class is an operation."""
    handlers = {
        name
        for name, each in vars(kind).items()
        if not name.startswith("_") and inspect.iscoroutinefunction(each)
    }
    assert handlers == {operation.handler for operation in operations_of(kind)}


def test_the_table_is_the_description(api: Api) -> None:
    """Each operation is found at its path, and its id is that of no other."""
    dispatch: Dispatch = api.server._dispatch
    for operation in OPERATIONS:
        path = re.sub(r"\{[a-z]+\}", "x", operation.path)
        found = dispatch.find(operation.method, path)
        assert operation is found.operation
        assert operation.handler == found.handler.__name__
    assert [] == [name for name, count in Counter(map(_ids, OPERATIONS)).items() if count > 1]


@pytest.mark.parametrize("operation", OPERATIONS, ids=_ids)
def test_an_operation_says_what_a_reader_asks(operation: Operation) -> None:
    """What it does, an example of what it takes, what success is."""
    assert re.fullmatch(r"[A-Z].*[^.]", operation.summary)
    if operation.body is not None and operation.body_required:
        assert operation.example.body, "an example of the body"
    assert any(200 <= status < 300 for status in operation.answers)
    assert all(told.meaning for told in operation.answers.values())
    variable = re.findall(r"\{([a-z]+)\}", operation.path)
    assert variable == [each.name for each in operation.parameters]
    assert all(each.example is not None for each in operation.parameters)
    known = {each.name for each in (*operation.parameters, *(operation.query or ()))}
    assert {*operation.example.path, *operation.example.query} <= known


@pytest.mark.parametrize(
    "code", sorted({code for operation in OPERATIONS for _, code in operation.refusals})
)
def test_every_described_code_is_documented(code: str) -> None:
    """The codes of the description have rows among the errors."""
    page = (REFERENCE / "errors.md").read_text()
    assert re.search(rf"^\| `{code}` \| \S+ \| \S.* \|$", page, re.MULTILINE)


def test_the_document_is_valid() -> None:
    """It is OpenAPI 3.1 as its JSON Schema has it, and refers to nothing that is not there."""
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    for reference in set(_references(DOCUMENT)):
        found: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    used = set(_references(DOCUMENT))
    assert {f"#/components/schemas/{name}" for name in SCHEMAS} <= used


def test_members_and_bounds_are_those_that_are_checked() -> None:
    """Members come from the types that decode; bounds from the limits."""
    job = SCHEMAS["JobBody"]
    assert set(JobBody.__struct_fields__) == set(job["properties"])
    assert ["route"] == job["required"]
    assert job["additionalProperties"] is False
    assert limits.TAGS_COUNT_MAX == job["properties"]["tags"]["maxItems"]
    vnodes = SCHEMAS["CollectionBody"]["properties"]["num_vnodes"]["anyOf"][0]
    assert limits.VNODES_PER_COLLECTION_MAX == vnodes["maximum"]


def test_what_patch_leaves_out_has_no_default() -> None:
    """PATCH keeps absent members; PUT gives them their defaults."""
    patched = SCHEMAS["JobPatchBody"]
    assert set(JobPatchBody.__struct_fields__) == set(patched["properties"])
    for name in ("JobPatchBody", "RouteBody"):
        assert not any("default" in each for each in SCHEMAS[name]["properties"].values())
    assert 15_000 == SCHEMAS["RoutePutBody"]["properties"]["timeout_ms"]["default"]


def test_codes_are_explained_as_the_node_means_them() -> None:
    """Not as the SDK does, whose errors have the same codes."""
    responses = DOCUMENT["paths"]["/v1/dbs/{db}"]["get"]["responses"]
    assert (
        "* `invalid_request`: The request is malformed or invalid."
        in (responses["400"]["description"])
    )
    assert (
        "* `unauthorized`: The request carries no valid credentials."
        == (responses["401"]["description"])
    )


def test_two_schemas_of_one_type_differ_in_what_is_said_beside() -> None:
    """Problems are one type; each status tells which codes it has."""
    responses = DOCUMENT["paths"]["/v1/dbs/{db}"]["get"]["responses"]
    schema = responses["404"]["content"]["application/problem+json"]["schema"]
    assert "#/components/schemas/Problem" == schema["$ref"]
    assert {"code": {"enum": ["database_not_found"]}} == schema["properties"]


def test_who_needs_no_token_is_said_once_more() -> None:
    """The description says what the credentials let pass."""
    assert {each.path for each in OPERATIONS if each.anonymous} == OPEN_PATHS


async def test_a_parameter_that_is_not_described_is_refused(api: Api) -> None:
    """Before anything is done, also where the operation has other parameters."""
    for method, path in (("GET", f"{JOBS}?nonsense=1"), ("DELETE", f"{ROUTE}?consistency=stale")):
        reply = await api.ask(method, path)
        assert (400, ["?" + path.partition("?")[2].partition("=")[0]]) == (
            reply.status,
            reply.pointers,
        )
    # Looked at even where it would not matter: nothing is scheduled for the route.
    reply = await api.ask("DELETE", f"{ROUTE}?force=perhaps")
    assert (400, ["?force"]) == (reply.status, reply.pointers)
    assert "force: This is `true` or `false`." == reply.json["detail"]
    reply = await api.ask("GET", f"{JOBS}?consistency=sometimes")
    assert "consistency: This is `stale` or `linearizable`." == reply.json["detail"]
    assert 200 == (await api.ask("GET", f"{JOBS}?consistency=stale")).status


async def test_health_is_told_whatever_stands_behind_the_question_mark(api: Api) -> None:
    """Those who ask for it have habits; the answer does not depend on them."""
    for query in ("a=1&a=2", "%ff", "nonsense"):
        assert 200 == (await api.ask("GET", f"/healthz?{query}")).status


async def test_a_name_beside_jobs_is_an_operation_and_may_be_a_job(api: Api) -> None:
    """POST to `batch` is the batch, everything else a job of that id; 405 tells both."""
    assert 200 == (await api.ask("POST", f"{JOBS}/batch", [])).status
    body = {"route": "hello", "delay_ms": 10**9}
    assert 201 == (await api.ask("PUT", f"{JOBS}/batch", body)).status
    assert "batch" == (await api.ask("GET", f"{JOBS}/%62atch")).json["id"]
    reply = await api.ask("OPTIONS", f"{JOBS}/batch")
    assert (405, "DELETE, GET, PATCH, POST, PUT") == (reply.status, reply.headers["allow"])
    reply = await api.ask("POST", f"{JOBS}/other", [])
    assert (405, "DELETE, GET, PATCH, PUT") == (reply.status, reply.headers["allow"])


async def test_a_dry_run_checks_its_key_too(api: Api) -> None:
    """A key that would be refused is refused when nothing is done yet."""
    body = {"filter": {}, "dry_run": True}
    reply = await api.ask("POST", f"{JOBS}/cancel", body, headers={"Idempotency-Key": "x" * 256})
    assert (400, ["Idempotency-Key"]) == (reply.status, reply.pointers)


async def test_a_tag_may_be_of_any_script(api: Api) -> None:
    """Only control characters are refused: what is printable changes with Unicode's releases."""
    body = {"route": "hello", "delay_ms": 10**9, "tags": ["a\u200bb", "\ue000", "\U000e0100"]}
    assert 201 == (await api.ask("POST", JOBS, body)).status
    reply = await api.ask("POST", JOBS, body | {"tags": ["fine", "a\x85"]})
    assert (400, ["/tags/1"]) == (reply.status, reply.pointers)


async def test_the_document_is_asked_for_again_only_when_it_changed(api: Api) -> None:
    """It has a tag; who sends that hears 304, without a body or what describes one."""
    for path, kind in (
        ("/openapi.json", "application/json"),
        ("/docs", "text/html; charset=utf-8"),
    ):
        reply = await api.ask("GET", path)
        assert (200, kind) == (reply.status, reply.headers["content-type"])
        tag = reply.headers["etag"]
        assert "no-cache" == reply.headers["cache-control"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await api.ask("GET", path, headers={"If-None-Match": known})
            assert (304, b"", tag) == (again.status, again.body, again.headers["etag"])
        reply = await api.ask("GET", path, headers={"If-None-Match": '"other"'})
        assert 200 == reply.status
    assert openapi.rendered(DOCUMENT) == (await api.ask("GET", "/openapi.json")).body
