"""`python -m tests.etcd [DIR]`: run etcd's test files through our core.

Prints each block that differs, and last `files a/b blocks c/d`: how many are equal. Exits with 1
if one differs, with 2 if there are no files.
"""

import difflib
import sys
from pathlib import Path

from tests.etcd.judge import Outcome, files, run_file, without_log
from tests.etcd.place import FOLDER


def report(outcome: Outcome, folder: Path) -> None:
    """Say where a block is, what it asks, and how the answers differ."""
    block = outcome.block
    command = block.command
    arguments = [key + f"=({','.join(values)})" * bool(values) for key, values in command.arguments]
    asked = " ".join([command.name, *arguments])
    print(f"{block.path.relative_to(folder)}:{block.line}: {asked}")
    difference = difflib.unified_diff(
        without_log(block.expected).split("\n"),
        without_log(outcome.found).split("\n"),
        "etcd",
        "ours",
        lineterm="",
    )
    for line in difference:
        print(f"    {line}")


def main(arguments: list[str]) -> int:
    """Run all files of a folder; the exit code."""
    folder = Path(arguments[0]) if arguments else FOLDER
    outcomes = {path: run_file(path) for path in files(folder)}
    if not outcomes:
        print(f"There are no files in {folder}.", file=sys.stderr)
        return 2
    blocks = [outcome for found in outcomes.values() for outcome in found]
    for outcome in blocks:
        if not outcome.equal:
            report(outcome, folder)
    files_equal = sum(all(each.equal for each in found) for found in outcomes.values())
    blocks_equal = sum(outcome.equal for outcome in blocks)
    print(f"files {files_equal}/{len(outcomes)} blocks {blocks_equal}/{len(blocks)}")
    return 0 if blocks_equal == len(blocks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
