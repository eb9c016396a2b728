"""Batch: due jobs, a hundred in a request, beside the same jobs one by one."""

from bench.fire import fire
from bench.tools import Process, node, report, set_up

_JOBS = 100
_UNDER_WAY = 1_000


def run(*, quick: bool) -> None:
    """Measure, one after the other."""
    count = 20_000 if quick else 200_000
    receiver = Process(["-m", "bench.baselines", "receiver"])
    try:
        alone_us, alone = _fire(receiver.port, count)
        batch_us, batched = _fire(receiver.port, count, batch={"max_jobs": _JOBS})
    finally:
        receiver.stop()
    print(f"  CPU of a fired job: {alone_us:.1f} us alone, {batch_us:.1f} us in a batch")
    report(
        f"batch: rate, {_JOBS} jobs a request",
        f"{batched:.0f} jobs/s, {batched / alone:.1f} x alone",
        ">= 4 x",
        holds=batched >= 4 * alone,
    )


def _fire(port: int, count: int, **route: object) -> tuple[float, float]:
    with node() as measured:
        set_up(measured, {"hook": port}, max_in_flight=_UNDER_WAY, **route)
        fire(measured, count, 0)  # the first jobs of a process cost more
        return fire(measured, count, 1)
