"""The webhook sender: one HTTP/1.1 request for one attempt, over pooled connections.

`resolve` finds addresses and judges them, `connection` speaks HTTP on one connection, `pool` joins
them under one deadline per request, `egress` and `tunnel` know the way through a proxy. Redirects
are never followed, requests never repeated, bodies never decompressed, proxies of the environment
never used.
"""

from node.sender.pool import PooledSender

__all__ = ["PooledSender"]
