"""Node to node: frames over TCP, from each node to every other one.

Each node dials every other one and sends only on what it has dialled; what it has accepted it only
reads, but for the answer to a hello and for pongs. So there is one ordered connection for each
pair and direction, and no question which of two to use.

    framing   bytes into frames and back          hello     who may talk with whom
    outbound  one connection that was dialled     inbound   one that was accepted
    link      dials again and again, and queues   lane      what waits, within bounds
    listener  binds and accepts                   dial      connects, with TLS if there is
    rpc       all of it: the `Network`            tls       both sides show a certificate
    joining   to become a node                    joindesk  who is asked to; `joinwords` between

Received bytes go through `asyncio.Protocol`, never through streams: after a stall of the process
its reading tasks would run behind the timers that are overdue, and heartbeats that have long been
there would be read after the election that they forbid.
"""
