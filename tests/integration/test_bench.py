"""What the workloads of `bench/` have in common works against a node as it is today."""

from bench.tools import COLLECTION, FAR_MS, UNHEARD_PORT, ask, jobs, node, push, set_up


def test_a_workload_sets_up_its_routes_and_jobs() -> None:
    """The port of jobs that never fire was one that webhooks may not be sent to (rule R81)."""
    with node() as measured:
        set_up(measured, {"hook": UNHEARD_PORT})
        _, statuses = push(measured, jobs(100, "job", FAR_MS, 0, "hook"), 2)
        assert set(statuses) == {200}
        page = ask(measured, "GET", f"{COLLECTION}/jobs?state=scheduled&limit=1000")
    assert len(page["items"]) == 100
