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
    """The body and the headers of a WSGI request (PEP 3333)."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = environ["CONTENT_TYPE"]
    length = environ.get("CONTENT_LENGTH") or ""
    if not (length.isascii() and length.isdecimal()):
        # PEP 3333 knows no body whose length is not told, and reading one could wait for ever.
        raise WebhookError("The request does not tell the length of its body.")
    if len(length) > 15 or int(length) > body_bytes_max:
        raise WebhookTooLarge
    body = b""
    while len(body) < int(length):
        part = environ["wsgi.input"].read(int(length) - len(body))
        if not part:
            raise WebhookError("The body ended early.")
        body += part
    return body, headers


async def read_asgi(
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    *,
    body_bytes_max: int = limits.RECEIVED_BODY_BYTES_MAX,
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an ASGI 3 request of type `http`."""
    headers = _joined(scope["headers"])
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise WebhookError("The body ended early.")
        part = message.get("body", b"")
        length += len(part)
        if length > body_bytes_max:
            raise WebhookTooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts), headers


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
