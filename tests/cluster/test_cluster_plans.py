"""A cluster grows and shrinks by plans, typed as an admin types them."""

import time
from pathlib import Path

import pytest

from admin import exits
from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import NodeProcess, wait_until
from tests.cluster.terminal import Terminal

pytestmark = pytest.mark.timeout(300)

FAR_MS = 4_000_000_000_000
PLAN = ("admin", "plan")


def on_nodes(tm: Terminal) -> dict[str, int]:
    """How many replicas each node is to have, by its name, of those that are there."""
    nodes = tm("admin", "status", "--json").json["nodes"]
    return {node["name"]: node["vnodes"] for node in nodes if node["state"] != "removed"}


def made(tm: Terminal, *words: str) -> str:
    """The id of a plan that was made just now."""
    return str(tm(*PLAN, *words, "--json").json["id"])


def test_a_cluster_grows_and_shrinks(tmp_path: Path) -> None:
    """Three nodes and a fourth: replicas are even; then one is emptied, and removed."""
    with Cluster(tmp_path) as cluster:
        cluster.form().set_up("http://127.0.0.1:1024/", num_vnodes=8)
        cluster.create({"id": str(number), "trigger_time": FAR_MS} for number in range(200))
        cluster.join(4)
        tm = Terminal(cluster.nodes[4].address)
        before = {"n1": 8, "n2": 8, "n3": 8, "n4": 0}
        assert before == on_nodes(tm)

        shown = tm(*PLAN, "rebalance", "--transfers", "3")
        assert "rebalance: proposed" in shown.out
        assert "6 vnodes to change, 3 at once: 6 replicas to copy" in shown.out
        assert before == on_nodes(tm)
        plan = tm(*PLAN, "list", "--json").json[0]["id"]
        assert f"Nothing moves yet. `timemachine admin plan confirm {plan}` has it" in shown.err
        done = tm(*PLAN, "confirm", plan)
        assert f"plan {plan}, done: 6 of 6 moves done, took " in done.out
        assert dict.fromkeys(before, 6) == on_nodes(tm)
        again = tm(*PLAN, "confirm", plan)
        assert "done: 6 of 6 moves done" in again.out, "whoever did not hear the answer asks again"
        assert "plan has ended" in tm(*PLAN, "cancel", plan, code=exits.CONFLICT).err

        drained = tm(*PLAN, "confirm", made(tm, "drain", "n2"), "--json").json
        assert ("done", 6, 6) == (
            drained["state"],
            drained["moves"]["done"],
            len(drained["vnodes"]),
        )
        assert {"n1": 8, "n2": 0, "n3": 8, "n4": 8} == on_nodes(tm)
        assert "  n2    leaving  " in tm("admin", "status").out
        assert "done" == tm(*PLAN, "confirm", made(tm, "remove", "n2"), "--json").json["state"]
        assert {"n1": 8, "n3": 8, "n4": 8} == on_nodes(tm)
        assert 0 == cluster.nodes[2].wait()
        del cluster.nodes[2]
        cluster.wait_whole()
        assert 200 == len(tm("job", "list", "jobs", "--limit", "1000", "--json").json)


def test_what_a_terminal_is_asked(tmp_path: Path) -> None:
    """The cluster's id has it run, anything else does nothing; `--json` and others ask nobody."""
    with Cluster(tmp_path, 2) as cluster:
        cluster.form()
        tm = Terminal(cluster.nodes[2].address)
        tm("collection", "put", "jobs", "--num-vnodes", "4", "--replicas", "1")
        cluster.wait_whole(1)
        name = tm("admin", "status", "--json").json["cluster_id"]

        for typed in ("\n", "y\n", f"{name[:-1]}\n"):
            said = tm.at_terminal(*PLAN, "drain", "n1", types=typed)
            assert exits.FAILED == said.code
            assert "That is not the cluster's id; nothing was confirmed." in said.out
        assert {"n1": 2, "n2": 2} == on_nodes(tm)
        assert {"proposed"} == {each["state"] for each in tm(*PLAN, "list", "--json").json}

        for words in (("--dry-run",), ("--json",)):
            said = tm.at_terminal(*PLAN, "drain", "n1", *words)
            assert (0, False) == (said.code, "Type the cluster's id" in said.out)
        assert "nothing has to move" in tm.at_terminal(*PLAN, "rebalance").out

        said = tm.at_terminal(*PLAN, "drain", "n1", types=f"{name}\n")
        assert 0 == said.code, said.out
        assert "drain n1: proposed" in said.out
        assert "done: 2 of 2 moves done" in said.out
        plan = made(tm, "rebalance", "--back", "n1")
        said = tm.at_terminal(*PLAN, "confirm", plan, types=f"{name}\n")
        assert 0 == said.code, said.out
        assert "rebalance, with n1 back: proposed" in said.out
        assert {"n1": 2, "n2": 2} == on_nodes(tm)


