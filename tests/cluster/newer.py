"""`python -m tests.cluster.newer serve ...`: a node as its next version will be.

It is this one, and knows one format more, which it has nothing to write in yet.
"""

from unittest import mock

from node.__main__ import main
from timemachine import formats

NEWER = (*formats.KNOWN, formats.KNOWN[-1] + 1)

if __name__ == "__main__":
    with mock.patch.object(formats, "KNOWN", NEWER):
        main(prog_name="timemachine")
