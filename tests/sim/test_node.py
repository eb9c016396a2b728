"""The node in the simulator: fires on time, and survives a crash at every sync boundary."""

import collections
from pathlib import Path
from typing import Any

import pytest

from node.secrets import seal_value
from tests.sim.node import KEY, SimNode, headers_of
from tests.sim.storm import storm
from timemachine.model import SealedKey
from timemachine.signing import format_secret
from timemachine.smearing import smear_of


def test_jobs_fire_once_and_not_early() -> None:
    """Every job is delivered exactly once, at or after its trigger time, in a calm world."""
    node = SimNode(1)
    assert node.start()
    jobs = node.put_collection()
    route = node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    base = node.now_ms()
    for number in range(200):
        node.put_job(jobs, f"job-{number}", base + number * 7, route, answers)
    node.world.run_until(lambda: len(answers) == 200)
    assert {"created"} == {answer.kind for answer in answers}
    node.world.run_until(lambda: node.engine.counts(jobs)["delivered"] == 200)
    assert 200 == len(node.sender.received)
    for at_ms, request in node.sender.received:
        assert at_ms >= int(headers_of(request)["timemachine-trigger-time"])


def test_smeared_jobs_are_in_time_at_their_own_moments() -> None:
    """Each attempt begins at its job's part of the time, not before; lateness counts from there."""
    node = SimNode(1)
    assert node.start()
    jobs = node.put_collection()
    route = node.put_route(smear_ms=60_000)
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    trigger_ms = node.now_ms() + 1_000
    for number in range(50):
        node.put_job(jobs, f"job-{number}", trigger_ms, route, answers)
    node.world.run_until(lambda: node.engine.counts(jobs)["delivered"] == 50)
    for at_ms, request in node.sender.received:
        headers = headers_of(request)
        assert str(trigger_ms) == headers["timemachine-trigger-time"]
        assert at_ms >= trigger_ms + smear_of(headers["timemachine-job-id"], 60_000)
    lateness = node.engine.delivery.lateness
    assert 50 == sum(lateness.counts)
    assert lateness.sum_ms < 50 * 1_000, "it counts from the trigger time"


def test_a_rotated_secret_signs_until_it_expires() -> None:
    """During the grace period there are two signatures, afterwards one, without a restart."""
    node = SimNode(1)
    assert node.start()
    jobs = node.put_collection(num_vnodes=1)
    assert jobs is not None
    first_ms = node.now_ms() + 1_000
    secrets = [
        SealedKey(
            sealed=seal_value(
                KEY, format_secret(byte * 32), nonce=b"n" * 12, db="default", name="hook"
            ),
            expires_ms=expires_ms,
        )
        for byte, expires_ms in ((b"s", None), (b"t", first_ms + 1_000))
    ]
    route = node.put_route(secrets=tuple(secrets))
    assert route is not None
    answers: list[Any] = []
    for number in range(3):
        node.put_job(jobs, f"job-{number}", first_ms + 1_000 * number, route, answers)
    node.world.run_until(lambda: len(node.sender.received) == 3)
    signatures = [headers_of(request)["webhook-signature"] for _, request in node.sender.received]
    assert [2, 1, 1] == [len(value.split()) for value in signatures]


class Noting(list[Any]):
    """Answers that are noted, not kept."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self.note = note

    def append(self, answer: Any) -> None:
        self.note(answer)


def _scenario(node: SimNode, acked: dict[str, int], cancelled: set[str]) -> None:
    """Create 12 jobs over 300 ms, delete three of them, and let half of them fire."""
    jobs = node.put_collection()
    if jobs is None:
        return
    route = node.put_route()
    if route is None:
        return
    base = node.now_ms()

    for number in range(12):
        job_id = f"job-{number}"
        trigger_ms = base + 20 + number * 25

        def created(answer: Any, job_id: str = job_id, trigger_ms: int = trigger_ms) -> None:
            if getattr(answer, "kind", None) == "created":
                acked[job_id] = trigger_ms

        node.put_job(jobs, job_id, trigger_ms, route, Noting(created))
        if node.crashed:
            return
    node.world.run_for(40)
    for number in (9, 10, 11):
        job_id = f"job-{number}"

        def deleted(answer: Any, job_id: str = job_id) -> None:
            if getattr(answer, "outcome", None) == "cancelled":
                cancelled.add(job_id)

        if node.crashed:
            return
        node.delete_job(jobs, job_id, Noting(deleted))
    node.world.run_for(150)


def _syncs_of_a_calm_run() -> int:
    node = SimNode(7)
    node.start()
    _scenario(node, {}, set())
    return node.disk.syncs


@pytest.mark.parametrize("keep", [False, True], ids=["batch lost", "batch kept"])
def test_crash_at_every_sync_boundary(keep: bool) -> None:
    """Nothing acknowledged is lost, nothing cancelled fires, repeats only of open attempts.

    The node is crashed at each of its syncs in turn, with the batch under way lost or kept, and
    started again on what the disk remembers.
    """
    total = _syncs_of_a_calm_run()
    assert total > 20
    for crash_at in range(1, total + 1):
        node = SimNode(7)
        acked: dict[str, int] = {}
        cancelled: set[str] = set()
        if node.start(crash_at, keep=keep):
            _scenario(node, acked, cancelled)
        if not node.crashed:
            node.crash()
        in_flight_at_crash = {
            headers_of(request)["webhook-id"] for _, request in node.sender.received
        }
        node.world.run_for(30)
        assert node.start(), f"crash at sync {crash_at}: the node does not start again"
        collection = node.engine.meta.collections.get(("default", "jobs"))
        if collection is None:
            assert not acked
            continue
        node.world.run_for(3_000)
        counts = node.engine.counts(collection)
        assert 0 == counts["scheduled"] + counts["firing"] + counts["retrying"], (crash_at, counts)
        times: dict[str, int] = collections.Counter()
        ids: dict[str, set[str]] = collections.defaultdict(set)
        for at_ms, request in node.sender.received:
            headers = headers_of(request)
            job_id = headers["timemachine-job-id"]
            assert at_ms >= int(headers["timemachine-trigger-time"]), "early"
            times[job_id] += 1
            ids[job_id].add(headers["webhook-id"])
        for job_id in acked.keys() - cancelled:
            read = node.engine.read_job(collection, job_id)
            assert read is not None, f"crash at sync {crash_at}: {job_id} was acknowledged and lost"
            if read[0].outcome is None:
                assert times[job_id] >= 1, f"crash at sync {crash_at}: {job_id} never fired"
        assert not cancelled & times.keys(), "a cancelled job fired"
        for job_id, number in times.items():
            assert 1 == len(ids[job_id]), "one job, two webhook ids"
            assert number <= 2
            if number == 2:
                assert ids[job_id] <= in_flight_at_crash, "a repeat that no crash excuses"
        assert not node.failures


FAILED_SEEDS = [
    int(line.split()[0])
    for line in Path(__file__).with_name("failed_seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("seed", [*range(100), *FAILED_SEEDS])
def test_storm(seed: int) -> None:
    """No promise breaks under creates, updates, deletes, failing recipients and crashes."""
    storm(seed)
