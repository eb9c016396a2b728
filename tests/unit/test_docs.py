"""What can be set, measured, refused or called is documented, and the figure is the table."""

import ast
import re
from pathlib import Path

import pytest

from admin.given import shared_options
from node.api.dispatch import OPERATIONS
from node.api.problems import REFUSALS
from node.config import Config
from node.rpc import hello
from node.telemetry import METRICS
from tests.docs import cli_page
from timemachine import errors, limits
from timemachine.model import JOB_TRANSITIONS, DeadReason, JobState

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
_LEVELS = ("info", "warning", "error", "critical")


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


@pytest.mark.parametrize("name", Config.__struct_fields__)
def test_every_setting_is_documented(name: str) -> None:
    """Each setting stands in the reference."""
    assert f"`{name}`" in (REFERENCE / "config.md").read_text()


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_documented(name: str) -> None:
    """Each metric stands in the reference with what it means."""
    assert f"| `{name}` | {METRICS[name]} |" in (REFERENCE / "metrics.md").read_text()


def _operations() -> set[tuple[str, str]]:
    """(method, path) of each operation that the node has, its variable parts as `{}`.

    But for the paths of the original timeMachine, which are no part of the API.
    """
    return {
        (operation.method, re.sub(r"\{\w+\}", "{}", operation.path))
        for operation in OPERATIONS
        if operation.path.split("/")[1] not in {"job", "route"}
    }


def _documented_operations() -> list[tuple[str, str]]:
    page = (REFERENCE / "api.md").read_text()
    headings = re.findall(r"^### (?:([A-Z]+) )?(\S.*)$", page, re.MULTILINE)
    return [(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in headings]


@pytest.mark.parametrize(("method", "path"), sorted(_operations()))
def test_every_operation_is_documented(method: str, path: str) -> None:
    """Each method of each path has a section in the reference of the API."""
    assert (method, path) in _documented_operations()


def test_no_other_operation_is_documented() -> None:
    """The reference has no section of an operation that does not exist, and none twice."""
    documented = _documented_operations()
    assert sorted(_operations()) == sorted(documented)


def _bounds() -> dict[str, int]:
    return {name: value for name, value in vars(limits).items() if name.isupper()}


def _shown(name: str, value: int) -> str:
    """A bound as the reference shows it: in the largest unit that leaves a whole number."""
    words = name.split("_")
    if "BYTES" in words:
        units = [("MiB", 1 << 20), ("KiB", 1 << 10), ("bytes", 1)]
    elif "MS" in words:
        units = [("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)]
    elif "S" in words:
        units = [("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1)]
    else:
        return f"{value:,}"
    # One MiB, but 24 h and 60 s: "1 days" is no way to speak.
    few = 1 if "BYTES" in words else 2
    unit, size = next(
        (unit, size)
        for unit, size in units
        if value % size == 0 and (value >= few * size or size == 1)
    )
    return f"{value // size:,} {unit}"


@pytest.mark.parametrize("name", sorted(_bounds()))
def test_every_limit_is_documented(name: str) -> None:
    """Each bound has one row, with its value as it is and what it bounds."""
    row = f"| `{name}` | {_shown(name, _bounds()[name])} | "
    lines = (REFERENCE / "limits.md").read_text().splitlines()
    assert 1 == sum(line.startswith(row) and len(line) > len(row) + 2 for line in lines), row


def test_no_other_limit_is_documented() -> None:
    """The reference of the limits names none that is gone."""
    page = (REFERENCE / "limits.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(_bounds())


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


def test_no_page_promises_what_http_cannot() -> None:
    """R46, R100: at least once on the wire, in no order; once is the decision, or the effect."""
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "ARCHITECTURE.md"]:
        for sentence in re.split(r"(?<=[.:!])\s", path.read_text()):
            if re.search(r"exactly[- ]once|deliver\w* exactly one", sentence, re.IGNORECASE):
                assert re.search(r"effect|decision|never|not\b|nobody", sentence), (path, sentence)
    semantics = (ROOT / "docs" / "semantics.md").read_text()
    assert "On the wire it is at least once" in semantics
    assert "have no order among each other" in semantics


def _logged() -> set[tuple[str, str]]:
    """(event, level) of each line that a node may log."""
    found = set()
    for path in (ROOT / "node").rglob("*.py"):
        module = ast.parse(path.read_text())
        constants = {
            ast.unparse(each.targets[0]): each.value
            for each in module.body
            if isinstance(each, ast.Assign)
        }
        for call in ast.walk(module):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if ast.unparse(call.func.value).rpartition(".")[2] != "log" or not call.args:
                continue
            event = constants.get(ast.unparse(call.args[0]), call.args[0])
            events = {
                each.value
                for each in ast.walk(event)
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            }
            assert events, f"{path}:{call.lineno}: an event that is not written out"
            level = {"exception": "error"}.get(call.func.attr, call.func.attr)
            found |= {(event, level) for event in events}
    return found


def test_every_line_of_the_log_is_documented() -> None:
    """Each event has one row with its level and what it means, and there is none that is gone."""
    page = (ROOT / "docs" / "operate" / "log.md").read_text()
    found = re.findall(r"^\| `([^`]+)` \| (\w+) \| \S.* \|.*\|$", page, re.MULTILINE)
    rows = [row for row in found if row[1] in _LEVELS]
    assert sorted(_logged()) == sorted(rows)


def test_every_refusal_between_nodes_is_documented() -> None:
    """As the code that one side logs, and as the sentence that the other side does."""
    page = (ROOT / "docs" / "operate" / "log.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+ [^|]+) \| [^|]*\|$", page, re.MULTILINE)
    assert hello.REFUSALS == dict(rows)


@pytest.mark.parametrize("state", list(JobState), ids=lambda state: state.text)
def test_every_state_is_documented(state: JobState) -> None:
    """Each state has a row that says what it means."""
    page = (ROOT / "docs" / "semantics.md").read_text()
    assert re.search(rf"^\| `{state.text}` \| \S.* \|$", page, re.MULTILINE)


@pytest.mark.parametrize("reason", list(DeadReason))
def test_every_reason_is_documented(reason: DeadReason) -> None:
    """Each reason why a job is dead has a row that says what it means."""
    page = (ROOT / "docs" / "semantics.md").read_text()
    assert re.search(rf"^\| `{reason}` \| \S.* \|$", page, re.MULTILINE)


def test_every_move_is_explained() -> None:
    """Each word at an arrow of the figure has a row that says what happened."""
    page = (ROOT / "docs" / "semantics.md").read_text()
    moves = {event for moves in JOB_TRANSITIONS.values() for event in moves}
    section = page.partition("| at the arrow |")[2].partition("\n\n")[0]
    assert moves == set(re.findall(r"^\| ([a-z][a-z -]*) \| \S", section, re.MULTILINE))


def test_the_figures_of_states_are_the_table() -> None:
    """The figures in the semantics show every allowed move, once, and no other."""
    moves = [
        f"    {'[*]' if before is None else before.text} --> {after.text}: {event}"
        for before, moves in JOB_TRANSITIONS.items()
        for event, after in moves.items()
    ]
    page = (ROOT / "docs" / "semantics.md").read_text()
    figures = [part.partition("```")[0] for part in page.split("stateDiagram-v2\n")[1:]]
    shown = [line for figure in figures for line in figure.splitlines()]
    assert sorted(moves) == sorted(shown)
