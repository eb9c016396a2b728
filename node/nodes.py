"""The other nodes, as this one knows them: before the meta group is known, as it joined."""

from collections.abc import Iterator, Sequence

from node.config import RPC_PORT, split_address
from node.rpc.hello import Known
from timemachine.addresses import parse_address
from timemachine.errors import ConfigError
from timemachine.model import Node
from timemachine.storage.leveldb import Identity


class Nodes:
    """Who is who, and where. `others` are the numbers of all nodes but this one.

    `listeners` are the addresses and ports at which the others listen, as far as they are known
    for sure: no webhook must go there, as none must go to this node.
    """

    def __init__(self, identity: Identity) -> None:
        self._number = identity.number
        self._addresses = {number: rpc for number, _, rpc in identity.members}
        self._known = {number: Known(node_id) for number, node_id, _ in identity.members}
        self.others: tuple[int, ...] = ()
        self.listeners: frozenset[tuple[str, int]] = frozenset()
        self._count()

    def _count(self) -> None:
        self.others = tuple(sorted(self._addresses.keys() - {self._number}))

    def set(self, nodes: Sequence[Node]) -> None:
        """What the meta group says now, as far as this node has heard of it.

        Who was heard of a higher number has joined since: this node has to go on answering it.
        """
        newest = max([node.number for node in nodes], default=self._number)
        since = {each: rpc for each, rpc in self._addresses.items() if each > newest}
        self._known = {node.number: Known(node.id, not node.present) for node in nodes}
        self._addresses = {node.number: node.rpc for node in nodes if node.present} | since
        self.listeners = frozenset(
            each
            for node in nodes
            if node.number != self._number and node.present
            for each in _listeners(node)
        )
        self._count()

    def address(self, number: int) -> tuple[str, int] | None:
        """Where a node takes connections of others, as far as is known."""
        text = self._addresses.get(number)
        if not text:
            return None
        try:
            return split_address(text, "rpc", default_port=RPC_PORT)
        except ConfigError:
            return None

    def known(self, number: int) -> Known | None:
        """Whose number that is; None if nobody's. A higher one than all may have joined since."""
        if number > max(self._known, default=self._number):
            return Known("")
        return self._known.get(number)

    def hear(self, number: int, address: str) -> bool:
        """A node says where it is; whether it is one that is new here."""
        if number in self._addresses:
            return False
        self._addresses[number] = address
        self._count()
        return True


def _listeners(node: Node) -> Iterator[tuple[str, int]]:
    """Where a node listens. A loopback address is this machine's if nodes meet there."""
    for text in (node.http, node.rpc):
        try:
            host, port = split_address(text, "address", default_port=0)
        except ConfigError:
            continue
        if _is_local(host) and not _is_local(node.host):
            continue
        address = parse_address(host)
        if host == "localhost" or (address is not None and not address.is_unspecified):
            yield host, port


def _is_local(host: str) -> bool:
    address = parse_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
