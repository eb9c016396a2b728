"""A webhook receiver with aiohttp: each timed-out payment is marked once, and one mail goes out.

With the secret of the route:

    WEBHOOK_SECRET=whsec_... python aiohttp_app.py 4000
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from aiohttp import web

from timemachine.receiver import (
    Dedupe,
    Webhook,
    WebhookError,
    WebhookPayloadError,
    fingerprint,
)
from timemachine.receiver.sqlite import SQLiteStore, connect

DATABASE = os.environ.get("DATABASE", "shop.db")
webhook = Webhook(os.environ["WEBHOOK_SECRET"])

with closing(connect(DATABASE)) as database:
    SQLiteStore(database).create_table()
    database.execute("CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, state TEXT)")
    database.execute("CREATE TABLE IF NOT EXISTS mails (payment TEXT, text TEXT)")


async def receive(request: web.Request) -> web.Response:
    """The raw body is read here, before any parser, and no further than `client_max_size`."""
    body = await request.read()
    try:
        # SQLite waits for its disk, so it does so in another thread.
        await asyncio.to_thread(handle, body, request.headers)
    except WebhookError as error:
        return web.Response(status=error.http_status)
    return web.Response(status=204)


def handle(body: bytes, headers: Mapping[str, str]) -> None:
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

        dedupe = Dedupe(SQLiteStore(connection))
        dedupe.once(headers["webhook-id"], fingerprint(body), time_out)


def payment_of(event: Any) -> str:
    """The payment that a job with `"meta": {"payment": "..."}` is about."""
    try:
        return str(event["meta"]["payment"])
    except (KeyError, TypeError):
        raise WebhookPayloadError("There is no payment in meta.") from None


app = web.Application(client_max_size=1024 * 1024)
app.router.add_post("/webhook", receive)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
