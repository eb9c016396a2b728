"""Three nodes: a leader that dies, restarts in turn, durable creates, and having nothing to do."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.evidence import Evidence, Kill
from bench.ingest import batches, singles
from bench.tools import (
    COLLECTION,
    UNHEARD_PORT,
    Process,
    ask,
    median,
    node,
    percentile,
    push,
    report,
    set_up,
)
from bench.trio import Trio, trio

_VNODES = 12
_RATE = 100
_PENDING = f"{COLLECTION}/jobs?limit=1&state=scheduled,retrying,firing,held"


def _wall_ms() -> float:
    return time.time() * 1000


class _Load:
    """The recipient and the clients, while they run."""

    def __init__(self, nodes: Trio, recipient: Process, callers: Process) -> None:
        self.nodes = nodes
        self._recipient = recipient
        self._callers = callers

    def evidence(self) -> Evidence:
        """End the load, let everything come to rest, and see what came of it."""
        told = json.loads(self._callers.line())
        self.nodes.settle()
        self.nodes.wait(lambda: not self.nodes.ask("GET", _PENDING)["items"])
        return Evidence(told, json.loads(self._recipient.line()), _VNODES)


@contextmanager
def _load() -> Iterator[_Load]:
    """Three nodes under constant load, some seconds after it began."""
    recipient = Process(["-m", "bench.notebook"])
    try:
        with trio() as nodes:
            nodes.ask("PUT", COLLECTION, {"num_vnodes": _VNODES, "replicas": 3})
            route = {
                "webhook_url": f"http://127.0.0.1:{recipient.port}/hook",
                "max_in_flight": 256,
                "timeout_ms": 2_000,
            }
            nodes.ask("PUT", "/v1/dbs/default/routes/hook", route)
            nodes.settle()
            callers = Process(["-m", "bench.callers", str(_RATE), *nodes.urls(1)])
            try:
                time.sleep(5.0)
                yield _Load(nodes, recipient, callers)
            finally:
                callers.stop()
    finally:
        recipient.stop()


def _report_promises(name: str, evidence: Evidence, wrong_repeats: list[str]) -> None:
    """What is promised whatever happens."""
    lost, stale = evidence.lost(), evidence.stale()
    for told in (lost, stale, wrong_repeats):
        for sentence in told[:5]:
            print(f"  broken: {sentence}")
    acked = evidence.acknowledged()
    report(f"{name}: lost of acknowledged", f"{len(lost)} of {acked}", "0", holds=not lost)
    report(f"{name}: stale", f"{len(stale)}", "0", holds=not stale)


def failover(*, quick: bool) -> None:
    """Kill the node that leads most vnodes, start it again, and so on."""
    kills, rounds = [], 2 if quick else 10
    with _load() as load:
        nodes = load.nodes
        for _ in range(rounds):
            nodes.settle()
            time.sleep(4.0)
            leaders = nodes.leaders()
            victim = nodes.leads_most()
            vnodes = frozenset(index for (_, index), led in leaders.items() if led == victim)
            at_ms = _wall_ms()
            nodes.kill(victim)
            time.sleep(8.0)
            # What is due now shall be over when the processor is needed for a start.
            kills.append(Kill(at_ms, vnodes, _wall_ms() - 1_000))
            nodes.start(victim)
        nodes.settle()
        time.sleep(4.0)
        evidence = load.evidence()
    wrong = evidence.wrong_repeats(kills)
    _report_promises("failover", evidence, [repr(each) for each in wrong])
    repeated = f"{len(evidence.repeats())}, {len(wrong)} not in flight"
    report("failover: repeats", repeated, "only what was in flight", holds=not wrong)
    silent, affected, before, after = [], [], [], []
    for kill in kills:
        others = frozenset(range(_VNODES)) - kill.vnodes
        silent += evidence.silent_ms(kill)
        affected += evidence.late_ms(kill.vnodes, kill.at_ms, kill.until_ms)
        before += evidence.late_ms(others, kill.at_ms - 4_000, kill.at_ms)
        after += evidence.late_ms(others, kill.at_ms, kill.until_ms)
        print(
            f"  kill: vnodes silent for {', '.join(f'{ms:.0f}' for ms in evidence.silent_ms(kill))}"
            f" ms; late until then {percentile(affected, 1.0):.0f} ms at most"
        )
    missing = sum(len(kill.vnodes) for kill in kills) - len(silent)
    p99_ms = percentile(silent, 0.99)
    report(
        "failover: affected vnodes fire again, p99",
        f"{p99_ms:.0f} ms, half {median(silent):.0f}",
        "<= 2500 ms",
        holds=p99_ms <= 2_500 and not missing,
    )
    report(
        "failover: how late their jobs are, p99",
        f"{percentile(affected, 0.99):.0f} ms",
        "-",
        holds=None,
    )
    base_ms, others_ms = percentile(before, 0.99), percentile(after, 0.99)
    bar_ms = max(2 * base_ms, base_ms + 20)
    report(
        "failover: the other vnodes' lateness, p99",
        f"{others_ms:.1f} ms, before {base_ms:.1f}",
        f"<= {bar_ms:.1f} ms",
        holds=others_ms <= bar_ms,
    )
    report("failover: calls that failed", f"{len(evidence.failed)}", "-", holds=None)
    report("failover: longest call", f"{evidence.longest_ms:.0f} ms", "-", holds=None)


def rolling(*, quick: bool) -> None:
    """Stop each node in turn, start it again, and wait until all is whole."""
    rounds = 1 if quick else 3
    restarts: list[tuple[int, list[float]]] = []
    with _load() as load:
        nodes = load.nodes
        for _ in range(rounds):
            for number in (1, 2, 3):
                time.sleep(4.0)
                times_ms = [_wall_ms()]
                nodes.stop(number)
                times_ms.append(_wall_ms())
                nodes.start(number)
                nodes.settle()
                times_ms.append(_wall_ms())
                restarts.append((number, times_ms))
        time.sleep(4.0)
        evidence = load.evidence()
    repeats = evidence.repeats()
    _report_promises("rolling restart", evidence, [repr(each) for each in repeats])
    report("rolling restart: repeats", f"{len(repeats)}", "0", holds=not repeats)
    for sentence in evidence.failed[:5]:
        print(f"  failed: {sentence}")
    failed = len(evidence.failed)
    report("rolling restart: calls that failed", f"{failed}", "0", holds=not failed)
    report("rolling restart: longest call", f"{evidence.longest_ms:.0f} ms", "-", holds=None)
    undisturbed: list[float] = []
    stopping: list[float] = []
    starting: list[float] = []
    for number, (at_ms, stopped_ms, whole_ms) in restarts:
        every = range(_VNODES)
        # Who leads something new looks for what is due before it fires.
        parts = [
            evidence.late_ms(every, at_ms - 3_000, at_ms - 500),
            evidence.late_ms(every, at_ms - 100, stopped_ms + 500),
            evidence.late_ms(every, stopped_ms + 500, whole_ms),
        ]
        worst = ", ".join(f"{percentile(part, 1.0):.0f}" for part in parts)
        print(
            f"  node {number} ended in {stopped_ms - at_ms:.0f} ms, and all was whole after"
            f" {whole_ms - stopped_ms:.0f} ms; latest before, meanwhile, after: {worst} ms"
        )
        undisturbed += parts[0]
        stopping += parts[1]
        starting += parts[2]
    for when, part in (("no", undisturbed), ("a", starting)):
        figure = f"{percentile(part, 1.0):.0f} ms, p99 {percentile(part, 0.99):.0f}"
        report(f"rolling restart: latest job beside {when} start", figure, "-", holds=None)
    worst_ms = percentile(stopping, 1.0)
    report(
        "rolling restart: largest pause by a stop",
        f"{worst_ms:.0f} ms, p99 {percentile(stopping, 0.99):.0f}",
        "<= 500 ms",
        holds=worst_ms <= 500,
    )


def ingest(*, quick: bool) -> None:
    """Durable creates on three nodes against one, batches and singles, in turns."""
    rounds, batch_count, single_count = (3, 12, 3_000) if quick else (5, 48, 12_000)
    with node() as alone, trio() as nodes:
        three = [nodes.nodes[number] for number in (1, 2, 3)]
        for target in (alone, three[0]):
            ask(target, "PUT", COLLECTION, {"num_vnodes": _VNODES, "replicas": 3})
            set_up(target, {"hook": UNHEARD_PORT})
        nodes.settle()
        for among in ([alone], three):
            push(among, singles(1_000, "warm"), 60)
        # Three nodes take longer for each, so they need more clients to have enough to do.
        for what, connections in (
            ("batches of 1,000", 6),
            ("singles, 60 clients", 60),
            ("singles, 192 clients", 192),
        ):
            single = connections > 6
            jobs = single_count if single else batch_count * 1_000
            shares, ones, threes, cpus = [], [], [], []
            for number in range(rounds):
                name = f"{connections}-{number}"
                requests = list(
                    singles(single_count, name) if single else batches(batch_count, 1_000, name)
                )
                one_s, one_us = _timed([alone], requests, connections, jobs)
                three_s, three_us = _timed(three, requests, connections, jobs)
                shares.append(one_s / three_s)
                ones.append(jobs / one_s)
                threes.append(jobs / three_s)
                cpus.append(three_us / one_us)
                print(f"  round: one node {one_us:.1f} us/job, three nodes {three_us:.1f} us/job")
            report(
                f"cluster ingest, {what}: share of one",
                f"{median(shares):.2f}",
                ">= 0.3",
                holds=median(shares) >= 0.3,
            )
            figure = f"{median(threes):.0f}, one {median(ones):.0f} jobs/s"
            report(f"cluster ingest, {what}: rate", figure, "-", holds=None)
            report(f"cluster ingest, {what}: CPU", f"{median(cpus):.2f} x one", "-", holds=None)


def _timed(
    processes: list[Process], requests: list[bytes], connections: int, jobs: int
) -> tuple[float, float]:
    """Seconds, and CPU of all processes for a job in microseconds."""
    before, began_s = sum(each.cpu_s() for each in processes), time.perf_counter()
    _, statuses = push(processes, iter(requests), connections)
    took_s = time.perf_counter() - began_s
    assert set(statuses) <= {200, 201}, statuses
    return took_s, (sum(each.cpu_s() for each in processes) - before) / jobs * 1e6


def idle(*, quick: bool) -> None:
    """Collections that nobody uses."""
    collections, seconds = (20, 10.0) if quick else (100, 60.0)
    with trio() as nodes:
        began_s = time.perf_counter()
        for number in range(collections):
            path = f"/v1/dbs/default/collections/c{number}"
            nodes.ask("PUT", path, {"num_vnodes": _VNODES, "replicas": 3})
        nodes.settle()
        took_s = time.perf_counter() - began_s
        print(f"  {collections * _VNODES} vnodes were whole after {took_s:.0f} s")
        time.sleep(30.0)
        processes = list(nodes.nodes.values())
        before, began_s = [each.cpu_s() for each in processes], time.perf_counter()
        time.sleep(seconds)
        took_s = time.perf_counter() - began_s
        shares = [
            (each.cpu_s() - used_s) / took_s for each, used_s in zip(processes, before, strict=True)
        ]
        resident = max(each.resident_bytes() for each in processes)
        anonymous = max(each.anonymous_bytes() for each in processes)
        leaders = list(nodes.leaders().values())
        print(f"  leaders: {[leaders.count(number) for number in (1, 2, 3)]}")
    # Fewer collections say nothing about the bar.
    full = collections == 100
    name = f"cluster idle, {collections} collections"
    share = max(shares)
    report(f"{name}: of a core", f"{share:.1%}", "< 10%", holds=share < 0.1 if full else None)
    figure = f"{resident / 1e6:.0f} MB, anonymous {anonymous / 1e6:.0f}"
    holds = resident < 300e6 if full else None
    report(f"{name}: memory of a node", figure, "< 300 MB", holds=holds)
