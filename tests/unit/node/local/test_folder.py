"""The folder of a local cluster: what it holds, and what it refuses."""

from pathlib import Path

import pytest

from node.local.folder import Folder
from timemachine.errors import ConfigError, StoreError, StoreForeign, StoreInUse

ADDRESSES = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """One that is not there yet."""
    return Folder(tmp_path / "data")


def _three(folder: Folder) -> Folder:
    folder.lock()
    folder.keep(ADDRESSES)
    return folder


def test_a_new_folder_takes_any_number(folder: Folder) -> None:
    """One node, unless more are asked for; looking makes nothing."""
    assert [1, 1, 3, 5] == [folder.count(asked) for asked in (None, 1, 3, 5)]
    assert not folder.path.exists()


def test_it_remembers_how_many_there_are(folder: Folder) -> None:
    """More may join; fewer would not be all."""
    assert ADDRESSES == _three(folder).addresses()
    assert [3, 3, 5] == [folder.count(asked) for asked in (None, 3, 5)]
    with pytest.raises(ConfigError, match="holds a cluster of 3 nodes"):
        folder.count(2)
    with pytest.raises(ConfigError, match="holds a cluster of 3 nodes"):
        folder.count(1)


def test_a_folder_of_one_node(folder: Folder) -> None:
    """It goes on with one, and says what to type for more."""
    (folder.path / "store").mkdir(parents=True)
    assert [1, 1] == [folder.count(asked) for asked in (None, 1)]
    with pytest.raises(ConfigError, match="holds the data of one node, and cannot hold 3"):
        folder.count(3)


def test_what_is_not_ours(folder: Folder) -> None:
    """A file, or files of somebody else."""
    folder.path.mkdir()
    (folder.path / "notes").write_text("mine")
    with pytest.raises(StoreForeign, match="notes"):
        folder.count(3)
    with pytest.raises(StoreForeign, match="not a directory"):
        Folder(folder.path / "notes").count(3)
    with pytest.raises(StoreError, match="Not a directory"):
        Folder(folder.path / "notes" / "below").lock()


def test_what_it_remembers_is_damaged(folder: Folder) -> None:
    """That is said, and nothing is guessed."""
    _three(folder)
    (folder.path / "nodes.json").write_text("{")
    with pytest.raises(StoreError, match=r"nodes\.json is damaged"):
        folder.count(None)


def test_only_one_at_a_time(folder: Folder) -> None:
    """A second command on the same folder is refused."""
    folder.lock()
    with pytest.raises(StoreInUse):
        Folder(folder.path).lock()


def test_a_node_is_made_when_its_store_is(folder: Folder) -> None:
    """A node that had asked to join, and was not taken in, may ask as another one."""
    directory = folder.directory(2)
    directory.mkdir(parents=True)
    (directory / ".joining").write_text("01020304")
    assert not folder.is_made(2)
    folder.forget_joining(2)
    folder.forget_joining(3)
    assert [] == list(directory.iterdir())
