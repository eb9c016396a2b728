"""What can be set, measured, refused or called is documented, and the figure is the table."""

import re
from pathlib import Path

import pytest

from admin.given import shared_options
from node.api.problems import REFUSALS
from node.config import NOT_YET, Config
from node.telemetry import METRICS
from tests.docs import cli_page
from timemachine import errors
from timemachine.model import JOB_TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def _error_codes() -> set[str]:
    codes = {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.TimeMachineError)
    }
    for path in (*(ROOT / "node" / "api").glob("*.py"), *(ROOT / "node" / "sender").glob("*.py")):
        codes |= set(re.findall(r'code="(\w+)"', path.read_text()))
    return codes | REFUSALS.keys()


@pytest.mark.parametrize("code", sorted(_error_codes()))
def test_every_error_code_is_documented(code: str) -> None:
    """Each code has a row that says what it means."""
    page = (REFERENCE / "errors.md").read_text()
    assert re.search(rf"^\| `{code}` \| \S+ \| \S.* \|$", page, re.MULTILINE)


def test_the_tree_of_errors_is_complete() -> None:
    """The figure at the top of the errors shows each class below its base, and no other."""
    shown, above = set(), ["TimeMachineError"]
    for before, name in re.findall(r"^    (.*)-- (\w+)", errors.__doc__ or "", re.MULTILINE):
        del above[len(before) // 4 + 1 :]
        shown.add((above[-1], name))
        above.append(name)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {(each.__mro__[1].__name__, each.__name__) for each in kinds} == shown | {
        ("Exception", "TimeMachineError")
    }


@pytest.mark.parametrize("name", [*Config.__struct_fields__, *NOT_YET])
def test_every_setting_is_documented(name: str) -> None:
    """Each setting stands in the reference, also those refused for now."""
    assert f"`{name}`" in (REFERENCE / "config.md").read_text()


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_documented(name: str) -> None:
    """Each metric stands in the reference with what it means."""
    assert f"| `{name}` | {METRICS[name]} |" in (REFERENCE / "metrics.md").read_text()


def test_the_reference_of_commands_is_what_help_says() -> None:
    """Each command has a section, word for word; `python -m tests.docs.cli_page` writes them."""
    assert cli_page.generated() == cli_page.written()[1]


def test_shared_options_are_documented() -> None:
    """What the sections leave out stands in a table before them, with its variables."""
    by_hand = cli_page.written()[0]
    options = shared_options(db=True)
    for option in options:
        assert re.search(rf"^\| `{option.opts[0]}[ `]", by_hand, re.MULTILINE), option.opts
        assert option.envvar is None or f"`{option.envvar}`" in by_hand
    assert set(re.findall(r"^\| `(--[\w-]+)", by_hand, re.MULTILINE)) == {
        option.opts[0] for option in options
    }


def test_the_figure_of_states_is_the_table() -> None:
    """The figure in the semantics shows every allowed move, and no other."""
    lines = {
        f"    {'[*]' if before is None else before.text} --> {after.text}: {event}"
        for before, moves in JOB_TRANSITIONS.items()
        for event, after in moves.items()
    }
    page = (ROOT / "docs" / "semantics.md").read_text()
    figure = page.partition("stateDiagram-v2\n")[2].partition("```")[0]
    assert lines == set(figure.splitlines())
