"""`python -m tests.sim.cluster [--seed N] [--seeds COUNT] [--nodes N] [--knob NAME=VALUE]`.

Runs clusters of production's code through faults, one seed after the other, and prints what was
found, with the line that runs it again.
"""

import argparse
import ast
import sys
import time
import traceback
from typing import Any

from tests.sim.cluster.harness import Harness, Result
from tests.sim.cluster.knobs import draw


def main() -> int:
    """Run the given seed, or many."""
    parser = argparse.ArgumentParser(prog="tests.sim.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only, and tell its story")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--nodes", type=int, help="that many nodes, whatever the seed draws")
    parser.add_argument("--knob", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    fixed: dict[str, Any] = {}
    for knob in given.knob:
        name, _, value = knob.partition("=")
        fixed[name] = value if name == "mood" else ast.literal_eval(value)
    count = 1 if given.seed is not None else given.seeds
    first = given.first if given.seed is None else given.seed
    events = bad = 0
    began = time.process_time()
    for seed in range(first, first + count):
        harness = Harness(draw(seed, nodes=given.nodes, **fixed))
        failed = _run(harness, tell=given.seed is not None)
        events += harness.clock.events
        bad += failed
    took = time.process_time() - began
    print(f"{count} seeds, {events} events, {events / took:.0f} events/s of CPU, {bad} failed")
    return 1 if bad else 0


def _run(harness: Harness, *, tell: bool) -> bool:
    """Run one seed; whether it failed."""
    knobs = harness.knobs
    result: Result | None = None
    found: list[str] = []
    try:
        result = harness.run()
        found = result.judgement.broken
    except AssertionError as error:
        found = [f"step: {error}"]
        traceback.print_exc(limit=-6)
    if tell:
        print(f"{knobs}\n", *harness.clock.journal(), sep="\n")
        print(f"{harness.clock.trace} {harness.clock.summary()}")
    if result is not None and tell:
        print(f"{result.calls} calls, {result.webhooks} webhooks, {result.faults} faults")
        print(*result.judgement.undecided, sep="\n")
    if found:
        print(f"seed {knobs.seed} failed at {harness.clock.now_ms:.0f} ms, {knobs.nodes} nodes")
        print(*[f"    {sentence}" for sentence in found[:10]], sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
