"""A webhook receiver with FastAPI: each timed-out payment is marked once, and one mail goes out.

With the secret of the route:

    WEBHOOK_SECRET=whsec_... uvicorn fastapi_app:app --port 4000
"""

import os
from contextlib import closing
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from timemachine.receiver import (
    Dedupe,
    Webhook,
    WebhookError,
    WebhookPayloadError,
    fingerprint,
)
from timemachine.receiver.raw import read_asgi
from timemachine.receiver.sqlite import SQLiteStore, connect

DATABASE = os.environ.get("DATABASE", "shop.db")
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
app = FastAPI()

with closing(connect(DATABASE)) as database:
    SQLiteStore(database).create_table()
    database.execute("CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, state TEXT)")
    database.execute("CREATE TABLE IF NOT EXISTS mails (payment TEXT, text TEXT)")


@app.post("/webhook")
async def receive(request: Request) -> Response:
    """The raw body is read here, before any parser, and no further than 1 MiB."""
    try:
        body, headers = await read_asgi(request.scope, request.receive)
        # SQLite waits for its disk, so it does so in another thread.
        await run_in_threadpool(handle, body, headers)
    except WebhookError as error:
        return Response(status_code=error.http_status)
    return Response(status_code=204)


def handle(body: bytes, headers: dict[str, str]) -> None:
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
