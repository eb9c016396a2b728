"""A node whose port the system chose knows its address, and never sends to itself."""

from pathlib import Path

from tests.cluster.process import ROUTES, NodeProcess, wait_until


def test_own_address_of_port_0(tmp_path: Path) -> None:
    """A webhook to the node's own API is refused, whatever is allowed."""
    with NodeProcess(tmp_path / "data") as node:
        node.start()
        for path in ("/v1/dbs/default", "/x"):
            route = {"webhook_url": f"http://{node.address}{path}"}
            status, answer = node.ask("PUT", f"{ROUTES}/self", route)
            assert (400, "/webhook_url") == (status, answer["errors"][0]["pointer"]), answer
        wait_until(
            lambda: node.address == node.ask("GET", "/v1/cluster")[1]["nodes"][0]["http"],
            "the node shows another address",
        )
        assert 0 == node.stop()


def test_two_nodes_that_were_told_no_address_do_not_meet(tmp_path: Path) -> None:
    """Each on its own machine's default, both on one: the second takes another port."""
    default = ("--rpc", "127.0.0.1:9001")
    with NodeProcess(tmp_path / "a", *default) as a, NodeProcess(tmp_path / "b", *default) as b:
        a.start()
        b.start()
        assert a.rpc != b.rpc
