"""What recipients are promised whatever the store, with the stores on real servers."""

# The fixtures of this folder give other stores to the same tests.
from tests.unit.receiver.test_dedupe import *  # noqa: F403
