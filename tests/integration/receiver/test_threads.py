"""Many threads and processes on one database: nothing twice, nothing lost, nothing locked up."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.integration.receiver.places import Place, effects
from timemachine.receiver import (
    Dedupe,
    InProgress,
    New,
    WebhookBusy,
    WebhookClaimLost,
    fingerprint,
)

PRINT = fingerprint(b"{}")
THREADS = 8
IDS = [f"msg_{number}" for number in range(25)]


def together(work: Callable[[int], None]) -> None:
    """Run it in all threads, which begin at one moment."""
    barrier = threading.Barrier(THREADS)

    def start(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(start, number) for number in range(THREADS)]:
            done.result()


def patiently(call: Callable[[], None]) -> None:
    """As a sender does: try again when the database is busy."""
    while True:
        try:
            call()
        except WebhookBusy:
            continue
        return


def test_once_in_many_threads(place: Place) -> None:
    """All threads get all webhooks, in different order; each has its effect once.

    They also open the new database at once, and make its tables.
    """
    firsts: list[str] = []

    def work(number: int) -> None:
        with closing(place.connect()) as connection:
            patiently(lambda: place.create_tables(connection))
            for webhook_id in IDS[number:] + IDS[:number]:
                patiently(lambda: once(webhook_id))  # noqa: B023 - called at once

    def once(webhook_id: str) -> None:
        with closing(place.connect()) as connection:
            seen = Dedupe(place.store(connection)).once(
                webhook_id, PRINT, lambda: _effect(place, connection, webhook_id)
            )
            if not seen.repeated:
                firsts.append(webhook_id)

    together(work)
    assert Counter(IDS) == Counter(effects(place)) == Counter(firsts)


def _effect(place: Place, connection: Any, webhook_id: str) -> None:
    connection.execute(place.insert, (webhook_id,))


def test_claims_in_many_threads(place: Place) -> None:
    """Claims are taken over while their workers go on: of all workers of a webhook one commits."""
    with closing(place.connect()) as connection:
        place.create_tables(connection)
    claimed: list[str] = []
    lost: list[str] = []

    def work(number: int) -> None:
        # Every other thread lives far ahead, and so takes over what it finds claimed.
        ahead_s = 10_000 * number if number % 2 else 0
        for webhook_id in IDS[number:] + IDS[:number]:
            patiently(lambda: claim(webhook_id, ahead_s))  # noqa: B023 - called at once

    def claim(webhook_id: str, ahead_s: int) -> None:
        with closing(place.connect()) as connection:
            dedupe = Dedupe(place.store(connection), now=lambda: 1_700_000_000 + ahead_s)
            seen = dedupe.begin(webhook_id, PRINT)
            if not isinstance(seen, New):
                return
            claimed.append(webhook_id)

            def do_it() -> None:
                with dedupe.transaction():
                    _effect(place, connection, webhook_id)
                    dedupe.commit(seen)

            try:
                patiently(do_it)  # it keeps its claim meanwhile
            except WebhookClaimLost:
                lost.append(webhook_id)

    together(work)
    assert Counter(IDS) == Counter(effects(place)) == Counter(claimed) - Counter(lost)


def test_many_processes_open_a_new_database(tmp_path: Path) -> None:
    """Workers of a server start at one moment: all of them get the database in WAL."""
    path = tmp_path / "app.db"
    program = (
        "import sys\n"
        "from timemachine.receiver.sqlite import SQLiteStore, connect\n"
        "sys.stdin.readline()\n"
        "connection = connect(sys.argv[1])\n"
        "SQLiteStore(connection).create_table()\n"
        "print(*connection.execute('PRAGMA journal_mode').fetchone())\n"
        "connection.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert ["wal\n"] * 6 == [process.communicate()[0] for process in processes]


def test_one_claim_among_many(place: Place) -> None:
    """Who asks while another holds the claim hears that it is in progress, all of them."""
    with closing(place.connect()) as connection:
        place.create_tables(connection)
    seen: list[object] = []

    def work(number: int) -> None:
        with closing(place.connect()) as connection:
            dedupe = Dedupe(place.store(connection), now=lambda: 1_700_000_000)
            patiently(lambda: seen.append(dedupe.begin("msg", PRINT)))

    together(work)
    kinds = Counter(type(each) for each in seen)
    assert Counter({New: 1, InProgress: THREADS - 1}) == kinds
