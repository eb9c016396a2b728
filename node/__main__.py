"""The command line: `timemachine serve`, `dev`, `demo`, `version`; `admin` has the others."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from admin.lazy import LazyGroup
from admin.program import PLACES
from timemachine import __version__
from timemachine.errors import ConfigError, SealError, StoreError, TimeMachineError

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


def _refuse(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value:
        raise click.UsageError(f"{parameter.opts[0]} has no meaning in this version yet.")
    return value


def _not_yet(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options of the contract that have no meaning yet: hidden, and refused when given."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in names:
            option = click.option(
                name, hidden=True, callback=_refuse, expose_value=False, default=None
            )
            command = option(command)
        return command

    return decorate


@main.command(context_settings=_HELP)
@click.option("--data", metavar="DIR", help="The data directory; made when it does not exist.")
@click.option("--http", metavar="HOST:PORT", help="Where the API listens. [127.0.0.1:8001]")
@click.option("--rpc", metavar="HOST:PORT", help="Address kept for other nodes. [127.0.0.1:9001]")
@click.option("--advertise-http", metavar="HOST:PORT", help="The API's address as others see it.")
@click.option("--node-name", metavar="NAME", help="A name for people. [the host's name]")
@click.option("--zone", metavar="ZONE", help="The failure domain of this node.")
@click.option("--bootstrap", type=click.Choice(["auto", "never"]), help="Begin a cluster? [auto]")
@click.option("--config", "config_file", metavar="FILE", help="Settings in TOML.")
@click.option(
    "--allow-private",
    metavar="CIDR",
    multiple=True,
    help="A private range that webhooks of a new cluster may go to; may be given several times.",
)
@click.option("--secret-key-file", metavar="FILE", help="The key that secrets are sealed with.")
@click.option("--api-token-file", metavar="FILE", help="Tokens of those who may use the API.")
@click.option("--http-tls-cert", metavar="FILE", help="Certificate chain in PEM: speak HTTPS.")
@click.option("--http-tls-key", metavar="FILE", help="The key of that certificate, in PEM.")
@click.option("--disk-reserve-mb", type=int, metavar="MIB", help="Free disk to keep. [256]")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback regardless.")
@click.option("--print-config", is_flag=True, help="Print the effective settings and exit.")
@_not_yet("--join", "--join-token", "--advertise-rpc")
@_not_yet("--rpc-tls-cert", "--rpc-tls-key", "--rpc-tls-ca")
def serve(config_file: str | None, print_config: bool, **flags: Any) -> None:
    """Run a node.

    Settings come from --config, then TIMEMACHINE_* variables, then flags; later ones win.
    Exit codes: 0 stopped as asked, 2 wrong usage or configuration, 3 the data directory cannot
    be used, 1 anything else.

    The files of --api-token-file, --http-tls-cert and --http-tls-key are read again on SIGHUP.

    \b
    Examples:
      timemachine serve --data ./data --allow-private 127.0.0.0/8
      timemachine serve --data ./data --http 0.0.0.0:8001 --api-token-file tokens
      timemachine serve --data ./data --http-tls-cert chain.pem --http-tls-key key.pem
    """  # noqa: D301 - to click \b says that lines are to be left as they are
    flags["allow_private"] = list(flags["allow_private"]) or None
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
@click.option("--nodes", type=click.IntRange(1, 1), default=1, help="One, for now.")
def dev(data: str, http: str, nodes: int) -> None:
    """Run a local node; webhooks to this machine are allowed.

    It prints commands to try. Ctrl+C stops it; the data stays, and the next start goes on with it.
    Exit codes as those of serve.

    Example: timemachine dev
    """
    del nodes
    flags = {"data": data, "http": http, "allow_private": ["127.0.0.0/8", "::1/128"]}
    _run(
        flags,
        None,
        bound=lambda url: _say_what_to_try(url, data),
        refused=lambda error: _say_what_helps(error, http, data),
    )


def _say_what_to_try(url: str, data: str) -> None:
    base = f"{url}/v1/dbs/default"
    click.echo(
        "Try, in another terminal:\n\n"
        f"  curl -X PUT {base}/collections/jobs\n"
        f"  curl -X PUT {base}/routes/hello"
        """ -d '{"webhook_url": "http://127.0.0.1:4000/"}'\n"""
        f"  curl {base}/collections/jobs/jobs"
        """ -d '{"delay_ms": 5000, "route": "hello", "meta": {"hi": 1}}'\n\n"""
        "`timemachine collection`, `route` and `job` do the same; each has --help.\n"
        f"Ctrl+C stops the node. Its data stays in {data}; delete that folder to begin anew.\n",
        err=True,
    )


def _say_what_helps(error: TimeMachineError, http: str, data: str) -> None:
    """Why `dev` could not start, for somebody who does it for the first time."""
    from node.wiring import CANNOT_LISTEN

    if error.specific_code == CANNOT_LISTEN and "in use" in error.detail:
        sentence = (
            f"{http} cannot be had: another program listens there, perhaps another node.\n"
            f"Stop that one, or take a free port: timemachine dev --data {data} --http 127.0.0.1:0"
        )
    elif error.specific_code == "store_in_use":
        sentence = (
            f"The data in {data} is in use: another node runs on it.\n"
            "Stop that one, or start a second one beside it:"
            " timemachine dev --data other --http 127.0.0.1:0"
        )
    elif isinstance(error, StoreError | SealError):
        sentence = f"{error.detail}\nAnother folder may do: timemachine dev --data other"
    else:
        sentence = error.detail
    click.echo(f"\n{sentence}", err=True)


@main.command(context_settings=_HELP)
def demo() -> None:
    """Fire 2,000 jobs, kill the node in the middle, and show that the promises hold."""
    from node.demo import run_demo

    sys.exit(run_demo())


@main.command(context_settings=_HELP)
def version() -> None:
    """Print the version."""
    click.echo(__version__)


if __name__ == "__main__":
    main(prog_name="timemachine")
