"""Sender: what sending a webhook costs with each candidate, over http and https, in one run."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import trustme

from bench.senders import NAMES
from bench.senders.__main__ import Round
from bench.tools import Process, median, report

_HOST = "recipient.example"
_CASES = {
    "http": ("http", "/hook"),
    "http, answers that differ": ("http", "/hook/other"),
    "https": ("https", "/hook"),
}


class Rounds:
    """The rounds of one candidate."""

    def __init__(self, process: Process, count: int) -> None:
        self._process = process
        self._count = count
        self._told: list[Round] = []

    def run(self) -> float:
        """One more; returns the CPU time of each webhook in us."""
        told = msgspec.json.decode(self._process.line(), type=Round)
        assert not told.failed, f"{told.failed} webhooks failed"
        self._told.append(told)
        return told.process_s / self._count * 1e6

    @property
    def rate(self) -> float:
        """Webhooks per second."""
        return median([self._count / each.took_s for each in self._told])

    @property
    def cpu_us(self) -> float:
        """Time of the sending thread for one webhook."""
        return median([each.thread_s / self._count * 1e6 for each in self._told])

    def figure(self) -> str:
        """All of it."""
        user = median([each.user_s / self._count * 1e6 for each in self._told])
        process = median([each.process_s / self._count * 1e6 for each in self._told])
        return (
            f"{self.rate:.0f}/s, CPU {self.cpu_us:.1f} us each ({user:.1f} of it user,"
            f" {process:.1f} the process), {self._told[-1].resident_mb:.0f} MB"
        )


@contextmanager
def candidate(
    name: str, url: str, count: int, *, under_way: int = 64, authority: Path | None = None
) -> Iterator[Rounds]:
    """A candidate in a process of its own."""
    words = [name, url, str(count), str(under_way), *([str(authority)] if authority else [])]
    process = Process(["-m", "bench.senders", *words])
    try:
        yield Rounds(process, count)
    finally:
        process.kill()


@contextmanager
def receiver(folder: Path) -> Iterator[Process]:
    """The recipient, whose certificate is signed by the authority in `folder`/ca.pem."""
    authority = trustme.CA()
    certificate = authority.issue_cert(_HOST)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "certificate.pem", append=True)
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    process = Process(["-m", "bench.senders.receiver", *files])
    try:
        yield process
    finally:
        process.kill()


def run(*, quick: bool) -> None:
    """Measure all candidates by turns."""
    rounds, count = (2, 2_000) if quick else (5, 50_000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timemachine-bench-")))
        recipient = stack.enter_context(receiver(folder))
        ports = {"http": recipient.port, "https": recipient.https_port}
        measured = {
            (case, name): stack.enter_context(
                candidate(
                    name,
                    f"{scheme}://{_HOST}:{ports[scheme]}{path}",
                    count,
                    authority=folder / "ca.pem" if scheme == "https" else None,
                )
            )
            for case, (scheme, path) in _CASES.items()
            for name in NAMES
        }
        for _ in range(rounds):
            for each in measured.values():
                each.run()
    for case in _CASES:
        own, others = measured[case, "own"], [measured[case, name] for name in NAMES[1:]]
        for name in NAMES:
            print(f"  {case}, {name}: {measured[case, name].figure()}")
        rate = own.rate / measured[case, "aiohttp"].rate
        cpu = measured[case, "aiohttp"].cpu_us / own.cpu_us
        report(f"sender, {case}: rate", f"{rate:.2f} x aiohttp", ">= 2 x", holds=rate >= 2)
        report(f"sender, {case}: CPU", f"aiohttp takes {cpu:.2f} x", "-", holds=None)
        least = min(other.cpu_us for other in others)
        report(
            f"sender, {case}: own CPU against the best other",
            f"{own.cpu_us:.1f} us, {least:.1f} us",
            "less",
            holds=own.cpu_us < least,
        )
