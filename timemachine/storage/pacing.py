"""How much writers slow down so that LevelDB never has to stop them.

LevelDB delays every write by 1 ms from 8 level-0 files on and stops all of them at 12, for as
long as a compaction takes: seconds, at millions of rows. Slowing down earlier, and users before
the node itself, turns that one long stop into many short pauses that nobody is late for.
"""

_LEVEL0_CALM = 6
_USER_STEP_MS = 20.0
_NODE_STEP_MS = 2.0
_PAUSE_MS_MAX = 200.0


def pause_ms(level0_files: int, *, user: bool) -> float:
    """How long the next writes wait, given the number of level-0 files; 0.0 while it is calm."""
    over = level0_files - _LEVEL0_CALM + 1
    if over <= 0:
        return 0.0
    return min(_PAUSE_MS_MAX, over * (_USER_STEP_MS if user else _NODE_STEP_MS))
