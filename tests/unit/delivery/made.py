"""Routes, vnodes and due jobs for these tests."""

from typing import Any

from timemachine.delivery.item import Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.model import Collection, Route
from timemachine.replica.machine import JobMachine
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode

_COLLECTION = Collection(
    uid=1, db="d", name="c", num_vnodes=1, replicas=1, history_retention_ms=0, created_ms=0
)


def route(**fields: Any) -> Route:
    """A route that takes what comes."""
    return Route(
        **{
            "uid": 7,
            "db": "d",
            "name": "r",
            "version": 1,
            "webhook_url": "http://recipient.test/",
            "created_ms": 0,
            "updated_ms": 0,
            "secrets": (),
            **fields,
        }
    )


def head() -> VnodeHead:
    """The head of an empty vnode."""
    store = MemoryStore()
    overlay = Overlay(store)
    keys = ReplicaKeys(1)
    machine = JobMachine(keys, overlay)
    machine.load(None, [])
    return VnodeHead(Vnode((1, 0), keys, overlay, machine, store), _COLLECTION, 0)


def due(queue: RouteQueue, due_ms: int, name: str, *, attempts: int = 0) -> Item:
    """A job that is queued."""
    of = head()
    item = Item(of, queue, due_ms, name, 1, attempts, b"u" * 16, waiting=False)
    of.known[name] = item
    queue.push(item)
    return item
