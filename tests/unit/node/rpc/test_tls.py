"""Mutual TLS: who has no certificate of the cluster's authority neither talks nor listens."""

import socket
import ssl
from pathlib import Path

import pytest
import trustme

from node.rpc.joindesk import JoinDesk
from node.rpc.joining import join
from node.rpc.tls import MutualTls
from tests.unit.node.rpc.nodes import all_connected, nodes, until
from tests.unit.node.rpc.test_joining import JOINED, KEY, REQUEST, world
from timemachine.errors import ConfigError, Unavailable

AUTHORITY = trustme.CA()
OTHER = trustme.CA()


def files(
    folder: Path, authority: trustme.CA = AUTHORITY, *trusted: trustme.CA
) -> tuple[str, str, str]:
    """Chain, key and authorities. The name in the certificate is nobody's."""
    issued = authority.issue_cert("nobody.example")
    paths = [folder / name for name in ("chain.pem", "key.pem", "ca.pem")]
    paths[0].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    paths[1].write_bytes(issued.private_key_pem.bytes())
    paths[2].write_bytes(b"".join(each.cert_pem.bytes() for each in trusted or (authority,)))
    return str(paths[0]), str(paths[1]), str(paths[2])


async def test_frames_over_tls(tmp_path: Path) -> None:
    """Small and large ones, in order."""
    tls = MutualTls(*files(tmp_path))
    async with nodes(2, tls=tls) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        sent = [b"small", bytes(3_000_000), b"small"]
        for frame in sent:
            one.rpc.send(2, frame)
        one.rpc.send(2, bytes(1_000_000), bulk=True)
        await until(lambda: len(two.taken) == 4)
        assert [(1, frame) for frame in sent] == two.taken[:3]


@pytest.mark.parametrize("stranger", ["other authority", "no TLS"])
async def test_who_has_no_certificate(stranger: str, tmp_path: Path) -> None:
    """No frame goes to it, and none comes from it."""
    (tmp_path / "other").mkdir()
    tls = MutualTls(*files(tmp_path))
    other = MutualTls(*files(tmp_path / "other", OTHER, OTHER, AUTHORITY))
    async with nodes(2, start=False, tls=tls) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        two.options["tls"] = other if stranger == "other authority" else None
        two.listening.close()
        two.begin()
        cluster.places[2] = two.address
        await one.start()
        await two.start()
        await until(
            lambda: (
                one.rpc.statistics()["links"][2].failure
                and two.rpc.statistics()["links"][1].failure
            )
        )
        assert not one.rpc.connected(2)
        assert not two.rpc.connected(1)
        assert not one.rpc.statistics()["received"]


async def test_silent_handshakes(tmp_path: Path) -> None:
    """They do not keep nodes from connecting."""
    tls = MutualTls(*files(tmp_path))
    async with nodes(2, start=False, tls=tls) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        await one.start()
        silent = [socket.create_connection(one.address) for _ in range(20)]
        await two.start()
        await until(lambda: all_connected(cluster))
        for each in silent:
            each.close()


async def test_the_authority_is_changed(tmp_path: Path) -> None:
    """In three steps, without an end to the connections that are there."""
    tls = MutualTls(*files(tmp_path))
    async with nodes(2, tls=tls) as cluster:
        one, two = cluster.members[1], cluster.members[2]
        for authority, trusted in (
            (AUTHORITY, (AUTHORITY, OTHER)),
            (OTHER, (AUTHORITY, OTHER)),
            (OTHER, (OTHER,)),
        ):
            files(tmp_path, authority, *trusted)
            one.rpc.reload()
            two.rpc.reload()
            assert all_connected(cluster)
            await two.restart()
            await until(lambda: all_connected(cluster))


async def test_joining_over_tls(tmp_path: Path) -> None:
    """A joiner has a certificate before it has a number; without one it is not heard."""
    tls = MutualTls(*files(tmp_path))
    desk = JoinDesk(world(), {"t": KEY}.get, lambda _, answer: answer(JOINED))
    async with nodes(1, tls=tls, desk=desk) as cluster:
        place = [cluster.members[1].address]
        assert JOINED == await join(world(), place, REQUEST, KEY, tls=tls.client)
        with pytest.raises(Unavailable):
            await join(world(), place, REQUEST, KEY, timeout_ms=100)
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname = False
        bare.verify_mode = ssl.CERT_NONE
        with pytest.raises(Unavailable):
            await join(world(), place, REQUEST, KEY, tls=bare, timeout_ms=100)


def test_nothing_older_than_tls_1_3(tmp_path: Path) -> None:
    """Both ends are ours."""
    tls = MutualTls(*files(tmp_path))
    for context in (tls.server, tls.client):
        assert ssl.TLSVersion.TLSv1_3 == context.minimum_version
        assert ssl.CERT_REQUIRED == context.verify_mode


def test_what_is_refused(tmp_path: Path) -> None:
    """The setting at fault is named; what was in force stays."""
    chain, key, authority = files(tmp_path)
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("")
    binary.write_bytes(b"\xff\x00")
    for given, setting in (
        ((chain, key, str(empty)), "rpc_tls_ca: .* no certificate"),
        ((chain, key, key), "rpc_tls_ca: .* no certificate"),
        ((chain, key, str(binary)), "rpc_tls_ca: .* no PEM"),
        ((str(empty), key, authority), "rpc_tls_cert: "),
        ((key, key, authority), "rpc_tls_cert: "),
        ((chain, chain, authority), "rpc_tls_key: "),
        ((chain, str(tmp_path / "none"), authority), "rpc_tls_key: .* cannot be read"),
    ):
        with pytest.raises(ConfigError, match=f"^{setting}") as caught:
            MutualTls(*given)
        assert "PRIVATE" not in caught.value.detail
    tls = MutualTls(chain, key, authority)
    before = (tls.server, tls.client)
    Path(key).write_text("")
    with pytest.raises(ConfigError):
        tls.reload()
    assert before == (tls.server, tls.client)
