"""The command line: `timemachine serve`, `dev`, `demo`, `version`; `admin` has the others."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from admin.lazy import LazyGroup
from admin.program import PLACES
from timemachine import __version__
from timemachine.errors import ConfigError, TimeMachineError

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(cls=LazyGroup, places=PLACES, context_settings=_HELP)
@click.version_option(__version__, prog_name="timemachine")
def main() -> None:
    """TimeMachine: webhooks at their time, whatever fails in between."""


def _run(
    flags: dict[str, Any],
    config_file: str | None,
    *,
    print_config: bool = False,
    bound: Callable[[str], None] = lambda _: None,
    refused: Callable[[TimeMachineError], None] = lambda _: None,
) -> None:
    from node import config as configuration
    from node import telemetry

    telemetry.set_up_logs()
    try:
        config, unknown = configuration.load(flags, os.environ, config_file)
    except ConfigError as error:
        raise click.UsageError(error.detail) from None
    if print_config:
        click.echo(configuration.as_toml(config), nl=False)
        return
    from node import wiring

    if unknown:
        wiring.log.warning("unknown variables of the environment", names=unknown)
    sys.exit(wiring.serve(config, bound=bound, refused=refused))


@main.command(context_settings=_HELP)
@click.option("--data", metavar="DIR", help="The data directory; made when it does not exist.")
@click.option("--http", metavar="HOST:PORT", help="Where the API listens. [127.0.0.1:8001]")
@click.option("--rpc", metavar="HOST:PORT", help="Where other nodes connect. [127.0.0.1:9001]")
@click.option("--advertise-http", metavar="HOST:PORT", help="The API's address as others see it.")
@click.option("--advertise-rpc", metavar="HOST:PORT", help="That address as other nodes see it.")
@click.option("--node-name", metavar="NAME", help="A name for people. [the host's name]")
@click.option("--zone", metavar="ZONE", help="The failure domain of this node.")
@click.option("--weight", type=int, metavar="N", help="Its share beside other nodes'. [100]")
@click.option("--bootstrap", type=click.Choice(["auto", "never"]), help="Begin a cluster? [auto]")
@click.option(
    "--join", metavar="HOST:PORT,...", help="Join the cluster of these nodes (their RPC)."
)
@click.option("--join-token", metavar="TOKEN", help="The one-time token that lets this node in.")
@click.option("--replace", metavar="NODE", help="The id of a lost node whose place this one takes.")
@click.option("--config", "config_file", metavar="FILE", help="Settings in TOML.")
@click.option(
    "--allow-private",
    metavar="CIDR",
    multiple=True,
    help="A private range that webhooks of a new cluster may go to; may be given several times.",
)
@click.option("--secret-key-file", metavar="FILE", help="The key that secrets are sealed with.")
@click.option("--api-token-file", metavar="FILE", help="Tokens of those who may use the API.")
@click.option("--egress-proxy", metavar="URL", help="The proxy that webhooks go through.")
@click.option(
    "--egress-proxy-auth-file", metavar="FILE", help="USER:PASSWORD that the proxy is shown."
)
@click.option("--egress-ca-file", metavar="FILE", help="Authorities of recipients, in PEM.")
@click.option("--http-tls-cert", metavar="FILE", help="Certificate chain in PEM: speak HTTPS.")
@click.option("--http-tls-key", metavar="FILE", help="The key of that certificate, in PEM.")
@click.option("--rpc-tls-cert", metavar="FILE", help="Certificate chain for other nodes, in PEM.")
@click.option("--rpc-tls-key", metavar="FILE", help="The key of that certificate, in PEM.")
@click.option("--rpc-tls-ca", metavar="FILE", help="The authority of all nodes, in PEM.")
@click.option("--disk-reserve-mb", type=int, metavar="MIB", help="Free disk to keep. [256]")
@click.option(
    "--snapshot-mb-per-s", type=int, metavar="MIB", help="Images of replicas sent a second. [32]"
)
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback regardless.")
@click.option("--print-config", is_flag=True, help="Print the effective settings and exit.")
def serve(config_file: str | None, print_config: bool, **flags: Any) -> None:
    """Run a node.

    Settings come from --config, then TIMEMACHINE_* variables, then flags; later ones win.
    Exit codes: 0 stopped as asked, 2 wrong usage or configuration, 3 the data directory cannot
    be used, 1 anything else.

    The files of --api-token-file, --egress-*, --http-tls-*, --rpc-tls-* and --secret-key-file are
    read again on SIGHUP.

    A new data directory begins a cluster of its own, or joins one with --join and --join-token.
    A token on the command line is seen by other users of the machine; TIMEMACHINE_JOIN_TOKEN
    is not.

    \b
    Examples:
      timemachine serve --data ./data --allow-private 127.0.0.0/8
      timemachine serve --data ./data --http 0.0.0.0:8001 --api-token-file tokens
      timemachine serve --data ./data --http-tls-cert chain.pem --http-tls-key key.pem
      timemachine serve --data ./data2 --http :8002 --rpc :9002 --join :9001 --join-token TOKEN
    """  # noqa: D301 - to click \b says that lines are to be left as they are
    flags["allow_private"] = list(flags["allow_private"]) or None
    if flags["join"] is not None:
        flags["join"] = [part.strip() for part in flags["join"].split(",") if part.strip()]
    file = config_file or os.environ.get("TIMEMACHINE_CONFIG")
    _run(flags, file, print_config=print_config)


@main.command(context_settings=_HELP)
@click.option(
    "--data", metavar="DIR", default=".timemachine", show_default=True, help="Where data is kept."
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    default="127.0.0.1:8001",
    show_default=True,
    help="Where the API listens; port 0 takes a free one.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 5),
    help="How many nodes: 1 to 5. [as many as the folder has; 1 in a new one]",
)
def dev(data: str, http: str, nodes: int | None) -> None:
    """Run a local node, or a cluster of several; webhooks to this machine are allowed.

    It prints commands to try. Ctrl+C stops it; the data stays, and the next start goes on with it.
    Exit codes as those of serve.

    Several nodes are processes of their own. Their APIs listen on the port of --http and those
    after it. The first start makes a cluster of them, later ones resume it, and with more --nodes
    others join. A node that dies is not started again until the next start, so that you can see
    what its loss does. TIMEMACHINE_* variables are for a single node only.

    \b
    Examples:
      timemachine dev
      timemachine dev --nodes 3 --data cluster
    """  # noqa: D301 - to click \b says that lines are to be left as they are
    from node.local.cluster import rpc_address
    from node.local.dev import count_nodes, run_nodes, say
    from node.local.process import Said
    from node.local.telling import how_to_stop_one, what_helps, what_to_try

    count = count_nodes(data, nodes)
    if count > 1:
        sys.exit(run_nodes(data, http, count))

    def refused(error: TimeMachineError) -> None:
        said = Said(error.specific_code, error.detail)
        say("\n" + what_helps(said, data, "timemachine dev"))

    flags = {
        "data": data,
        "http": http,
        "rpc": rpc_address(http),
        "allow_private": ["127.0.0.0/8", "::1/128"],
    }
    _run(
        flags,
        None,
        bound=lambda url: say(what_to_try(url) + how_to_stop_one(data)),
        refused=refused,
    )


@main.command(context_settings=_HELP)
def demo() -> None:
    """Fire 2,000 jobs on three nodes, kill one, pause another, and show that the promises hold."""
    from node.demo import run_demo

    sys.exit(run_demo())


@main.command(context_settings=_HELP)
def version() -> None:
    """Print the version."""
    click.echo(__version__)


if __name__ == "__main__":
    main(prog_name="timemachine")
