"""Which addresses a webhook may be sent to: the guard against requests into the inside.

The decision is made on the address that is connected to, after resolution, never on the text of
the URL. Everything that is not plainly public is refused, unless the operator allowed its range.
Sources: OWASP's SSRF prevention cheat sheet, and the union of what Svix, Smokescreen and Convoy
block (`docs/design/delivery.md`).
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_BLOCKED = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12"
        " 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24"
        " 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32"
        " ::1/128 ::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/32 2001:db8::/32 2002::/16"
        " 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8"
    ).split()
)
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_SUGGESTED = tuple(
    ip_network(text)
    for text in "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7".split()
)

Address = IPv4Address | IPv6Address


def parse_address(text: str) -> Address | None:
    """The address, without scope id and with IPv4-mapped ones unwrapped; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: Address) -> bool:
    """Whether an address is plainly public."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_IPV6:
        return False
    return not any(address.version == net.version and address in net for net in _BLOCKED)


class AddressPolicy:
    """The rule of one cluster: public addresses, and the private ranges its operator allowed.

    `own_listeners` are this node's (address, port) pairs; they are refused whatever is allowed. A
    listener on all addresses is given as `0.0.0.0` or `::` and stands for every local address
    that the policy would otherwise allow, on that port.
    """

    def __init__(
        self,
        allowed_private_cidrs: tuple[str, ...] = (),
        own_listeners: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        """Raises ValueError for a range that is none."""
        self._allowed = tuple(ip_network(text, strict=False) for text in allowed_private_cidrs)
        self._own = frozenset(
            (address, port)
            for text, port in own_listeners
            if (address := parse_address(text)) is not None
        )

    def permits(self, text: str, port: int) -> bool:
        """Whether a connection to this address and port may be made."""
        address = parse_address(text)
        if address is None:
            return False
        for own, own_port in self._own:
            if port == own_port and (
                own == address
                or (own.is_unspecified and not is_public(address))
                or (own.is_loopback and (address.is_loopback or address.is_unspecified))
            ):
                return False
        if is_public(address):
            return True
        return any(address.version == net.version and address in net for net in self._allowed)

    def explain(self, text: str) -> str:
        """Why an address is refused, and what an operator would have to allow."""
        address = parse_address(text)
        if address is None:
            return "The address cannot be read."
        for net in _SUGGESTED:
            if address.version == net.version and address in net:
                return (
                    f"{address} is not a public address; the operator can allow its range"
                    f" with --allow-private {net}."
                )
        return (
            f"{address} is not a public address; the operator can allow it"
            f" with --allow-private {address}/{address.max_prefixlen}."
        )
