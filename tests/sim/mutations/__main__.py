"""`python -m tests.sim.mutations [NAME ...] [--seeds COUNT]`: count what each mutation needs."""

import argparse
import sys
import time

from tests.sim.mutations import MUTATIONS
from tests.sim.mutations.finding import checks_of
from tests.sim.runs import Order, run_seed


def main() -> int:
    """Run every seed with every mutation."""
    parser = argparse.ArgumentParser(prog="tests.sim.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MUTATIONS))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=30, help="how many seeds to run at most")
    parser.add_argument("--hits", type=int, default=1, help="after how many finds to stop")
    given = parser.parse_args()
    missed = 0
    for name in given.names or list(MUTATIONS):
        mutation = MUTATIONS[name]
        hits: list[str] = []
        others: list[str] = []
        run = 0
        for seed in range(given.first, given.first + given.seeds):
            began = time.process_time()
            ran = run_seed(Order(mutation=name), seed)
            took = time.process_time() - began
            run += 1
            checks = sorted(checks_of(ran))
            if set(checks) & set(mutation.checks):
                hits.append(f"{seed} {'+'.join(checks)} {took:.1f}s")
            elif checks:
                others.append(f"{seed} {ran.found[0][:200]}")
            if len(hits) >= given.hits:
                break
        missed += not hits
        print(f"{name}: {len(hits)} of {run}: {', '.join(hits)}; others: {others}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
