"""The exit codes of commands that ask a node. They are stable: scripts decide by them."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
"""Wrong usage, or the node found the request invalid."""
NOT_FOUND: Final = 4
"""3 is left out: for `timemachine serve` it means the data directory."""
CONFLICT: Final = 5
DENIED: Final = 6
UNREACHABLE: Final = 7
PARTLY: Final = 8
"""Some items of a batch were refused."""

MEANINGS: Final = {
    DONE: "done",
    FAILED: "it failed otherwise, or you said no",
    USAGE: "wrong usage, or the node found the request invalid (400, 405, 413, 415, 422)",
    NOT_FOUND: "there is no such thing (404)",
    CONFLICT: "it conflicts with what is stored, or a condition does not hold (409, 412)",
    DENIED: "the credentials are missing or wrong (401, 403)",
    UNREACHABLE: "no node answers, or the cluster is overloaded (429, 502, 503, 504, 507)",
    PARTLY: "some jobs of a batch were refused; the others are created",
}
"""The table of the reference page, which a test compares with it."""
