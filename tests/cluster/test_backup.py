"""Backups of real clusters, under load and through crashes, and what comes out of them."""

import shutil
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from admin.backup.places import Directory
from admin.backup.reading import manifest_of, pages
from tests.cluster.cluster import Cluster
from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, Recipient, wait_until
from tests.cluster.terminal import Terminal
from timemachine.backup.manifest import Manifest
from timemachine.identifiers import webhook_id
from timemachine.model import JobRecord, JobState
from timemachine.replica.records import read_job

pytestmark = pytest.mark.timeout(300)

FAR_MS = 4_000_000_000_000
KEY = "secret.key"


@contextmanager
def _node(directory: Path, key: Path | None = None) -> Iterator[tuple[NodeProcess, Terminal]]:
    flags = [] if key is None else ["--secret-key-file", str(key)]
    with NodeProcess(directory, *flags) as node:
        node.start()
        yield node, Terminal(node.address)


def _jobs_of(place: Path, manifest: Manifest) -> dict[str, JobRecord]:
    """What a backup holds."""
    found: dict[str, JobRecord] = {}
    for collection in manifest.collections:
        for part in collection.parts:
            for page in pages(Directory(place), part):
                found |= {raw_id.decode(): read_job(row) for raw_id, row in page.jobs}
    return found


def _newest(place: Path) -> Manifest:
    directory = Directory(place)
    return max(
        (manifest_of(directory, name) for name in directory.backups()),
        key=lambda each: each.created_ms,
    )


def _counts(node: Any) -> dict[str, int]:
    counts: dict[str, int] = node.ask("GET", COLLECTION)[1]["counts"]
    return {state: count for state, count in counts.items() if count}


def _ids(arrivals: Any) -> list[str]:
    return [each.webhook_id for each in arrivals]


def _identity(record: JobRecord) -> str:
    return webhook_id(record.uid, record.version, record.occurrence)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Recipient]]:
    """A backup of a node that has stopped, its key, and the recipient of its webhooks.

    40 jobs are due much later, 20 were delivered.
    """
    root = tmp_path_factory.mktemp("small")
    place = root / "backups"
    with Recipient() as recipient, _node(root / "data") as (node, terminal):
        node.set_up(recipient.url)
        node.create([{"id": f"far{n}", "trigger_time": FAR_MS, "meta": n} for n in range(40)])
        node.create([{"id": f"done{n}", "delay_ms": 0} for n in range(20)])
        recipient.wait(20)
        wait_until(lambda: 20 == _counts(node).get("delivered"), "they are not settled")
        terminal("admin", "backup", "create", str(place))
        node.kill()
        yield place, root / "data" / KEY, recipient


