"""The command line against a real node: what is printed, what is stored, and the exit codes."""

import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from admin import exits
from tests.cluster.process import NodeProcess, Recipient, wait_until
from tests.cluster.terminal import Terminal

FAR_MS = 1_896_076_800_000
_numbers = count()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node for all tests; each has a database of its own."""
    with NodeProcess(tmp_path_factory.mktemp("cli") / "data") as node:
        yield node.start()


@pytest.fixture
def tm(node: NodeProcess) -> Terminal:
    """A terminal whose database has a collection `carts` and a route `hello` to nobody."""
    terminal = Terminal(node.address, f"cli-{next(_numbers)}")
    terminal("db", "put", terminal.environment["TIMEMACHINE_DB"])
    terminal("collection", "put", "carts", "--num-vnodes", "2")
    terminal(
        "route", "put", "hello", "--url", "http://127.0.0.1:1024/", "--retry-max-attempts", "1"
    )
    return terminal


def stored(node: NodeProcess, tm: Terminal, path: str) -> Any:
    """What the API says of something in the terminal's database."""
    status, answer = node.ask("GET", f"/v1/dbs/{tm.environment['TIMEMACHINE_DB']}/{path}")
    assert 200 == status, answer
    return answer


def far(tm: Terminal, *words: str) -> None:
    """Create a job that is due in 2030."""
    tm("job", "create", "carts", "--route", "hello", "--at", str(FAR_MS), *words)


def test_json_is_the_apis_own(tm: Terminal) -> None:
    """Meta keeps its bytes on the way in and on the way out, whatever the numbers are."""
    meta = '{"a": 1.0, "b": 123456789012345678901234567890, "c":  1e400}'
    far(tm, "--id", "a", "--meta", meta)
    assert f'"meta":{meta},' in tm("job", "get", "carts", "a", "--json").out
    assert f"meta               {meta}\n" in tm("job", "get", "carts", "a").out
    assert f'"meta":{meta},' in tm("job", "list", "carts", "--json").out


def test_any_id_can_be_named(tm: Terminal) -> None:
    """Also one that begins with a dash, as the manual says."""
    far(tm, "--id", "-7")
    assert "-7" == tm("job", "get", "carts", "--json", "--", "-7").json["id"]


def test_meta_from_a_file_or_a_pipe(tm: Terminal, tmp_path: Path) -> None:
    """What does not fit on a line comes from elsewhere."""
    (tmp_path / "meta").write_text(' {"x": 1}\n')
    far(tm, "--id", "a", "--meta-file", str(tmp_path / "meta"))
    assert {"x": 1} == tm("job", "get", "carts", "a", "--json").json["meta"]
    words = ("job", "patch", "carts", "a", "--meta-file", "-")
    assert [2] == tm(*words, "--json", text="[2]").json["meta"]
    assert "not valid JSON" in tm(*words, text="[2", code=exits.USAGE).err


def test_times_from_now_are_counted_by_the_node(tm: Terminal) -> None:
    """So a wrong clock here does no harm: the distance to the node's own clock is exact."""
    for words in (("--at", "+5m"), ("--delay", "300s"), ("--at", "in 5 minutes")):
        job = tm("job", "create", "carts", "--route", "hello", *words, "--json").json
        assert 300_000 == job["trigger_time"] - job["created_time"]


