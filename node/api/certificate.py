"""The certificate that the API speaks HTTPS with."""

import ssl
from pathlib import Path

from node.sender.tls import memory_file
from timemachine.errors import ConfigError


class Certificate:
    """A chain and its key, from two files in PEM, in a context for connections.

    Raises ConfigError for what cannot be used.
    """

    def __init__(self, chain: str, key: str) -> None:
        self._chain = chain
        self._key = key
        self.context = _empty_context()
        self.reload()

    def reload(self) -> None:
        """Read the files again; connections from now on get what they hold.

        What was in force stays so when this raises ConfigError.
        """
        chain = _read("http_tls_cert", self._chain)
        key = _read("http_tls_key", self._key)
        # First in a context of its own: one that a key was refused by is left with half of both.
        for context in (_empty_context(), self.context):
            # What was read, and not the files again: they may be changing.
            with memory_file(chain) as chain_path, memory_file(key) as key_path:
                try:
                    # A key with a passphrase would ask for it on the terminal.
                    context.load_cert_chain(chain_path, key_path, password="")
                except (ssl.SSLError, ValueError, OSError):
                    raise ConfigError(self._what_is_wrong(chain)) from None

    def _what_is_wrong(self, chain: str) -> str:
        try:
            with memory_file(chain) as path:
                _empty_context().load_verify_locations(path)
        except (ssl.SSLError, OSError):
            return f"http_tls_cert: {self._chain} holds no certificate in PEM."
        return (
            f"http_tls_key: {self._key} holds no key in PEM without a passphrase, or not the one"
            f" of the first certificate in {self._chain}."
        )


def _empty_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(setting: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} is no PEM.") from None
