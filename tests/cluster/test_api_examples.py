"""Each example of the reference is sent to a real node, and gets the documented success."""

import http.client
import json
from collections.abc import Iterator
from email.message import Message
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from node.api.dispatch import OPERATIONS
from tests.cluster.process import NodeProcess, wait_until

_DB = "/v1/dbs/default"
_JOBS = f"{_DB}/collections/carts/jobs"
_CLOSED = "http://127.0.0.1:1024/hook"
_FAR = 4_000_000_000_000
_numbers = count()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node for all of these tests."""
    with NodeProcess(tmp_path_factory.mktemp("examples") / "data") as node:
        yield node.start()


@pytest.fixture(scope="module")
def document(node: NodeProcess) -> Any:
    """What the node says of its API."""
    status, document = node.ask("GET", "/openapi.json")
    assert 200 == status
    return document


def _must(node: NodeProcess, method: str, path: str, body: Any = None) -> Any:
    status, answer = node.ask(method, path, body)
    assert 200 <= status < 300, (method, path, answer)
    return answer


def _send(node: NodeProcess, method: str, path: str, body: Any) -> tuple[int, Message, bytes]:
    connection = http.client.HTTPConnection(node.address, timeout=30)
    try:
        if body is None:
            connection.request(method, path)
        else:
            kind = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body), kind)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def _prepare(node: NodeProcess) -> None:
    """What the examples speak of: two databases, a collection, a route, a job that waits."""
    _must(node, "PUT", "/v1/cluster/settings", {"allowed_private_cidrs": ["127.0.0.0/8"]})
    _must(node, "PUT", "/v1/dbs/shop")
    _must(node, "PUT", f"{_DB}/collections/carts", {})
    _must(node, "PUT", f"{_DB}/routes/hello", {"webhook_url": _CLOSED})
    _must(node, "POST", f"{_DB}/routes/hello/resume")
    # Anew: one that ended, and equals this, would stay ended.
    node.ask("DELETE", f"{_JOBS}/cart-1042?purge=true")
    job = {"route": "hello", "trigger_time": _FAR, "tags": ["cart"]}
    _must(node, "PUT", f"{_JOBS}/cart-1042", job)


def _give_up(node: NodeProcess) -> None:
    """Let the job die of its route, whose recipient is not there."""
    route = {"webhook_url": _CLOSED, "retry": {"max_attempts": 1}}
    _must(node, "PUT", f"{_DB}/routes/hello", route)
    _must(node, "PUT", f"{_JOBS}/cart-1042", {"route": "hello", "trigger_time": 1_000})
    wait_until(
        lambda: "dead" == _must(node, "GET", f"{_JOBS}/cart-1042")["state"], "it does not die"
    )


def _task(node: NodeProcess) -> str:
    body = {"filter": {"tag": "none"}}
    return str(_must(node, "POST", f"{_JOBS}/cancel", body)["task"])


def _plan(node: NodeProcess) -> str:
    return str(_must(node, "POST", "/v1/cluster/plans", {"kind": "rebalance"})["id"])


def _restore(node: NodeProcess) -> str:
    body = {"backup": f"b{next(_numbers)}"}
    return str(_must(node, "POST", "/v1/cluster/restore", body)["id"])


_MADE = {"task": _task, "plan": _plan, "restore": _restore}
_OF_SEVERAL_NODES = {"pause_plan", "resume_plan"}
"""On one node nothing moves, so a plan ends at once: see tests/unit/node/api/test_plans.py."""


@pytest.mark.parametrize(
    "operation_id",
    [operation.id for operation in OPERATIONS if operation.id not in _OF_SEVERAL_NODES],
)
def test_the_example_gets_the_documented_success(
    node: NodeProcess, document: Any, operation_id: str
) -> None:
    """Nothing but what the document shows is sent, and the ids of what a test has made."""
    method, path, operation = next(
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["operationId"] == operation_id
    )
    _prepare(node)
    if operation_id in ("redrive_job", "list_attempts", "remove_content"):
        _give_up(node)
    query = {}
    for parameter in operation["parameters"]:
        if "example" not in parameter:
            continue
        name, example = parameter["name"], parameter["example"]
        if parameter["in"] == "path":
            value = _MADE[name](node) if name in _MADE else str(example)
            path = path.replace("{%s}" % name, quote(value, safe=""))
        else:
            query[name] = str(example).lower() if isinstance(example, bool) else example
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = content.get("example")
    assert body is not None or not operation.get("requestBody", {}).get("required")
    address = path + (f"?{urlencode(query)}" if query else "")
    status, headers, answer = _send(node, method, address, body)
    told = operation["responses"]
    assert 200 <= status < 300, answer
    assert str(status) in told
    kinds = told[str(status)].get("content", {})
    assert headers.get("Content-Type") in (kinds or {None})
    for name, header in told[str(status)]["headers"].items():
        reference = header["$ref"].removeprefix("#/components/headers/")
        if document["components"]["headers"][reference]["required"]:
            assert name in headers
