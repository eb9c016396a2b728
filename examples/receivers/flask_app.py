"""A webhook receiver with Flask: each timed-out payment is marked once, and one mail goes out.

With the secret of the route:

    WEBHOOK_SECRET=whsec_... flask --app flask_app run --port 4000
"""

import os
from contextlib import closing
from typing import Any

from flask import Flask, Response, request

from timemachine.receiver import (
    Dedupe,
    Headers,
    Webhook,
    WebhookError,
    WebhookPayloadError,
    fingerprint,
)
from timemachine.receiver.sqlite import SQLiteStore, connect

DATABASE = os.environ.get("DATABASE", "shop.db")
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024

with closing(connect(DATABASE)) as database:
    SQLiteStore(database).create_table()
    database.execute("CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, state TEXT)")
    database.execute("CREATE TABLE IF NOT EXISTS mails (payment TEXT, text TEXT)")


@app.post("/webhook")
def receive() -> Response:
    """The raw body is read here, before request.form or request.json could parse it."""
    try:
        handle(
            request.get_data(cache=False), request.headers, request.headers.get("webhook-id", "")
        )
    except WebhookError as error:
        return Response(status=error.http_status)
    return Response(status=204)


def handle(body: bytes, headers: Headers, webhook_id: str) -> None:
    """Do what the webhook asks, if it is genuine and was not here before."""
    payment = payment_of(webhook.verify(body, headers))
    with closing(connect(DATABASE)) as connection:

        def time_out() -> None:
            # One transaction with the mark that this webhook was here.
            connection.execute(
                "INSERT INTO payments VALUES (?, 'timed_out')"
                " ON CONFLICT (id) DO UPDATE SET state = 'timed_out'",
                (payment,),
            )
            connection.execute(
                "INSERT INTO mails VALUES (?, 'You have not paid in time')", (payment,)
            )

        Dedupe(SQLiteStore(connection)).once(webhook_id, fingerprint(body), time_out)


def payment_of(event: Any) -> str:
    """The payment that a job with `"meta": {"payment": "..."}` is about."""
    try:
        return str(event["meta"]["payment"])
    except (KeyError, TypeError):
        raise WebhookPayloadError("There is no payment in meta.") from None


if __name__ == "__main__":
    app.run("127.0.0.1", 4000)
