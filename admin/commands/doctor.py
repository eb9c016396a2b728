"""`timemachine admin doctor`: what is wrong with a cluster, and what to do about it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import click
import msgspec

from admin import diagnosis, exits, output
from admin.command import Command
from admin.given import Given
from admin.session import Session
from admin.tables import Row
from timemachine.client import ApiError, ClientError, operations
from timemachine.client.call import Call

_NODE_TIMEOUT_MS: Final = 3_000
_AT_ONCE: Final = 16
_METRICS: Final = Call("GET", "/metrics", bytes)


@click.command(cls=Command, db=False, examples=["timemachine admin doctor"])
@click.pass_context
def doctor(context: click.Context) -> None:
    """Ask all nodes how they are, and say what to do.

    Looks at nodes, quorum, clocks, disks, versions, replicas, vnodes without a leader, and plans
    that wait. Nodes are asked at the addresses that the cluster knows. Exit code 1 when something
    has to be done.
    """
    given = context.ensure_object(Given)
    with Session(given) as session:
        cluster = output.decoded(session.ask(operations.cluster()))
        vnodes = _rows(session, operations.vnodes())
        # Its own replica of meta will do: nobody who asks what is wrong waits for a leader.
        plans = _rows(session, operations.list_plans(consistency="stale"))
    there = [node for node in cluster["nodes"] if node["state"] != "removed"]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = pool.map(lambda node: _told(given, node), there)
        nodes = dict(zip((node["id"] for node in there), told, strict=True))
    seen = diagnosis.Seen(cluster=cluster, vnodes=vnodes, plans=plans, nodes=nodes)
    found = diagnosis.findings(seen)
    if given.as_json:
        document = {
            "cluster_id": cluster["cluster_id"],
            "asked": [node for node, each in nodes.items() if each.fault is None],
            "well": diagnosis.well(found),
            "findings": found,
        }
        click.echo(msgspec.json.encode(document))
    else:
        output.people(diagnosis.show(seen, found))
    if not diagnosis.well(found):
        context.exit(exits.FAILED)


def _rows(session: Session, call: Call[Any]) -> list[Row]:
    return [output.decoded(item) for page in session.pages(call) for item in page]


def _told(given: Given, node: Row) -> diagnosis.Told:
    """What a node tells of itself."""
    scheme = "https" if node["https"] else "http"
    at_node = replace(given, server=f"{scheme}://{node['http']}", timeout_ms=None)

    def answer(ask: Callable[[Session], Any]) -> Any:
        with Session(at_node, timeout_ms=_NODE_TIMEOUT_MS) as session:
            return ask(session)

    try:
        unready = None
        try:
            answer(lambda session: session.ask(operations.ready()))
        except ApiError as error:
            unready = str(error)
        view = answer(lambda session: session.ask(operations.cluster(consistency="stale")))
        metrics = answer(lambda session: session.carry(_METRICS))
    except ClientError as error:
        return diagnosis.Told(fault=str(error))
    return diagnosis.Told(
        unready=unready, cluster=output.decoded(view), metrics=metrics.decode("utf-8", "replace")
    )
