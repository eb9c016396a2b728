"""`python -m tests.sim`: clusters of production's code in a virtual world, through seeded faults.

Without a seed it runs fresh ones on all cores for a while, and tells what it found: each failed
seed with its commit and the line that runs it again. `--seed N` runs one and tells its story.
`--nodes 1` storms a single node instead. `--mutation NAME` plants a fault that is to be found.
"""

import argparse
import ast
import os
import sys
import time

from tests.sim.mutations.finding import checks_of
from tests.sim.runs import Order, Run, commit, fresh_seed, run_many, run_seed, seeds_for

_TOLD_EVERY = 500


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only, and tell its story")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run fresh seeds")
    parser.add_argument("--seeds", type=int, help="how many seeds to run, instead of a time")
    parser.add_argument("--first", type=int, help="the first seed of many; drawn without it")
    parser.add_argument("--nodes", type=int, help="how many nodes, 1 to 7; seeds draw it without")
    parser.add_argument("--mutation", help="plant this fault, see tests/sim/mutations")
    parser.add_argument("--knob", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args()


def _knob(given: str) -> tuple[str, object]:
    name, _, value = given.partition("=")
    try:
        return name, ast.literal_eval(value)
    except ValueError:
        return name, value


def main() -> int:
    """Run what was asked; 1 if a promise was broken."""
    given = _parse()
    order = Order(given.nodes, given.mutation, tuple(_knob(each) for each in given.knob))
    if given.seed is not None:
        run = run_seed(order, given.seed, tell=True)
        print(*run.story, sep="\n")
        print(f"seed {run.seed}, {run.nodes} nodes, {run.events} events, trace {run.trace}")
        print(f"commit {commit()}")
        _print_found(order, run)
        return 1 if run.found else 0
    first = fresh_seed() if given.first is None else given.first
    seeds = range(first, first + given.seeds) if given.seeds else seeds_for(given.seconds, first)
    print(f"commit {commit()}, from seed {first} on, {given.jobs} processes", flush=True)
    began = time.monotonic()
    done = events = bad = undecided = 0
    for run in run_many(order, seeds, jobs=given.jobs):
        done += 1
        events += run.events
        undecided += run.undecided
        if done % _TOLD_EVERY == 0:
            print(f"{done} seeds, {events} events, {bad} failed", flush=True)
        if run.found:
            bad += 1
            _print_found(order, run)
            if given.mutation is not None:
                checks = " and ".join(sorted(checks_of(run)))
                print(f"{given.mutation}: found by {checks} in seed {run.seed}, the {done}th")
                return 1
    took = time.monotonic() - began
    print(
        f"{done} seeds, {events} events, {events / took / given.jobs:.0f} events/s for each of"
        f" {given.jobs} processes, {took:.0f} s, {bad} failed"
    )
    print(f"searches of C6 given up undecided: {undecided}")
    return 1 if bad else 0


def _print_found(order: Order, run: Run) -> None:
    if not run.found:
        return
    print(f"seed {run.seed} failed, {run.nodes} nodes, commit {commit()}")
    print(*[f"    {sentence}" for sentence in run.found[:10]], sep="\n")
    print(f"    again: {order.again(run.seed)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
