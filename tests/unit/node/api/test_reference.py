"""The page for people: all of the document, well formed, and nothing from elsewhere."""

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser

import pytest

from node.api import openapi, reference
from node.api.dispatch import OPERATIONS
from tests.unit.node.api.harness import Api

DOCUMENT = openapi.document(OPERATIONS)
PAGE = reference.rendered(DOCUMENT).decode()
VOID = {"meta", "input", "br"}


class _Reader(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.text: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(given["id"] or "")
        if tag == "a":
            self.links.append(given["href"] or "")
        self.loaded += [given[name] or "" for name in ("src", "data", "style") if name in given]
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert not any(name.startswith("on") for name in given)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop(), self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data


@pytest.fixture(scope="module")
def page() -> _Reader:
    """The page, read."""
    reader = _Reader()
    reader.feed(PAGE)
    reader.close()
    return reader


def test_the_page_is_well_formed(page: _Reader) -> None:
    """Every element is closed, in order, and every id is there once."""
    assert [] == page.open
    assert len(page.ids) == len(set(page.ids))


def test_the_page_shows_every_operation_and_type(page: _Reader) -> None:
    """Each has a section, and a link to it."""
    sections = {operation.id for operation in OPERATIONS}
    sections |= {f"type-{name}" for name in DOCUMENT["components"]["schemas"]}
    assert sections == set(page.ids)
    assert {f"#{name}" for name in sections} <= set(page.links)


def test_all_links_lead_somewhere(page: _Reader) -> None:
    """Within the page, or to the document that it is made from."""
    anchors = {f"#{name}" for name in page.ids}
    assert {"/openapi.json"} == {link for link in page.links if link not in anchors}


def test_the_page_needs_nothing_from_elsewhere(page: _Reader) -> None:
    """It loads nothing, and its policy lets it: no style, no script but its own."""
    assert [] == page.loaded
    for forbidden in ("url(", "@import", "fetch(", "XMLHttpRequest", "innerHTML", "eval("):
        assert forbidden not in page.text["style"] + page.text["script"]
    policy = reference.SECURITY_POLICY
    assert policy.startswith("default-src 'none';")
    for element in ("style", "script"):
        digest = b64encode(hashlib.sha256(page.text[element].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}';" in policy


def test_what_the_document_says_is_text() -> None:
    """Nothing that is described can become an element of the page."""
    hostile = "<script>alert(1)</script> `<b>`"
    document = openapi.document(OPERATIONS)
    document["info"]["title"] = document["info"]["description"] = hostile
    operation = document["paths"]["/v1/dbs"]["get"]
    operation["summary"] = operation["description"] = hostile
    operation["parameters"][0]["description"] = hostile
    shown = reference.rendered(document).decode()
    assert "<script>alert" not in shown
    assert "<b>" not in shown
    assert "<code>&lt;b&gt;</code>" in shown


def test_examples_are_commands_to_type() -> None:
    """A path with its examples, the query, the body; quotes are for the shell."""
    document = openapi.document(OPERATIONS)
    example = document["paths"]["/v1/dbs/{db}/collections/{collection}/jobs"]["post"]
    example["requestBody"]["content"]["application/json"]["example"] = {"meta": "it's"}
    shown = reference.rendered(document).decode()
    found = re.search(r"<pre>(curl -X POST .*?/carts/jobs&#x27;.*?)</pre>", shown, re.DOTALL)
    assert found is not None
    assert "-d &#x27;{&quot;meta&quot;: &quot;it&#x27;\\&#x27;&#x27;s&quot;}&#x27;" in found[1]


async def test_the_page_comes_with_its_policy(api: Api) -> None:
    """Browsers hold it to that."""
    reply = await api.ask("GET", "/docs")
    assert PAGE.encode() == reply.body
    assert reference.SECURITY_POLICY == reply.headers["content-security-policy"]
    assert "nosniff" == reply.headers["x-content-type-options"]
