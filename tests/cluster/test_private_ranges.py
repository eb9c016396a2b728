"""`--allow-private` seeds a new cluster's setting; where there is one, the log says so."""

from pathlib import Path

from tests.cluster.process import NodeProcess


def test_a_flag_that_changes_nothing_is_told(tmp_path: Path) -> None:
    """The second start names a range that the cluster does not know."""
    with NodeProcess(tmp_path / "node") as node:
        node.start()
        assert 0 == node.stop()
        assert "allow_private is for new clusters" not in node.log.read_text()
        node.flags = ("--allow-private", "127.0.0.0/8", "--allow-private", "10.1.0.0/16")
        node.start()
        log = node.log.read_text()
        assert "allow_private is for new clusters" in log
        assert "10.1.0.0/16" in log
        assert "127.0.0.0/8" not in log.partition("allow_private is for")[2].splitlines()[0]
        assert 0 == node.stop()
