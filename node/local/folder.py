"""The folder of a local cluster: a data directory for each node, and where they find each other."""

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from timemachine.errors import ConfigError, StoreError, StoreForeign, StoreInUse
from timemachine.storage.leveldb import is_new

_FILE: Final = "nodes.json"
_STORE: Final = "store"
NODES_MAX: Final = 5


class _Nodes(msgspec.Struct):
    """What is remembered: the RPC address of each node. Others look for it there."""

    rpc: list[str]


class Folder:
    """What a folder of several nodes holds: `node-1` to `node-N`, and `nodes.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def directory(self, number: int) -> Path:
        """The data directory of a node; numbers begin at 1."""
        return self.path / f"node-{number}"

    def is_made(self, number: int) -> bool:
        """Whether a node has begun, or joined, in its directory. Raises StoreError."""
        return not is_new(self.directory(number))

    def count(self, asked: int | None) -> int:
        """How many nodes there are to be: those that were asked for, else those that are there.

        Raises ConfigError where that cannot be, StoreError where the folder is not ours.
        """
        try:
            made = len(self.addresses())
            single = not made and (self.path / _STORE).exists()
            if not made and not single and asked not in (None, 1):
                self._refuse_foreign()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {error.strerror}.") from None
        if single and asked not in (None, 1):
            raise ConfigError(
                f"{self.path} holds the data of one node, and cannot hold {asked}.\n"
                f"Go on with it: timemachine dev --data {self.path}\n"
                f"Or take another folder: timemachine dev --nodes {asked} --data other"
            )
        if asked is not None and asked < made:
            raise ConfigError(
                f"{self.path} holds a cluster of {made} nodes, and {asked} would not be all.\n"
                f"Go on with it: timemachine dev --data {self.path}\n"
                f"Or take another folder: timemachine dev --nodes {asked} --data other"
            )
        return asked or made or 1

    def addresses(self) -> list[str]:
        """The RPC addresses of the nodes, in order; none if there were never several nodes.

        Raises StoreError.
        """
        try:
            data = (self.path / _FILE).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return msgspec.json.decode(data, type=_Nodes).rpc[:NODES_MAX]
        except msgspec.MsgspecError:
            raise StoreError(f"{self.path / _FILE} is damaged.") from None

    def keep(self, addresses: list[str]) -> None:
        """Remember the RPC addresses, before any node is told one. Raises StoreError."""
        if addresses == self.addresses():
            return
        new = self.path / f".{_FILE}"
        try:
            new.write_bytes(msgspec.json.encode(_Nodes(addresses)) + b"\n")
            new.replace(self.path / _FILE)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {error.strerror}.") from None

    def forget_joining(self, number: int) -> None:
        """Let a node that is to join do so under a new id. Raises StoreError."""
        try:
            (self.directory(number) / ".joining").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {error.strerror}.") from None

    def lock(self) -> None:
        """Keep others out for as long as this process lives; makes the folder.

        Raises StoreInUse, StoreError.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreInUse(f"Another process uses {self.path}.") from None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used: {error.strerror}.") from None

    def _refuse_foreign(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise StoreForeign(f"{self.path} is not a directory.")
        foreign = sorted(each.name for each in self.path.iterdir() if each.name[0] != ".")
        if foreign:
            raise StoreForeign(
                f"{self.path} holds files that are not TimeMachine's ({', '.join(foreign[:3])})."
            )
