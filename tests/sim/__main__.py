"""`python -m tests.sim [--seed N] [--seeds COUNT]`: crash one node at random moments, many times.

Each seed draws its own load, faults of recipients and crashes, from one random number generator.
It prints the seed first, so that a failure can be run again: `python -m tests.sim --seed N`.
"""

import argparse
import sys
import time

from tests.sim.storm import storm


def main() -> int:
    """Run the given seed, or many."""
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    given = parser.parse_args()
    seeds = [given.seed] if given.seed is not None else range(given.seeds)
    began = time.monotonic()
    events = 0
    for seed in seeds:
        try:
            events += storm(seed)
        except AssertionError as error:
            print(f"seed {seed} failed: {error}\nagain: python -m tests.sim --seed {seed}")
            return 1
    took = time.monotonic() - began
    print(f"{len(list(seeds))} seeds, {events} events, {events / took:.0f} events/s, 0 violations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
