"""One seed after the other, or many on all cores: what each found, and how to see it again."""

import gc
import multiprocessing
import os
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from tests.checks.judgedchaos import JudgedChaos, judged
from tests.checks.violation import Violation
from tests.sim.cluster.harness import Harness, Result
from tests.sim.cluster.knobs import draw
from tests.sim.cluster.restores import restoring
from tests.sim.mutations import MUTATIONS
from tests.sim.storm import storm

_CHAOS_STEPS: Final = 3_000

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Order:
    """What to run a seed with. One node is a storm over one engine; `nodes` None lets it draw."""

    nodes: int | None = None
    mutation: str | None = None
    knobs: tuple[tuple[str, Any], ...] = ()

    def again(self, seed: int) -> str:
        """The line that runs a seed so."""
        line = f"python -m tests.sim --seed {seed}"
        if self.nodes is not None:
            line += f" --nodes {self.nodes}"
        if self.mutation is not None:
            line += f" --mutation {self.mutation}"
        return line + "".join(f" --knob {name}={value!r}" for name, value in self.knobs)


@dataclass(frozen=True, slots=True)
class Run:
    """How a seed went. `found` is empty where every promise was kept.

    `events` and `trace` are of both clusters where a backup was restored into another one.
    `undecided` is of how many jobs the search for an order of their calls was given up.
    """

    seed: int
    nodes: int
    events: int
    found: tuple[str, ...]
    trace: str
    story: tuple[str, ...] = ()
    undecided: int = 0


def run_seed(order: Order, seed: int, *, tell: bool = False) -> Run:
    """Run one seed. With `tell` its story is in the result: knobs, faults, counts."""
    if order.nodes == 1:
        try:
            return Run(seed, 1, storm(seed), (), "")
        except AssertionError as error:
            return Run(seed, 1, 0, (f"storm: {error}",), "")
    mutation = None if order.mutation is None else MUTATIONS[order.mutation]
    if mutation is not None and mutation.core:
        with mutation.plant():
            return Run(seed, 0, 0, tuple(chaos_finds(seed)), "")
    harness = Harness(draw(seed, nodes=order.nodes, **dict(order.knobs)))
    clusters = [harness]
    results: list[Result] = []
    found: list[str] = []
    with nullcontext() if mutation is None else mutation.plant():
        try:
            results.append(harness.run())
            found += results[0].judgement.broken
            again = None if found else restoring(harness)
            if again is not None:
                clusters.append(again)
                results.append(again.run())
                found += results[1].judgement.broken
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = "" if isinstance(error, Violation) else f"{type(error).__name__}: "
            found = [f"{kind}{error} ({Path(last.filename).name}:{last.lineno})"]
    story: list[str] = []
    for cluster, result in zip_longest(clusters, results) if tell else ():
        clock = cluster.clock
        story += [str(cluster.knobs), *clock.journal(), clock.summary()]
        if result is not None:
            story.append(
                f"{result.calls} calls, {result.webhooks} webhooks, {result.faults} faults"
            )
            story += result.judgement.undecided
    return Run(
        seed,
        harness.knobs.nodes,
        sum(cluster.clock.events for cluster in clusters),
        tuple(found),
        "+".join(cluster.clock.trace for cluster in clusters),
        tuple(story),
        sum(len(result.judgement.undecided) for result in results),
    )


def chaos_finds(seed: int) -> list[str]:
    """What the chaos of the core finds in a seed: for what concerns changes of membership."""
    with judged():
        try:
            JudgedChaos(seed).run(_CHAOS_STEPS)
        except Violation as violation:
            return [str(violation)]
        except Exception as error:  # noqa: BLE001 - whatever mutated code raises
            return [f"{type(error).__name__}: {error}"]
    return []


def run_many(order: Order, seeds: Iterable[int], *, jobs: int) -> Iterator[Run]:
    """Run seeds on `jobs` processes; results come as they are done."""
    waiting = iter(seeds)
    # Else the collector looks through all that was imported: a twentieth of the time.
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=gc.freeze
    )
    with pool:
        running: set[Future[Run]] = set()
        while True:
            # No more than keeps every process busy: seeds come as long as there is time.
            for seed in islice(waiting, 2 * jobs - len(running)):
                running.add(pool.submit(run_seed, order, seed))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def seeds_for(seconds: float, first: int) -> Iterator[int]:
    """Seeds one after the other, until the time is up."""
    end = time.monotonic() + seconds
    seed = first
    while time.monotonic() < end:
        yield seed
        seed += 1


def fresh_seed() -> int:
    """Where seeds that nobody has run yet may begin."""
    return int.from_bytes(os.urandom(5), "big") * 1_000


def commit() -> str:
    """Which code this is, for whoever runs a seed again."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"
