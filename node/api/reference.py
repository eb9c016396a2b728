"""The OpenAPI document as a page for people. It is read, not the operations: so both agree."""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from node.api.media import JSON, PROBLEM
from node.api.page import SECURITY_POLICY, page

__all__ = ["SECURITY_POLICY", "rendered"]

_CODE = re.compile(r"`([^`]+)`")
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "items at least",
    "maxItems": "items at most",
    "maxProperties": "members at most",
    "pattern": "pattern",
    "format": "format",
    "default": "default",
}


def rendered(document: Mapping[str, Any]) -> bytes:
    """The page of a document."""
    return _Reference(document).page().encode()


class _Reference:
    """Writes the parts of a page. References within the document are followed here."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._operations = [
            (method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        self._schemas: Mapping[str, Any] = document["components"]["schemas"]

    def page(self) -> str:
        """The whole page."""
        info = self._document["info"]
        title = f"{escape(info['title'])} {escape(info['version'])}"
        content = [f"<h1>{title}</h1>\n", _prose(info["description"])]
        content.append('<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>\n')
        links = [f"<h1>{title}</h1>\n"]
        links.append('<input type="search" placeholder="Filter" aria-label="Filter" hidden>\n')
        for tag in self._document["tags"]:
            name = tag["name"]
            content.append(f"<h2>{escape(name)}</h2>\n")
            links.append(f"<h2>{escape(name)}</h2>\n<ul>\n")
            for method, path, operation in self._operations:
                if name in operation["tags"]:
                    links.append(_link(operation["operationId"], escape(operation["summary"])))
                    content.append(self._operation(method, path, operation))
            links.append("</ul>\n")
        content.append("<h2>Types</h2>\n")
        links.append("<h2>Types</h2>\n<ul>\n")
        for name, schema in sorted(self._schemas.items()):
            links.append(_link(f"type-{name}", escape(name)))
            content.append(self._type(name, schema))
        links.append("</ul>\n")
        return page(f"{title} API", "".join(links), "".join(content))

    def _resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """A part of the document, or the one that it refers to."""
        if "$ref" not in value:
            return value
        found: Any = self._document
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return found  # type: ignore[no-any-return]

    def _operation(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        summary, name = escape(operation["summary"]), escape(operation["operationId"])
        place = f'<span class="method {method}">{method.upper()}</span> {escape(path)}'
        parts = [
            f'<section id="{name}">\n<h3>{summary}</h3>\n',
            f'<p class="path"><code>{place}</code> <span class="quiet">{name}</span></p>\n',
            _prose(operation.get("description", "")),
        ]
        rows: list[tuple[str, ...]] = []
        for each in operation["parameters"]:
            parameter = self._resolved(each)
            rows.append(
                (
                    f"<code>{escape(parameter['name'])}</code>",
                    escape(parameter["in"]),
                    _prose(parameter["description"]) + self._kind(parameter["schema"]),
                )
            )
        parts.append(_table("Parameters", rows))
        body = operation.get("requestBody")
        if body is not None:
            kinds = [
                (f"<code>{escape(media)}</code>", self._kind(content["schema"]))
                for media, content in body["content"].items()
            ]
            parts.append(_table("Body" if body["required"] else "Body, if any", kinds))
        rows = []
        for status, told in operation["responses"].items():
            kinds = [
                (self._kind(content["schema"]), media)
                for media, content in told.get("content", {}).items()
                if media != PROBLEM
            ]
            shown = "".join(
                f"{kind} <span class='quiet'>{escape(media)}</span>" for kind, media in kinds
            )
            phrase = HTTPStatus(int(status)).phrase
            rows.append((f"{status} {escape(phrase)}", _prose(told["description"]) + shown))
        parts.append(_table("Answers", rows))
        parts.append(
            f"<h4>Example</h4>\n<pre>{escape(self._curl(method, path, operation))}</pre>\n"
        )
        parts.append("</section>\n")
        return "".join(parts)

    def _curl(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        query = {}
        for each in operation["parameters"]:
            parameter = self._resolved(each)
            if "example" not in parameter:
                continue
            if parameter["in"] == "path":
                text = quote(str(parameter["example"]), safe="")
                path = path.replace("{%s}" % parameter["name"], text)
            elif parameter["in"] == "query":
                value = parameter["example"]
                query[parameter["name"]] = value if isinstance(value, str) else json.dumps(value)
        address = f"http://127.0.0.1:8001{path}" + (f"?{urlencode(query)}" if query else "")
        command = "curl" if method == "get" else f"curl -X {method.upper()}"
        command += f" '{address}'"
        content = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
        if "example" in content:
            text = json.dumps(content["example"], ensure_ascii=False).replace("'", "'\\''")
            command += f" \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'"
        return command

    def _type(self, name: str, schema: Mapping[str, Any]) -> str:
        required = schema.get("required", ())
        rows = []
        ignored = []
        for member, kind in schema.get("properties", {}).items():
            if kind.get("readOnly"):
                ignored.append(f"<code>{escape(member)}</code>")
                continue
            needed = " <span class='quiet'>required</span>" if member in required else ""
            rows.append(
                (
                    f"<code>{escape(member)}</code>{needed}",
                    _prose(kind.get("description", "")) + self._kind(kind),
                )
            )
        more = f"<p>Ignored: {', '.join(ignored)}.</p>\n" if ignored else ""
        return (
            f'<section id="type-{escape(name)}">\n<h3>{escape(name)}</h3>\n'
            f"{_prose(schema.get('description', ''))}{_table('Members', rows)}{more}</section>\n"
        )

    def _kind(self, schema: Mapping[str, Any]) -> str:
        """What a value may be, on one line."""
        told = self._shape(schema)
        bounds = [
            f"{words} <code>{escape(_text(schema[key]))}</code>"
            for key, words in _BOUNDS.items()
            if key in schema
        ]
        if bounds:
            told += (", " if told else "") + ", ".join(bounds)
        return f'<p class="quiet">{told}</p>\n' if told else ""

    def _shape(self, schema: Mapping[str, Any]) -> str:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f'<a href="#type-{escape(name)}">{escape(name)}</a>'
        if "enum" in schema:
            return " or ".join(f"<code>{escape(_text(each))}</code>" for each in schema["enum"])
        if "anyOf" in schema:
            return " or ".join(self._inline(each) for each in schema["anyOf"])
        kind = schema.get("type", "anything" if not schema.keys() & {"description"} else "")
        if kind == "array" and "items" in schema:
            return f"array of {self._inline(schema['items'])}"
        if kind == "object" and "additionalProperties" in schema:
            return f"object of {self._inline(schema['additionalProperties'])}"
        return escape(str(kind))

    def _inline(self, schema: Mapping[str, Any]) -> str:
        return self._kind(schema).removeprefix('<p class="quiet">').removesuffix("</p>\n")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _link(anchor: str, label: str) -> str:
    return f'<li><a href="#{escape(anchor)}">{label}</a></li>\n'


def _prose(text: str) -> str:
    """Paragraphs, lists with stars and code between backticks: all the Markdown that is used."""
    blocks = []
    for block in re.split(r"\n\n|\n(?=\* )", text.strip()):
        told = _CODE.sub(r"<code>\1</code>", escape(block.removeprefix("* "), quote=False))
        if block.startswith("* "):
            blocks.append(f"<li>{told}</li>\n")
        elif told:
            blocks.append(f"<p>{told}</p>\n")
    joined = "".join(blocks)
    return re.sub(r"(?:<li>.*?</li>\n)+", r"<ul>\n\g<0></ul>\n", joined, flags=re.DOTALL)


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows]
    return f"<h4>{title}</h4>\n<table>\n{''.join(lines)}</table>\n" if lines else ""
