"""`python -m bench [WORKLOAD ...] [--quick] [--jobs COUNT]`."""

import argparse
import os

from bench import (
    backup,
    batch,
    bulk,
    cluster,
    compaction,
    fire,
    growth,
    hosts,
    idle,
    ingest,
    join,
    lateness,
    memory,
    raft,
    sender,
)

_WORKLOADS = {
    "ingest": ingest.run,
    "sender": sender.run,
    "fire": fire.run,
    "batch": batch.run,
    "hosts": hosts.run,
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
    "join": join.run,
    "compaction": compaction.run,
    "backup": backup.run,
}


def main() -> None:
    """Run the named workloads, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(_WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--jobs", type=int, metavar="COUNT", help="join: how many are pending")
    given = parser.parse_args()
    unknown = [name for name in given.workloads if name not in _WORKLOADS]
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}")
    print(f"processors {os.cpu_count()}, load {os.getloadavg()}")
    for name in given.workloads or _WORKLOADS:
        if name == "join":
            join.run(quick=given.quick, pending=given.jobs)
        else:
            _WORKLOADS[name](quick=given.quick)


if __name__ == "__main__":
    main()
