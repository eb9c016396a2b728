"""Names as the system resolves them, with a name server that misbehaves."""

from pathlib import Path

import pytest

from tests.faults.names import NAMES, NameServer, in_own_names
from tests.faults.receiver import FaultReceiver

_UNKNOWN = [(None, "dns_error", "resolve")]
_BLOCKED = (None, "blocked_address", "resolve")
ENDINGS = {
    "unknown.test": _UNKNOWN * 2,
    "failing.test": _UNKNOWN * 2,
    "empty.test": _UNKNOWN * 2,
    "silent.test": [(None, "timeout", "resolve")] * 2,
    "right.test": [(200, None, None)] * 2,
    "rebinding.test": [(None, "network_unreachable", "connect"), _BLOCKED],
    "mixed.test": [(200, None, None)] * 2,
    "inner.test": [_BLOCKED] * 2,
    "alias.test": [_BLOCKED] * 2,
}
"""By name: status, error code and error phase of a first and a second webhook."""


@pytest.mark.root("mounts")
@pytest.mark.timeout(180)
def test_each_kind_of_name(tmp_path: Path) -> None:
    """R24, R39: a name that does not resolve is a failure of its own, and is asked for again.

    Whatever a name server answers, only addresses are connected to that were judged, and what it
    says of the inside is not told.
    """
    with FaultReceiver(host="0.0.0.0") as receiver, NameServer() as server:
        found = in_own_names(tmp_path, receiver.port)
        requests, connections = len(receiver.requests), receiver.connections
    assert NAMES.keys() == ENDINGS.keys()
    told = {
        name: [(each["status"], each["code"], each["phase"]) for each in outcomes]
        for name, outcomes in found.items()
    }
    assert ENDINGS == told
    assert set(NAMES) <= set(server.asked)
    assert (4, 4) == (requests, connections), "an address was connected to that was not allowed"
    for name, outcomes in found.items():
        for each in outcomes:
            assert each["bytes_sent"] == (each["status"] == 200)
            assert each["remote_ip"] in (None, "127.0.0.1", "255.255.255.255")
            sentence = each["message"] or ""
            assert not any(part in sentence for part in ("10.0", "169.254", "127.0.0.9", "Errno"))
            assert name in sentence or each["status"] == 200
