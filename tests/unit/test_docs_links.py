"""The documentation holds together: plain Markdown, one title a page, no dead link, no orphan."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.unit.project import ROOT, files

START = ROOT / "README.md"
PAGES = list(files(".md"))


class Page(NamedTuple):
    """What one Markdown file holds: (level, text) of its headings, and where its links lead."""

    headings: list[tuple[int, str]]
    links: list[str]


def plain(token: Token) -> str:
    """The text of a heading or a link, without its mark-up."""
    return "".join(child.content for child in token.children or [])


@cache
def read(path: Path) -> Page:
    """Parse one page."""
    page = Page([], [])
    tokens = MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8"))
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            page.headings.append((int(token.tag[1:]), plain(following)))
        for child in token.children or []:
            target = child.attrGet("href" if child.type == "link_open" else "src")
            if child.type in {"link_open", "image"} and target is not None:
                page.links.append(str(target))
    return page


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, formed as the usual viewers of Markdown form them."""
    found: set[str] = set()
    for _, text in read(path).headings:
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        repeats = sum(
            each == slug or re.fullmatch(f"{slug}-[0-9]+", each) is not None for each in found
        )
        found.add(f"{slug}-{repeats}" if slug in found else slug)
    return found


def local_links(path: Path) -> list[tuple[str, Path, str]]:
    """(link as written, file it leads to, anchor) of each link that stays inside the project."""
    links = []
    for link in read(path).links:
        if not re.match(r"[a-z]+:", link):
            target, _, anchor = unquote(link).partition("#")
            links.append((link, (path.parent / target).resolve() if target else path, anchor))
    return links


def name(path: Path) -> str:
    """A page as people call it."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_one_title(path: Path) -> None:
    """A page starts with its title, and has only one."""
    levels = [level for level, _ in read(path).headings]
    assert [1] == levels[:1]
    assert 1 == levels.count(1)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    """Every link inside the project leads to a file that exists, and to a heading in it."""
    dead = [
        link
        for link, target, anchor in local_links(path)
        if not target.is_relative_to(ROOT)
        or not target.exists()
        or (anchor and target.suffix == ".md" and anchor not in anchors(target))
    ]
    assert [] == dead


def test_every_page_can_be_reached() -> None:
    """Whoever starts at the README and follows links can come to every page."""
    reached, unread = {START}, [START]
    while unread:
        for _, target, _ in local_links(unread.pop()):
            # Viewers show a folder as the list of its files.
            for page in target.glob("*.md") if target.is_dir() else [target]:
                if page in PAGES and page not in reached:
                    reached.add(page)
                    unread.append(page)
    assert [] == [name(path) for path in PAGES if path not in reached]
