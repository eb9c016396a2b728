"""For recipients: is this webhook genuine, and was it here before?

    from timemachine.receiver import Dedupe, Webhook, WebhookError, fingerprint
    from timemachine.receiver.sqlite import SQLiteStore, connect

    webhook = Webhook(os.environ["WEBHOOK_SECRET"])

    def receive(raw_body, headers):
        with closing(connect("app.db")) as connection:
            dedupe = Dedupe(SQLiteStore(connection))
            try:
                event = webhook.verify(raw_body, headers)
                dedupe.once(
                    headers["webhook-id"],
                    fingerprint(raw_body),
                    lambda: time_out_payment(connection, event["meta"]["payment"]),
                )
            except WebhookError as error:
                return error.http_status
        return 204

`raw_body` must be the bytes as received: parsing and writing JSON anew changes them.

Webhook has the names, argument order and results of the `standardwebhooks` package (1.1.0), so
either verifies what the other signed. This one is stricter with hostile input, which never raises
anything but WebhookVerificationError, and a genuine webhook whose body is not JSON raises a
separate WebhookPayloadError.

A genuine webhook can come more than once: its sender repeats what it had no answer to, for days.
Dedupe remembers ids in the database where the effect happens, in the same transaction, so that the
effect happens once whatever crashes when. `dedupe.py` tells how. `postgres.py` keeps the ids in
PostgreSQL; `redis.py` keeps them in Redis, for effects that are in no database.

A route may send several jobs in one webhook: `verify_items` gives each with an id of its own.

Each WebhookError has the `http_status` to answer with. Needs nothing but the standard library; with
PostgreSQL, Redis or public keys of senders one package more.
"""

from timemachine.errors import (
    InvalidSecret,
    WebhookBusy,
    WebhookClaimLost,
    WebhookError,
    WebhookInProgress,
    WebhookPayloadError,
    WebhookReused,
    WebhookTooLarge,
    WebhookVerificationError,
)
from timemachine.receiver.batch import Item, verify_items
from timemachine.receiver.dedupe import (
    Dedupe,
    Done,
    InProgress,
    Mark,
    New,
    Store,
    fingerprint,
)
from timemachine.receiver.webhook import Headers, Webhook

__all__ = [
    "Dedupe",
    "Done",
    "Headers",
    "InProgress",
    "InvalidSecret",
    "Item",
    "Mark",
    "New",
    "Store",
    "Webhook",
    "WebhookBusy",
    "WebhookClaimLost",
    "WebhookError",
    "WebhookInProgress",
    "WebhookPayloadError",
    "WebhookReused",
    "WebhookTooLarge",
    "WebhookVerificationError",
    "fingerprint",
    "verify_items",
]