def test_a_job_from_its_creation_to_its_end(tm: Terminal, node: NodeProcess) -> None:
    """Put, patch, run, watch, redrive, attempts, delete; each says what became of the job."""
    with Recipient() as recipient:
        tm("route", "put", "hello", "--url", recipient.url)
        words = ("job", "put", "carts", "a/b c", "--route", "hello")
        tm(*words, "--at", str(FAR_MS), "--tag", "x", "--create-only")
        assert "does not hold" in tm(*words, "--delay", "1h", "--create-only", code=5).err
        tm("job", "patch", "carts", "a/b c", "--meta", "7", "--if-match", "1")
        assert (
            5 == tm("job", "patch", "carts", "a/b c", "--tag", "y", "--if-match", "1", code=5).code
        )
        assert (2, ["x"], 7) == tuple(
            tm("job", "get", "carts", "a/b c", "--json").json[name]
            for name in ("version", "tags", "meta")
        )
        tm("job", "run", "carts", "a/b c")
        done = tm("job", "watch", "carts", "a/b c")
        assert "delivered" in done.out
        assert "delivered, 1 attempt" in done.err
        tm("job", "redrive", "carts", "a/b c", code=exits.CONFLICT)
        tm("job", "redrive", "carts", "a/b c", "--force")
        tm("job", "watch", "carts", "a/b c")
        attempts = tm("job", "attempts", "carts", "a/b c", "--json").json
        assert ["succeeded"] * 2 == [each["status"] for each in attempts]
        assert "a/b c: already_delivered\n" == tm("job", "delete", "carts", "a/b c").out
        tm("job", "delete", "carts", "a/b c", "--purge", "--yes")
        tm("job", "get", "carts", "a/b c", code=exits.NOT_FOUND)
        assert {"a/b c"} == {each.job_id for each in recipient.arrivals()}