def test_a_backup_under_load_through_a_crash_is_restored_elsewhere(tmp_path: Path) -> None:
    """Counts and contents are equal in clusters of other sizes, and nothing is sent twice.

    Also while a node is killed all that was acknowledged before the backup began is in it. What it
    knows as delivered is never sent again; what was due meanwhile waits for a word.
    """
    place = tmp_path / "backups"
    for name in ("old", "three"):
        (tmp_path / name).mkdir()
    stop = threading.Event()
    acknowledged: list[str] = []
    with Recipient() as recipient, Cluster(tmp_path / "old") as old:
        old.form()
        old.set_up(recipient.url)
        old.create(
            [{"id": f"far{n}", "trigger_time": FAR_MS, "meta": "x" * 500} for n in range(4_000)]
        )

        def load() -> None:
            number = 0
            while not stop.is_set():
                job_id = f"load{number}"
                try:
                    body = {"route": "hook", "delay_ms": 50, "id": job_id}
                    status, _ = old.ask("POST", JOBS, body)
                except OSError:
                    continue
                if status in (200, 201):
                    acknowledged.append(job_id)
                    number += 1

        creator = threading.Thread(target=load)
        creator.start()
        try:
            wait_until(lambda: len(acknowledged) > 50, "nobody creates jobs")
            before = list(acknowledged)
            backup = subprocess.Popen(
                [
                    *(sys.executable, "-m", "node", "admin", "backup", "create", str(place)),
                    *("--max-bytes-per-s", "400000"),
                    *(
                        "--server",
                        ",".join(f"http://{each.address}" for each in old.nodes.values()),
                    ),
                ]
            )
            wait_until(
                lambda: any(place.rglob("*.zst*")) or backup.poll() is not None, "it begins not"
            )
            victim = old.leads_most()
            old.kill(victim)
            assert 0 == backup.wait(120)
        finally:
            stop.set()
            creator.join()
        for number in old.running():
            old.nodes[number].kill()
        recipient.settle()
        sent = len(recipient.arrivals())
        manifest = _newest(place)
        held = _jobs_of(place, manifest)
        assert set(before) | {f"far{n}" for n in range(4_000)} <= set(held)
        done = {_identity(each) for each in held.values() if each.state == JobState.DELIVERED}
        pending = {
            _identity(each)
            for job_id, each in held.items()
            if job_id.startswith("load") and each.state < JobState.DELIVERED
        }
        key = old.nodes[1].directory / KEY
        words = ("admin", "restore", str(place), "--json", "--num-vnodes", "5")
        with _node(tmp_path / "one", key) as (node, terminal):
            report = terminal.planned(*words).json
            assert ([], len(held)) == (report["differ"], report["jobs"])
            counts = _counts(node)
            assert len(held) == sum(counts.values())
            assert {"scheduled": 4_000, "held": len(pending), "delivered": len(done)} == {
                "held": 0,
                **counts,
            }
            terminal.planned("admin", "past-due", "fire")
            recipient.wait(sent + len(pending))
            again = _ids(recipient.arrivals()[sent:])
            assert sorted(pending) == sorted(again)
            assert done.isdisjoint(again)
        with Cluster(tmp_path / "three", 3, "--secret-key-file", str(key)) as new:
            new.form()
            terminal = Terminal(new.nodes[2].address)
            report = terminal.planned(*words, "--past-due", "drop").json
            assert [] == report["differ"]
            assert len(pending) == report["counts"].get("dropped", 0)
            assert 4_000 == _counts(new)["scheduled"]
        assert sent + len(pending) == len(recipient.arrivals())


@pytest.mark.parametrize(("choice", "state"), [("hold", "held"), ("fire", "delivered")])
def test_past_due_jobs(tmp_path: Path, choice: str, state: str) -> None:
    """They are held, or sent at once under the webhook-ids that they had."""
    place = tmp_path / "backups"
    with Recipient() as recipient:
        with _node(tmp_path / "old") as (node, terminal):
            node.set_up(recipient.url)
            node.create([{"id": f"soon{n}", "delay_ms": 3_000} for n in range(10)])
            terminal("admin", "backup", "create", str(place))
            identities = [job["webhook_id"] for job in node.jobs().values()]
            node.kill()
        due_ms = max(each.due_ms for each in _jobs_of(place, _newest(place)).values())
        wait_until(lambda: time.time() * 1_000 > due_ms, "time stands still")
        with _node(tmp_path / "new", tmp_path / "old" / KEY) as (node, terminal):
            restore = ("admin", "restore", str(place), "--past-due", choice, "--json")
            assert [] == terminal.planned(*restore).json["differ"]
            if choice == "fire":
                assert sorted(identities) == sorted(_ids(recipient.wait(10)))
            wait_until(lambda: {state: 10} == _counts(node), f"they are not {state}")
            if choice == "hold":
                node.kill()
                node.start()
                again = Terminal(node.address)
                assert {state: 10} == _counts(node)
                assert [] == recipient.arrivals()
                again("job", "run", "jobs", "soon1")
                recipient.wait(1)
                again.planned("admin", "past-due", "drop")
                wait_until(lambda: 9 == _counts(node).get("dead"), "they are not dropped")
                assert 1 == len(recipient.arrivals())


