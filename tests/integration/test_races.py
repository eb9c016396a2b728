"""Changes that race with the due moment: the answers, the deliveries and the log agree."""

import http.client
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.cluster.process import JOBS, Arrival, NodeProcess, Recipient, ask, now_ms

SEED: Final = int(os.environ.get("SEED", "0")) or time.time_ns() % 1_000_000
PER_KIND: Final = 200
LEAD_MS: Final = 1_500
SPAN_MS: Final = 2_000
WORKERS: Final = 24

KINDS: Final[dict[str, tuple[str, ...]]] = {
    "moved": ("move",),
    "replaced": ("put",),
    "changed-and-deleted": ("move", "delete"),
    "deleted-and-anew": ("delete", "post", "put"),
    "purged-and-anew": ("purge", "post"),
    "all-of-it": (),
}
"""What is asked of a job, one right after the other; for the last kind the dice say what."""

SHIFTS_MS: Final = (-1_000, -30, 0, 5, 20, 60, 300)
"""Where a change puts the trigger time, seen from the moment of the change."""


@dataclass
class Version:
    """A version that was acknowledged, and what was said of it later: (word, when)."""

    number: int
    trigger_ms: int
    webhook_id: str
    meta: str
    said: list[tuple[str, int]] = field(default_factory=list)


