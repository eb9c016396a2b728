"""`admin doctor` at real nodes: a cluster that is well, and one that has lost a node."""

from pathlib import Path

import pytest

from admin import exits
from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import wait_until
from tests.cluster.terminal import Done, Terminal

pytestmark = pytest.mark.timeout(180)

DOCTOR = ("admin", "doctor")


def codes(done: Done) -> set[str]:
    """What was found."""
    return {each["code"] for each in done.json["findings"]}


def test_the_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    """Nothing, with exit code 0; then a dead node, a lost majority, each with what to do."""
    with Cluster(tmp_path) as cluster:
        cluster.form().set_up("http://127.0.0.1:1024/", num_vnodes=4)
        tm = Terminal(cluster.nodes[1].address)
        cluster.wait_whole()

        def is_well() -> bool:
            # Replicas that have just been made may be behind for a moment.
            return 0 == tm.any(*DOCTOR).code

        wait_until(is_well, "the doctor finds something", PATIENCE_S)
        assert tm(*DOCTOR).out.endswith("\nNothing has to be done.\n")
        whole = tm(*DOCTOR, "--json").json
        assert (True, 3) == (whole["well"], len(whole["asked"]))

        cluster.kill(3)
        wait_until(
            lambda: "node_down" in codes(tm.any(*DOCTOR, "--json")),
            "the doctor does not see that a node is dead",
            PATIENCE_S,
        )
        told = tm(*DOCTOR, code=exits.FAILED)
        assert "- Node n3 is down: the others do not hear it.\n  Start it, or " in told.out
        assert "asked 2 of 3 nodes" in told.out

        cluster.kill(2)
        wait_until(
            lambda: {"no_leader", "no_node_leader"} <= codes(tm.any(*DOCTOR, "--json")),
            "the doctor does not see that a majority is lost",
            PATIENCE_S,
        )
        assert "A majority has to be there: start n2, n3." in tm(*DOCTOR, code=exits.FAILED).out
