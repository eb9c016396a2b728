"""The settings of a route as options, and the body that they make."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from admin import times
from admin.arguments import together
from admin.parsed import Parsed


class Setting(NamedTuple):
    """One option: `path` is the member that it sets, from the body inwards."""

    path: tuple[str, ...]
    flags: str
    settings: Mapping[str, Any]


def checked_json(text: str | bytes) -> msgspec.Raw:
    """JSON as it stands. Raises ValueError with a sentence for the user."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    try:
        msgspec.json.decode(data.strip(), type=msgspec.Raw)
        data.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(
            f"This is not valid JSON: {error}. Text needs quotes of its own, as in '\"text\"'."
        ) from None
    return msgspec.Raw(data.strip())


def read_bytes(path: str) -> bytes:
    """What is in a file, or comes from standard input for `-`. Raises OSError."""
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def _durations(text: str) -> list[int]:
    return [times.parse_duration_ms(part) for part in text.split(",") if part.strip()]


def _statuses(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{text!r} is no list of statuses. Write for instance 410,422.") from None


def _content(path: str) -> str:
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None


JSON: Final = Parsed("json", checked_json)
"""An option that takes JSON; its value keeps the text as it is."""

_DURATIONS: Final = Parsed("durations", _durations)
_STATUSES: Final = Parsed("statuses", _statuses)
CONTENT: Final = Parsed("file", _content)
"""An option that takes a file, or - for standard input; its value is the text in it."""
_NUMBER: Final = {"type": int, "metavar": "N"}
_MS: Final = {"type": times.DURATION, "metavar": "MS"}

SETTINGS: Final = (
    Setting(
        ("webhook_url",),
        "--url --webhook-url",
        {"metavar": "URL", "help": "Where webhooks are sent."},
    ),
    Setting(("type",), "--type", {"type": click.Choice(["webhook", "REST"]), "hidden": True}),
    Setting(("https_only",), "--https-only/--no-https-only", {"help": "Refuse plain http."}),
    Setting(
        ("body",),
        "--body",
        {
            "type": click.Choice(["job", "meta"]),
            "help": "What is sent: the job, or its meta alone.",
        },
    ),
    Setting(
        ("secret",),
        "--secret-file",
        {"type": CONTENT, "metavar": "FILE", "help": "whsec_... to sign with; else one is made."},
    ),
    Setting(("timeout_ms",), "--request-timeout-ms", {**_MS, "help": "For one attempt. [15s]"}),
    Setting(
        ("delivery",),
        "--delivery",
        {
            "type": click.Choice(["at_least_once", "at_most_once"]),
            "help": "What happens to a send whose end is unknown.",
        },
    ),
    Setting(
        ("retry", "schedule_ms"),
        "--retry-schedule-ms",
        {
            "type": _DURATIONS,
            "metavar": "MS,MS,...",
            "help": "Waits after failed attempts, such as 5s,5m,2h; the last one repeats.",
        },
    ),
    Setting(
        ("retry", "max_attempts"),
        "--retry-max-attempts",
        {**_NUMBER, "help": "The first one counts."},
    ),
    Setting(
        ("retry", "max_age_ms"),
        "--retry-max-age-ms",
        {**_MS, "help": "After that long no attempt is made."},
    ),
    Setting(
        ("retry", "jitter"),
        "--retry-jitter",
        {"type": float, "metavar": "0..1", "help": "How much waits vary."},
    ),
    Setting(
        ("non_retryable_status",),
        "--non-retryable-status",
        {"type": _STATUSES, "metavar": "N,N,...", "help": "Answers after which a job is dead."},
    ),
    Setting(
        ("smear_ms",), "--smear-ms", {**_MS, "help": "Spread jobs of one moment over so long."}
    ),
    Setting(("max_in_flight",), "--max-in-flight", {**_NUMBER, "help": "Requests at a time. [64]"}),
    Setting(("rate", "count"), "--rate-count", {**_NUMBER, "help": "Attempts in each period."}),
    Setting(("rate", "period_ms"), "--rate-period-ms", {**_MS, "help": "That period. [1s]"}),
    Setting(("breaker",), "--breaker", {"type": JSON, "metavar": "JSON", "help": "As in the API."}),
    Setting(
        ("disable_after_ms",),
        "--disable-after-ms",
        {**_MS, "help": "Stop a route that only failed for so long."},
    ),
    Setting(
        ("alert_route",),
        "--alert-route",
        {"metavar": "NAME", "help": "The route that is told what fails here."},
    ),
    Setting(("batch", "max_jobs"), "--batch-max-jobs", {**_NUMBER, "help": "Jobs in a request."}),
    Setting(("batch", "max_bytes"), "--batch-max-bytes", {**_NUMBER, "help": "Bytes in it."}),
    Setting(("batch", "max_wait_ms"), "--batch-max-wait-ms", {**_MS, "help": "Wait to fill it."}),
    Setting(
        ("batch", "format"),
        "--batch-format",
        {"type": click.Choice(["jobs", "cloudevents"]), "help": "What its items are. [jobs]"},
    ),
    Setting(
        ("ca_pem",),
        "--ca-pem-file",
        {"type": CONTENT, "metavar": "FILE", "help": "Authority to trust for this recipient."},
    ),
    Setting(
        ("client_cert_pem",),
        "--client-cert-pem-file",
        {"type": CONTENT, "metavar": "FILE", "help": "Certificate to show to it."},
    ),
    Setting(
        ("client_key_pem",),
        "--client-key-pem-file",
        {"type": CONTENT, "metavar": "FILE", "help": "The key of that certificate."},
    ),
    Setting(
        ("dangerous_skip_tls_verify",),
        "--dangerous-skip-tls-verify/--tls-verify",
        {"help": "Do not look at its certificate."},
    ),
    Setting(("enabled",), "--enabled/--disabled", {"help": "Whether it is sent to at all."}),
)
"""Every setting of a route but `headers`, which repeats."""


def _parameter(setting: Setting) -> str:
    return "setting_" + "_".join(setting.path)


route_options = together(
    *(
        click.option(*each.flags.split(), _parameter(each), default=None, **each.settings)
        for each in SETTINGS
    ),
    click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="NAME=VALUE",
        help="Sent with each webhook; may be given several times.",
    ),
    click.option("--from-file", type=CONTENT, metavar="FILE", help="Settings as JSON; - is stdin."),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="NAME=JSON",
        help="Any setting by its name in the API, such as ca_pem=null or retry.jitter=0.1.",
    ),
)
"""All options of a route."""


def body_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The body that the options make: the file's members, options and --set on top of them."""
    body: dict[str, Any] = {}
    if options["from_file"] is not None:
        try:
            body = msgspec.json.decode(options["from_file"], type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise click.UsageError(f"--from-file: this is no JSON object: {error}.") from None
    for setting in SETTINGS:
        value = options[_parameter(setting)]
        if value is not None:
            _put(body, setting.path, value.strip() if setting.path == ("secret",) else value)
    if options["headers"]:
        body["headers"] = dict(_header(text) for text in options["headers"])
    for text in options["sets"]:
        name, equals, content = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--set: {text!r} is not NAME=JSON.")
        try:
            _put(body, tuple(name.split(".")), checked_json(content))
        except ValueError as error:
            raise click.UsageError(f"--set {name}: {error}") from None
    return body


def _put(body: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = body.get(name)
        if not isinstance(inner, dict):
            inner = body[name] = {}
        body = inner
    body[path[-1]] = value


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"--header: {text!r} is not NAME=VALUE.")
    return name, value