class Story:
    """One job: what its only creator asks, one thing at a time, and what it is told.

    `versions` are all of them, `kept` those since the last purge, `deleted` is what its DELETE
    said first, and `wrong` what no order of events explains. The first step is taken at `at_ms`,
    close to the moment when the job is due.
    """

    def __init__(self, seed: int, kind: str, number: int, start_ms: int) -> None:
        self.rng = random.Random(f"{seed} {kind} {number}")
        self.job_id = f"{kind}-{number}"
        self.at_ms = start_ms + number * SPAN_MS // PER_KIND
        self.steps = KINDS[kind] or self.rng.choices(
            ("move", "put", "delete", "purge", "post"), k=4
        )
        self.versions: list[Version] = []
        self.kept: list[Version] = []
        self.deleted: str | None = None
        self.purged_ms = 0
        self.wrong: list[str] = []
        self._metas = 0

    # --- what is asked ---------------------------------------------------------------------

    def first(self) -> dict[str, Any]:
        """The job as it is created, due about when the first step is taken."""
        return self._body(self.at_ms + self.rng.choice((-5, 0, 5, 12, 25, 400)))

    def created(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """Its creation was acknowledged."""
        self.deleted = None
        version = Version(
            answer["version"], body["trigger_time"], answer["webhook_id"], json.dumps(body["meta"])
        )
        if answer["version"] != len(self.kept) + 1:
            self.wrong.append(f"{answer['version']} after {self.kept}")
        self.versions.append(version)
        self.kept.append(version)

    def play(self, connection: http.client.HTTPConnection) -> None:
        """Take the steps, without a pause."""
        for step in self.steps:
            getattr(self, f"_{step}")(connection)

    def _body(self, trigger_ms: int) -> dict[str, Any]:
        self._metas += 1
        return {
            "id": self.job_id,
            "trigger_time": trigger_ms,
            "route": "hook",
            "meta": [self.job_id, self._metas],
        }

    def _anew(self) -> dict[str, Any]:
        return self._body(now_ms() + self.rng.choice(SHIFTS_MS))

    def _move(self, connection: http.client.HTTPConnection) -> None:
        """PATCH of the time alone, so that the meta stays."""
        trigger_ms = self._anew()["trigger_time"]
        if self.kept and trigger_ms == self.kept[-1].trigger_ms:
            trigger_ms += 1  # or it would be no change
        status, answer = self._ask(connection, "PATCH", {"trigger_time": trigger_ms})
        if not self.kept:
            self._expect("PATCH", (404, "job_not_found"), status, answer)
        elif self.deleted is not None:
            self._expect("PATCH", (409, "job_finished"), status, answer)
        elif status == 409:
            self._expect("PATCH", (409, "job_finished"), status, answer)
            self._say("already_delivered")
        else:
            body = {"trigger_time": trigger_ms, "meta": json.loads(self.kept[-1].meta)}
            self._replaced("PATCH", body, status, answer, ("replaced", "in_flight"))

    def _put(self, connection: http.client.HTTPConnection) -> None:
        body = self._anew()
        status, answer = self._ask(connection, "PUT", body)
        if self.kept:
            words = ("replaced", "in_flight", "already_delivered")
            self._replaced("PUT", body, status, answer, words)
        elif self._expect("PUT", (201, None), status, answer):
            self.created(body, answer)

    def _post(self, connection: http.client.HTTPConnection) -> None:
        """What is kept, in whatever state, is not started again by a POST."""
        body = self._anew()
        status, answer = ask(connection, "POST", JOBS, body)
        if self.kept:
            self._expect("POST", (409, "job_exists"), status, answer)
        elif self._expect("POST", (201, None), status, answer):
            self.created(body, answer)

    def _delete(self, connection: http.client.HTTPConnection, more: str = "") -> None:
        status, answer = self._ask(connection, "DELETE", more=more)
        if not self.kept:
            self._expect("DELETE", (404, "job_not_found"), status, answer)
        elif self._expect("DELETE", (200, None), status, answer):
            outcome = answer["outcome"]
            if self.deleted is not None and outcome != self.deleted:
                self.wrong.append(f"DELETE said {self.deleted} first, and {outcome} now")
            if self.deleted is None:
                if outcome not in ("cancelled", "in_flight", "already_delivered"):
                    self.wrong.append(f"DELETE said {outcome}")
                self._say(outcome)
                self.deleted = outcome

    def _purge(self, connection: http.client.HTTPConnection) -> None:
        self._delete(connection, "?purge=true")
        self.kept, self.deleted, self.purged_ms = [], None, now_ms()

    # --- what is told ----------------------------------------------------------------------

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, body: Any = None, more: str = ""
    ) -> tuple[int, Any]:
        return ask(connection, method, f"{JOBS}/{self.job_id}{more}", body)

    def _expect(
        self, method: str, expected: tuple[int, str | None], status: int, answer: Any
    ) -> bool:
        if expected == (status, answer.get("code")):
            return True
        self.wrong.append(f"{method}: {status} {answer}, not {expected}")
        return False

    def _say(self, word: str) -> None:
        self.kept[-1].said.append((word, now_ms()))

    def _replaced(
        self, method: str, body: dict[str, Any], status: int, answer: Any, words: tuple[str, ...]
    ) -> None:
        if self._expect(method, (200, None), status, answer):
            previous = answer["previous"]
            if previous["version"] != self.kept[-1].number or previous["outcome"] not in words:
                self.wrong.append(f"{method}: previous is {previous}, after {self.kept}")
            self._say(previous["outcome"])
            self.created(body, answer)

    # --- what must follow ------------------------------------------------------------------

    def judge(
        self, came: list[Arrival], job: dict[str, Any] | None, attempts: list[dict[str, Any]]
    ) -> Iterator[str]:
        """Everything in which answers, deliveries, the job and its attempts contradict."""
        yield from self.wrong
        versions = {version.webhook_id: version for version in self.versions}
        if len(versions) != len(self.versions):
            yield "two versions have one webhook id"
        times: dict[str, list[int]] = defaultdict(list)
        for arrival in came:
            times[arrival.webhook_id].append(arrival.at_ms)
            version = versions.get(arrival.webhook_id)
            if version is None:
                yield f"nobody was told of {arrival}"
                continue
            promised = version.number, version.trigger_ms, version.meta
            if promised != (arrival.version, arrival.trigger_ms, arrival.meta):
                yield f"{arrival} is not {version}"
            if arrival.at_ms < version.trigger_ms:
                yield f"early: {arrival}"
        for version in self.versions:
            yield from _judge_version(version, times[version.webhook_id])
        yield from self._judge_end(times, job, attempts)

    def _judge_end(
        self,
        times: dict[str, list[int]],
        job: dict[str, Any] | None,
        attempts: list[dict[str, Any]],
    ) -> Iterator[str]:
        if not self.kept:
            if job is not None:
                yield f"purged, and there is {job}"
            return
        if job is None:
            yield f"lost: {self.kept}"
            return
        last = self.kept[-1]
        state = "delivered" if times[last.webhook_id] else "cancelled"
        if (last.number, last.webhook_id, state) != (
            job["version"],
            job["webhook_id"],
            job["state"],
        ):
            yield f"its last version is {last}, {state}, and it is kept as {job}"
        if self.deleted is None and state != "delivered":
            yield f"never came: {last}"
        expected = [v.number for v in self.kept for _ in times[v.webhook_id]]
        logged = [each["version"] for each in attempts if each["status"] == "succeeded"]
        if expected != logged or len(logged) != len(attempts):
            yield f"versions {expected} came, but its attempts are {attempts}"
        if any(each["claimed_time"] < self.purged_ms for each in attempts):
            yield f"purged at {self.purged_ms}, and its attempts are {attempts}"


