"""Why a request got no response, in words that may be shown to whoever owns the route.

Sentences come from this file and name the configured host at most: never an errno, an address
that a name resolved to, or the text of a library.
"""

import errno
import ssl
from typing import Final

_SENTENCES: Final = {
    "dns_error": "The name {host} could not be resolved.",
    "connection_refused": "{host} refused the connection.",
    "connection_reset": "{host} closed the connection without an answer.",
    "network_unreachable": "{host} cannot be reached.",
    "timeout": "{host} did not answer in time.",
    "tls_error": "The TLS handshake with {host} failed.",
    "network_error": "The connection to {host} failed.",
    "blocked_address": "{host} has no address that may be connected to.",
    "protocol_error": "{host} did not answer in HTTP/1.1.",
    "proxy_error": "The egress proxy of this node could not be reached.",
    "shutdown": "This node stopped before {host} answered.",
    "lease_lost": "This node might not send to {host} any more: another one may lead the job.",
}
_TIMEOUT_SENTENCES: Final = {
    None: "This node had no connection to {host} free in time.",
    "resolve": "The name {host} was not resolved in time.",
    "connect": "{host} did not accept the connection in time.",
    "tls": "{host} did not finish the TLS handshake in time.",
    "send": "{host} did not take the whole request in time.",
}

PORT_BLOCKED: Final = "Webhooks may not go to the port of {host} that the URL names."
PROXY_REFUSED: Final = "The egress proxy lets no request go to {host}."
PROXY_UNREACHED: Final = "The egress proxy could not reach {host}."
PROXY_UNUSABLE: Final = "The egress proxy of this node opens no tunnels."
QUEUE_FULL: Final = "This node has too many requests waiting for a connection."
CERTIFICATE_EXPIRED: Final = "The certificate of {host} has expired."
CERTIFICATE_NOT_YET_VALID: Final = "The certificate of {host} is not valid yet."
CERTIFICATE_OTHER_NAME: Final = "The certificate of {host} is for another name."
CERTIFICATE_UNTRUSTED: Final = "The certificate of {host} is not signed by a trusted authority."
CLIENT_CERTIFICATE_REFUSED: Final = "{host} refused the client certificate, or asks for one."
CLIENT_CERTIFICATE_EXPIRED: Final = "The client certificate for {host} has expired."
CERTIFICATES_UNUSABLE: Final = "The certificates configured for {host} cannot be used."

# OpenSSL's X509_V_ERR_* (x509_vfy.h), for which the ssl module has no names.
_CERTIFICATE_SENTENCES: Final = {
    9: CERTIFICATE_NOT_YET_VALID,
    10: CERTIFICATE_EXPIRED,
    18: CERTIFICATE_UNTRUSTED,  # self-signed
    19: CERTIFICATE_UNTRUSTED,  # self-signed, in the chain
    20: CERTIFICATE_UNTRUSTED,  # the issuer is unknown
    21: CERTIFICATE_UNTRUSTED,  # the first certificate cannot be verified
    62: CERTIFICATE_OTHER_NAME,  # host name
    64: CERTIFICATE_OTHER_NAME,  # address
}
# How servers say that they want a certificate, or another one.
_CLIENT_CERTIFICATE_ALERTS: Final = (
    "CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_ACCESS_DENIED",
)
_UNREACHABLE: Final = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,  # what a blackhole route answers
    }
)
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Failure(Exception):
    """A request has failed: the code, the phase, and a sentence in place of the usual one."""

    def __init__(
        self,
        code: str,
        phase: str | None,
        sentence: str | None = None,
        *,
        remote_ip: str | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.phase = phase
        self.sentence = sentence
        self.remote_ip = remote_ip

    def message(self, host: str) -> str:
        """What happened, as one sentence about the configured host."""
        sentence = self.sentence
        if sentence is None and self.code == "timeout":
            sentence = _TIMEOUT_SENTENCES.get(self.phase)
        return (sentence or _SENTENCES[self.code]).format(host=host)


class NoDescriptors(Exception):
    """The process may open no more files now: a matter of this node, not of the recipient."""


def of_connecting(error: OSError, remote_ip: str | None) -> Failure:
    """Why a TCP connection could not be made. Raises NoDescriptors when that is our own doing."""
    if error.errno in _NO_DESCRIPTORS:
        raise NoDescriptors from None
    if isinstance(error, TimeoutError):
        code = "timeout"
    elif isinstance(error, ConnectionRefusedError):
        code = "connection_refused"
    elif isinstance(error, ConnectionError):
        code = "connection_reset"
    elif error.errno in _UNREACHABLE:
        code = "network_unreachable"
    else:
        code = "network_error"
    return Failure(code, "connect", remote_ip=remote_ip)


def of_tls(error: Exception, remote_ip: str | None) -> Failure:
    """Why there is no TLS connection."""
    sentence = None
    if isinstance(error, ssl.SSLCertVerificationError):
        sentence = _CERTIFICATE_SENTENCES.get(error.verify_code)
    elif isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""  # unset when made by hand
        if any(alert in reason for alert in _CLIENT_CERTIFICATE_ALERTS):
            sentence = CLIENT_CERTIFICATE_REFUSED
    elif isinstance(error, TimeoutError):
        return Failure("timeout", "tls", remote_ip=remote_ip)
    return Failure("tls_error", "tls", sentence, remote_ip=remote_ip)


def of_losing(error: Exception | None, remote_ip: str | None) -> Failure:
    """Why a connection ended before the head of a response."""
    if isinstance(error, ssl.SSLError):
        return of_tls(error, remote_ip)
    if isinstance(error, BrokenPipeError):
        return Failure("connection_reset", "send", remote_ip=remote_ip)
    if error is None or isinstance(error, ConnectionError):
        return Failure("connection_reset", "headers", remote_ip=remote_ip)
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return Failure("network_unreachable", "headers", remote_ip=remote_ip)
    if isinstance(error, TimeoutError):
        return Failure("timeout", "headers", remote_ip=remote_ip)
    return Failure("network_error", "headers", remote_ip=remote_ip)
