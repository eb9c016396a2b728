"""tests/etcd/blocks.py: the format is read as etcd's own reader reads it."""

from pathlib import Path

import pytest

from tests.etcd.blocks import Command, Malformed, read_blocks, read_command
from tests.etcd.judge import run_file, without_log

SCRIPT = """\
# A comment, then a command with all kinds of arguments.
go 1 two key=value list=(1, 2,3) one=(4)
input 1
input 2
----
answer

# No answer at all.
stay
----

go \\
  on
----
----
with

empty lines
----
----

last
----
end"""


def test_blocks(tmp_path: Path) -> None:
    """Commands, inputs and answers, with the lines they stand in."""
    path = tmp_path / "script.txt"
    path.write_text(SCRIPT)
    blocks = list(read_blocks(path))
    assert [2, 9, 12, 22] == [block.line for block in blocks]
    assert ["1", "two"] == blocks[0].command.words
    options = {"key": ["value"], "list": ["1", "2", "3"], "one": ["4"]}
    assert ("go", options) == (blocks[0].command.name, blocks[0].command.options)
    assert ("input 1\ninput 2", "answer") == (blocks[0].input, blocks[0].expected)
    assert (Command("stay"), "", "") == (blocks[1].command, blocks[1].input, blocks[1].expected)
    assert Command("go", [("on", [])]) == blocks[2].command
    assert "with\n\nempty lines" == blocks[2].expected
    assert (Command("last"), "end") == (blocks[3].command, blocks[3].expected)


@pytest.mark.parametrize("script", ["go\n", "go\n----\n----\nanswer\n"])
def test_a_block_without_end_is_malformed(tmp_path: Path, script: str) -> None:
    """A file that was cut off is not taken for one that agrees."""
    path = tmp_path / "script.txt"
    path.write_text(script)
    with pytest.raises(Malformed):
        list(read_blocks(path))


def test_options() -> None:
    """One value, a flag, or a mistake."""
    command = read_command("go on=true off=false many=(1,2) empty=()")
    assert (True, False, False) == tuple(command.flag(key) for key in ("on", "off", "absent"))
    assert ("true", "none") == (command.option("on"), command.option("absent", "none"))
    assert [""] == command.options["empty"]
    assert ["on", "off", "many", "empty"] == [key for key, _ in command.arguments]
    with pytest.raises(ValueError, match="unpack"):
        command.option("many")
    with pytest.raises(Malformed):
        read_command("go (1)")


def test_only_what_a_logger_says_is_left_out() -> None:
    """And nothing left is `ok`."""
    answer = "> 1 handling Ready\n  INFO 1 said\nDEBUG 2 said\n  Ready INFO \n"
    assert "> 1 handling Ready\n  Ready INFO " == without_log(answer)
    assert "ok" == without_log("INFO 1 said\n") == without_log("ok\n")


def test_a_fault_of_our_core_is_a_difference(tmp_path: Path) -> None:
    """Not the end of the run."""
    path = tmp_path / "script.txt"
    path.write_text("campaign 1\n----\nok\n\nlog-level none\n----\nok\n")
    outcomes = run_file(path)
    assert [False, True] == [outcome.equal for outcome in outcomes]
    assert "no replica 1" in outcomes[0].found
