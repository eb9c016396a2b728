"""What people are told of a salvage, and where it refuses to begin."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from admin.commands.salvage import salvage
from admin.salvaged import show_salvaged
from tests.unit.admin.test_tables import look
from tests.unit.test_salvage import _node_store
from timemachine.storage.leveldb import FORMAT, Identity, open_store

VNODE: dict[str, Any] = {
    "file": "default/carts.ndjson",
    "vnode": 3,
    "applied_index": 7,
    "entries": 2,
    "unconfirmed": 0,
    "log_damaged": False,
    "jobs": 12,
    "firing": 1,
    "retrying": 2,
    "ended": 5,
    "unreadable": 0,
    "damaged": False,
}
REPORT: dict[str, Any] = {"log_damaged": False, "rebuilt": False, "vnodes": [VNODE]}


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(salvage, [str(word) for word in words])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory of a node that has stopped."""
    directory = tmp_path / "data"
    store, _ = open_store(directory, create=Identity(FORMAT, "c1", "n1", 1, b"check"))
    store.write(store.prepare({**_node_store().image()}))
    store.close()
    return directory


def test_what_was_found_and_what_to_know() -> None:
    """Always what may be missing or repeated; damage where there was some."""
    assert look(show_salvaged(REPORT)) == (
        """
file                  vnode  applied  jobs  ended  unreadable
default/carts.ndjson      3        9    12      5           0
Missing: what only the lost replicas had.
Repeated, perhaps: what the lost replicas had ended since.
Repeated, perhaps: jobs that were being sent: 1; that were tried: 2.
"""
    )
    damaged = VNODE | {
        "vnode": None,
        "unconfirmed": 4,
        "unreadable": 6,
        "damaged": True,
        "log_damaged": True,
    }
    told = look(
        show_salvaged({"log_damaged": True, "rebuilt": True, "vnodes": [VNODE, damaged]})
    ).splitlines()
    for words in (
        "Missing: jobs that cannot be read: 6.",
        "Missing, perhaps: jobs of damaged vnodes that nothing tells of: 1.",
        "Missing: the newest changes of vnodes with damaged logs: 1.",
        "Missing: writes of any vnode and any time; the log of the store is damaged.",
        "Repeated, perhaps: what was deleted; the list of the store's tables was lost.",
        "Not known to be committed: entries of the log: 4.",
    ):
        assert words in told


def test_files_by_collection_and_a_report(data: Path, tmp_path: Path) -> None:
    """Of all vnodes, or those that are named."""
    done = _run(data, tmp_path / "all", "--json")
    assert 0 == done.exit_code, done.output
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "all/report.json").read_text())
    assert ("c1", "n1") == (report["cluster_id"], report["node_id"])
    assert [
        "unnamed/collection-99.ndjson",
        "default/carts.ndjson",
        "default/carts.ndjson",
        "default/late.ndjson",
    ] == [each["file"] for each in report["vnodes"]]
    assert [1, 1, 1, 0] == [each["unreadable"] for each in report["vnodes"]]
    assert {"all", "data"} == {each.name for each in tmp_path.iterdir()}
    assert {"default", "unnamed", "report.json"} == {
        each.name for each in (tmp_path / "all").iterdir()
    }
    done = _run(data, tmp_path / "one", "--db", "default", "--collection", "carts", "--vnode", "1")
    assert "default/carts.ndjson" in done.stdout
    (found,) = json.loads((tmp_path / "one/report.json").read_text())["vnodes"]
    assert ("carts", 1) == (found["collection"], found["vnode"])


def test_where_it_refuses_to_begin(data: Path, tmp_path: Path) -> None:
    """Nothing is mixed with what is there, nothing is written to the data."""
    for out in (tmp_path, data, data / "out", data / "store" / "out"):
        assert 2 == _run(data, out).exit_code, out
    assert 2 == _run(tmp_path / "nothing", tmp_path / "out").exit_code
    (tmp_path / "empty").mkdir()
    refused = _run(tmp_path / "empty", tmp_path / "out")
    assert (1, True) == (refused.exit_code, "holds no store" in refused.stderr)
    (tmp_path / "file").write_text("")
    refused = _run(data, tmp_path / "file" / "out")
    assert (1, True) == (refused.exit_code, "cannot be written" in refused.stderr)
    store, _ = open_store(data)
    refused = _run(data, tmp_path / "out")
    assert (1, True) == (refused.exit_code, "stop it first" in refused.stderr)
    store.close()
