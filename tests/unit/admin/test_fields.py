"""The options of a route, and the body that they make."""

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from admin.fields import SETTINGS, body_of, route_options
from timemachine.client import RouteFields


@click.command()
@route_options
def show(**options: Any) -> None:
    """Print the body."""
    click.echo(msgspec.json.encode(body_of(options)))


def body(*options: str, text: str | None = None) -> Any:
    """The body that options make, or the sentence that refuses them."""
    done = CliRunner().invoke(show, options, input=text)
    return msgspec.json.decode(done.stdout) if done.exit_code == 0 else done.stderr


def test_every_setting_of_the_api_has_an_option() -> None:
    """What the SDK can set, the command line can."""
    assert RouteFields.__annotations__.keys() == {each.path[0] for each in SETTINGS} | {"headers"}


def test_nothing_given_is_nothing_sent() -> None:
    """So that PATCH keeps, and PUT takes its defaults."""
    assert {} == body()


def test_all_kinds_of_options(tmp_path: Path) -> None:
    """Text, switches, durations, lists, files."""
    (tmp_path / "secret").write_text("whsec_x\n")
    (tmp_path / "ca").write_text("-----BEGIN\n")
    assert {
        "webhook_url": "https://example.com/",
        "https_only": False,
        "enabled": False,
        "secret": "whsec_x",
        "ca_pem": "-----BEGIN\n",
        "timeout_ms": 20_000,
        "retry": {"schedule_ms": [5_000, 300_000, 250], "max_attempts": 3, "jitter": 0.1},
        "non_retryable_status": [410, 422],
        "rate": {"count": 5, "period_ms": 60_000},
        "breaker": {"window_ms": 1},
        "headers": {"x-a": "1", "x-b": "k=v"},
    } == body(
        *("--url", "https://example.com/", "--no-https-only", "--disabled"),
        *("--secret-file", str(tmp_path / "secret"), "--ca-pem-file", str(tmp_path / "ca")),
        *("--request-timeout-ms", "20s", "--retry-schedule-ms", "5s,5m,250"),
        *("--retry-max-attempts", "3", "--retry-jitter", "0.1"),
        *("--non-retryable-status", "410,422", "--rate-count", "5", "--rate-period-ms", "1m"),
        *("--breaker", '{"window_ms": 1}', "--header", "x-a=1", "--header", "x-b=k=v"),
    )


def test_options_win_over_the_file() -> None:
    """A file gives the rest; --set names any member, also one that options have no word for."""
    given = '{"webhook_url": "http://a/", "retry": {"jitter": 0.5, "max_attempts": 2}, "x": 1}'
    assert {
        "webhook_url": "http://a/",
        "retry": {"jitter": 0.1, "max_attempts": 9},
        "x": 1,
        "ca_pem": None,
        "new": {"member": [1]},
    } == body(
        *("--from-file", "-", "--retry-max-attempts", "9", "--set", "retry.jitter=0.1"),
        *("--set", "ca_pem=null", "--set", "new.member=[1]"),
        text=given,
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--header", "novalue"], "NAME=VALUE"),
        (["--set", "ca_pem"], "NAME=JSON"),
        (["--set", "body=meta"], "not valid JSON"),
        (["--breaker", "{"], "not valid JSON"),
        (["--retry-schedule-ms", "5s,soon"], "no duration"),
        (["--non-retryable-status", "4xx"], "no list of statuses"),
        (["--from-file", "/nowhere"], "cannot be read"),
        (["--body", "all"], "'job', 'meta'"),
    ],
)
def test_what_is_refused(options: list[str], told: str) -> None:
    """Each with a sentence that names the option or what it takes."""
    assert told in body(*options)


def test_a_file_must_be_an_object() -> None:
    """Not a list, and not half of one."""
    assert "no JSON object" in body("--from-file", "-", text="[]")
    assert "no JSON object" in body("--from-file", "-", text="{")
