"""The fixed baselines, each a process: `python -m bench.baselines server|receiver`."""

import asyncio
import sys
from typing import Any

import httptools
import msgspec
import uvloop
from aiohttp import web


class Job(msgspec.Struct):
    """What the baseline server parses."""

    route: str
    meta: msgspec.Raw
    trigger_time: int
    id: str = ""


async def _server() -> None:
    decode = msgspec.json.Decoder(Job).decode
    body = b'{"status":"ok"}'

    async def handle(request: web.BaseRequest) -> web.Response:
        decode(await request.read())
        return web.Response(status=201, body=body, content_type="application/json")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"ready http=127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


class Receiver(asyncio.Protocol):
    """A recipient as cheap as can be: finds the ends of requests, answers 204."""

    arrivals: list[float]
    count = 0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.query = False

    def on_url(self, url: bytes) -> None:
        """GET /count tells how many arrived."""
        self.query = url == b"/count"

    def on_message_complete(self) -> None:
        """Answer."""
        if self.query:
            text = str(Receiver.count).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
            )
            return
        Receiver.count += 1
        self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)


async def _receiver() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Receiver, "127.0.0.1", 0)
    print(f"ready http=127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


class Poster(asyncio.Protocol):
    """One connection of the bare client: posts `left` times, one after the other."""

    def __init__(self, request: bytes, left: int, done: Any) -> None:
        self.request = request
        self.left = left
        self.done = done

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Post the next, or stop."""
        self.left -= 1
        if self.left:
            self.transport.write(self.request)
        else:
            self.transport.close()
            self.done()


async def _client(port: int, count: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    head = "X-Filler: " + "f" * 430
    request = (
        f"POST /hook HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\nContent-Length: {size}\r\n\r\n"
    ).encode() + b"b" * size
    print("ready http=127.0.0.1:0", flush=True)
    finished = loop.create_future()
    left = connections = 64

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set_result(None)

    for _ in range(connections):
        await loop.create_connection(
            lambda: Poster(request, count // connections, done), "127.0.0.1", port
        )
    await finished
    print("done", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        uvloop.run(_server())
    elif sys.argv[1] == "receiver":
        uvloop.run(_receiver())
    else:
        uvloop.run(_client(*(int(word) for word in sys.argv[2:5])))