def test_a_plan_is_paused_watched_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops watching leaves it as it is; status tells of it; its nodes are members then."""
    with Cluster(tmp_path, 2) as cluster:
        cluster.form()
        tm = Terminal(cluster.nodes[2].address)
        tm("collection", "put", "jobs", "--num-vnodes", "64", "--replicas", "1")
        cluster.wait_whole(1)
        plan = made(tm, "drain", "n1", "--transfers", "1")
        tm(*PLAN, "pause", plan, code=exits.CONFLICT)
        tm(*PLAN, "confirm", plan, "--no-wait")
        tm(*PLAN, "confirm", made(tm, "rebalance"), code=exits.CONFLICT)
        assert f"plan {plan}, paused: " in tm(*PLAN, "pause", plan).out
        assert f"\nplan {plan} (drain, paused): " in tm("admin", "status").out
        assert "  n1    leaving  " in tm("admin", "status").out

        def interrupt(_: float) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", interrupt)
            left = tm(*PLAN, "watch", plan, code=exits.FAILED)
        assert "The plan goes on." in left.err
        assert "paused" == tm(*PLAN, "show", plan, "--json").json["state"]
        wait_until(
            lambda: 0 == tm(*PLAN, "show", plan, "--json").json["moves"]["moving"],
            "moves that are under way do not end",
            PATIENCE_S,
        )
        moved = tm(*PLAN, "show", plan, "--json").json["moves"]["done"]
        assert moved < 32

        assert f"plan {plan}, running: " in tm(*PLAN, "resume", plan).out
        wait_until(
            lambda: moved < tm(*PLAN, "show", plan, "--json").json["moves"]["done"],
            "it does not go on",
            PATIENCE_S,
        )
        assert f"plan {plan}, cancelled: " in tm(*PLAN, "cancel", plan).out
        assert "cancelled" in tm(*PLAN, "watch", plan, code=exits.FAILED).out
        assert "leaving" not in tm("admin", "status").out
        assert "plan" not in tm("admin", "status").out
        assert "no such plan" in tm(*PLAN, "show", "nope", code=exits.NOT_FOUND).err


def test_a_node_compacts(tmp_path: Path) -> None:
    """Shown first, of a collection or of all; confirmed it comes to its end, with steps done."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/", num_vnodes=4)
        tm = Terminal(node.address)
        shown = tm(*PLAN, "compact", "--collection", "jobs", "--vnodes", "0,3")
        assert "compact default/jobs, vnodes 0, 3: proposed" in shown.out
        assert "1 node, 1 at once, 64.0 MiB a second each: " in shown.out
        assert "Nothing is compacted yet. `timemachine admin plan confirm " in shown.err
        assert "those of a collection" in tm(*PLAN, "compact", "--vnodes", "0", code=2).err
        assert exits.NOT_FOUND == (
            tm(*PLAN, "compact", "--collection", "jobs", "--vnodes", "4", code=exits.NOT_FOUND).code
        )

        plan = made(tm, "compact", "--bytes-per-s", str(1 << 20))
        done = tm(*PLAN, "confirm", plan)
        assert f"plan {plan}, done: 1 of 1 nodes done, took " in done.out
        assert "\ntheir stores took " in done.out
        row = tm(*PLAN, "show", plan, "--json").json["compaction"]
        assert ([], 1 << 20) == (row["vnodes"], row["bytes_per_s"])
        assert ["done"] == [each["state"] for each in row["nodes"]]
        assert "\ncompact all: done\n" in tm(*PLAN, "show", plan).out
