"""The cluster, its settings, and what has no method of its own."""

from collections.abc import Iterable, Mapping
from typing import Any

from timemachine.client.answers import (
    Cluster,
    Finalised,
    JoinToken,
    MasterKey,
    Page,
    Ready,
    Resealed,
    Settings,
    Version,
    Vnode,
)
from timemachine.client.call import Call, given, path_of, query_of
from timemachine.client.operations.fields import Consistency


def cluster(*, consistency: Consistency | None = None) -> Call[Cluster]:
    """The cluster and its nodes, as the answering node sees them."""
    return Call("GET", path_of("cluster"), Cluster, query=query_of(consistency=consistency))


def vnodes(*, consistency: Consistency | None = None) -> Call[Page[Vnode]]:
    """Every vnode: who leads it, who has replicas, and how much of it is overdue."""
    query = query_of(consistency=consistency)
    return Call("GET", path_of("cluster", "vnodes"), Page[Vnode], query=query)


def get_settings(*, consistency: Consistency | None = None) -> Call[Settings]:
    """What holds for all nodes."""
    query = query_of(consistency=consistency)
    return Call("GET", path_of("cluster", "settings"), Settings, query=query)


def put_settings(
    *,
    allowed_private_cidrs: Iterable[str],
    allowed_ports: Iterable[int] = (),
    idempotency_key: str | None = None,
) -> Call[Settings]:
    """Replace what holds for all nodes: private networks and further ports for webhooks."""
    if isinstance(allowed_private_cidrs, str):
        raise TypeError("allowed_private_cidrs is a list of ranges, not one text")
    return Call(
        "PUT",
        path_of("cluster", "settings"),
        Settings,
        body={
            "allowed_private_cidrs": list(allowed_private_cidrs),
            "allowed_ports": list(allowed_ports),
        },
        idempotency_key=idempotency_key,
    )


def issue_join_token(
    *, ttl_ms: int | None = None, idempotency_key: str | None = None
) -> Call[JoinToken]:
    """Let one node join, with the token that is answered; an hour long unless `ttl_ms` says so."""
    return Call(
        "POST",
        path_of("cluster", "join-tokens"),
        JoinToken,
        body=given({"ttl_ms": ttl_ms}),
        idempotency_key=idempotency_key,
    )


def finalise(*, cluster_version: int, idempotency_key: str | None = None) -> Call[Finalised]:
    """Use a newer format from now on, which every node knows; there is no way back."""
    return Call(
        "POST",
        path_of("cluster", "finalise"),
        Finalised,
        body={"cluster_version": cluster_version},
        idempotency_key=idempotency_key,
    )


def master_keys(*, consistency: Consistency | None = None) -> Call[Page[MasterKey]]:
    """The keys that secrets are sealed with, by their ids, the current one first."""
    query = query_of(consistency=consistency)
    return Call("GET", path_of("cluster", "keys"), Page[MasterKey], query=query)


def reseal(*, idempotency_key: str | None = None) -> Call[Resealed]:
    """Seal some secrets again, with the first key of every node; asked until nothing is left."""
    return Call("POST", path_of("cluster", "reseal"), Resealed, idempotency_key=idempotency_key)


def ready() -> Call[Ready]:
    """Wait until a node can serve.

    ApiOverloaded (`not_ready`) or NoAnswer when none can in time.
    """
    return Call("GET", "/readyz", Ready)


def version() -> Call[Version]:
    """The version of the answering node."""
    return Call("GET", path_of("version"), Version)


def request(
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    json: Any = None,
    idempotency_key: str | None = None,
) -> Call[Any]:
    """Any other operation of the API: `path` begins with /v1, the answer is plain JSON."""
    if not path.startswith("/") or not all("!" <= character <= "~" for character in path):
        raise ValueError("a path begins with / and is percent-encoded")
    return Call(
        method,
        path,
        Any,
        query=tuple((query or {}).items()),
        body=json,
        idempotency_key=idempotency_key,
    )