def test_a_restore_that_breaks_off_goes_on(tmp_path: Path, small: Any) -> None:
    """The node that it goes into is killed; the same command, typed again, ends it."""
    place, key, _ = small
    with _node(tmp_path / "new", key) as (node, terminal):
        words = ("admin", "restore", str(place), "--json")
        plan = terminal(*words, "--dry-run").json["plan"]
        command = [sys.executable, "-m", "node", *words, "--plan", plan]
        server = ["--server", f"http://{node.address}", "--timeout-ms", "2s"]
        begun = subprocess.Popen([*command, *server], stdout=subprocess.DEVNULL)
        wait_until(
            lambda: 200 == node.ask("GET", COLLECTION)[0] or begun.poll() is not None, "it begins"
        )
        node.kill()
        begun.wait(60)
        node.flags = (*node.flags, "--http", node.address)
        node.start()
        assert 200 == node.ask("GET", COLLECTION)[0]
        if begun.returncode:
            assert [] == terminal.planned(*words).json["differ"]
        assert {"scheduled": 40, "delivered": 20} == _counts(node)


def test_a_restore_that_is_complete_is_only_compared(tmp_path: Path, small: Any) -> None:
    """Whoever did not hear that it ended types the same command again."""
    place, key, _ = small
    with _node(tmp_path / "new", key) as (node, terminal):
        words = ("admin", "restore", str(place))
        first = terminal.planned(*words, "--json").json
        assert first["complete_since"] is None
        again = terminal.planned(*words, "--json").json
        told = (again["restore"], again["restore_epoch"], again["counts"], again["differ"])
        assert (first["restore"], first["restore_epoch"], {}, []) == told
        assert again["complete_since"] >= first["cut_time"]
        assert "restored already" in terminal.planned(*words).out
        terminal(*words, "--past-due", "drop", "--dry-run", code=5)
        assert {"scheduled": 40, "delivered": 20} == _counts(node)
        terminal("collection", "delete", "jobs", "--force", "--yes")
        node.ask("DELETE", f"{ROUTES}/hook")
        assert terminal.planned(*words, "--json").json["restore_epoch"] > first["restore_epoch"]
        assert {"scheduled": 40, "delivered": 20} == _counts(node)


def test_a_restore_is_for_humans(tmp_path: Path, small: Any) -> None:
    """At a terminal the cluster's id is typed; elsewhere the id of a plan made before is given."""
    place, key, _ = small
    words = ("admin", "restore", str(place))
    with _node(tmp_path / "new", key) as (node, terminal):
        done = terminal(*words, code=2)
        assert "--dry-run" in done.err
        plan = terminal(*words, "--dry-run", "--json").json["plan"]
        assert plan in terminal(*words, "--dry-run").out
        other = terminal(*words, "--num-vnodes", "3", "--plan", plan, code=1)
        assert plan in other.err
        wrong = terminal.at_terminal(*words, types="no\n")
        assert 1 == wrong.code, wrong.out
        assert 404 == node.ask("GET", COLLECTION)[0]
        cluster_id = node.ask("GET", "/v1/cluster")[1]["cluster_id"]
        right = terminal.at_terminal(*words, "--past-due", "drop", types=f"{cluster_id}\n")
        assert 0 == right.code, right.out
        assert {"scheduled": 40, "delivered": 20} == _counts(node)
        terminal("admin", "past-due", "fire", code=2)
        terminal("admin", "past-due", "fire", "--plan", plan, code=1)
        seen = terminal.at_terminal("admin", "past-due", "fire", types=f"{cluster_id}\n")
        assert (0, True) == (seen.code, "Sent: 0 jobs" in seen.out), seen.out


