"""TCP to another node: from which address, and what is told when it fails."""

import asyncio
import socket
import ssl

import pytest

from node.rpc.dial import _fits, dial, sentence, source_address


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("127.0.1.2", "127.0.1.2"),
        ("::1", "::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("0.0.0.0", None),
        ("::", None),
        ("node1.example", None),
    ],
)
def test_source(host: str, source: str | None) -> None:
    """Where a node listens at one address, it dials from there."""
    assert source == source_address(host)


def test_a_source_that_cannot_reach_the_target_is_not_used() -> None:
    """The system knows better then."""
    assert _fits("127.0.1.2", "127.0.0.1")
    assert _fits("10.0.0.1", "192.0.2.1")
    assert _fits("fe80::1", "fe80::2%eth0")
    assert not _fits("127.0.0.1", "10.0.0.1")
    assert not _fits("10.0.0.1", "127.0.0.1")
    assert not _fits("127.0.0.1", "::1")


async def test_the_other_side_sees_the_source() -> None:
    """So rules for firewalls, and tests that cut links, can go by it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stream = await dial(loop, "127.0.0.1", listening.getsockname()[1], "127.0.5.7")
        with stream:
            accepted, (host, _) = listening.accept()
            with accepted:
                assert "127.0.5.7" == host
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert 3_000 == stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_nobody_there() -> None:
    """The reason is the system's."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as caught:
        await dial(loop, "127.0.0.1", port, None)
    assert sentence(caught.value).startswith("Connect")
    with pytest.raises(OSError):
        await dial(loop, "no such host.invalid", port, None)


def test_sentences() -> None:
    """There is always one."""
    assert "no answer in time" == sentence(TimeoutError())
    assert "unknown" == sentence(OSError())
    assert "what" == sentence(ValueError("what"))
    refused = ssl.SSLCertVerificationError()
    refused.verify_message = "expired"
    assert "its certificate is refused: expired" == sentence(refused)
