"""Webhooks that are arrays: one signature for all of the items, one id and one mark for each.

    for item in verify_items(webhook, raw_body, headers):
        dedupe.once(item.webhook_id, item.fingerprint, partial(effect, item.event))

A sender repeats a batch as a whole until it is answered with 2xx, and what was in it may come
again in another one, or alone. So each item is done once by its own id; that of the batch, in the
header, tells nothing. Answer 2xx when all items are done; those that were done stay so if a later
one fails.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from timemachine import limits
from timemachine.errors import WebhookPayloadError
from timemachine.receiver.dedupe import fingerprint
from timemachine.receiver.webhook import Headers, Webhook

_DATA: Final = ',"data":'
_SPACE: Final = " \t\r\n"
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Item:
    """One job of a webhook.

    webhook_id   its own: the same alone and in every batch
    fingerprint  for `Dedupe`: the same alone and in every batch
    event        what was sent: the job, or the CloudEvent
    """

    webhook_id: str
    fingerprint: str
    event: Any


def verify_items(webhook: Webhook, data: bytes | str, headers: Headers) -> list[Item]:
    """The items of a genuine webhook; one that is no array is the only item itself.

    Raises what `Webhook.verify` does: WebhookVerificationError, and WebhookPayloadError also for an
    array whose items have no ids.
    """
    event = webhook.verify(data, headers)
    body = data.encode() if isinstance(data, str) else bytes(data)
    if not isinstance(event, list):
        names = {name.lower(): value for name, value in headers.items()}
        return [Item(names["webhook-id"], fingerprint(body), event)]
    return read_items(body)


def read_items(body: bytes) -> list[Item]:
    """The items of an array that is known to be genuine."""
    return [_item(text, each) for text, each in _elements(body.decode())]


def _elements(text: str) -> list[tuple[str, Any]]:
    """The elements of an array, which is well formed, each as it was written and as it is read."""
    found: list[tuple[str, Any]] = []
    at = _skip(text, 0) + 1
    while True:
        at = _skip(text, at)
        if text[at] == "]":
            return found
        if text[at] == ",":
            at = _skip(text, at + 1)
        element, end = _decode(text, at)
        found.append((text[at:end], element))
        if len(found) > limits.RECEIVER_ITEMS_MAX:
            raise WebhookPayloadError(f"The batch has over {limits.RECEIVER_ITEMS_MAX} items.")
        at = end


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def _item(text: str, event: Any) -> Item:
    """An element with its id; its fingerprint is that of the body it has when it comes alone."""
    if not isinstance(event, dict):
        raise WebhookPayloadError("An item of the batch is no object.")
    if "specversion" in event:
        webhook_id = event.get("id")
        _, found, alone = text.partition(_DATA)
        alone = alone[:-1] if found else text
    else:
        webhook_id = event.get("webhook_id")
        named = f'{{"webhook_id":"{webhook_id}",'
        alone = "{" + text[len(named) :] if text.startswith(named) else text
    if not isinstance(webhook_id, str) or not webhook_id:
        raise WebhookPayloadError("An item of the batch has no id.")
    return Item(webhook_id, fingerprint(alone.encode()), event)
