"""What became of the jobs of `bench.callers`, by what `bench.notebook` got."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from timemachine.ring import vnode_of

_SURE_MS = 500.0
"""Only a job that was acknowledged this long before it was due tells how late a node is."""

_OPEN_MS = 1_000.0
"""How long after its arrival a webhook may still be in flight: answered after 20 ms, settled with
others, on a machine that has much else to do."""


class Kill(NamedTuple):
    """A node died: when, which vnodes it led, and until when no other thing was done."""

    at_ms: float
    vnodes: frozenset[int]
    until_ms: float


class Arrival(NamedTuple):
    """One webhook."""

    at_ms: float
    job: str
    version: int
    content: int
    webhook_id: str


class Evidence:
    """All that clients were told, and all that came."""

    def __init__(self, told: dict[str, Any], noted: list[list[Any]], num_vnodes: int) -> None:
        self.jobs: dict[str, Any] = told["jobs"]
        self.failed: list[str] = told["failed"]
        self.longest_ms: float = told["longest_ms"]
        self._num_vnodes = num_vnodes
        self.arrivals = [Arrival(*each) for each in noted]
        self._of_job: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in self.arrivals:
            self._of_job[arrival.job].append(arrival)

    def acknowledged(self) -> int:
        """How many calls were answered."""
        return sum(len(calls) for _, calls in self.jobs.values())

    def lost(self) -> list[str]:
        """Jobs whose newest acknowledged version never came."""
        found = []
        for job, (_, calls) in self.jobs.items():
            versions = [version for version, *_ in calls]
            if not versions or 0 in versions:
                continue
            if not any(each.version >= max(versions) for each in self._of_job[job]):
                withdrawn = calls[-1][3] in ("in_flight", "already_delivered")
                found += [] if withdrawn and self._of_job[job] else [job]
        return found

    def stale(self) -> list[str]:
        """Webhooks of what had been replaced or deleted, and of contents that are not theirs."""
        found = []
        for job, (due_ms, calls) in self.jobs.items():
            for arrival in self._of_job[job]:
                if arrival.content != arrival.version or arrival.at_ms < due_ms:
                    found.append(f"{job}: {arrival}, due {due_ms}")
                for version, _, acked_ms, outcome in calls:
                    older = version == 0 or arrival.version < version
                    excused = outcome in ("in_flight", "already_delivered")
                    if older and arrival.at_ms > acked_ms and not excused:
                        found.append(f"{job}: {arrival}, after {version} at {acked_ms}")
        return found

    def repeats(self) -> list[list[Arrival]]:
        """All webhooks of those versions that came more than once."""
        of_version: dict[tuple[str, int], list[Arrival]] = defaultdict(list)
        for arrival in self.arrivals:
            of_version[arrival.job, arrival.version].append(arrival)
        return [each for each in of_version.values() if len(each) > 1]

    def wrong_repeats(self, kills: Iterable[Kill]) -> list[list[Arrival]]:
        """Repeats with another webhook id, or of what was not in flight when a node died."""
        return [each for each in self.repeats() if not self._excused(each, list(kills))]

    def _excused(self, repeats: list[Arrival], kills: list[Kill]) -> bool:
        if len({each.webhook_id for each in repeats}) > 1:
            return False
        vnode = vnode_of(repeats[0].job, self._num_vnodes)
        return all(
            any(
                # What was handed to the system may arrive after the death.
                vnode in kill.vnodes and -_OPEN_MS <= first.at_ms - kill.at_ms <= 100
                for kill in kills
            )
            for first in repeats[:-1]
        )

    def late_ms(self, vnodes: Iterable[int], from_ms: float, until_ms: float) -> list[float]:
        """How late each job of some vnodes came first, of those due in some time."""
        found = []
        among = frozenset(vnodes)
        for job, (due_ms, calls) in self.jobs.items():
            if not calls or not from_ms <= due_ms < until_ms or not self._of_job[job]:
                continue
            if calls[-1][2] < due_ms - _SURE_MS and vnode_of(job, self._num_vnodes) in among:
                found.append(self._of_job[job][0].at_ms - due_ms)
        return found

    def silent_ms(self, kill: Kill) -> list[float]:
        """How long each vnode of who died fired nothing that became due after the death."""
        first: dict[int, float] = {}
        for arrival in self.arrivals:
            vnode = vnode_of(arrival.job, self._num_vnodes)
            if vnode in kill.vnodes and self.jobs[arrival.job][0] >= kill.at_ms:
                first[vnode] = min(first.get(vnode, arrival.at_ms), arrival.at_ms)
        return [at_ms - kill.at_ms for at_ms in first.values()]
