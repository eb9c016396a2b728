"""A webhook receiver with Django: each timed-out payment is marked once, and one mail goes out.

With the secret of the route:

    WEBHOOK_SECRET=whsec_... python django_app.py runserver --noreload 4000

All of a Django project in one file. The transaction is Django's own, so the effect may use models.
"""

import os
import secrets
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from timemachine.receiver import (
    Dedupe,
    Webhook,
    WebhookError,
    WebhookPayloadError,
    fingerprint,
)
from timemachine.receiver.sqlite import SQLiteStore

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=1024 * 1024,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("DATABASE", "shop.db"),
            "OPTIONS": {
                # Workers wait for each other at the start of a transaction, not in its middle.
                "transaction_mode": "IMMEDIATE",
                # What was answered 2xx survives a loss of power.
                "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
            },
        }
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
)
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


@csrf_exempt  # the signature is what proves where it comes from
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """`request.body` is raw, as long as nothing has looked at request.POST before."""
    try:
        handle(request.body, request.headers)
    except WebhookError as error:
        return HttpResponse(status=error.http_status)
    except OperationalError:
        return HttpResponse(status=503)  # the database is busy: the sender will try again
    return HttpResponse(status=204)


def handle(body: bytes, headers: Any) -> None:
    """Do what the webhook asks, if it is genuine and was not here before."""
    payment = payment_of(webhook.verify(body, headers))

    def time_out() -> None:
        # One transaction with the mark that this webhook was here.
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO payments VALUES (%s, 'timed_out')"
                " ON CONFLICT (id) DO UPDATE SET state = 'timed_out'",
                [payment],
            )
            cursor.execute("INSERT INTO mails VALUES (%s, 'You have not paid in time')", [payment])

    with transaction.atomic():
        dedupe = Dedupe(SQLiteStore(connection.connection))
        dedupe.once(headers["webhook-id"], fingerprint(body), time_out)


def payment_of(event: Any) -> str:
    """The payment that a job with `"meta": {"payment": "..."}` is about."""
    try:
        return str(event["meta"]["payment"])
    except (KeyError, TypeError):
        raise WebhookPayloadError("There is no payment in meta.") from None


def create_tables() -> None:
    """What a migration would do."""
    with transaction.atomic(), connection.cursor() as cursor:
        SQLiteStore(connection.connection).create_table()
        cursor.execute("CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, state TEXT)")
        cursor.execute("CREATE TABLE IF NOT EXISTS mails (payment TEXT, text TEXT)")


urlpatterns = [path("webhook", receive)]
django.setup()
create_tables()
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
