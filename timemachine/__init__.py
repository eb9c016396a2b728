"""TimeMachine: a sharded, replicated webhook timer database.

This package is the library. It decides; it does not do: no sockets, no clock, no dice.
Time and chance are arguments everywhere, so that the same code runs in production
(`node/`) and in a simulator (`tests/sim/`). `ARCHITECTURE.md` shows how the parts fit.
"""

__version__ = "0.1.0"
