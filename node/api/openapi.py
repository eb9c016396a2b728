"""The OpenAPI 3.1 document, made of the described operations and of the types that they use.

Nothing here names a member or a path: types say what they have, operations what they do.
"""

import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect as types

from node.api.media import JSON, MSGPACK, PROBLEM
from node.api.operations import (
    ALWAYS_SENT,
    ANSWER_HEADERS,
    REQUEST_HEADERS,
    Operation,
    Parameter,
    Told,
)
from node.api.problems import Problem, meaning_of
from timemachine import __version__

_SCHEMAS: Final = "#/components/schemas/"
_RETRY: Final = ("Retry-After",)
_BESIDE_REFUSALS: Final = {401: ("WWW-Authenticate",), 429: _RETRY, 503: _RETRY, 507: _RETRY}
_DESCRIPTION: Final = """\
TimeMachine stores webhooks and sends each at its time.

* Times are integers, milliseconds since the Unix epoch, UTC; where a request has one, an RFC 3339
text with an offset is taken, too. Durations end in `_ms`.
* A 2xx to a write means that it is on disk.
* Repeats are harmless: send an `Idempotency-Key` with each write.
* Refusals are problems (RFC 9457); programs look at `code`.
* HEAD is answered wherever GET is.
* What comes and goes as `application/json` may be `application/msgpack`: by `Content-Type` and by
`Accept`, problems too.
"""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document, as JSON values."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, None] = {}
    for operation in operations:
        tags[operation.tag] = None
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(
            operation, schemas
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "TimeMachine", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for where the node was started with API tokens.",
                }
            },
            "parameters": {each.name: _parameter(each, "header") for each in REQUEST_HEADERS},
            "headers": {name: _header(each) for name, each in ANSWER_HEADERS.items()},
            "schemas": schemas.components(),
        },
    }


class _Schemas:
    """The schemas of types. What `of` gives is filled in by `components`, for all at once."""

    def __init__(self) -> None:
        self._asked: list[tuple[Any, dict[str, Any]]] = []

    def of(self, kind: Any, **more: Any) -> dict[str, Any]:
        """The schema of a type, with `more` beside what it says itself."""
        schema = dict(more)
        self._asked.append((kind, schema))
        return schema

    def components(self) -> dict[str, Any]:
        """Fill in what was asked for; returns the named schemas."""
        kinds = [kind for kind, _ in self._asked]
        made, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS + "{name}")
        structs = {each.__name__: each for each in _structs(kinds)}
        for name, schema in components.items():
            _finish(schema, structs.get(name))
        names = {name: _public_name(name) for name in components}
        assert len(set(names.values())) == len(names), "two types have one name"
        for (_, schema), filled in zip(self._asked, made, strict=True):
            schema.update(_renamed({**filled, **schema}, names))
        return {names[name]: _renamed(schema, names) for name, schema in components.items()}


def _structs(kinds: Iterable[Any]) -> set[type]:
    """All Structs that types are made of, but for those with type parameters."""
    found: set[Any] = set()

    def walk(value: Any) -> None:
        if isinstance(value, tuple):
            for each in value:
                walk(each)
        elif isinstance(value, types.Type | types.Field):
            if isinstance(value, types.StructType):
                if value.cls in found:
                    return
                found.add(value.cls)
            for name in value.__struct_fields__:
                walk(getattr(value, name))

    walk(types.multi_type_info(kinds))
    return {each for each in found if isinstance(each, type)}


def _finish(schema: dict[str, Any], kind: Any) -> None:
    """What msgspec does not say of a Struct."""
    del schema["title"]
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    if getattr(kind, "KEEPS_ABSENT", False):
        for member in schema["properties"].values():
            member.pop("default", None)
    schema.update(getattr(kind, "SCHEMA", {}))


def _public_name(name: str) -> str:
    """`Job` for `JobView`, `JobPage` for `Page[JobView]`."""
    if name.startswith("Page_"):
        return _public_name(name.removeprefix("Page_").removesuffix("_")) + "Page"
    return name.removesuffix("View")


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A schema in which components are called by their public names."""
    if isinstance(value, dict):
        renamed = {key: _renamed(each, names) for key, each in value.items()}
        target = renamed.get("$ref")
        if isinstance(target, str) and target.removeprefix(_SCHEMAS) in names:
            renamed["$ref"] = _SCHEMAS + names[target.removeprefix(_SCHEMAS)]
        return renamed
    if isinstance(value, list | tuple):
        return [_renamed(each, names) for each in value]
    return value


def _described(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    example = operation.example
    parameters = [
        _parameter(each, "path", example.path.get(each.name, each.example))
        for each in operation.parameters
    ]
    parameters += [
        _parameter(each, "query", example.query.get(each.name)) for each in operation.query or ()
    ]
    parameters += [
        {"$ref": f"#/components/parameters/{each.name}"}
        if each in REQUEST_HEADERS
        else _parameter(each, "header")
        for each in operation.headers
    ]
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    described |= {"tags": [operation.tag], "parameters": parameters}
    if operation.anonymous:
        described["security"] = []
    if operation.body is not None:
        content = {JSON: {"schema": schemas.of(operation.body)}}
        if example.body is not msgspec.UNSET:
            content[JSON]["example"] = example.body
        for media, kind in {MSGPACK: operation.body, **operation.more}.items():
            content[media] = {"schema": schemas.of(kind)}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    responses = {str(status): _told(told, schemas) for status, told in operation.answers.items()}
    assert not operation.answers.keys() & dict(operation.refusals).keys(), operation.id
    codes: dict[int, list[str]] = {}
    for status, code in operation.refusals:
        codes.setdefault(status, []).append(code)
    for status, each in codes.items():
        responses[str(status)] = _refused(status, each, schemas)
    described["responses"] = responses
    return described


def _parameter(parameter: Parameter, place: str, example: Any = None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": place,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    if place == "path":
        described["required"] = True
    if parameter.schema.get("type") == "array":
        described |= {"style": "form", "explode": False}
    if example is not None:
        described["example"] = example
    return described


def _header(header: Parameter) -> dict[str, Any]:
    described = {
        "description": header.description,
        "required": header.name in ALWAYS_SENT,
        "schema": header.schema,
    }
    if header.example is not None:
        described["example"] = header.example
    return described


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _told(told: Told, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": told.meaning, "headers": _headers(told.headers)}
    content = {} if told.body is None else {told.media: {"schema": schemas.of(told.body)}}
    packed = {MSGPACK: told.body} if JSON in content else {}
    for media, kind in {**packed, **told.also}.items():
        content[media] = {"schema": schemas.of(kind)}
    if content:
        described["content"] = content
    return described


def _refused(status: int, codes: list[str], schemas: _Schemas) -> dict[str, Any]:
    schema = schemas.of(Problem, properties={"code": {"enum": codes}})
    return {
        "description": "\n".join(f"* `{code}`: {meaning_of(code)}" for code in codes),
        "headers": _headers(_BESIDE_REFUSALS.get(status, ())),
        "content": {PROBLEM: {"schema": schema}},
    }


def rendered(document: Mapping[str, Any]) -> bytes:
    """The document as it is served."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
