"""Which ports a webhook may be sent to: those where what listens is likely to want one.

Below 1024 other protocols are at home, so only those of http and https are open. Above, the ports
are refused that browsers refuse too (WHATWG Fetch, "port blocking"), and those of well-known data
stores, queues and machines' remote controls: a server that speaks lines may take the lines of a
request for its own (OWASP's SSRF prevention cheat sheet). An operator can open each.
"""

from collections.abc import Collection
from typing import Final

_RESERVED_BELOW: Final = 1024
_WEB: Final = frozenset({80, 443})

REFUSED_PORTS: Final = frozenset(
    {
        # What browsers refuse: H.323, PPTP, NFS, Apple's file sharing, lockd, ManageSieve, SIP,
        # X11, SANE, IRC, Amanda.
        *(1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566),
        *(6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        # SQL: SQL Server, Oracle, MySQL, PostgreSQL, PgBouncer.
        *(1433, 1434, 1521, 3306, 5432, 6432),
        # Other stores: CouchDB, Redis and its sentinels, Cassandra, Elasticsearch, memcached,
        # MongoDB.
        *(5984, 6379, 6380, 26379, 9042, 9200, 9300, 11211, 27017, 27018, 27019),
        # Queues and agreement: ZooKeeper, etcd, NATS, Erlang's port mapper, AMQP, Kafka.
        *(2181, 2379, 2380, 4222, 4369, 5671, 5672, 9092),
        # Machines: Docker, remote desktops, VNC, WinRM, the kubelet.
        *(2375, 2376, 3389, 5900, 5985, 5986, 10250, 10255),
    }
)
"""From 1024 on. *Choice*: none is in the range that systems give to clients, from 32768 on."""


def permits(port: int, allowed: Collection[int]) -> bool:
    """Whether requests may go to a port; `allowed` are those that an operator has opened."""
    if port in allowed:
        return True
    return port in _WEB if port < _RESERVED_BELOW else port not in REFUSED_PORTS


def explain(port: int) -> str:
    """Why a port is refused, and what an operator would have to allow."""
    return (
        f"Webhooks do not go to port {port}, where other things than their recipients listen;"
        f" the operator can allow it: add {port} to allowed_ports, with"
        " PUT /v1/cluster/settings."
    )
