"""A worker that handles webhooks, to be killed at any moment.

    python -m tests.integration.receiver.worker PLACE AHEAD_S MODE ID...

PLACE is the name of a database, as in places.py. Its clock is AHEAD_S seconds ahead, so that leases
end without anybody waiting. It prints a line at each step, and waits at the step that MODE names
until a line comes in. MODE `storm` waits nowhere.
"""

import contextlib
import random
import sys
import time

from tests.integration.receiver.places import place_of
from timemachine.receiver import Dedupe, New, WebhookBusy, WebhookError, fingerprint

PRINT = fingerprint(b"{}")


def main() -> None:
    """Handle each webhook as MODE says."""
    name, ahead_s, mode, *webhook_ids = sys.argv[1:]
    place = place_of(name)
    connection = place.connect()
    dedupe = Dedupe(place.store(connection), now=lambda: time.time() + int(ahead_s))

    def step(name: str) -> None:
        print(name, flush=True)
        if mode.endswith(name):
            sys.stdin.readline()

    def effect(webhook_id: str) -> None:
        connection.execute(place.insert, (webhook_id,))
        step("effect")

    def once(webhook_id: str) -> str:
        return f"repeated={dedupe.once(webhook_id, PRINT, lambda: effect(webhook_id)).repeated}"

    def claim(webhook_id: str) -> str:
        seen = dedupe.begin(webhook_id, PRINT)
        step("claimed")
        if not isinstance(seen, New):
            return type(seen).__name__
        with dedupe.transaction():
            effect(webhook_id)
            dedupe.commit(seen)
            step("committing")
        step("committed")
        return f"taken_over={seen.taken_over}"

    if mode == "storm":
        random.shuffle(webhook_ids)
    handle = claim if mode.startswith("claim") else once
    for webhook_id in webhook_ids:
        if mode == "storm":
            sys.stdin.readline()
        try:
            print(handle(webhook_id), flush=True)
        except WebhookError as error:
            print(error.code, flush=True)
            if isinstance(error, WebhookBusy):
                webhook_ids.append(webhook_id)
    connection.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