def test_nothing_is_written_of_a_damaged_backup(tmp_path: Path, small: Any) -> None:
    """A flipped bit and a missing part are found before anything is made."""
    place, key, _ = small
    file = next(part.file for each in _newest(place).collections for part in each.parts)
    with _node(tmp_path / "new", key) as (node, terminal):
        plan = terminal("admin", "restore", str(place), "--dry-run", "--json").json["plan"]
        for damage in ("flip", "cut", "lose", "manifest"):
            copy = tmp_path / damage
            shutil.copytree(place, copy)
            path = copy / file
            data = bytearray(path.read_bytes())
            if damage == "flip":
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
            elif damage == "cut":
                path.write_bytes(data[:-1])
            elif damage == "lose":
                path.unlink()
            else:
                next(copy.rglob("manifest.json")).write_text("{}")
            if damage != "manifest":
                terminal("admin", "backup", "check", str(copy), code=1)
            terminal("admin", "restore", str(copy), "--plan", plan, code=1)
            assert 404 == node.ask("GET", COLLECTION)[0]


def test_another_master_key_is_refused(tmp_path: Path, small: Any) -> None:
    """It is told before anything is made, and which key is needed."""
    place, _, _ = small
    with _node(tmp_path / "new") as (node, terminal):
        done = terminal("admin", "restore", str(place), "--dry-run", code=5)
        assert "master key" in done.err
        assert 404 == node.ask("GET", COLLECTION)[0]


def test_a_backup_of_another_master_key(tmp_path: Path, small: Any) -> None:
    """With its key below the current one it is restored, and the key is not needed afterwards."""
    place, key, _ = small
    new, both = tmp_path / "new.key", tmp_path / "both.key"
    new.write_text(b64encode(bytes(range(32))).decode() + "\n")
    both.write_text(new.read_text() + key.read_text())
    with _node(tmp_path / "data", both) as (node, terminal):
        terminal.planned("admin", "restore", str(place))
        secret = node.ask("GET", f"{ROUTES}/hook/secret")[1]
        assert [1, 0] == [each["routes"] for each in terminal("admin", "keys", "--json").json]
        assert 0 == node.stop()
        node.flags = (*node.flags, "--secret-key-file", str(new))
        node.start()
        assert secret == node.ask("GET", f"{ROUTES}/hook/secret")[1]


def test_vnodes_that_have_not_changed_are_not_read_again(tmp_path: Path) -> None:
    """Their files are used by later backups, and stay for as long as one uses them."""
    place = tmp_path / "backups"
    with _node(tmp_path / "old") as (node, terminal):
        node.set_up("http://127.0.0.1:1024/")
        node.create([{"id": f"far{n}", "trigger_time": FAR_MS} for n in range(50)])
        create = ("admin", "backup", "create", str(place), "--json")
        first = terminal(*create).json
        assert (4, 0) == (first["read"], first["kept"])
        node.create([{"id": "one-more", "trigger_time": FAR_MS}])
        second = terminal(*create).json
        assert (1, 3, first["id"]) == (second["read"], second["kept"], second["base"])
        terminal("admin", "backup", "delete", str(place), first["id"], "--yes")
        terminal("admin", "backup", "check", str(place), second["id"])
        assert [second["id"]] == [
            each["id"] for each in terminal("admin", "backup", "list", str(place), "--json").json
        ]
        full = terminal(*create, "--full").json
        assert (4, 0) == (full["read"], full["kept"])
        terminal("admin", "backup", "delete", str(place), second["id"], "--yes")
        assert [] == [path for path in place.rglob("*") if second["id"] in str(path)]
        assert [] == [path for path in place.rglob("*") if first["id"] in str(path)]
        broken = str(uuid4())
        for name in (broken, "of-others"):
            (place / name / "default").mkdir(parents=True)
            (place / name / "default" / "0.zst.partial").write_bytes(b"half")
        listed = terminal("admin", "backup", "list", str(place)).err
        assert (True, False) == (broken in listed, "of-others" in listed)
        terminal("admin", "backup", "delete", str(place), broken, "--yes")
        assert not (place / broken).exists()
        terminal("admin", "backup", "delete", str(place), broken, "--yes", code=1)
        terminal("admin", "backup", "delete", str(place), "of-others", "--yes", code=1)
        assert (place / "of-others" / "default" / "0.zst.partial").exists()
