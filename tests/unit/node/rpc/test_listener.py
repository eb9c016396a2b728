"""Where others connect: the port is known before anybody can, and an address that is taken."""

import socket

import pytest

from node.rpc.listener import bind, bound_address, shown
from timemachine.errors import TimeMachineError


def test_the_port_is_known_before_anybody_connects() -> None:
    """A node tells it to those it joins."""
    with bind("127.0.0.1", 0) as listening:
        host, port = bound_address(listening)
        assert ("127.0.0.1", True) == (host, port > 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))


def test_an_address_that_is_taken() -> None:
    """The setting is named, and the reason is the system's."""
    with bind("127.0.0.1", 0) as listening:
        listening.listen()
        with pytest.raises(TimeMachineError, match=r"rpc: .*127\.0\.0\.1.*in use") as caught:
            bind(*bound_address(listening))
        assert "cannot_listen" == caught.value.specific_code
    with pytest.raises(TimeMachineError, match="rpc: "):
        bind("no such host.invalid", 0)
    with pytest.raises(TimeMachineError, match="rpc: "):
        bind("192.0.2.1", 0)


def test_shown() -> None:
    """As it is configured."""
    assert ("127.0.0.1:1", "[::1]:1") == (shown("127.0.0.1", 1), shown("::1", 1))
