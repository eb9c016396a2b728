"""Clients that write through all nodes, and the history of what they and others saw.

What is judged at the end is what `tests/checks/promises.py` promises: C1 to C8 and C10.
"""

import random
import threading
import time
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.checks.history import Call, Ending, Fault, History, Image, Probe, Reading
from tests.checks.jobmodel import Get
from tests.checks.promises import Rules, judge
from tests.cluster.clerk import Clerk, Notes
from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import JOBS, wait_until
from tests.cluster.recorder import Recorder, wall_ms
from timemachine.client import SyncClient
from timemachine.replica.snapshot import applied_in
from timemachine.ring import vnode_of
from timemachine.storage.keys import GROUPS_START, GROUPS_STOP, ReplicaKeys, group_of_key
from timemachine.storage.leveldb import open_store

DELAYS_MS: Final = (0, 0, 50, 300, 1_000, 2_500)
_ROWS_MAX: Final = 10_000_000
RULES: Final = Rules(drain_ms=1_000 * PATIENCE_S, probe_ms=1_000 * PATIENCE_S)


class Witness:
    """Writers and readers on a cluster, and all that is known of it. Use `finish` to judge.

    `excused_moves`: a change of leader that is seen counts as a fault. Where none may cost a
    repeat, as in a stop in order, say False.
    """

    def __init__(
        self,
        cluster: Cluster,
        recorder: Recorder,
        *,
        seed: int = 0,
        vnodes: int = 6,
        excused_moves: bool = True,
    ) -> None:
        self._num_vnodes = vnodes
        self.cluster = cluster
        self.recorder = recorder
        self.notes = Notes()
        self.history = self.notes.history
        self._excused_moves = excused_moves
        self._dice = random.Random(seed)
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._over = threading.Event()
        self._names: list[str] = []
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def __enter__(self) -> Self:
        """It watches already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop clients and watching; does not wait for clients that hang."""
        self._stop.set()
        self._over.set()
        self._watching.join(2 * PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    # --- clients ---------------------------------------------------------------------------

    def clerk(
        self, first: int = 0, *, only: int = 0, patience_s: float = 30.0, try_s: float = 5.0
    ) -> Clerk:
        """A client that knows all nodes, or `only` one of them. Close it."""
        urls = [f"http://{self.cluster.nodes[only].address}"] if only else self.cluster.urls(first)
        client = SyncClient(
            *urls,
            timeout_ms=round(1_000 * patience_s),
            attempt_timeout_ms=round(1_000 * try_s),
        )
        return Clerk(client, self.notes, node=only)

    def start(
        self, writers: int = 4, *, pace_s: float = 0.01, only: int = 0, patience_s: float = 30.0
    ) -> None:
        """Let this many clients write and read; with `only` they know just that node."""
        for _ in range(writers):
            number = len(self._threads)
            clerk = self.clerk(number, only=only, patience_s=patience_s)
            dice = random.Random(self._dice.random())
            thread = threading.Thread(
                target=self._work, args=(clerk, f"w{number}", dice, pace_s), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def rest(self) -> None:
        """Stop the clients; what they have asked is answered first, or given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive(), f"a client never came back\n{self.cluster.logs()}"
        self._threads.clear()
        self._stop.clear()

    def wait_for(self, more: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until that many more calls have been answered."""
        wanted = self.notes.answered() + more
        end = time.monotonic() + patience_s
        while self.notes.answered() < wanted:
            assert time.monotonic() < end, f"clients are not served\n{self.cluster.logs()}"
            time.sleep(0.02)

    def wait_for_failures(self, more: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until that many more calls have been given up by their clients."""
        wanted = len(self.notes.failed) + more
        wait_until(lambda: len(self.notes.failed) >= wanted, "no call fails", patience_s)

    def _work(self, clerk: Clerk, name: str, dice: random.Random, pace_s: float) -> None:
        number = 0
        with clerk:
            while not self._stop.is_set():
                number += 1
                self._step(clerk, f"{name}-{number}", dice)
                time.sleep(2 * pace_s * dice.random())

    def _step(self, clerk: Clerk, name: str, dice: random.Random) -> None:
        drawn = dice.random()
        job = self._pick(dice)
        due_ms = int(wall_ms()) + dice.choice(DELAYS_MS)
        if drawn < 0.45 or job is None:
            clerk.put(name, due_ms, create_only=drawn < 0.3)
            self._names.append(name)
        elif drawn < 0.55:
            clerk.put(job, due_ms)
        elif drawn < 0.65:
            clerk.patch(job, due_ms)
        elif drawn < 0.75:
            clerk.delete(job)
        else:
            clerk.get(job)

    def _pick(self, dice: random.Random) -> str | None:
        """Mostly one of the newest jobs: those may still be waiting, and others ask for them."""
        if not self._names:
            return None
        return self._names[-1 - min(len(self._names) - 1, int(dice.expovariate(0.1)))]

    # --- watching --------------------------------------------------------------------------

    def _watch(self) -> None:
        """See who leads what, and how far they are, now and then."""
        leaders: dict[int, tuple[int, int, float]] = {}
        while not self._over.wait(0.25):
            begin_ms = wall_ms()
            for row in self.cluster.vnodes():
                if row["leader"] is not None:
                    self._seen(row, leaders, begin_ms)

    def _seen(
        self, row: dict[str, Any], leaders: dict[int, tuple[int, int, float]], begin_ms: float
    ) -> None:
        index, term = row["index"], row["term"]
        leader = self.cluster.ids.get(row["leader"], 0)
        offset = (row["offset"]["time"], row["offset"]["job_id"])
        now_ms = wall_ms()
        self.history.readings.append(Reading(now_ms, leader, (1, index), term=term, offset=offset))
        before = leaders.get(index)
        if before is not None and term < before[1]:
            return  # a node that was asked does not know yet
        if before is not None and before[0] != leader and self._excused_moves:
            what = f"vnode {index} moved from {before[0]} to {leader}"
            fault = Fault(before[2], now_ms, what, frozenset({before[0]}))
            self.history.faults.append(fault)
        leaders[index] = (leader, term, begin_ms)

    def moves(self) -> list[str]:
        """The changes of leaders that were seen."""
        return [fault.what for fault in self.history.faults if "moved" in fault.what]

    # --- the end ---------------------------------------------------------------------------

    def finish(self, rules: Rules = RULES, *, images: bool = True) -> History:
        """All faults are over: let everything come to rest, and judge it."""
        history = self.history
        self.rest()
        history.healed_ms = wall_ms()
        self._probe(self._num_vnodes)
        endings = self._drain()
        self._over.set()
        self._watching.join()
        history.faults += self.cluster.faults
        history.endings = {job: endings.get(job) for job, _ in history.jobs()}
        history.webhooks = self.recorder.webhooks()
        self._name_senders()
        if images:
            self._compare()
        judgement = judge(history, rules)
        seen = f"{len(history.calls)} calls, {len(history.webhooks)} webhooks"
        print(f"{seen}, {len(self.notes.failed)} calls failed, moves: {self.moves()}")
        for sentence in judgement.undecided:
            print(f"undecided: {sentence}")
        broken = [*self.notes.wrong, *judgement.broken]
        assert not broken, f"{len(broken)} broken promises:\n" + "\n".join(
            [*broken[:20], *self._story(broken), self.cluster.logs()]
        )
        return history

    def _story(self, broken: list[str]) -> list[str]:
        """All that is known of the jobs that broke promises."""
        told: list[str] = []
        for job in sorted({call.job for call in self.history.calls}):
            if any(f" {job} " in sentence or f" {job}:" in sentence for sentence in broken[:3]):
                told += [repr(call) for call in self.history.calls if call.job == job]
                told += [repr(each) for each in self.history.webhooks if each.job == job]
                told += [repr(each) for each in self._attempts(job)]
        return [*told, *(repr(fault) for fault in self.history.faults)]

    def _probe(self, num_vnodes: int) -> None:
        """One write to each vnode."""
        names = iter(f"probe{number}" for number in range(1_000_000))
        with self.clerk() as clerk:
            for index in range(num_vnodes):
                job = next(name for name in names if vnode_of(name, num_vnodes) == index)
                probe = Probe((1, index), wall_ms())
                if clerk.put(job, int(wall_ms())) is not None:
                    probe = probe._replace(acked_ms=wall_ms())
                self.history.probes.append(probe)
                self.history.groups.add((1, index))

    def _drain(self) -> dict[str, Ending]:
        """Wait until no job is pending; how all jobs have ended, or stand when patience is over."""
        end = time.monotonic() + PATIENCE_S
        pending = f"{JOBS}?limit=1&state=scheduled,retrying,firing,held"
        while self.cluster.ask("GET", pending)[1]["items"] and time.monotonic() < end:
            time.sleep(0.1)
        found: dict[str, Ending] = {}
        cursor = ""
        while True:
            status, page = self.cluster.ask("GET", f"{JOBS}?limit=1000{cursor}")
            assert 200 == status, page
            found |= {job["id"]: Ending(job["version"], job["state"]) for job in page["items"]}
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def _attempts(self, job: str) -> list[dict[str, Any]]:
        status, answer = self.cluster.ask("GET", f"{JOBS}/{job}/attempts")
        return list(answer["items"]) if status == 200 else []

    def _name_senders(self) -> None:
        """Which node sent what came more than once: the attempts on record tell."""
        history = self.history
        counts: dict[str, int] = {}
        for webhook in history.webhooks:
            counts[webhook.webhook_id] = counts.get(webhook.webhook_id, 0) + 1
        nodes: dict[tuple[str, int, int], int] = {}
        for job in {each.job for each in history.webhooks if counts[each.webhook_id] > 1}:
            for attempt in self._attempts(job):
                place = (job, attempt["version"], attempt["attempt"])
                # What was lost track of is on record with who closed it, not with who sent it.
                known = attempt["status"] != "unknown"
                nodes[place] = self.cluster.ids.get(attempt["node"], 0) if known else 0
        history.webhooks = [
            each._replace(node=nodes.get((each.job, each.version, each.attempt), 0))
            for each in history.webhooks
        ]

    def _compare(self) -> None:
        """What the replicas hold, once all of them have come to the same entry."""
        end = time.monotonic() + PATIENCE_S
        while True:
            with self.cluster.frozen_copies(self.cluster.directory / "copies") as copies:
                images = [
                    image for number, copy in copies.items() for image in _images(number, copy)
                ]
            applied = {(image.group, image.applied) for image in images}
            groups = {group for group, _ in applied}
            if len(applied) == len(groups) or time.monotonic() > end:
                self.history.images = images
                return
            time.sleep(0.5)


def _images(number: int, directory: Path) -> list[Image]:
    """Digests of the replicas in a data directory, without their logs."""
    store, _ = open_store(directory)
    images = []
    try:
        for key, value in store.scan(GROUPS_START, GROUPS_STOP, _ROWS_MAX):
            group = group_of_key(key)
            if not group[0]:
                continue
            keys = ReplicaKeys(int.from_bytes(value[:4], "big"))
            digest = blake2b(digest_size=8)
            for row, content in store.scan(keys.prefix, keys.stop, _ROWS_MAX):
                if not row.startswith((keys.hard_state, keys.log)):
                    digest.update(b"%d %b %b" % (len(row), row[len(keys.prefix) :], content))
            view = store.view()
            applied, _ = applied_in(view, keys)
            view.close()
            images.append(Image(wall_ms(), number, group, applied, digest.hexdigest(), final=True))
    finally:
        store.close()
    return images


def writes_between(history: History, since_ms: float, until_ms: float) -> list[Call]:
    """The changes that were asked for and acknowledged within that time."""
    return [
        call
        for call in history.calls
        if since_ms < call.called_ms
        and call.returned_ms < until_ms
        and not isinstance(call.asked, Get)
    ]


def came_twice(history: History) -> list[str]:
    """The ids of webhooks that came more than once."""
    assert history.webhooks, "nothing came at all"
    came = Counter(each.webhook_id for each in history.webhooks)
    return [webhook_id for webhook_id, times in came.items() if times > 1]
