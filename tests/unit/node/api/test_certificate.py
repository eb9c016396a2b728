"""The certificate of the API: what is refused with which words, and what a bad reload leaves."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from node.api.certificate import Certificate
from timemachine.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A chain and its key."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return chain, key


def _with_passphrase(key: Path) -> bytes:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_tls_1_2_is_the_least(files: tuple[Path, Path]) -> None:
    """Nothing older is spoken, whatever the system's defaults are."""
    context = Certificate(*map(str, files)).context
    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version


def test_what_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The setting at fault is named; nothing of a key is."""
    chain, key = files
    other, sealed, empty = tmp_path / "other.pem", tmp_path / "sealed.pem", tmp_path / "empty"
    other.write_bytes(trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes())
    sealed.write_bytes(_with_passphrase(key))
    empty.write_text("")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\x00")
    for given, setting in (
        ((empty, key), "http_tls_cert: "),
        ((key, key), "http_tls_cert: "),
        ((tmp_path / "none", key), "http_tls_cert: .* cannot be read"),
        ((binary, key), "http_tls_cert: "),
        ((chain, chain), "http_tls_key: "),
        ((chain, empty), "http_tls_key: "),
        ((chain, other), "http_tls_key: "),
        ((chain, sealed), "http_tls_key: "),
        ((chain, tmp_path), "http_tls_key: .* cannot be read"),
    ):
        with pytest.raises(ConfigError, match=f"^{setting}") as caught:
            Certificate(*map(str, given))
        assert "PRIVATE" not in caught.value.detail


def test_a_bad_reload_changes_nothing(files: tuple[Path, Path]) -> None:
    """A certificate without its key leaves both as they were, not half of each."""
    chain, key = files
    certificate = Certificate(str(chain), str(key))
    before = chain.read_bytes()
    issued = trustme.CA().issue_cert("127.0.0.1")
    chain.write_bytes(issued.cert_chain_pems[0].bytes())
    with pytest.raises(ConfigError):
        certificate.reload()
    shown = _shown(certificate.context)
    assert ssl.PEM_cert_to_DER_cert(before.decode()) == shown
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.reload()
    assert ssl.PEM_cert_to_DER_cert(chain.read_text()) == _shown(certificate.context)


def _shown(context: ssl.SSLContext) -> bytes | None:
    """The certificate that a client is shown in a handshake with this context."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    client = trust.wrap_bio(to_client, to_server)
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True)
