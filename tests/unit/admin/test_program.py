"""The commands as a whole: quick to start, complete, each with a help that helps."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from admin import complete
from admin.__main__ import program
from admin.command import Command
from admin.examples import ExampleCommand
from admin.program import PLACES
from node.__main__ import main
from timemachine.model import STATES_BY_TEXT

SERVER = ("aiohttp", "uvloop", "plyvel", "prometheus_client", "structlog", "node.wiring")


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below a group, with the words that call them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)


ALL = dict(commands(main))
ASKING = {words: each for words, each in ALL.items() if isinstance(each, ExampleCommand)}
_ASK_NOBODY = {("completion",), ("admin", "salvage")}
"""Commands of these groups that need no node."""


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], (*SERVER, "timemachine.client", "rich")),
        (["job", "list", "--help"], SERVER),
        (["completion", "zsh"], (*SERVER, "timemachine.client", "rich")),
    ],
    ids=" ".join,
)
def test_help_imports_no_server(words: list[str], absent: tuple[str, ...]) -> None:
    """Help and completion start quickly: they load nothing of a node, the list not even the SDK."""
    script = (
        "import sys\n"
        "from node.__main__ import main\n"
        f"main({words!r}, prog_name='timemachine', standalone_mode=False)\n"
        f"sys.exit(', '.join(set({absent!r}) & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("name", sorted(PLACES))
def test_the_list_says_what_the_help_says(name: str) -> None:
    """The line in the list of commands, known without the command, is its help's first."""
    help_text = ALL[(name,)].help or ""
    assert PLACES[name].summary == help_text.partition("\n")[0]


@pytest.mark.parametrize("words", list(ASKING), ids=" ".join)
def test_every_command_has_examples(words: tuple[str, ...]) -> None:
    """Each begins with the command itself, so that it can be found and typed."""
    examples = ASKING[words].examples
    assert examples
    if words not in _ASK_NOBODY:
        assert {f"timemachine {' '.join(words)}"} == {
            " ".join(example.split()[: len(words) + 1]) for example in examples
        }


@pytest.mark.parametrize("words", list(ASKING), ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    """No option is left to be guessed."""
    silent = [
        parameter.name
        for parameter in ASKING[words].params
        if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden)
    ]
    assert [] == silent


def test_all_that_ask_take_the_same_options() -> None:
    """--server and its like work behind each command, and behind each group."""
    for words, command in ALL.items():
        if isinstance(command, Command) or (words[0] in PLACES and words not in _ASK_NOBODY):
            flags = {flag for parameter in command.params for flag in parameter.opts}
            assert {
                *("--server", "--token-file", "--ca-file", "--timeout-ms", "--json")
            } <= flags, words


def test_the_states_are_those_of_jobs() -> None:
    """What is completed is what there is."""
    assert list(complete.STATES) == list(STATES_BY_TEXT)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["jbo"], "Did you mean 'job'?"),
        (["job", "crate"], "Did you mean 'create'?"),
        (["route", "list", "--sever", "x"], "Did you mean '--server'?"),
        (["job", "create", "c", "--route", "r"], "--at TIME or --delay"),
        (["job", "create", "c", "--route", "r", "--at", "+1m", "--delay", "1m"], "not both"),
        (["job", "create", "c", "--at", "+1m"], "Missing option '--route'"),
        (["job", "create", "c", "--route", "r", "--at", "+1m", "--meta", "text"], "valid JSON"),
        (["job", "patch", "c", "id"], "at least one member"),
        (["job", "reschedule", "c"], "either --at"),
        (["route", "patch", "r"], "at least one setting"),
        (["db", "list", "--server", "ftp://x"], "--server: a server is a URL"),
        (["db", "list", "--server", ","], "no server is named"),
        (["db", "list", "--timeout-ms", "0"], "too short"),
        (["db", "list", "--ca-file", "/nowhere"], "does not exist"),
        (["db", "list", "--ca-file", __file__], "no certificates"),
        (["db", "list", "--token-file", "/dev/null"], "is empty"),
        (["db", "delete", "shop", "--force"], "add --yes"),
        (["collection", "delete", "c", "--force"], "add --yes"),
        (["route", "delete", "r", "--force"], "add --yes"),
        (["job", "delete", "c", "id", "--purge"], "add --yes"),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(line: list[str], told: str) -> None:
    """Exit code 2 and a sentence that helps, before any node is asked."""
    done = CliRunner().invoke(main, line, env={"TIMEMACHINE_SERVER": "http://127.0.0.1:1"})
    assert 2 == done.exit_code, done.output
    assert told in done.stderr


def test_the_admins_program_has_them_too() -> None:
    """`python -m admin` is the admin's commands with the others beside them."""
    done = CliRunner().invoke(program, ["--help"])
    assert 0 == done.exit_code
    for name in ("status", "vnodes", "job", "route"):
        assert f"\n  {name} " in done.stdout
