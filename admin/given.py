"""The options that every command takes: which server, with what credentials, and what is printed.

They may stand behind the group or behind the command, `timemachine job --json list carts` or
`timemachine job list carts --json`; what stands further right wins.
"""

from dataclasses import dataclass
from typing import Any, Final

import click
from click.core import ParameterSource

from admin import complete, times

DEFAULT_SERVER: Final = "http://127.0.0.1:8001"


@dataclass
class Given:
    """What was said by option or environment; None where nothing was.

    server      one URL or a comma list
    db          the database that names stand for
    token_file  a file that holds the bearer token
    ca_file     PEM of the authorities to trust for https
    timeout_ms  one request in all, with all its tries
    as_json     print what the API answers
    """

    server: str | None = None
    db: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    timeout_ms: int | None = None
    as_json: bool | None = None

    @property
    def database(self) -> str:
        """The database that is meant."""
        return self.db or "default"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    given = context.ensure_object(Given)
    name = parameter.name
    assert name is not None
    typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    # What the environment says does not win over what was typed behind the group.
    if value is not None and (typed or getattr(given, name) is None):
        setattr(given, name, value)


def _option(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_keep, **settings)


def shared_options(*, db: bool) -> list[click.Option]:
    """New options for a command; with `db` also the one that names the database."""
    options = [
        _option(
            "--server",
            envvar="TIMEMACHINE_SERVER",
            metavar="URL",
            help=f"A node, or several, separated by commas. [TIMEMACHINE_SERVER, {DEFAULT_SERVER}]",
        ),
        _option(
            "--token-file",
            envvar="TIMEMACHINE_TOKEN_FILE",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            help="Holds the API token. [TIMEMACHINE_TOKEN_FILE, or TIMEMACHINE_TOKEN itself]",
        ),
        _option(
            "--ca-file",
            envvar="TIMEMACHINE_CA_FILE",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            help="Certificates to trust for https, in PEM. [TIMEMACHINE_CA_FILE]",
        ),
        _option(
            "--timeout-ms",
            metavar="MS",
            type=times.DURATION_NOT_ZERO,
            help="For one request with all its tries. [30000]",
        ),
        _option(
            "--json",
            "as_json",
            is_flag=True,
            default=None,
            help="Print what the API answers: one JSON document, a list as an array.",
        ),
    ]
    if db:
        option = _option(
            "--db",
            envvar="TIMEMACHINE_DB",
            metavar="NAME",
            shell_complete=complete.databases,
            help="The database. [TIMEMACHINE_DB, default]",
        )
        options.insert(0, option)
    return options
