"""Pages that cannot be played, and expectations that are not met, are noticed."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.expected import json_is, text_after, text_is
from tests.docs.page import PageError, fences, played
from tests.docs.reader import Reader

TYPED = "```sh\ntrue\n```\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Words.", "there is nothing to type"),
        ("```\ntrue\n```", "means nothing"),
        ("```bash\ntrue\n```", "means nothing"),
        ("```python\npass\n```", "means nothing"),
        ("```sh quickly\ntrue\n```", "means nothing"),
        ("    true", "means nothing"),
        ("Save it:\n\n```python file=a.py\n```", "does not name `a.py`"),
        ("Start it:\n\n```sh terminal=node\ntrue\n```", "does not speak of a terminal"),
        ("Before:\n\n```python not-run\n```", "does not say that this is not run"),
        (TYPED + "\n```text terminal=node\nready\n```", "there is no terminal node"),
        ("```text\nready\n```\n" + TYPED, "nothing was typed just before"),
        ("```sh again\ntrue\n```\n" + TYPED, "until when"),
    ],
)
def test_a_page_that_cannot_be_played(tmp_path: Path, text: str, why: str) -> None:
    """A block that is neither played nor marked, or not told to people, fails the page."""
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(PageError, match=why):
        played(page)


def test_blocks_are_found_in_order() -> None:
    """What is done with each block is what stands behind its fence."""
    text = (
        "Save `a.py`:\n\n```python file=a.py\npass\n```\n\nIn a terminal:\n\n"
        "```sh terminal=one\npython a.py\n```\n\n```text terminal=one\nhi\n```\n\n"
        f"{TYPED}\n```json answer\n{{}}\n```\n\nThis is not run:\n\n```toml not-run\n```\n"
    )
    acts = [(block.act, block.name) for block in fences(text)]
    assert [
        ("save", "a.py"),
        ("start", "one"),
        ("shown", "one"),
        ("type", ""),
        ("answer", ""),
        ("leave", ""),
    ] == acts


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nb", True),
        ("a\nb\n", "a\n", False),
        ("a\n", "a\nb\n", False),
        ("a ... c\n", "a b c\n", True),
        ("a ...\n", "a b\nc\n", False),
        ("...\nc\n", "a\nb\nc\n", True),
        ("a\n...\n", "a\n", True),
        ("a.c\n", "abc\n", False),
    ],
)
def test_text_is_compared(shown: str, printed: str, same: bool) -> None:
    """Every line counts, but for what `...` stands for."""
    assert same == text_is(shown, printed)


def test_a_terminal_is_read_on_from_where_it_was_read() -> None:
    """The same lines twice have to be printed twice."""
    printed = "noise\nhi\nnoise\nhi\n"
    first = text_after("hi\n", printed, 0)
    assert first is not None
    second = text_after("hi\n", printed, first)
    assert len(printed) == second
    assert text_after("hi\n", printed, len(printed)) is None
    assert text_after("hi\n", "hi", 0) is None


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ('{"a": 1}', '{"a": 1, "b": 2}', True),
        ('{"a": 1, "b": 2}', '{"a": 1}', False),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": "..."}', '{"a": null}', True),
        ('{"a": "..."}', "{}", False),
        ('{"a": 1763700000000}', '{"a": 1795259201264}', True),
        ('{"a": 1763700000000}', '{"a": null}', False),
        ('{"a": []}', '{"a": [1]}', False),
        ('{"a": [{"b": 1}]}', '{"a": [{"b": 1, "c": 2}]}', True),
        ("{}", "none", False),
    ],
)
def test_json_is_compared(shown: Any, printed: Any, same: bool) -> None:
    """What is shown has to be there; what is not shown may be."""
    assert same == json_is(shown, printed)


def test_a_port_is_no_beginning_of_another(tmp_path: Path) -> None:
    """What a node printed with a port such as 40001 is typed as it is."""
    with Reader(tmp_path) as reader:
        typed = reader.instead("curl 127.0.0.1:40001 127.0.0.1:4000/ 127.0.0.1:80010")
        assert f"curl 127.0.0.1:40001 127.0.0.1:{reader.recipient_port}/ 127.0.0.1:80010" == typed
