"""Memory: what a million pending jobs cost in anonymous memory."""

from bench.lateness import jobs
from bench.tools import ask, node, push, report

_FAR_MS = 4_000_000_000_000


def run(*, quick: bool) -> None:
    """Measure."""
    pending = 200_000 if quick else 1_000_000
    with node() as measured:
        ask(measured, "PUT", "/v1/dbs/default/collections/jobs")
        body = {"webhook_url": "http://127.0.0.1:9/x"}
        ask(measured, "PUT", "/v1/dbs/default/routes/hook", body)
        push(measured, jobs(20_000, "warm", _FAR_MS, 0, "hook"), 4)
        before = measured.anonymous_bytes()
        push(measured, jobs(pending, "far", _FAR_MS, 0, "hook"), 4)
        grown_mb = (measured.anonymous_bytes() - before) / 1e6
    name = f"memory: {pending} pending jobs"
    report(name, f"{grown_mb:.0f} MB", "< 150 MB", holds=grown_mb < 150)
