"""Foul weather between nodes, on kernels that have no netem: packets go through a program of ours.

Packets from one node's address to another's are routed into a TUN device instead of to loopback.
`switch` reads them there and gives them back to the same device, as if they came from outside.
Clients and recipients are at 127.0.0.1, so they have fair weather.
"""

import fcntl
import json
import os
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.cluster.switch import Seen, Sky

_DEVICE: Final = "weather"
_NODES: Final = "127.0.1.0/24"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000

_PERMIT: Final = {
    f"{_DEVICE}/route_localnet": 1,
    f"{_DEVICE}/accept_local": 1,
    f"{_DEVICE}/rp_filter": 0,
    "all/rp_filter": 0,
}
"""Loopback addresses, and our own as the sender, are refused from devices unless told otherwise."""

_ROUTES: Final = f"""
link set {_DEVICE} mtu 1500 up
rule add pref 100 lookup local
rule del pref 0
rule add pref 10 iif lo from {_NODES} to {_NODES} lookup 77
route add default dev {_DEVICE} table 77
"""


class Weather:
    """While it is entered, packets between nodes go through the switch; at first nothing is done.

    Enter it in a network namespace of one's own, for it turns the routes of all. Needs root and
    /dev/net/tun: mark its tests with `root("namespace", "tun")`.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._switch: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Make the device and start the switch. Both end with the switch's standard input."""
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(device, _TUNSETIFF, request)
            for setting, value in _PERMIT.items():
                Path("/proc/sys/net/ipv4/conf", setting).write_text(str(value))
            subprocess.run(["ip", "-batch", "-"], input=_ROUTES, text=True, check=True)
            self._switch = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.switch", str(device), str(self._seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[device],
            )
        finally:
            os.close(device)
        self.become(Sky())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the switch, and with it the device and all packets on their way."""
        assert self._switch is not None
        with self._switch as switch:
            switch.kill()

    def become(self, sky: Sky) -> Seen:
        """Change the weather; returns what has become of packets so far."""
        switch = self._switch
        assert switch is not None
        assert switch.stdin is not None
        assert switch.stdout is not None
        switch.stdin.write(json.dumps(asdict(sky)) + "\n")
        switch.stdin.flush()
        return Seen(**json.loads(switch.stdout.readline()))
