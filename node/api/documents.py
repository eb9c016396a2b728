"""What the node says of its own API: the OpenAPI document, and a page for people."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Final

from node.api import openapi, reference
from node.api.conventions import Answer, Call
from node.api.media import JSON
from node.api.operations import Operation, Parameter, Told, operation

_TAG: Final = "Documents"
_IF_NONE_MATCH: Final = Parameter(
    name="If-None-Match",
    description="The `ETag` of what is at hand: 304 while it is the newest.",
    schema={"type": "string"},
)
_ANSWER_HEADERS: Final = ("ETag", "Cache-Control")
_UNCHANGED: Final = Told(meaning="What is at hand is the newest.", headers=_ANSWER_HEADERS)
# Kept, but asked for each time: after the node was replaced by a newer one it is another document.
_CACHE_CONTROL: Final = "no-cache"
_HTML: Final = "text/html; charset=utf-8"


class DocumentHandlers:
    """The documents. Both are made once, and served as the bytes that they are."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        # Made as the node starts, since it takes some turns of the loop.
        self._document, self._page = _made(tuple(operations))

    @operation(
        "GET",
        "/openapi.json",
        tag=_TAG,
        query=None,
        headers=(_IF_NONE_MATCH,),
        answers={
            200: Told(meaning="OpenAPI 3.1.", body=dict, headers=_ANSWER_HEADERS),
            304: _UNCHANGED,
        },
    )
    async def get_openapi(self, call: Call) -> Answer:
        """Read the OpenAPI document."""
        return _cached(call, self._document)

    @operation(
        "GET",
        "/docs",
        tag=_TAG,
        query=None,
        headers=(_IF_NONE_MATCH,),
        answers={
            200: Told(meaning="HTML.", body=str, media=_HTML, headers=_ANSWER_HEADERS),
            304: _UNCHANGED,
        },
    )
    async def get_docs(self, call: Call) -> Answer:
        """Read this reference.

        One page that needs nothing from elsewhere.
        """
        return _cached(call, self._page)


@cache
def _made(operations: tuple[Operation, ...]) -> tuple[Answer, Answer]:
    document = openapi.document(operations)
    page = _answer(reference.rendered(document), _HTML)
    page.headers["Content-Security-Policy"] = reference.SECURITY_POLICY
    page.headers["X-Content-Type-Options"] = "nosniff"
    return _answer(openapi.rendered(document), JSON), page


def _answer(body: bytes, content_type: str) -> Answer:
    tag = hashlib.sha256(body).hexdigest()[:16]
    headers = {"ETag": f'"{tag}"', "Cache-Control": _CACHE_CONTROL}
    return Answer(body=body, headers=headers, content_type=content_type)


def _cached(call: Call, whole: Answer) -> Answer:
    """The answer, or 304 where the client has it already."""
    known = call.headers.get("If-None-Match", "")
    tags = {part.strip().removeprefix("W/") for part in known.split(",")}
    if not tags & {whole.headers["ETag"], "*"}:
        return whole
    headers = {name: whole.headers[name] for name in _ANSWER_HEADERS}
    return Answer(status=304, body=b"", headers=headers)
