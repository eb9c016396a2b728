"""Ports that webhooks may go to, and those that an operator has to open."""

import re

import pytest

from tests.unit.project import ROOT
from timemachine.addresses import AddressPolicy
from timemachine.ports import REFUSED_PORTS, explain, permits


@pytest.mark.parametrize("port", [80, 443, 1024, 3000, 4000, 5000, 8000, 8080, 8443, 9000, 65_535])
def test_open(port: int) -> None:
    """Those of http and https, and what web servers otherwise listen on."""
    assert permits(port, ())
    assert AddressPolicy().permits("8.8.8.8", port)


@pytest.mark.parametrize(
    "port", [1, 22, 23, 25, 53, 79, 81, 111, 389, 442, 444, 465, 587, 993, 1023]
)
def test_other_protocols(port: int) -> None:
    """Below 1024 only http and https have ports that are open."""
    assert not permits(port, ())
    assert not AddressPolicy(("0.0.0.0/0",)).permits("8.8.8.8", port)


@pytest.mark.parametrize("port", sorted(REFUSED_PORTS))
def test_stores_and_machines(port: int) -> None:
    """What is refused by name is refused at public addresses and at ranges that are allowed.

    The operator opens it with the number that the sentence names.
    """
    policy = AddressPolicy(("10.0.0.0/8",))
    assert not policy.permits("8.8.8.8", port)
    assert not policy.permits("10.0.0.1", port)
    sentence = policy.explain("10.0.0.1", port)
    assert explain(port) == sentence
    assert f"add {port} to allowed_ports" in sentence
    opened = AddressPolicy(("10.0.0.0/8",), allowed_ports=[port])
    assert opened.permits("10.0.0.1", port)
    assert not opened.permits("127.0.0.1", port)


def test_no_port_that_clients_get_is_refused() -> None:
    """A recipient that listens where the system chose is reached."""
    assert max(REFUSED_PORTS) < 32_768
    assert min(REFUSED_PORTS) >= 1024


def test_own_ports_stay_refused() -> None:
    """What the operator opens does not open the node's own listeners."""
    policy = AddressPolicy(("127.0.0.0/8",), {("127.0.0.1", 81)}, allowed_ports=[81])
    assert not policy.permits("127.0.0.1", 81)
    assert policy.permits("127.0.0.2", 81)


def test_the_page_names_them_all() -> None:
    """Who reads where webhooks may go finds each port that is refused."""
    page = (ROOT / "docs/semantics.md").read_text().partition("## Where webhooks may go")[2]
    listed = page.partition("browsers refuse:")[2].partition(".\n")[0]
    named: set[int] = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", listed):
        named.update(range(int(first), int(last or first) + 1))
    assert REFUSED_PORTS == named
