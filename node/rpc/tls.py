"""Mutual TLS between nodes: each shows a certificate of the cluster's own authority."""

import ssl
from pathlib import Path

from node.sender.tls import memory_file
from timemachine.errors import ConfigError


class MutualTls:
    """Contexts for who is dialled (`server`) and who dials (`client`), from three files in PEM.

    Whoever has a certificate of that authority is taken for a node, at whatever address: so it is
    to be an authority that signs for nothing else. Raises ConfigError for what cannot be used.
    """

    def __init__(self, certificate: str, key: str, authority: str) -> None:
        self._files = {
            "rpc_tls_cert": certificate,
            "rpc_tls_key": key,
            "rpc_tls_ca": authority,
        }
        self.reload()

    def reload(self) -> None:
        """Read the files again, into new contexts.

        What was in force stays so when this raises ConfigError.
        """
        texts = {setting: _read(setting, path) for setting, path in self._files.items()}
        # First both: one without the other would talk to nobody.
        server = self._context(ssl.PROTOCOL_TLS_SERVER, texts)
        client = self._context(ssl.PROTOCOL_TLS_CLIENT, texts)
        self.server, self.client = server, client

    def _context(self, protocol: int, texts: dict[str, str]) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        # Both ends are ours, so there is no reason for anything older.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # A node keeps its identity when its address changes; who it is, the hello says.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=texts["rpc_tls_ca"])
        except (ssl.SSLError, ValueError, TypeError):
            raise self._unusable("rpc_tls_ca", "no certificate in PEM") from None
        # What was read, and not the files again: they may be changing.
        with (
            memory_file(texts["rpc_tls_cert"]) as chain,
            memory_file(texts["rpc_tls_key"]) as key,
        ):
            try:
                ssl.SSLContext(protocol).load_verify_locations(chain)
            except (ssl.SSLError, OSError):
                raise self._unusable("rpc_tls_cert", "no certificate in PEM") from None
            try:
                # A key with a passphrase would ask for it on the terminal.
                context.load_cert_chain(chain, key, password="")
            except (ssl.SSLError, ValueError, OSError):
                raise self._unusable(
                    "rpc_tls_key",
                    "no key in PEM without a passphrase, or not that of the first certificate of"
                    " rpc_tls_cert",
                ) from None
        return context

    def _unusable(self, setting: str, what: str) -> ConfigError:
        return ConfigError(f"{setting}: {self._files[setting]} holds {what}.")


def _read(setting: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} is no PEM.") from None
