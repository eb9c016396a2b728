"""Claims that meet what their jobs have become meanwhile."""

from tests.unit.node.cluster import Cluster
from tests.unit.node.delivery.test_leading import no_row_is_passed
from timemachine.model import JobState
from timemachine.replica import commands as c


def _run_now(cluster: Cluster, job_id: str) -> None:
    """A job is moved to now; the leader hears of it."""
    cluster.log.apply(c.RunJob(now_ms=cluster.world.wall_ms(), job_id=job_id))
    node = cluster.nodes[1]
    node.delivery.on_effects(node.vnode, cluster.log.machine.take_effects(), cluster.log.index)


def test_a_job_that_is_moved_while_it_is_being_claimed_is_not_passed_by() -> None:
    """Its claim holds for where it stands now; the next leader has to find it open there."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.put("a", in_ms=50)
    while not cluster.nodes[1].delivery.in_flight:
        cluster.run(0.25)
    assert not any(isinstance(command, c.Claim) for command in cluster.committed)
    _run_now(cluster, "a")
    cluster.run(100)
    assert (1, JobState.FIRING) == (cluster.sent(1), cluster.job("a").state)
    for number in range(5):
        cluster.put(f"b-{number}", in_ms=1_500 * (number + 1))
    cluster.run(8_000)
    no_row_is_passed(cluster)
    cluster.elect(2)
    cluster.run(5_000)
    assert cluster.job("a").attempts > 1
