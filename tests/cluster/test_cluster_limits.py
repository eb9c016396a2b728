"""Nodes that get no more memory or threads, or far too much to do: clients are turned away first.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

import contextlib
import http.client
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import JOBS, NodeProcess, wait_until
from tests.cluster.recorder import wall_ms
from tests.cluster.stage import staged
from tests.faults.groups import few_threads
from timemachine import limits

pytestmark = pytest.mark.timeout(300)

_MIB: Final = 1024 * 1024
_BODY_BYTES: Final = 15 * _MIB


@contextmanager
def _half_bodies(node: NodeProcess, count: int) -> Iterator[None]:
    """Clients that send nearly all of a large body each, and then no more.

    Nothing can be done with what they sent, and it may be the next moment.
    """
    host, _, port = node.address.rpartition(":")
    head = f"POST {JOBS}/batch HTTP/1.1\r\nHost: {host}\r\nContent-Length: {_BODY_BYTES}\r\n\r\n"
    piece = b" " * _MIB
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((host, int(port)), 10))
            with contextlib.suppress(OSError):  # refused, or the node is gone
                client.sendall(head.encode())
                for _ in range(_BODY_BYTES // _MIB - 1):
                    client.sendall(piece)
        yield


def _terms(cluster: Cluster) -> dict[int, int]:
    return {row["index"]: row["term"] for row in cluster.vnodes()}


def _answers(node: NodeProcess) -> bool:
    try:
        return node.ask("GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_30_a_flood_of_large_requests(tmp_path: Path) -> None:
    """Scenario 30 (C1, C10): more than may be held is refused, and nobody else notices."""
    with staged(tmp_path) as (cluster, _, witness):
        witness.start()
        witness.wait_for(50)
        node = cluster.nodes[cluster.leads_most()]
        before = _terms(cluster)
        usual_bytes = node.memory_bytes("VmRSS")
        allowed = limits.HTTP_BODY_BYTES_OPEN_MAX
        with _half_bodies(node, 2 * allowed // _BODY_BYTES):
            witness.wait_for(50)
            grown_bytes = node.memory_bytes("VmHWM") - usual_bytes
        witness.wait_for(50)
        print(f"grown by {grown_bytes / _MIB:.0f} MiB, {allowed / _MIB:.0f} of bodies")
        assert grown_bytes < allowed + 96 * _MIB
        after = _terms(cluster)
        # One vnode or other may have been given to another leader, to spread them evenly.
        assert all(after[index] - before[index] <= 1 for index in before), (before, after)
        witness.finish()


@pytest.mark.slow
@pytest.mark.parametrize("room_mib", [2, 16, 64])
def test_30_a_node_gets_no_more_memory(tmp_path: Path, room_mib: int) -> None:
    """Scenario 30 (C1, C8, C10): it refuses clients or it ends; it is never a leader that hangs."""
    with staged(tmp_path) as (cluster, _, witness):
        witness.start()
        witness.wait_for(50)
        victim = cluster.leads_most()
        node = cluster.nodes[victim]
        begin_ms = wall_ms()
        pid = node.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_AS)
        room = node.memory_bytes("VmSize") + room_mib * _MIB
        resource.prlimit(pid, resource.RLIMIT_AS, (room, usual[1]))
        with _half_bodies(node, 12):
            witness.wait_for(150)
        assert "MemoryError" in node.log.read_text(), "it had enough"
        if node.running:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, usual)
            wait_until(
                lambda: not node.running or _answers(node),
                "it is neither here nor gone",
                PATIENCE_S,
            )
        print("it ended" if not node.running else "it went on")
        if not node.running:
            cluster.died(victim, begin_ms, "no memory")
            assert "the node cannot go on; it stops" in node.log.read_text()
            cluster.restart(victim)
        witness.wait_for(50)
        cluster.wait_whole()
        witness.finish()


@pytest.mark.slow
@pytest.mark.root("pids")
def test_30_a_node_gets_no_more_threads(tmp_path: Path) -> None:
    """Scenario 30 (C1, C10): what needs one, as looking up a name does, is tried again later."""
    with staged(tmp_path) as (cluster, recorder, witness):
        port = recorder.url().partition(":")[2].partition(":")[2]
        cluster.route("named", f"http://localhost:{port}".replace("/hook", "/named"))
        witness.start()
        witness.wait_for(50)
        victim = cluster.leads_most()
        with few_threads(tmp_path.name, cluster.nodes[victim].process.pid, 0):
            with witness.clerk() as clerk:
                for number in range(60):
                    clerk.put(f"named{number}", int(wall_ms()), route="named")
            witness.wait_for(100)
            assert cluster.nodes[victim].running
        witness.wait_for(50)
        cluster.wait_whole()
        history = witness.finish()
    came = {each.job for each in history.webhooks if each.route == "named"}
    assert 60 == len(came)
