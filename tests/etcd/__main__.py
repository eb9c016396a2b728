"""`python -m tests.etcd [DIR]`: run etcd's test files through our core.

Prints each block that differs, and last `files a/b blocks c/d`: how many are equal. A file that
cannot be read is named, and not equal; none of its blocks counts. Exits with 1 if a file is not
equal, with 2 if there are no files.
"""

import difflib
import sys
from pathlib import Path

from tests.etcd.blocks import Malformed
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
    paths = list(files(folder))
    if not paths:
        print(f"There are no files in {folder}.", file=sys.stderr)
        return 2
    files_equal = 0
    blocks: list[Outcome] = []
    for path in paths:
        try:
            found = run_file(path)
        except Malformed as error:
            print(f"{path.relative_to(folder)}: malformed, {error}")
            continue
        for outcome in found:
            if not outcome.equal:
                report(outcome, folder)
        files_equal += all(outcome.equal for outcome in found)
        blocks += found
    blocks_equal = sum(outcome.equal for outcome in blocks)
    print(f"files {files_equal}/{len(paths)} blocks {blocks_equal}/{len(blocks)}")
    return 0 if files_equal == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
