"""Memory: what a million pending jobs cost in anonymous memory."""

from bench.tools import FAR_MS, UNHEARD_PORT, jobs, node, push, report, set_up


def run(*, quick: bool) -> None:
    """Measure."""
    pending = 200_000 if quick else 1_000_000
    with node() as measured:
        set_up(measured, {"hook": UNHEARD_PORT})
        push(measured, jobs(20_000, "warm", FAR_MS, 0, "hook"), 4)
        before = measured.anonymous_bytes()
        push(measured, jobs(pending, "far", FAR_MS, 0, "hook"), 4)
        grown_mb = (measured.anonymous_bytes() - before) / 1e6
    name = f"memory: {pending} pending jobs"
    report(name, f"{grown_mb:.0f} MB", "< 150 MB", holds=grown_mb < 150)
