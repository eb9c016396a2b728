"""What `timemachine dev` tells somebody who runs it for the first time."""

from collections.abc import Sequence

from node.local.process import NodeProcess, Said
from node.rpc.listener import CANNOT_LISTEN
from timemachine.errors import ConfigError, StoreDamaged, StoreInUse

_STORE = "store_"
_SEAL = "seal_"


def what_to_try(url: str) -> str:
    """Three commands, as they can be typed."""
    base = f"{url}/v1/dbs/default"
    return (
        "Try, in another terminal:\n\n"
        f"  curl -X PUT {base}/collections/jobs\n"
        f"  curl -X PUT {base}/routes/hello"
        """ -d '{"webhook_url": "http://127.0.0.1:4000/"}'\n"""
        f"  curl {base}/collections/jobs/jobs"
        """ -d '{"delay_ms": 5000, "route": "hello", "meta": {"hi": 1}}'\n\n"""
        "`timemachine collection`, `route` and `job` do the same; each has --help.\n"
    )


def how_to_stop_one(data: str) -> str:
    """How a single node ends, and where its data is."""
    return f"Ctrl+C stops the node. Its data stays in {data}; delete that folder to begin anew.\n"


def about_several(nodes: Sequence[NodeProcess], data: str) -> str:
    """Which processes the nodes are, how to break one, how they end."""
    lines = [
        f"  {node.name}  {node.url}  kill -9 {node.pid}\n" for node in nodes if node.ready_line
    ]
    return (
        "Every node answers every request. The nodes, and how to see what the loss of one does:\n\n"
        + "".join(lines)
        + f"\nCtrl+C stops all of them. Their data stays in {data}; delete that folder to begin"
        " anew.\n"
    )


def what_happened(node: NodeProcess, nodes: Sequence[NodeProcess], data: str) -> str:
    """A node is gone while the others run."""
    code = node.exit_code
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    left = [each.name for each in nodes if each.running]
    text = f"{node.name} {how}. It is not started again by itself.\n"
    if len(left) * 2 > len(nodes):
        text += f"{' and '.join(left)} go on: what it led has another leader in 1 to 3 seconds.\n"
    elif left:
        verb = "runs" if len(left) == 1 else "run"
        text += (
            f"Only {' and '.join(left)} {verb}, no majority of {len(nodes)}: nothing is accepted"
            " and nothing fires until more are back.\n"
        )
    if left:
        again = f"timemachine dev --data {data}"
        text += f"To resume it, stop this with Ctrl+C and start again: {again}"
    return text.rstrip("\n")


def what_helps(said: Said, data: str, other: str) -> str:
    """Why it could not start, and what to type; `other` is the command without --data and --http.

    The codes are those of errors, whether they were raised here or told by a log.
    """
    if said.code == CANNOT_LISTEN and "in use" in said.reason:
        _, _, address = said.reason.partition("cannot listen on ")
        address = address.partition(": ")[0]
        sentence = f"{address} cannot be had: another program listens there, perhaps another node."
        if said.reason.startswith("rpc:") and "--nodes" in other:
            return f"{sentence}\nThe nodes in {data} find each other there. Stop that program."
        return (
            f"{sentence}\n"
            f"Stop that one, or take a free port: {other} --data {data} --http 127.0.0.1:0"
        )
    if said.code == StoreInUse.code:
        return (
            f"The data in {data} is in use: another node runs on it.\n"
            f"Stop that one, or start a second one beside it: {other} --data other"
            " --http 127.0.0.1:0"
        )
    if said.code == StoreDamaged.code and "--nodes" in other:
        return (
            f"{said.reason}\nDelete that node's folder in {data}, if the others are whole: at the"
            " next start a new node takes its place."
        )
    if said.code.startswith((_STORE, _SEAL)):
        return f"{said.reason}\nAnother folder may do: {other} --data other"
    return said.reason


def exit_code_of(error: Exception) -> int:
    """What the command ends with where it could not even begin."""
    return 2 if isinstance(error, ConfigError) else 3
