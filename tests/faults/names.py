"""A name server on loopback that misbehaves on purpose, and what is asked of it.

As a program it asks itself whether names resolve, through the system's resolver, and sends a
webhook to each:

    python -m tests.faults.names PORT

That needs the namespace of mounts of a process of its own, for `/etc/resolv.conf` has to name the
server; `in_own_names` makes one.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

ADDRESS: Final = "127.0.53.53"
"""Where the server listens, on port 53: resolv.conf names no ports."""

_A, _CNAME, _AAAA = 1, 5, 28
_SERVFAIL, _NXDOMAIN = 2, 3
_QUESTION_AT: Final = b"\xc0\x0c"
"""A pointer to the name in the question."""


class Reply(NamedTuple):
    """What is answered to one question: a code, and addresses behind an alias or none.

    `silent` is no answer at all.
    """

    code: int = 0
    addresses: tuple[str, ...] = ()
    alias: str | None = None
    silent: bool = False


NAMES: Final[dict[str, tuple[Reply, ...]]] = {
    "unknown.test": (Reply(_NXDOMAIN),),
    "failing.test": (Reply(_SERVFAIL),),
    "empty.test": (Reply(),),
    "silent.test": (Reply(silent=True),),
    "right.test": (Reply(addresses=("127.0.0.1",)),),
    # Public when it is looked at for the first time, and inside from then on.
    "rebinding.test": (Reply(addresses=("255.255.255.255",)), Reply(addresses=("127.0.0.9",))),
    "mixed.test": (Reply(addresses=("10.0.0.1", "169.254.169.254", "127.0.0.1", "::1")),),
    "inner.test": (Reply(addresses=("10.0.0.1", "169.254.169.254", "::1", "fe80::1")),),
    "alias.test": (Reply(alias="localhost", addresses=("127.0.0.9",)),),
}
"""What the server answers, in turn; the last reply repeats. Other names do not exist."""


class NameServer:
    """Answers for NAMES over UDP at ADDRESS, in a thread of this process. A context manager.

    asked  the names that were asked for, one for each question
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._turns: dict[tuple[str, int], int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (ADDRESS, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, address = self._socket.recvfrom(4096)
            if not query:
                return
            answer = self._answer(query)
            if answer is not None:
                self._socket.sendto(answer, address)

    def _answer(self, query: bytes) -> bytes | None:
        """RFC 1035, 4.1: the question is repeated, the answers point to its name."""
        labels, place = [], 12
        while query[place]:
            labels.append(query[place + 1 : place + 1 + query[place]].decode("ascii"))
            place += 1 + query[place]
        question = query[12 : place + 5]
        (kind,) = struct.unpack_from(">H", query, place + 1)
        name = ".".join(labels).lower()
        self.asked.append(name)
        replies = NAMES.get(name, (Reply(_NXDOMAIN),))
        turn = self._turns.get((name, kind), 0)
        self._turns[name, kind] = turn + 1
        reply = replies[min(turn, len(replies) - 1)]
        if reply.silent:
            return None
        records, owner = [], _QUESTION_AT
        if reply.alias is not None:
            target = b"".join(
                bytes((len(label),)) + label.encode() for label in reply.alias.split(".")
            )
            records.append(_record(owner, _CNAME, target + b"\0"))
            owner = target + b"\0"
        family = {_A: socket.AF_INET, _AAAA: socket.AF_INET6}.get(kind, 0)
        records += [
            _record(owner, kind, socket.inet_pton(family, each))
            for each in reply.addresses
            if family == (socket.AF_INET6 if ":" in each else socket.AF_INET)
        ]
        head = query[:2] + struct.pack(">HHHHH", 0x8580 | reply.code, 1, len(records), 0, 0)
        return head + question + b"".join(records)


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, 0, len(data)) + data


def in_own_names(directory: Path, port: int) -> dict[str, list[dict[str, Any]]]:
    """Run this module as a program where the server is the only source of names. Needs root.

    Returns how two webhooks to each name ended, to this port.
    """
    files = {
        "resolv.conf": f"nameserver {ADDRESS}\noptions timeout:1 attempts:1\n",
        "hosts": "127.0.0.1 localhost\n",
        "nsswitch.conf": "hosts: files dns\n",
    }
    lines = ["set -e"]
    for name, text in files.items():
        (directory / name).write_text(text)
        # What a machine does not have is as the resolver takes it by itself.
        lines.append(f"if [ -e /etc/{name} ]; then mount --bind {directory / name} /etc/{name}; fi")
    script = "\n".join([*lines, 'exec "$@"'])
    program = [sys.executable, "-m", "tests.faults.names", str(port)]
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    outcomes: dict[str, list[dict[str, Any]]] = json.loads(found.stdout)
    return outcomes


async def _send_to_all(port: int) -> dict[str, list[dict[str, Any]]]:
    from tests.integration.sender.harness import Lab  # noqa: PLC0415 - only for the program
    from timemachine.addresses import AddressPolicy  # noqa: PLC0415

    lab = Lab()
    # The one public address here cannot be routed to; of loopback only one address is allowed.
    policy = AddressPolicy(("127.0.0.1/32", "255.255.255.255/32"))
    found: dict[str, list[dict[str, Any]]] = {}
    for name in NAMES:
        found[name] = []
        # A sender of its own for each: what a name meant is remembered for a moment.
        for _ in range(2):
            sender = lab.sender(policy, phase_timeout_s=0.5 if "silent" in name else 20.0)
            outcome = await lab.send(f"http://{name}:{port}/", sender)
            found[name].append(
                {
                    "status": outcome.status,
                    "code": outcome.error_code,
                    "phase": outcome.error_phase,
                    "message": outcome.error_message,
                    "bytes_sent": outcome.bytes_sent,
                    "remote_ip": outcome.remote_ip,
                }
            )
    await lab.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_send_to_all(int(sys.argv[1])))))
