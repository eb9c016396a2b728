"""`python -m bench [WORKLOAD ...] [--quick]`."""

import argparse
import os

from bench import bulk, cluster, fire, growth, idle, ingest, lateness, memory, raft

_WORKLOADS = {
    "ingest": ingest.run,
    "fire": fire.run,
    "lateness": lateness.run,
    "memory": memory.run,
    "growth": growth.run,
    "bulk": bulk.run,
    "raft": raft.run,
    "idle": idle.run,
    "failover": cluster.failover,
    "rolling": cluster.rolling,
    "cluster-ingest": cluster.ingest,
    "cluster-idle": cluster.idle,
}


def main() -> None:
    """Run the named workloads, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(_WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    given = parser.parse_args()
    unknown = [name for name in given.workloads if name not in _WORKLOADS]
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}")
    print(f"processors {os.cpu_count()}, load {os.getloadavg()}")
    for name in given.workloads or _WORKLOADS:
        _WORKLOADS[name](quick=given.quick)


if __name__ == "__main__":
    main()
