"""TLS as a route wants it."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cryptography import x509

from timemachine.outbound import TlsOptions


class TlsContext(NamedTuple):
    """What connections of one TLS identity are made with.

    `client_expires_ms` is the wall clock time after which the client certificate is of no use.
    """

    context: ssl.SSLContext
    client_expires_ms: int | None


def make_context(options: TlsOptions | None, ca_pem: str | None = None) -> ssl.SSLContext:
    """TLS as a route wants it: verified, 1.2 or newer, with its own authorities and certificate.

    `ca_pem` are authorities that this node trusts for all routes, beside the system's. Loading the
    system's takes about 20 ms. Raises ssl.SSLError, ValueError or OSError for PEM that cannot be
    used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for pem in (ca_pem, None if options is None else options.ca_pem):
        if pem is None:
            continue
        if not pem.isascii():
            # The ssl module would raise TypeError.
            raise ValueError("PEM is ASCII.")
        context.load_verify_locations(cadata=pem)
    if options is None:
        return context
    if options.client_cert_pem is not None and options.client_key_pem is not None:
        # The ssl module reads certificates from files only; keys have no place on any disk.
        with (
            memory_file(options.client_cert_pem) as certificate,
            memory_file(options.client_key_pem) as key,
        ):
            # A key with a passphrase would ask for it on the terminal.
            context.load_cert_chain(certificate, key, password="")
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def make_tls(options: TlsOptions | None, ca_pem: str | None = None) -> TlsContext:
    """A context and the end of its client certificate. Raises what `make_context` raises."""
    context = make_context(options, ca_pem)
    expires_ms = None
    if options is not None and options.client_cert_pem is not None:
        certificate = x509.load_pem_x509_certificate(options.client_cert_pem.encode())
        expires_ms = int(certificate.not_valid_after_utc.timestamp()) * 1000
    return TlsContext(context, expires_ms)


@contextmanager
def memory_file(text: str) -> Iterator[str]:
    """A path under which `text` can be read, in memory only."""
    handle = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(handle, text.encode())
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
