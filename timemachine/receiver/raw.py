"""The raw body and the headers of a request, before any framework has parsed it.

For WSGI and ASGI applications without a framework, and for middleware:

    body, headers = read_wsgi(environ)
    body, headers = await read_asgi(scope, receive)
    event = webhook.verify(body, headers)
    webhook_id = headers["webhook-id"]

Header names are in lower case. A header that came twice has both values, joined by a comma as in
RFC 9110, 5.3; a webhook's header that came twice therefore does not verify.

Both raise WebhookTooLarge before the body is held, and WebhookError when it did not come as a
whole.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from timemachine import limits
from timemachine.errors import WebhookError, WebhookTooLarge


def read_wsgi(
    environ: Mapping[str, Any], *, body_bytes_max: int = limits.RECEIVED_BODY_BYTES_MAX
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a WSGI request (PEP 3333).

    A body whose length is not told, as one in chunks, is read where the server ends it by itself
    and says so with `wsgi.input_terminated`.
    """
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    length = environ.get("CONTENT_LENGTH") or ""
    if not length and environ.get("wsgi.input_terminated"):
        # The server tells where the body ends, as it does with one that comes in chunks.
        return _read(environ["wsgi.input"], body_bytes_max + 1, body_bytes_max), headers
    if not (length.isascii() and length.isdecimal()):
        # PEP 3333 knows no body whose length is not told, and reading one could wait for ever.
        raise WebhookError("The request does not tell the length of its body.")
    if len(length) > 15 or int(length) > body_bytes_max:
        raise WebhookTooLarge
    body = _read(environ["wsgi.input"], int(length), body_bytes_max)
    if len(body) < int(length):
        raise WebhookError("The body ended early.")
    return body, headers


async def read_asgi(
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    *,
    body_bytes_max: int = limits.RECEIVED_BODY_BYTES_MAX,
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an ASGI 3 request of type `http`."""
    headers = _joined(scope["headers"])
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise WebhookError("The body ended early.")
        body += message.get("body", b"")
        if len(body) > body_bytes_max:
            raise WebhookTooLarge
        if not message.get("more_body", False):
            return bytes(body), headers


def _read(stream: Any, length: int, body_bytes_max: int) -> bytes:
    """As many bytes as that, or all until the end; WebhookTooLarge if these are too many."""
    body = bytearray()
    while len(body) < length:
        try:
            part = stream.read(length - len(body))
        except OSError:  # as servers say that the sender is gone, or has sent no proper chunks
            raise WebhookError("The body ended early.") from None
        if not part:
            break
        body += part
    if len(body) > body_bytes_max:
        raise WebhookTooLarge
    return bytes(body)


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
