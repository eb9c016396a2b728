"""Which addresses a webhook may be sent to: the guard against requests into the inside.

The decision is made on the address that is connected to, after resolution, never on the text of
the URL. Everything that is not plainly public is refused, unless the operator allowed its range.
`ipaddress.is_global` will not do: it calls multicast, NAT64, 6to4 and others global.
Sources: OWASP's SSRF prevention cheat sheet, and the union of what Svix, Smokescreen and Convoy
block.
"""

from collections.abc import Collection, Iterable
from enum import Enum
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from timemachine import ports

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

BLOCKED_RANGES: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network; 0.0.0.0 connects to the machine itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds answer with their credentials
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "168.63.129.16/32",  # Azure's inner services, at a public address
        "::1/128",  # loopback
        "::/96",  # unspecified, and the old way to wrap an IPv4 address
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",  # discard
        "2001::/32",  # Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # private
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
"""What is refused by name. Of IPv6, all that is outside 2000::/3 is refused too."""

OWN_ADDRESS: Final = "This address and port are the node's own."

_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCALHOST: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


class Verdict(Enum):
    """What an address is, before anything that an operator allowed."""

    PUBLIC = "public"
    BLOCKED = "blocked"
    UNREADABLE = "unreadable"
    """No address at all; refused as well."""


# Each connection asks several times for the same few: to read and to judge an address took a
# quarter of what it costs to connect.
_KNOWN_MAX: Final = 4_096


@lru_cache(_KNOWN_MAX)
def parse_address(given: str | bytes) -> Address | None:
    """The address, as text or packed in 4 or 16 bytes; None if it is none.

    A scope id is dropped and an IPv4-mapped address unwrapped: they say the same place, and must
    be judged as it. Text is read strictly, as four decimal numbers or as IPv6; what else a
    resolver takes for an address (`127.1`, `0x7f.1`, `2130706433`) is judged after resolution.
    """
    try:
        address = ip_address(given.partition("%")[0] if isinstance(given, str) else given)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(_KNOWN_MAX)
def blocked_range(address: Address) -> Network | None:
    """The range for which an address is refused; None for a public one."""
    for network in BLOCKED_RANGES:
        if address.version == network.version and address in network:
            return network
    if isinstance(address, IPv6Address) and address not in _GLOBAL_IPV6:
        return IPv6Network((int(address) >> 96 << 96, 32))
    return None


def classify(given: str | bytes) -> Verdict:
    """What an address is, as text or packed."""
    address = parse_address(given)
    if address is None:
        return Verdict.UNREADABLE
    return Verdict.PUBLIC if blocked_range(address) is None else Verdict.BLOCKED


class AddressPolicy:
    """The rule of one cluster: public addresses, and the private ranges its operator allowed.

    On none of them any port: see `timemachine.ports`; `allowed_ports` are those that the operator
    allowed beside.

    `own_listeners` are this node's (address, port) pairs; they are refused whatever is allowed. A
    listener on all addresses is given as `0.0.0.0`, `::` or an empty host. Then loopback on its
    port is refused here, and `listens_everywhere` tells whoever connects to refuse on that port
    all other addresses of this machine too, which cannot be known without asking the system. A
    listener given by a name other than `localhost` counts as one on all addresses.
    """

    def __init__(
        self,
        allowed_private_cidrs: Iterable[str] = (),
        own_listeners: Iterable[tuple[str, int]] = (),
        *,
        allowed_ports: Collection[int] = (),
    ) -> None:
        """Raises ValueError for a range that is none."""
        self._allowed_ports = frozenset(allowed_ports)
        self._allowed = tuple(_network(text) for text in allowed_private_cidrs)
        own: set[tuple[Address, int]] = set()
        everywhere: set[int] = set()
        for host, port in own_listeners:
            address = parse_address(host)
            if host == "localhost":
                own.update((each, port) for each in _LOCALHOST)
            elif address is None or address.is_unspecified:
                everywhere.add(port)
            else:
                own.add((address, port))
        self._own = frozenset(own)
        self._everywhere = frozenset(everywhere)

    def permits(self, given: str | bytes, port: int) -> bool:
        """Whether a connection to this address and port may be made."""
        address = parse_address(given)
        if address is None or not self.permits_port(port) or self._is_own(address, port):
            return False
        if blocked_range(address) is None:
            return True
        if isinstance(address, IPv6Address) and address in _NAT64:
            # It is the wrapped address that is reached: allowing NAT64 does not open the inside.
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
            if blocked_range(inner) is not None and not self._allows(inner):
                return False
        return self._allows(address)

    def permits_port(self, port: int) -> bool:
        """Whether connections to this port may be made, at whatever address."""
        return ports.permits(port, self._allowed_ports)

    def listens_everywhere(self, port: int) -> bool:
        """Whether this node listens on that port on all addresses of its machine."""
        return port in self._everywhere

    def explain(self, given: str, port: int | None = None) -> str:
        """Why an address is refused, and what an operator would have to allow.

        The sentence names the range and not the address, which a name may have kept secret.
        """
        address = parse_address(given)
        if address is None:
            return "The address cannot be read."
        if port is not None and self._is_own(address, port):
            return OWN_ADDRESS
        if port is not None and not self.permits_port(port):
            return ports.explain(port)
        network = blocked_range(address)
        if network is None:
            return "The address is public and may be connected to."
        return (
            f"This is not a public address, it is in {network};"
            f" the operator can allow that range: add {network} to allowed_private_cidrs, with"
            " PUT /v1/cluster/settings."
        )

    def _allows(self, address: Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._allowed
        )

    def _is_own(self, address: Address, port: int) -> bool:
        if (address, port) in self._own:
            return True
        if port in self._everywhere and (address.is_loopback or address.is_unspecified):
            return True
        # Connecting to "no address" reaches loopback.
        return address.is_unspecified and any((each, port) in self._own for each in _LOCALHOST)


def _network(text: str) -> Network:
    """A range; one of IPv4-mapped addresses means the IPv4 range, since that is what is judged."""
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
