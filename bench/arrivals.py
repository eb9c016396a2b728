"""A recipient that notes how late each webhook comes: `python -m bench.arrivals` prints its port.

It tells milliseconds.
"""

from bench import recipient

_TRIGGER = b"timemachine-trigger-time"
late_ms: list[float] = []


class Recipient(recipient.Recipient):
    """One connection; answers 204."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Compare with when it was due."""
        if name.lower() == _TRIGGER:
            late_ms.append(self.arrived_ms - int(value))

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(recipient.NO_CONTENT)


if __name__ == "__main__":
    recipient.run(Recipient, late_ms)
