"""A recipient as cheap as can be: `python -m bench.senders.receiver CERTIFICATE KEY`.

It serves http and https on ports of their own, on every address of loopback. A path that ends in
`/other` is answered differently each time, as by recipients that number their answers.
"""

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Final

import uvloop

from bench import baselines

_SAME: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_OTHER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Request-Id: %016x\r\n"
    b"Content-Length: 2\r\n\r\nok"
)


class Receiver(baselines.Receiver):
    """One connection."""

    def on_url(self, url: bytes) -> None:
        """Which answer is wanted."""
        self.other = url.endswith(b"/other")

    def on_message_complete(self) -> None:
        """Answer."""
        if self.other:
            Receiver.count += 1
            self.transport.write(_OTHER % Receiver.count)
        else:
            self.transport.write(_SAME)


async def _run(certificate: Path, key: Path) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain = await loop.create_server(Receiver, "0.0.0.0", 0, backlog=2048)
    secure = await loop.create_server(Receiver, "0.0.0.0", 0, backlog=2048, ssl=context)
    ports = [server.sockets[0].getsockname()[1] for server in (plain, secure)]
    print(f"ready http=127.0.0.1:{ports[0]} https=127.0.0.1:{ports[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_run(Path(sys.argv[1]), Path(sys.argv[2])))