def _judge_version(version: Version, times: list[int]) -> Iterator[str]:
    """The recipient takes everything, and no node dies: nothing comes twice."""
    if len(times) > 1:
        yield f"came {len(times)} times: {version}"
    for word, told_ms in version.said:
        if word in ("replaced", "cancelled") and times:
            yield f"{word}, and it came at {times}: {version}"
        if word == "already_delivered" and not [at_ms for at_ms in times if at_ms <= told_ms]:
            yield f"{word}, and it came at {times}: {version}"


def _work(address: str, stories: list[Story]) -> None:
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        for story in stories:
            time.sleep(max(0, story.at_ms - now_ms()) / 1_000)
            story.play(connection)


def _race(node: NodeProcess, stories: list[Story]) -> None:
    """Create all jobs, and let several creators take the steps of each at its moment."""
    bodies = [story.first() for story in stories]
    for start in range(0, len(stories), 1_000):
        part = bodies[start : start + 1_000]
        status, answer = node.ask("POST", f"{JOBS}/batch", part)
        assert (200, len(part)) == (status, answer["created"]), answer
        for story, body, item in zip(stories[start:], part, answer["items"], strict=False):
            story.created(body, item["job"])
    stories = sorted(stories, key=lambda story: story.at_ms)
    with ThreadPoolExecutor(WORKERS) as pool:
        shares = [stories[number::WORKERS] for number in range(WORKERS)]
        list(pool.map(partial(_work, node.address), shares))


def test_whatever_wins_the_race_everybody_tells_the_same(tmp_path: Path) -> None:
    """Moved, replaced, deleted, purged and created anew around the due moment, in any order.

    What an answer said of a version is what the recipient saw of it: `replaced` and `cancelled`
    never come, `already_delivered` had come, nothing comes twice. The last version is delivered
    unless it was deleted, and after a restart the job and its attempts tell just that.
    """
    print(f"to ask the same again: SEED={SEED}")
    with Recipient(SEED, slow_ms=40) as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, max_in_flight=256)
        start_ms = now_ms() + LEAD_MS
        stories = [
            Story(SEED, kind, number, start_ms) for kind in KINDS for number in range(PER_KIND)
        ]
        _race(node, stories)
        node.drain()
        # Sends of what was replaced or purged may still be open; a stop waits for them.
        assert 0 == node.stop()
        jobs = node.start().jobs()
        attempts = {
            job_id: node.ask("GET", f"{JOBS}/{job_id}/attempts")[1]["items"] for job_id in jobs
        }
        came: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in recipient.arrivals():
            came[arrival.job_id].append(arrival)
        wrong = [
            f"{story.job_id} {story.steps}: {line}"
            for story in stories
            for line in story.judge(
                came[story.job_id], jobs.get(story.job_id), attempts.get(story.job_id, [])
            )
        ]
        assert not wrong, f"{len(wrong)} contradictions:\n" + "\n".join(wrong[:10])
        assert 0 == node.stop()
    said = Counter(word for story in stories for each in story.versions for word, _ in each.said)
    print(f"{len(stories)} jobs, {len(recipient.arrivals())} webhooks, {dict(said)}")
