"""A recipient that writes down every webhook: `python -m bench.notebook` prints its port.

It answers after 20 ms, so that at any moment some sends are in flight. What it tells of each:
`[at_ms, job, version, content, webhook_id]`, where `content` is the `v` of the job's meta.
"""

import asyncio
import json
from typing import Any

from bench import recipient

ANSWER_S = 0.02
noted: list[tuple[float, str, int, int, str]] = []


class Recipient(recipient.Recipient):
    """One connection; one request at a time."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self.body = b""
        self.webhook_id = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what names the webhook."""
        if name.lower() == b"webhook-id":
            self.webhook_id = value.decode()

    def on_body(self, data: bytes) -> None:
        """Keep it."""
        self.body += data

    def on_message_complete(self) -> None:
        """Write it down; answer later."""
        job = json.loads(self.body)
        self.body = b""
        entry = (self.arrived_ms, job["id"], job["version"], job["meta"]["v"], self.webhook_id)
        noted.append(entry)
        asyncio.get_running_loop().call_later(ANSWER_S, self._answer)

    def _answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(recipient.NO_CONTENT)


if __name__ == "__main__":
    recipient.run(Recipient, noted)
