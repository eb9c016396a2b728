"""Each webhook has its effect once, with the store on a real server."""

# The fixtures of this folder give another store to the same tests.
from tests.unit.receiver.test_once import *  # noqa: F403
