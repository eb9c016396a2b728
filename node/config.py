"""Settings: defaults, then TOML, then `TIMEMACHINE_*`, then flags; one name in all spellings."""

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec

from timemachine import limits
from timemachine.errors import ConfigError, InvalidRequest
from timemachine.jointokens import read_token
from timemachine.outbound import parse_target

ENVIRONMENT_PREFIX = "TIMEMACHINE_"
RPC_PORT = 9001
RPC_DEFAULT = f"127.0.0.1:{RPC_PORT}"
"""Where nodes listen to each other, unless they are told otherwise."""

_MIB = 1024 * 1024

_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]*))(?::(?P<port>[0-9]{1,5}))?"
)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How a node runs. Every field is a setting: `http` in TOML, TIMEMACHINE_HTTP, --http.

    data             the data directory; made when it does not exist
    http             where the API listens; beyond loopback it needs `api_token_file` or `insecure`
    rpc              where this node listens to other nodes; beyond loopback it needs the files of
                     `rpc_tls_*` or `insecure`
    advertise_http   the address of the API that others are told, when it is not `http`
    advertise_rpc    the address that other nodes are told, when it is not `rpc`
    node_name        a name for people; the host's name by default
    zone             the failure domain: replicas of a vnode are in different ones where that can be
    weight           how much this node is to have beside the others; 0: no replica
    bootstrap        `auto` makes a cluster of one in a new data directory, `never` refuses to
    join             `rpc` addresses of nodes of the cluster that a new data directory joins; one
                     that belongs to a cluster already goes on with that
    join_token       the one-time token that lets it in
    replace          the id of the node whose place it takes there, because its disk is lost
    allow_private    private ranges that webhooks may go to; they seed the cluster's setting
    secret_key_file  the key that secrets are sealed with; made in the data directory by default
    api_token_file   tokens of those who may use the API; without it all may who reach it
    egress_proxy     the proxy that webhooks go through, http://HOST:PORT or https://HOST:PORT
    egress_proxy_auth_file
                     what the proxy is shown: one line USER:PASSWORD
    egress_ca_file   authorities in PEM that are trusted to sign for recipients, and for the proxy,
                     beside the system's and those of a route
    http_tls_cert    the certificate chain in PEM that the API speaks HTTPS with
    http_tls_key     its key in PEM, without a passphrase; both are given or none
    rpc_tls_cert     the certificate chain in PEM that this node shows to other nodes
    rpc_tls_key      its key in PEM, without a passphrase
    rpc_tls_ca       the authority in PEM that the certificates of all nodes are from; all three
                     are given or none
    disk_reserve_mb  below this much free disk, writes of creators get 507, firing goes on
    snapshot_mb_per_s
                     how much this node sends to others, at most, of images of replicas
    insecure         listen beyond loopback without credentials, and to other nodes without TLS
    """

    data: str
    http: str = "127.0.0.1:8001"
    rpc: str = RPC_DEFAULT
    advertise_http: str = ""
    advertise_rpc: str = ""
    node_name: str = ""
    zone: str = ""
    weight: int = limits.NODE_WEIGHT_DEFAULT
    bootstrap: str = "auto"
    join: tuple[str, ...] = ()
    join_token: str = ""
    replace: str = ""
    allow_private: tuple[str, ...] = ()
    secret_key_file: str = ""
    api_token_file: str = ""
    egress_proxy: str = ""
    egress_proxy_auth_file: str = ""
    egress_ca_file: str = ""
    http_tls_cert: str = ""
    http_tls_key: str = ""
    rpc_tls_cert: str = ""
    rpc_tls_key: str = ""
    rpc_tls_ca: str = ""
    disk_reserve_mb: int = 256
    snapshot_mb_per_s: int = limits.SNAPSHOT_RATE_BYTES_DEFAULT // _MIB
    insecure: bool = False


RPC_TLS = ("rpc_tls_cert", "rpc_tls_key", "rpc_tls_ca")
"""The settings of TLS between nodes."""

_OF_OTHERS = ("config", "server", "db", "token", "token_file", "ca_file")
"""What else is spelt TIMEMACHINE_*: where the settings are, and what clients go by."""


def split_address(text: str, setting: str, *, default_port: int) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[V6]:PORT` or `HOST`; `:PORT` is loopback.

    Port 0 lets the system choose. Raises ConfigError.
    """
    found = _ADDRESS.fullmatch(text)
    port = default_port if found is None or found["port"] is None else int(found["port"])
    if found is None or port > 65_535:
        raise ConfigError(f"{setting}: {text!r} is not HOST:PORT (IPv6: [HOST]:PORT).")
    return found["v6"] or found["host"] or "127.0.0.1", port


def split_proxy(url: str) -> tuple[str, int, bool]:
    """Host and port of a proxy, and whether it speaks TLS. Raises ConfigError, without the URL."""
    try:
        target, userinfo = parse_target(url)
    except InvalidRequest as error:
        raise ConfigError(f"egress_proxy: {error.detail}") from None
    if userinfo is not None:
        raise ConfigError(
            "egress_proxy: a URL is seen by many; write USER:PASSWORD into the file of"
            " egress_proxy_auth_file."
        )
    if target.path_and_query != b"/":
        raise ConfigError("egress_proxy: this is http:// or https://, a host and a port alone.")
    return target.host, target.port, target.scheme == "https"


