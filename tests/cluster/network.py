"""A network of one test's own, in which packets between nodes can be dropped.

All nodes live on the loopback interface of one network namespace, each at an address of its own:
127.0.1.1 and so on. They dial each other from there, so a cut names two addresses. Clients and
recipients use 127.0.0.1 and are never cut off.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1

_RULES: Final = """
table ip faults {
    set cut { type ipv4_addr . ipv4_addr; }
    set loss { type ipv4_addr . ipv4_addr; }
    chain arriving {
        type filter hook input priority 0; policy accept;
        ip saddr . ip daddr @cut counter drop
        ip saddr . ip daddr @loss numgen random mod 100 < 20 counter drop
    }
}
"""

Pair = tuple[int, int]


def host(number: int) -> str:
    """The address of a node."""
    return f"127.0.1.{number}"


class OwnNetwork:
    """While it is entered, this thread and all that it starts are in a namespace of their own.

    It has no name and ends with the last process in it. Needs root and nft: mark its tests with
    `root("namespace")`.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._before = -1

    def __enter__(self) -> Self:
        """Make it, with a loopback interface and no cuts."""
        self._before = os.open(_own_namespace(), os.O_RDONLY | os.O_CLOEXEC)
        self._check(self._libc.unshare(_CLONE_NEWNET))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sH14x", b"lo", _IFF_UP)
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
        self._nft(_RULES)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Go back to where this thread was."""
        self._check(self._libc.setns(self._before, _CLONE_NEWNET))
        os.close(self._before)

    def cut(self, pairs: Iterable[Pair]) -> None:
        """Drop what the first of each pair sends to the second from now on."""
        self._add("cut", pairs)

    def lose(self, pairs: Iterable[Pair]) -> None:
        """Drop a fifth of what the first of each pair sends to the second."""
        self._add("loss", pairs)

    def mend(self, pairs: Iterable[Pair]) -> None:
        """Undo the cuts of these pairs."""
        self._nft(f"delete element ip faults cut {{ {_elements(pairs)} }}")

    def heal(self) -> None:
        """Undo all cuts and losses."""
        self._nft("flush set ip faults cut\nflush set ip faults loss")

    def _add(self, name: str, pairs: Iterable[Pair]) -> None:
        self._nft(f"add element ip faults {name} {{ {_elements(pairs)} }}")

    def _nft(self, commands: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True)

    def _check(self, result: int) -> None:
        if result:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _own_namespace() -> Path:
    return Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")


def _elements(pairs: Iterable[Pair]) -> str:
    return ", ".join(f"{host(one)} . {host(other)}" for one, other in pairs)


def between(some: Iterable[int], others: Iterable[int]) -> list[Pair]:
    """Both ways between each of some nodes and each of others."""
    others = list(others)
    ways = [(one, other) for one in some for other in others]
    return ways + [(other, one) for one, other in ways]


def among(nodes: Iterable[int]) -> list[Pair]:
    """Both ways between all of these nodes."""
    return list(permutations(nodes, 2))