def test_a_job_that_dies(tm: Terminal) -> None:
    """`watch` ends with 1, and the list says why."""
    tm("job", "create", "carts", "--route", "hello", "--id", "a", "--at", "now")
    tm("job", "watch", "carts", "a", code=exits.FAILED)
    assert "exhausted: 127.0.0.1 refused" in tm("job", "list", "carts", "--state", "dead").out
    assert "connection_refused" in tm("job", "attempts", "carts", "a").out
    tm("job", "remove-content", "carts", "a", "1", "--yes")
    tm("job", "remove-content", "carts", "a", "9", "--yes", code=exits.NOT_FOUND)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["route", "get", "helo"], 4, ["route `helo` not found", "Did you mean `hello`?"]),
        (["route", "get", "xyz"], 4, ["There are: hello.", "route put xyz --url"]),
        (["collection", "get", "cart"], 4, ["Did you mean `carts`?"]),
        (["job", "list", "card"], 4, ["Did you mean `carts`?"]),
        (["db", "get", "defualt"], 4, ["database `defualt` not found", "`default`"]),
        (["job", "list", "carts", "--db", "defautl"], 4, ["database `defautl`", "`default`"]),
        (["job", "get", "carts", "nope"], 4, ["job `nope` not found in collection `carts`"]),
        (["job", "create", "carts", "--route", "helo", "--delay", "1h"], 5, ["`hello`"]),
        (["collection", "put", "carts", "--num-vnodes", "3"], 5, ["num_vnodes cannot change"]),
        (["db", "delete", "default"], 5, ["cannot be deleted"]),
        (["route", "patch", "hello", "--retry-jitter", "7"], 2, ["retry/jitter"]),
        (["route", "patch", "hello", "--set", "colour=1"], 2, ["colour"]),
        (["job", "list", "carts", "--state", "lost"], 2, ["state"]),
        (["task", "get", "nope"], 4, ["task"]),
        (["job", "get", "carts", ""], 2, ["must not be empty"]),
        (["job", "get", "carts", "\udcff"], 2, ["cannot be sent"]),
        (
            [
                "job",
                "create",
                "carts",
                "--route",
                "hello",
                "--at",
                "now",
                "--idempotency-key",
                "\n",
            ],
            2,
            ["Idempotency-Key"],
        ),
        (["collection", "put", "x", "--num-vnodes", "9" * 40], 2, ["num_vnodes"]),
        (["collection", "put", "x", "--history-retention-ms", "999999999999w"], 2, []),
        (["job", "batch", "carts", __file__, "--failed", "/nowhere/x"], 2, ["no such file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "job" in value else "",
)
def test_errors_help(tm: Terminal, words: list[str], code: int, told: list[str]) -> None:
    """What went wrong, what was meant, and an exit code for scripts; nothing on standard output."""
    done = tm(*words, code=code)
    assert "" == done.out
    for each in told:
        assert each in done.err


def test_errors_for_programs(tm: Terminal) -> None:
    """With --json an error is one object on standard error."""
    done = tm("job", "get", "carts", "nope", "--json", code=exits.NOT_FOUND)
    assert "" == done.out
    assert ("job_not_found", 404) == tuple(
        json.loads(done.err)[name] for name in ("code", "status")
    )


def test_a_hint_names_the_option(tm: Terminal) -> None:
    """Where the API would say ?force=true, the sentence says --force; and it works."""
    far(tm)
    assert "delete it with --force" in tm("collection", "delete", "carts", code=5).err
    assert "delete it with --force" in tm("route", "delete", "hello", code=5).err
    tm("route", "delete", "hello", "--force", "--yes")
    tm("collection", "delete", "carts", "--force", "--yes")
    tm("db", "delete", tm.environment["TIMEMACHINE_DB"])


def test_nobody_there(tm: Terminal, node: NodeProcess) -> None:
    """At once, with the address and what to do about it."""
    done = tm("db", "list", "--server", "http://127.0.0.1:1", code=exits.UNREACHABLE)
    assert "http://127.0.0.1:1: connection refused" in done.err
    assert "timemachine dev" in done.err
    done = tm("db", "list", "--server", f"https://{node.address}", "--timeout-ms", "500", code=7)
    assert "no TLS: " in done.err
    assert "cannot be resolved" in tm("db", "list", "--server", "http://a.invalid", code=7).err


def test_another_server_answers(tm: Terminal, node: NodeProcess) -> None:
    """Of several servers one is enough; the scheme may be left out."""
    assert "default" in tm("db", "list", "--server", f"127.0.0.1:1,{node.address}").out


def test_options_behind_the_group(tm: Terminal) -> None:
    """What is typed wins over the environment, and further right wins."""
    other = "--db", "default"
    assert "carts" in tm("collection", "list").out
    assert "carts" not in tm("collection", *other, "list").out
    named = "--db", tm.environment["TIMEMACHINE_DB"]
    assert "carts" in tm("collection", *other, "list", *named).out
    too_early = tm("--json", "collection", "list", code=exits.USAGE).err
    assert "--json stands behind the command" in too_early
    assert [] == tm("job", "--json", "list", "carts").json


def test_lists_follow_pages(tm: Terminal) -> None:
    """--all is all, in order, as one JSON document; --limit cuts, and says so."""
    lines = (json.dumps({"id": f"j{n}", "trigger_time": FAR_MS + n}) for n in range(2_500))
    done = tm("job", "batch", "carts", "-", "--route", "hello", text="\n".join(lines))
    assert "2500 created, 0 refused\n" == done.out
    words = ("job", "list", "carts", "--json")
    assert [f"j{n}" for n in range(2_500)] == [each["id"] for each in tm(*words, "--all").json]
    assert [f"j{n}" for n in range(1_200)] == [
        each["id"] for each in tm(*words, "--limit", "1200").json
    ]
    few = tm("job", "list", "carts", "--limit", "3")
    assert (4, 1) == (few.out.count("\n"), few.err.count("There are more than 3"))
    assert "" == tm("job", "list", "carts", "--limit", "2500").err
    some = tm(*words, "--from", str(FAR_MS + 10), "--to", str(FAR_MS + 12)).json
    assert ["j10", "j11"] == [each["id"] for each in some]
    assert "There is no such job" in tm("job", "list", "carts", "--route", "other").err
    assert "There is no such job" in tm("job", "list", "carts", "--tag", "other").err


def test_a_batch_of_good_and_bad(tm: Terminal, tmp_path: Path, node: NodeProcess) -> None:
    """Each job for itself: the good ones are created, the others come back with line and reason."""
    (tmp_path / "jobs").write_text(
        f'{{"id": "a", "trigger_time": {FAR_MS}, "route": "hello", "meta": {{"n": 1.0}}}}\n'
        "\n"
        f'{{"id": "b", "trigger_time": {FAR_MS}, "route": "nope"}}\n'
        "not json\n"
        f'{{"trigger_time": {FAR_MS}, "route": "hello"}}\n'
        f'{{"id": "a", "trigger_time": {FAR_MS}, "route": "hello", "meta": 2}}\n'
    )
    failed = tmp_path / "failed"
    words = ("job", "batch", "carts", str(tmp_path / "jobs"))
    done = tm(*words, "--failed", str(failed), "--json", code=exits.PARTLY)
    assert {"created": 2, "existing": 0, "failed": 3} == done.json
    refused = [json.loads(line) for line in failed.read_text().splitlines()]
    assert [3, 4, 6] == [each["line"] for each in refused]
    assert ["route_not_found", "invalid_request", "job_exists"] == [
        each["error"]["code"] for each in refused
    ]
    assert ({"id": "b", "trigger_time": FAR_MS, "route": "nope"}, "not json") == (
        refused[0]["job"],
        refused[1]["text"],
    )
    assert '"meta":{"n": 1.0},' in tm("job", "get", "carts", "a", "--json").out

    # An error is about the job, wherever its batch had it.
    assert "There is no route 'nope'" in refused[0]["error"]["detail"]
    assert {"code", "status", "detail", "errors"} == refused[0]["error"].keys()

    # What was refused can be given again as it is.
    again = tm("job", "batch", "carts", str(failed), "--allow-missing-route", code=exits.PARTLY)
    assert "1 created, 2 refused\n" == again.out
    assert "nope" == tm("job", "get", "carts", "b", "--json").json["route"]

    # Without a file they go to standard error; what was there already is told apart.
    again = tm(*words, code=exits.PARTLY)
    assert "1 created, 1 were there already, 3 refused\n" == again.out
    assert [3, 4, 6] == [json.loads(line)["line"] for line in again.err.splitlines()]


def test_a_fault_of_one_job_of_a_batch(tm: Terminal) -> None:
    """Its place is told from the job on, not from the batch, which nobody has seen."""
    text = f'{{"trigger_time": {FAR_MS}, "route": "hello"}}\n{{"route": "hello"}}\n'
    refused = json.loads(tm("job", "batch", "carts", text=text, code=exits.PARTLY).err)
    assert "trigger_time: Give trigger_time or delay_ms." == refused["error"]["detail"]
    assert "/trigger_time" == refused["error"]["errors"][0]["pointer"]


def test_an_import_that_is_started_again(tm: Terminal) -> None:
    """With a key the ids follow from the lines, in batches of whatever size."""
    text = "\n".join(f'{{"trigger_time": {FAR_MS + n}}}' for n in range(50))
    words = ("job", "batch", "carts", "-", "--route", "hello", "--key", "k")
    assert "50 created, 0 refused\n" == tm(*words, "--batch-size", "7", text=text).out
    assert "50 were there already" in tm(*words, "--batch-size", "20", text=text).out
    assert 50 == len(tm("job", "list", "carts", "--json").json)


def test_a_batch_that_cannot_go_on(tm: Terminal) -> None:
    """What is refused as a whole ends the command with that error's code."""
    text = f'[{{"trigger_time": {FAR_MS}, "route": "hello"}}]'
    done = tm("job", "batch", "cart", "-", text=text, code=exits.NOT_FOUND)
    assert "Did you mean `carts`?" in done.err
    tm("job", "batch", "carts", "-", text="[", code=exits.USAGE)
    tm("job", "batch", "carts", "/nowhere", code=exits.USAGE)
    assert [] == tm("job", "list", "carts", "--json").json


def test_a_route_can_be_given_back(tm: Terminal, tmp_path: Path, node: NodeProcess) -> None:
    """What `get --json` prints, `put --from-file` takes, and nothing has changed."""
    tm("route", "patch", "hello", "--header", "x-a=1", "--request-timeout-ms", "20s")
    file = tmp_path / "route.json"
    file.write_text(tm("route", "get", "hello", "--json").out)
    before = stored(node, tm, "routes/hello")
    assert before == tm("route", "put", "hello", "--from-file", str(file), "--json").json
    after = tm("route", "put", "hello", "--from-file", str(file), "--max-in-flight", "3", "--json")
    assert before["max_in_flight"] != after.json["max_in_flight"] == 3


def test_pause_secret_stats(tm: Terminal) -> None:
    """What is done to a route beside setting it."""
    assert tm("route", "pause", "hello", "--json").json["paused"]
    assert "paused" in tm("route", "list").out
    assert not tm("route", "resume", "hello", "--json").json["paused"]
    secret = tm("route", "secret", "hello").out
    assert secret.startswith("whsec_")
    assert 1 == secret.count("\n")
    far(tm)
    assert 1 == tm("route", "stats", "hello", "--json").json["pending"]
    done = tm("route", "send-example", "hello", code=exits.FAILED)
    assert "connection_refused" in done.out


def test_rotating_a_secret(tm: Terminal, tmp_path: Path) -> None:
    """The new one is printed; a secret of one's own comes from a file, never from the line."""
    old = tm("route", "secret", "hello").out
    new = tm("route", "rotate-secret", "hello", "--yes").out
    assert old != new == tm("route", "secret", "hello").out
    (tmp_path / "own").write_text(old)
    words = ("route", "rotate-secret", "hello", "--secret-file", str(tmp_path / "own"), "--yes")
    assert old.strip() == tm(*words, "--grace-period-ms", "0", "--json").json["secret"]
    # A recipient needs the public key alone, so that is what is printed.
    public = tm("route", "rotate-secret", "hello", "--type", "v1a", "--yes").out
    assert public.startswith("whpk_")
    assert public == tm("route", "secret", "hello").out
    secret = tm("route", "secret", "hello", "--json").json
    assert (public.strip(), "whsk_") == (secret["public_key"], secret["secret"][:5])


def test_many_jobs_at_once(tm: Terminal) -> None:
    """A dry run changes nothing; a task is waited for, or can be looked at."""
    for number in range(5):
        far(tm, "--id", f"j{number}", "--tag", "even" if number % 2 == 0 else "odd")
    even = ("carts", "--tag", "even")
    assert "It would be 3 jobs." in tm("job", "cancel", *even, "--dry-run").out
    assert 3 == tm("job", "cancel", *even, "--dry-run", "--json").json["count"]
    refused = tm("job", "cancel", *even, code=exits.USAGE)
    assert "Cancel 3 jobs?" in refused.err
    assert "add --yes" in refused.err
    assert 5 == len(tm("job", "list", "carts", "--state", "scheduled", "--json").json)

    done = tm("job", "reschedule", *even, "--shift", "-1h", "--yes", "--json").json
    assert ("done", 3) == (done["state"], done["progress"]["done"])
    moved = tm("job", "get", "carts", "j0", "--json").json
    assert FAR_MS - 3_600_000 == moved["trigger_time"]

    assert "There is no such job.\n" == tm("job", "cancel", "carts", "--tag", "no").out

    task = tm("job", "cancel", *even, "--yes", "--no-wait", "--json").json["task"]
    assert "done" == tm("task", "watch", task, "--json").json["state"]
    assert "done" == tm("task", "cancel", task, "--json").json["state"]
    assert task in tm("task", "list").out
    jobs = tm("job", "list", "carts", "--state", "scheduled", "--json").json
    assert ["j1", "j3"] == [each["id"] for each in jobs]


def test_dead_jobs_of_a_route(tm: Terminal) -> None:
    """They are sent again when its recipient is back."""
    for number in range(3):
        tm("job", "create", "carts", "--route", "hello", "--at", "now", "--id", f"j{number}")
    words = ("job", "list", "carts", "--state", "dead", "--json")
    wait_until(lambda: 3 == len(tm(*words).json), "they do not die")
    assert 3 == len(tm("route", "attempts", "hello", "--json").json)
    assert 2 == len(tm("route", "attempts", "hello", "--limit", "2", "--json").json)
    assert "There is no such job." in tm("route", "replay-missing", "hello", "--dry-run").out
    with Recipient() as recipient:
        tm("route", "patch", "hello", "--url", recipient.url)
        tm("route", "redrive", "hello", "--from", "-1h", "--yes")
        recipient.wait(3)


def test_a_forecast(tm: Terminal) -> None:
    """Buckets for programs, bars for people."""
    for hours in (1, 1, 3):
        tm("job", "create", "carts", "--route", "hello", "--at", f"+{hours}h")
    items = tm("collection", "forecast", "carts", "--json").json
    assert (24, 3) == (len(items), sum(item["count"] for item in items))
    shown = tm("collection", "forecast", "carts", "--to", "+1d", "--bucket-ms", "1d").out
    assert "█" * 40 in shown
    assert "3 jobs until" in shown


def test_settings_of_the_cluster(tm: Terminal) -> None:
    """What webhooks may reach is looked at and replaced; a range that is none changes nothing."""
    words = ("cluster", "settings")
    before = tm(*words, "get", "--json").json
    assert {"allowed_private_cidrs": ["127.0.0.0/8"], "allowed_ports": []} == before
    inside = ("route", "put", "inside", "--url", "http://10.0.0.1/")
    advice = "add 10.0.0.0/8 to allowed_private_cidrs, with `timemachine cluster settings set`.\n"
    assert tm(*inside, code=exits.USAGE).err.endswith(advice)
    change = (*words, "set", "--allowed-private-cidrs")
    try:
        ports = "allowed_ports          none\n"
        assert (
            f"allowed_private_cidrs  10.0.0.0/8, ::1/128\n{ports}"
            == tm(*change, "10.0.0.0/8, ::1/128").out
        )
        tm(*inside)
        assert "This is no range" in tm(*change, "lan", code=exits.USAGE).err
        assert ["10.0.0.0/8", "::1/128"] == tm(*words, "get", "--json").json[
            "allowed_private_cidrs"
        ]
        mail = ("route", "put", "mail", "--url", "http://10.0.0.1:25/")
        advice = "add 25 to allowed_ports, with `timemachine cluster settings set`.\n"
        assert tm(*mail, code=exits.USAGE).err.endswith(advice)
        # What is not named stays.
        both = "allowed_private_cidrs  10.0.0.0/8, ::1/128\nallowed_ports          25, 81\n"
        assert both == tm(*words, "set", "--allowed-ports", "25, 81").out
        tm(*mail)
        assert "Ports are numbers" in tm(*words, "set", "--allowed-ports", "web", code=2).err
        cleared = "allowed_private_cidrs  none\nallowed_ports          25, 81\n"
        assert cleared == tm(*change, "").out
        tm(*inside, code=exits.USAGE)
        tm(*words, "set", code=exits.USAGE)
    finally:
        tm(*change, "127.0.0.0/8", "--allowed-ports", "")
    assert before == tm(*words, "get", "--json").json


def test_a_token_for_a_node_that_joins(tm: Terminal) -> None:
    """For people and for programs; the shortest time has a name of its own."""
    assert tm("admin", "join-token").out.startswith("token    ")
    issued = tm("admin", "join-token", "--ttl-ms", "10m", "--json").json
    assert {"token", "expires_time"} == issued.keys()
    tm("admin", "join-token", "--ttl-ms", "8d", code=exits.USAGE)


def test_why_a_job_was_late(tm: Terminal, node: NodeProcess) -> None:
    """Its steps in order, by the node that did them; created late, or held up by its route."""
    with Recipient() as recipient:
        tm("route", "patch", "hello", "--url", recipient.url)
        tm(
            "job",
            "create",
            "carts",
            "--route",
            "hello",
            "--id",
            "late",
            "--at",
            "2020-01-01T00:00Z",
        )
        tm("job", "watch", "carts", "late")
        told = tm("job", "inspect", "carts", "late", "--json").json
        explained = told["job"].pop("explanation")
        assert ["due", "accepted", "claimed", "sent", "answered", "settled"] == [
            each["step"] for each in explained["steps"]
        ]
        (cluster,) = tm("admin", "status", "--json").json["nodes"]
        assert {None, cluster["id"]} == {each["node"] for each in explained["steps"]}
        assert explained["late_ms"] > 0
        assert explained["sentence"].endswith(" passed before this version was created.")
        assert stored(node, tm, "collections/carts/jobs/late") == told["job"]
        assert explained["sentence"] in tm("admin", "job", "inspect", "carts", "late").out

        tm("route", "pause", "hello")
        tm("job", "create", "carts", "--route", "hello", "--id", "held", "--at", "now")
        held = tm("job", "inspect", "carts", "held")
        assert "\nIts route `hello` is paused: its jobs wait until that ends.\n" in held.out
        assert "not found" in tm("job", "inspect", "carts", "none", code=exits.NOT_FOUND).err


def test_the_status_is_watched(tm: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at again and again until Ctrl-C, which is no failure."""
    pauses: list[float] = []

    def pause(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", pause)
        seen = tm("admin", "status", "--watch", "5")
    assert [5.0] * 3 == pauses
    assert 3 == seen.out.count(", node leader ")
    assert "--watch is for people" in tm("admin", "status", "--watch", "--json", code=2).err