def is_loopback(host: str) -> bool:
    """Whether a listen address only takes connections from this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Whether a listen address stands for all addresses of this machine."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], config_file: str | None
) -> tuple[Config, list[str]]:
    """The effective configuration, and names of TIMEMACHINE_* variables that mean nothing.

    `flags` holds those given. Raises ConfigError with a sentence for the user.
    """
    values: dict[str, Any] = {}
    known = set(Config.__struct_fields__)
    if config_file:
        values |= _from_toml(config_file, known)
    unknown = []
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in known:
            values[name] = _from_text(name, text)
        elif name not in _OF_OTHERS:
            unknown.append(variable)
    values |= {name: value for name, value in flags.items() if value is not None}
    if not values.get("data"):
        raise ConfigError("data: name a data directory with --data DIR.")
    try:
        config = msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        # msgspec ends with " - at `$.http`"; users know no `$`.
        sentence, _, place = str(error).partition(" - at `$.")
        raise ConfigError(f"{place.rstrip('`') or 'configuration'}: {sentence}.") from None
    _validate(config)
    return config, unknown


def _from_toml(path: str, known: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: {path} is not valid TOML: {error}") from None
    for name in values:
        if name not in known:
            raise ConfigError(f"config: `{name}` is not a setting.")
    return values


def _from_text(name: str, text: str) -> Any:
    if name == "insecure":
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigError(f"{ENVIRONMENT_PREFIX}{name.upper()} is true or false.")
        return text.lower() in ("true", "1")
    if name in ("allow_private", "join"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if name in ("disk_reserve_mb", "snapshot_mb_per_s", "weight"):
        if re.fullmatch(r"[0-9]{1,9}", text) is None:
            raise ConfigError(f"{ENVIRONMENT_PREFIX}{name.upper()} is a number.")
        return int(text)
    return text


def _validate(config: Config) -> None:
    host, _ = split_address(config.http, "http", default_port=8001)
    if config.advertise_http:
        split_address(config.advertise_http, "advertise_http", default_port=8001)
    if config.bootstrap not in ("auto", "never"):
        raise ConfigError("bootstrap: this is `auto` or `never`.")
    if not 0 <= config.disk_reserve_mb <= 1_000_000:
        raise ConfigError("disk_reserve_mb: this is 0 to 1000000.")
    if not 0 <= config.weight <= limits.NODE_WEIGHT_MAX:
        raise ConfigError(f"weight: this is 0 to {limits.NODE_WEIGHT_MAX}.")
    rate_mb_max = limits.SNAPSHOT_RATE_BYTES_MAX // _MIB
    if not 1 <= config.snapshot_mb_per_s <= rate_mb_max:
        raise ConfigError(f"snapshot_mb_per_s: this is 1 to {rate_mb_max}.")
    for text in config.allow_private:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise ConfigError(f"allow_private: {text!r} is no range, such as 10.0.0.0/8.") from None
    if config.egress_proxy:
        split_proxy(config.egress_proxy)
    if config.egress_proxy_auth_file and not config.egress_proxy:
        raise ConfigError("egress_proxy: name the proxy that egress_proxy_auth_file is for.")
    if bool(config.http_tls_cert) != bool(config.http_tls_key):
        given, missing = "http_tls_cert", "http_tls_key"
        if config.http_tls_key:
            given, missing = missing, given
        raise ConfigError(f"{missing}: this is needed beside {given}; HTTPS takes both.")
    if not is_loopback(host) and not config.api_token_file and not config.insecure:
        raise ConfigError(
            f"http: {config.http} is reachable from other machines, and nobody has to prove who"
            " they are. Name tokens with --api-token-file, listen on loopback, or add --insecure"
            " if the network is trusted."
        )
    _validate_rpc(config)
    _validate_join(config)


def _validate_rpc(config: Config) -> None:
    host, _ = split_address(config.rpc, "rpc", default_port=RPC_PORT)
    if config.advertise_rpc:
        told, port = split_address(config.advertise_rpc, "advertise_rpc", default_port=RPC_PORT)
        if not port or is_unspecified(told):
            raise ConfigError("advertise_rpc: other nodes cannot connect to this.")
    elif is_unspecified(host):
        raise ConfigError(
            f"rpc: others cannot connect to {config.rpc}; name this node's address with"
            " --advertise-rpc."
        )
    given = [name for name in RPC_TLS if getattr(config, name)]
    missing = [name for name in RPC_TLS if name not in given]
    if given and missing:
        raise ConfigError(f"{missing[0]}: this is needed beside {given[0]}; TLS takes all three.")
    if not is_loopback(host) and not given and not config.insecure:
        raise ConfigError(
            f"rpc: {config.rpc} is reachable from other machines, and nodes would not have to"
            " prove who they are. Give them certificates (--rpc-tls-cert, --rpc-tls-key,"
            " --rpc-tls-ca), listen on loopback, or add --insecure if the network is trusted."
        )


def _validate_join(config: Config) -> None:
    for text in config.join:
        _, port = split_address(text, "join", default_port=RPC_PORT)
        if not port:
            raise ConfigError(f"join: {text!r} has no port that one could connect to.")
    if config.join_token:
        try:
            read_token(config.join_token)
        except ValueError as error:
            raise ConfigError(f"join_token: {error}.") from None
    for name in ("join_token", "replace"):
        if getattr(config, name) and not config.join:
            raise ConfigError(f"join: name nodes of the cluster; {name} is for that.")


def as_toml(config: Config) -> str:
    """The effective configuration, as a file that gives the same again, but for a join token."""
    lines = []
    for name in Config.__struct_fields__:
        value = getattr(config, name)
        if name == "join_token" and value:
            lines.append(f'{name} = ""  # given, and not shown\n')
            continue
        if isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, tuple):
            text = "[" + ", ".join(_quoted(item) for item in value) + "]"
        elif isinstance(value, int):
            text = str(value)
        else:
            text = _quoted(value)
        lines.append(f"{name} = {text}\n")
    return "".join(lines)


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string.
    return msgspec.json.encode(text).decode()
