"""Certificates that fit, and ones that do not, for recipients on loopback."""

import ssl
import warnings
from datetime import UTC, datetime, timedelta

import trustme

from timemachine.outbound import TlsOptions

NAMES = ("127.0.0.1", "::1", "localhost")
KINDS = (
    *("right", "wrong_name", "expired", "not_yet_valid", "self_signed", "needs_client"),
    *("old", "tls_1_0"),
)


class Certificates:
    """An authority, what it signed, and what another one signed."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._other_ca = trustme.CA()

    @property
    def ca_pem(self) -> str:
        """The authority that recipients' certificates are signed by, except `self_signed`."""
        return self._ca.cert_pem.bytes().decode()

    def server(self, kind: str) -> ssl.SSLContext:
        """What a recipient of one of KINDS serves with.

        right         for NAMES, signed by the authority
        wrong_name    for another name
        expired       since yesterday
        not_yet_valid before tomorrow
        self_signed   by an authority that nobody knows
        needs_client  right, and asks for a client certificate of the authority
        old           right, but speaks TLS 1.1 at most
        tls_1_0       right, but speaks TLS 1.0 only
        """
        now = datetime.now(UTC)
        ca = self._other_ca if kind == "self_signed" else self._ca
        names = ("elsewhere.example",) if kind == "wrong_name" else NAMES
        day = timedelta(days=1)
        certificate = ca.issue_cert(
            *names,
            not_before=now + day if kind == "not_yet_valid" else now - 3 * day,
            not_after=now - day if kind == "expired" else now + 3 * day,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        if kind == "needs_client":
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        if kind in ("old", "tls_1_0"):
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version = ssl.TLSVersion.TLSv1
                newest = ssl.TLSVersion.TLSv1_1 if kind == "old" else ssl.TLSVersion.TLSv1
                context.maximum_version = newest
        return context

    def client(
        self, *, known: bool = True, expired: bool = False, lasts: timedelta = timedelta(days=3)
    ) -> TlsOptions:
        """A route's options: trusts the authority, and shows a certificate of it or of another."""
        now = datetime.now(UTC)
        certificate = (self._ca if known else self._other_ca).issue_cert(
            "sender.example",
            not_before=now - timedelta(days=3),
            not_after=now - timedelta(days=1) if expired else now + lasts,
        )
        return TlsOptions(
            ca_pem=self.ca_pem,
            client_cert_pem="".join(pem.bytes().decode() for pem in certificate.cert_chain_pems),
            client_key_pem=certificate.private_key_pem.bytes().decode(),
        )

    def trusting(self) -> TlsOptions:
        """A route's options: trusts the authority."""
        return TlsOptions(ca_pem=self.ca_pem)
