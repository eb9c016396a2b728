"""Creators that never rest, and what may be said afterwards about what they were told.

Each job belongs to one creator, which asks one thing at a time: so for every job there is one
history of questions and answers, and the last question alone may be without an answer.
"""

import http.client
import random
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from tests.cluster.process import JOBS, Arrival, ask, now_ms

DELETE_MARGIN_MS = 200
"""A delete that is answered this long before the due moment says `cancelled`, always."""
DELAYS_MS = (0, 0, 20, 100, 400, 1_000, 2_500)


class Version(NamedTuple):
    """A version that was acknowledged."""

    number: int
    trigger_ms: int
    webhook_id: str


@dataclass
class History:
    """What one job's creator was told, in order.

    `ended` is the moment of the answer to its delete, and the answer. `replaced` lists (version,
    moment of the answer). `unanswered` when its creator heard nothing the last time.
    """

    versions: list[Version] = field(default_factory=list)
    replaced: list[tuple[int, int]] = field(default_factory=list)
    ended: tuple[int, str] | None = None
    unanswered: bool = False


class Creator:
    """Creates, replaces and deletes jobs over many lives of one node. Not thread-safe."""

    def __init__(self, seed: int, number: int) -> None:
        self.rng = random.Random(seed * 100 + number)
        self.histories: dict[str, History] = {}
        self.wrong: list[str] = []
        self.answers = 0
        self._open: list[str] = []
        self._prefix = f"c{number}"
        self._number = 0

    def work(self, address: str, stop: threading.Event) -> None:
        """Ask without a rest until told to stop, or until the node is gone."""
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            while not stop.is_set():
                self._step(connection)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    def _step(self, connection: http.client.HTTPConnection) -> None:
        dice = self.rng.random()
        if dice < 0.35 or not self._open:
            self._create(connection, [self._new()])
        elif dice < 0.5:
            self._create(connection, [self._new() for _ in range(self.rng.randrange(2, 12))])
        elif dice < 0.75:
            self._delete(connection, self._pick())
        else:
            self._replace(connection, self._pick())
        self.answers += 1

    def _pick(self) -> str:
        """Mostly one of the newest jobs: those may still be waiting."""
        place = min(len(self._open) - 1, int(self.rng.expovariate(0.2)))
        return self._open.pop(len(self._open) - 1 - place)

    def _new(self) -> dict[str, Any]:
        self._number += 1
        return self._job(f"{self._prefix}-{self._number}")

    def _job(self, job_id: str) -> dict[str, Any]:
        trigger_ms = now_ms() + self.rng.choice(DELAYS_MS)
        meta = {"n": self.rng.random()}
        return {"id": job_id, "trigger_time": trigger_ms, "route": "hook", "meta": meta}

    def _create(self, connection: http.client.HTTPConnection, jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            self.histories[job["id"]] = History(unanswered=True)
        if len(jobs) == 1:
            status, answer = ask(connection, "POST", JOBS, jobs[0])
            items = [{"status": status, "job": answer}]
        else:
            status, answer = ask(connection, "POST", f"{JOBS}/batch", jobs)
            if status != 200:
                if status != 503:
                    self.wrong.append(f"batch: {status} {answer}")
                return
            items = answer["items"]
        for job, item in zip(jobs, items, strict=True):
            if self._taken(job, item["status"], item.get("job", item), (201,)):
                self._open.append(job["id"])

    def _taken(
        self, job: dict[str, Any], status: int, answer: Any, wanted: tuple[int, ...]
    ) -> bool:
        history = self.histories[job["id"]]
        if status == 503:
            return False  # the node is going; the question counts as unanswered
        if status not in wanted:
            self.wrong.append(f"{job['id']}: {status} {answer}")
            return False
        if answer["version"] != len(history.versions) + 1:
            self.wrong.append(f"{job['id']}: {answer['version']} after {history.versions}")
        history.versions.append(
            Version(answer["version"], job["trigger_time"], answer["webhook_id"])
        )
        history.unanswered = False
        return True

    def _replace(self, connection: http.client.HTTPConnection, job_id: str) -> None:
        history = self.histories[job_id]
        history.unanswered = True
        job = self._job(job_id)
        body = {name: value for name, value in job.items() if name != "id"}
        status, answer = ask(connection, "PUT", f"{JOBS}/{job_id}", body)
        before = history.versions[-1]
        if self._taken(job, status, answer, (200,)):
            previous = answer["previous"]
            if previous["version"] != before.number:
                self.wrong.append(f"{job_id}: previous is {previous}, but it was {before}")
            if previous["outcome"] == "replaced":
                history.replaced.append((before.number, now_ms()))
            self._open.append(job_id)

    def _delete(self, connection: http.client.HTTPConnection, job_id: str) -> None:
        history = self.histories[job_id]
        history.unanswered = True
        status, answer = ask(connection, "DELETE", f"{JOBS}/{job_id}")
        if status == 503:
            return
        if status != 200:
            self.wrong.append(f"DELETE {job_id}: {status} {answer}")
            return
        at_ms = now_ms()
        history.unanswered = False
        history.ended = (at_ms, answer["outcome"])
        before_ms = history.versions[-1].trigger_ms - at_ms
        if before_ms > DELETE_MARGIN_MS and answer["outcome"] != "cancelled":
            self.wrong.append(f"DELETE {job_id}: {answer['outcome']} {before_ms} ms before due")


def run_creators(
    creators: list[Creator], address: str
) -> tuple[threading.Event, list[threading.Thread]]:
    """Set all to work; returns what stops them, and their threads."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=creator.work, args=(address, stop), daemon=True)
        for creator in creators
    ]
    for thread in threads:
        thread.start()
    return stop, threads


def judge(
    histories: dict[str, History],
    arrivals: list[Arrival],
    jobs: dict[str, dict[str, Any]],
    faults_ms: list[tuple[int, int]],
) -> list[str]:
    """Everything that contradicts what was promised; empty when all is well.

    `jobs` is the list of all jobs after draining; `faults_ms` are the times (from, to) between
    the end of a node and the next one: only there may a send be lost track of, and come again.
    """
    wrong: list[str] = []
    came: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in sorted(arrivals):
        came[arrival.job_id].append(arrival)
        if arrival.at_ms < arrival.trigger_ms:
            wrong.append(f"early by {arrival.trigger_ms - arrival.at_ms} ms: {arrival}")
    wrong += [f"nobody asked for {job_id}" for job_id in came if job_id not in histories]
    for job_id, history in histories.items():
        wrong += _judge_job(job_id, history, came[job_id], jobs.get(job_id), faults_ms)
    return wrong


def _judge_job(
    job_id: str,
    history: History,
    came: list[Arrival],
    job: dict[str, Any] | None,
    faults_ms: list[tuple[int, int]],
) -> list[str]:
    wrong: list[str] = []
    by_version: dict[int, list[Arrival]] = defaultdict(list)
    for arrival in came:
        by_version[arrival.version].append(arrival)
    for number, seen in by_version.items():
        if 1 != len({arrival.webhook_id for arrival in seen}):
            wrong.append(f"{job_id}: version {number} has several webhook ids: {seen}")
        for first, second in pairwise(seen):
            if not any(first.at_ms <= to and begin <= second.at_ms for begin, to in faults_ms):
                wrong.append(f"{job_id}: came twice, and nothing died between: {first} {second}")
        if number > len(history.versions) + history.unanswered:
            wrong.append(f"{job_id}: version {number} came, {len(history.versions)} were made")
    for version in history.versions:
        promised = (version.webhook_id, version.trigger_ms)
        wrong += [
            f"{job_id}: {arrival} is not {version}"
            for arrival in by_version[version.number]
            if promised != (arrival.webhook_id, arrival.trigger_ms)
        ]
    for number, at_ms in history.replaced:
        wrong += [
            f"{job_id}: `replaced` at {at_ms}, but there was {arrival}"
            for arrival in by_version[number]
            if not _lost_track(arrival, at_ms, faults_ms)
        ]
    if history.versions and job is None:
        return [*wrong, f"{job_id}: acknowledged and lost: {history}"]
    if job is None:
        return wrong + ([f"{job_id}: came, and does not exist: {came}"] if came else [])
    if job["state"] not in ("delivered", "cancelled"):
        wrong.append(f"{job_id}: ended {job['state']}, {job['last_error']}")
    if job["state"] == "delivered" and not by_version[job["version"]]:
        wrong.append(f"{job_id}: `delivered`, but it never came: {job}")
    if history.ended is not None:
        # What it said is about the newest version. An older one may have been in flight before.
        newest = by_version[len(history.versions)]
        wrong += _judge_end(job_id, history.ended, newest, job, faults_ms)
    elif not history.unanswered:
        # Nothing was asked but what was answered: its newest version has to be there.
        if job["state"] != "delivered" or job["version"] != len(history.versions):
            wrong.append(f"{job_id}: {job['state']} {job['version']}, but told {history}")
        if not by_version[len(history.versions)]:
            wrong.append(f"{job_id}: acknowledged and never fired: {history}")
    return wrong


def _lost_track(arrival: Arrival, told_ms: int, faults_ms: list[tuple[int, int]]) -> bool:
    """Whether a node died after the arrival and before the creator was told something.

    Only then may the version count as never delivered, and be taken back: the recipient answers
    2xx to everything. This needs no comparison of an arrival with an answer at nearly that time.
    """
    return any(arrival.at_ms <= to and begin <= told_ms for begin, to in faults_ms)


def _judge_end(
    job_id: str,
    ended: tuple[int, str],
    came: list[Arrival],
    job: dict[str, Any],
    faults_ms: list[tuple[int, int]],
) -> list[str]:
    at_ms, outcome = ended
    after = [arrival for arrival in came if arrival.at_ms > at_ms]
    if outcome == "cancelled":
        wrong = [
            f"{job_id}: `cancelled` at {at_ms}, but there was {arrival}"
            for arrival in came
            if not _lost_track(arrival, at_ms, faults_ms)
        ]
        if job["state"] != "cancelled":
            wrong.append(f"{job_id}: answered `cancelled`, and is {job['state']}")
        return wrong
    if outcome == "in_flight":
        # The send that was open may still come in, once, and from nobody but who had it open.
        until_ms = next((to for begin, to in faults_ms if begin > at_ms), None)
        late = after[1:] + [
            arrival for arrival in after[:1] if until_ms is not None and arrival.at_ms > until_ms
        ]
        return [f"{job_id}: `in_flight` at {at_ms}, and then came {arrival}" for arrival in late]
    if outcome == "already_delivered":
        if not came:
            return [f"{job_id}: `already_delivered`, but it never came"]
        return [f"{job_id}: `already_delivered` at {at_ms}, and then {one}" for one in after]
    return [f"{job_id}: its delete said {outcome}"]
