"""The demo: three nodes, 2,000 jobs, a kill -9, a SIGSTOP, and what a receiver saw of it.

receiver  writes down what arrives, and when
faults    what is done to the nodes, and when
play      the whole, on a screen
judge     the promises, computed from what arrived
table     how that looks
"""

from node.demo.play import run_demo

__all__ = ["run_demo"]
"""What `timemachine demo` calls."""
