"""Replicas that are being copied to newcomers, and who is disturbed in it."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import now_ms

_BALLAST: Final = 1_500
_BALLAST_BYTES: Final = 8_000


def weigh_down(cluster: Cluster, jobs: int = _BALLAST) -> None:
    """Give the replicas so much to copy that a copy takes a moment. Of these jobs no test asks."""
    meta = "m" * _BALLAST_BYTES
    cluster.create(
        {"id": f"ballast{number}", "trigger_time": now_ms(), "meta": meta} for number in range(jobs)
    )


def holders(cluster: Cluster) -> set[int]:
    """The nodes that have replicas, or are to have some."""
    return {
        cluster.ids.get(each["node"], 0) for row in cluster.vnodes() for each in row["replicas"]
    }


def changing_leader(cluster: Cluster) -> int | None:
    """A node that leads a vnode whose members are being changed, if there is any."""
    for row in cluster.vnodes():
        roles = {each["role"] for each in row["replicas"]}
        if row["leader"] in cluster.ids and roles - {"voter", "unknown"}:
            return cluster.ids[row["leader"]]
    return None


def copies_to(cluster: Cluster, number: int) -> bool:
    """Whether a node has a replica that does not vote yet."""
    return any(
        each["role"] in ("waiting", "learner")
        for row in cluster.vnodes()
        for each in row["replicas"]
        if cluster.ids.get(each["node"]) == number
    )


def disturb(
    cluster: Cluster, newcomers: Iterable[int], times: int, strike: Callable[[], bool]
) -> int:
    """Strike until all vnodes are whole, with the newcomers in them; returns how often.

    `strike` says whether it has found anybody to strike; it is called until it has so many times.
    """
    newcomers = set(newcomers)
    struck = 0
    end = time.monotonic() + 3 * PATIENCE_S
    while not (cluster.is_whole(3) and newcomers <= holders(cluster)):
        assert time.monotonic() < end, f"not whole: {cluster.vnodes()}\n{cluster.logs()}"
        if struck < times:
            struck += strike()
        time.sleep(0.02)
    print(f"struck {struck} times")
    return struck


def kill_changing_leader(cluster: Cluster) -> bool:
    """Kill a node that changes the members of a vnode, and start it again."""
    leader = changing_leader(cluster)
    if leader is None:
        return False
    cluster.kill(leader)
    cluster.restart(leader)
    return True
