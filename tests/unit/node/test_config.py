"""Settings: their three spellings and order, and what is refused with which words."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from admin.given import shared_options
from node.__main__ import main
from node.config import Config, as_toml, is_loopback, load, split_address
from timemachine.errors import ConfigError
from timemachine.jointokens import SEED_BYTES, new_token

DATA = {"data": "d"}
HTTP_TLS = {"http_tls_cert": "c", "http_tls_key": "k"}
RPC_TLS = {"rpc_tls_cert": "c", "rpc_tls_key": "k", "rpc_tls_ca": "a"}
JOIN = {"join": ["h:1"]}
TOKEN = new_token(bytes(SEED_BYTES)).text
TOGETHER: list[dict[str, Any]] = [
    HTTP_TLS,
    RPC_TLS,
    JOIN | {"join_token": TOKEN},
    JOIN | {"replace": "n"},
    {"egress_proxy": "http://p:1", "egress_proxy_auth_file": "a"},
]


def toml(folder: Path, text: str) -> str:
    """A configuration file."""
    path = folder / "node.toml"
    path.write_text(text)
    return str(path)


def test_later_ones_win(tmp_path: Path) -> None:
    """Flags win over the environment, the environment over the file, the file over defaults."""
    file = toml(tmp_path, 'data = "f"\nhttp = "127.0.0.1:1"\nzone = "f"\nnode_name = "f"\n')
    environment = {"TIMEMACHINE_HTTP": "127.0.0.1:2", "TIMEMACHINE_ZONE": "e"}
    flags = {"http": "127.0.0.1:3", "zone": None}
    loaded, unknown = load(flags, environment, file)
    assert ("f", "127.0.0.1:3", "e", "f", "127.0.0.1:9001") == (
        loaded.data,
        loaded.http,
        loaded.zone,
        loaded.node_name,
        loaded.rpc,
    )
    assert [] == unknown


@pytest.mark.parametrize("name", Config.__struct_fields__)
def test_every_setting_has_three_spellings(name: str, tmp_path: Path) -> None:
    """`name` in TOML, TIMEMACHINE_NAME in the environment, --na-me as a flag."""
    values: dict[str, tuple[Any, str]] = {
        "http": ("127.0.0.1:1", "127.0.0.1:1"),
        "rpc": ("127.0.0.1:1", "127.0.0.1:1"),
        "advertise_http": ("h:1", "h:1"),
        "advertise_rpc": ("h:1", "h:1"),
        "join_token": (TOKEN, TOKEN),
        "egress_proxy": ("http://p:1", "http://p:1"),
        "join": (["h:1", "[::1]"], "h:1, [::1]"),
        "bootstrap": ("never", "never"),
        "allow_private": (["10.0.0.0/8", "::1/128"], "10.0.0.0/8, ::1/128"),
        "insecure": (True, "true"),
        "disk_reserve_mb": (7, "7"),
        "snapshot_mb_per_s": (7, "7"),
        "weight": (7, "7"),
    }
    value, text = values.get(name, ("x", "x"))
    file = toml(tmp_path, f"{name} = {msgspec.json.encode(value).decode()}\n")
    base = {} if name == "data" else DATA
    # Some are nothing without others.
    for together in TOGETHER:
        if name in together:
            base = base | {other: value for other, value in together.items() if other != name}
    from_file, _ = load(base, {}, file)
    from_environment, _ = load(base, {f"TIMEMACHINE_{name.upper()}": text}, None)
    from_flags, _ = load(base | {name: value}, {}, None)
    assert from_file == from_environment == from_flags
    assert from_file != Config(data="d")
    help_text = CliRunner().invoke(main, ["serve", "--help"]).output
    assert f"--{name.replace('_', '-')}" in help_text


def test_unknown_names(tmp_path: Path) -> None:
    """An unknown key of the file is refused; unknown variables are only told of."""
    with pytest.raises(ConfigError, match="`htp` is not a setting"):
        load(DATA, {}, toml(tmp_path, 'htp = "x"'))
    # What Kubernetes sets for a service of our name.
    environment = {"TIMEMACHINE_PORT": "tcp://1:2", "TIMEMACHINE_SERVICE_HOST": "1", "HOME": "x"}
    _, unknown = load(DATA, environment, None)
    assert ["TIMEMACHINE_PORT", "TIMEMACHINE_SERVICE_HOST"] == unknown
    # Those of the commands that ask a node are known: one shell may have both.
    variables = [option.envvar for option in shared_options(db=True)]
    of_clients = {str(name): "x" for name in variables if name} | {"TIMEMACHINE_TOKEN": "x"}
    assert [] == load(DATA, of_clients, None)[1]
    assert not {"port", *(n for n in Config.__struct_fields__ if n.startswith("service"))} & set(
        Config.__struct_fields__
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "data:"),
        ({"data": ""}, "data:"),
        (DATA | {"http": "127.0.0.1:65536"}, "http:"),
        (DATA | {"http": "127.0.0.1:²"}, "http:"),
        (DATA | {"http": "::1:80"}, "http:"),
        (DATA | {"http": "http://127.0.0.1:1"}, "http:"),
        (DATA | {"rpc": "a b:1"}, "rpc:"),
        (DATA | {"advertise_http": "x:y"}, "advertise_http:"),
        (DATA | {"http": "0.0.0.0:80"}, "--insecure"),
        (DATA | {"http": "0.0.0.0:80"}, "--api-token-file"),
        # Secret from whom, if everybody is let in?
        (DATA | {"http": "0.0.0.0:80"} | HTTP_TLS, "--insecure"),
        (DATA | {"http_tls_cert": "c"}, "http_tls_key:"),
        (DATA | {"http_tls_key": "k"}, "http_tls_cert:"),
        (DATA | {"http": "[::]:80"}, "--insecure"),
        (DATA | {"http": "example.com:80"}, "--insecure"),
        (DATA | {"bootstrap": "maybe"}, "bootstrap:"),
        (DATA | {"allow_private": ["lan"]}, "allow_private:"),
        (DATA | {"disk_reserve_mb": -1}, "disk_reserve_mb:"),
        (DATA | {"weight": -1}, "weight:"),
        (DATA | {"weight": 10_001}, "weight:"),
        (DATA | {"snapshot_mb_per_s": 0}, "snapshot_mb_per_s:"),
        (DATA | {"snapshot_mb_per_s": 10_001}, "snapshot_mb_per_s:"),
        (DATA | {"zone": 7}, "zone:"),
        (DATA | {"rpc": "10.0.0.1:1"}, "--rpc-tls-cert"),
        (DATA | {"rpc": "10.0.0.1:1"}, "--insecure"),
        (DATA | {"rpc": "0.0.0.0:1"} | RPC_TLS, "--advertise-rpc"),
        (DATA | {"rpc": "[::]:1", "insecure": True}, "--advertise-rpc"),
        (DATA | {"advertise_rpc": "0.0.0.0:1"}, "advertise_rpc:"),
        (DATA | {"advertise_rpc": "h:0"}, "advertise_rpc:"),
        (DATA | {"advertise_rpc": "h:h"}, "advertise_rpc:"),
        (DATA | {"rpc_tls_cert": "c"}, "rpc_tls_key:"),
        (DATA | {"rpc_tls_key": "k", "rpc_tls_ca": "a"}, "rpc_tls_cert:"),
        (DATA | {"rpc_tls_cert": "c", "rpc_tls_key": "k"}, "rpc_tls_ca:"),
        (DATA | {"join": ["a b"]}, "join:"),
        (DATA | {"egress_proxy": "proxy:3128"}, "egress_proxy:"),
        (DATA | {"egress_proxy": "socks5://proxy"}, "egress_proxy:"),
        (DATA | {"egress_proxy": "http://proxy:0"}, "egress_proxy:"),
        (DATA | {"egress_proxy": "http://proxy/path"}, "egress_proxy:"),
        (DATA | {"egress_proxy_auth_file": "a"}, "egress_proxy:"),
        (DATA | {"join": ["h:0"]}, "join:"),
        (DATA | {"join_token": TOKEN}, "join:"),
        (DATA | JOIN | {"join_token": TOKEN[:-1]}, "join_token:"),
        (DATA | {"replace": "n"}, "join:"),
    ],
)
def test_wrong_values(flags: dict[str, Any], words: str) -> None:
    """A wrong value is refused with the name of its setting."""
    with pytest.raises(ConfigError) as caught:
        load(flags, {}, None)
    assert words in caught.value.detail


@pytest.mark.parametrize(
    ("variable", "text"),
    [("INSECURE", "maybe"), ("DISK_RESERVE_MB", "²"), ("DISK_RESERVE_MB", "-1")],
)
def test_wrong_text_in_the_environment(variable: str, text: str) -> None:
    """Text that is no value of its setting is refused, and the variable named."""
    with pytest.raises(ConfigError, match=variable):
        load(DATA, {f"TIMEMACHINE_{variable}": text}, None)


@pytest.mark.parametrize("text", ["http = ", "http = 1", "data = []", "\x00"])
def test_wrong_files(text: str, tmp_path: Path) -> None:
    """A file that cannot be read or holds the wrong types is refused."""
    file = toml(tmp_path, text)
    with pytest.raises(ConfigError):
        load({}, {}, file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(DATA, {}, str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost", ("localhost", 7)),
        (":80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 7)),
        ("a.example:0", ("a.example", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    """HOST:PORT, with brackets around IPv6, with the default port, with any port."""
    assert address == split_address(text, "http", default_port=7)


def test_loopback() -> None:
    """Only what is surely this machine alone counts as loopback."""
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"))


def test_beyond_loopback_when_told_so() -> None:
    """--insecure is the way to say that the network is trusted."""
    loaded, _ = load(DATA | {"http": "0.0.0.0:80", "insecure": True}, {}, None)
    assert "0.0.0.0:80" == loaded.http


@pytest.mark.parametrize("flags", [RPC_TLS, {"insecure": True}])
def test_nodes_beyond_loopback(flags: dict[str, Any]) -> None:
    """Nodes on other machines prove who they are, or the network is trusted."""
    beyond = {"rpc": "0.0.0.0:1", "advertise_rpc": "10.0.0.1:1"}
    loaded, _ = load(DATA | beyond | flags, {}, None)
    assert "0.0.0.0:1" == loaded.rpc


def test_nodes_to_join() -> None:
    """On the command line as one word; the token need not stay when it has been used."""
    arguments = ["serve", "--data", "d", "--join", "h:1, [::1]", "--print-config"]
    run = CliRunner().invoke(main, arguments)
    assert ["h:1", "[::1]"] == tomllib.loads(run.output)["join"]


def test_a_join_token_is_not_shown() -> None:
    """It would let in whoever reads it."""
    environment = {"TIMEMACHINE_JOIN": "h:1", "TIMEMACHINE_JOIN_TOKEN": TOKEN}
    run = CliRunner(env=environment).invoke(main, ["serve", "--data", "d", "--print-config"])
    assert 0 == run.exit_code
    assert TOKEN.partition(".")[2] not in run.output
    assert "" == tomllib.loads(run.output)["join_token"]


def test_beyond_loopback_with_tokens() -> None:
    """Where everybody has to prove who they are, other machines may come."""
    loaded, _ = load(DATA | {"http": "0.0.0.0:80", "api_token_file": "tokens"}, {}, None)
    assert "0.0.0.0:80" == loaded.http


def test_variables_of_clients_are_known() -> None:
    """What clients go by is no unknown variable, and its value appears nowhere."""
    loaded, unknown = load(DATA, {"TIMEMACHINE_TOKEN": "t" * 20, "TIMEMACHINE_SERVER": "x"}, None)
    assert [] == unknown
    assert "t" * 20 not in as_toml(loaded)


def test_credentials_of_a_proxy_are_no_part_of_its_url() -> None:
    """They would be seen in the list of processes and by --print-config; neither repeats them."""
    arguments = ["serve", "--data", "d", "--egress-proxy", "http://user:pass-word@proxy:3128"]
    run = CliRunner().invoke(main, [*arguments, "--print-config"])
    assert 2 == run.exit_code
    assert "egress_proxy_auth_file" in run.output
    assert "pass-word" not in run.output


def test_print_config_can_be_read_again(tmp_path: Path) -> None:
    """--print-config prints TOML that gives the same configuration, and exits with 0."""
    arguments = ["serve", "--data", 'a"b\\c', "--zone", "ä", "--allow-private", "::1/128"]
    run = CliRunner().invoke(main, [*arguments, "--print-config"])
    assert 0 == run.exit_code
    again, _ = load({}, {}, toml(tmp_path, run.output))
    assert ('a"b\\c', "ä", ("::1/128",)) == (again.data, again.zone, again.allow_private)
    assert run.output == as_toml(again)
    assert set(Config.__struct_fields__) == set(tomllib.loads(run.output))


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["serve", "--data", "d", "--frobnicate"],
        ["serve", "--data", "d", "--http", "0.0.0.0:1"],
        ["serve", "--data", "d", "--config", "no such file"],
        ["dev", "--nodes", "6"],
        ["fly"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """Wrong usage and wrong configuration exit with 2 and say why on standard error."""
    run = CliRunner().invoke(main, arguments)
    assert 2 == run.exit_code
    assert "Error" in run.output
