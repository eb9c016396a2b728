"""Each example receiver takes webhooks of a real node once, and nothing that is not genuine."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from tests.cluster.process import JOBS, ROUTES, NodeProcess, wait_until
from tests.examples.process import COMMANDS, FOLDER, SECRET, Example, Wire
from timemachine.receiver import Dedupe, New, fingerprint
from timemachine.receiver.sqlite import SQLiteStore, connect

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node for all of them; each test makes a route of its own."""
    with NodeProcess(tmp_path_factory.mktemp("node") / "data") as node:
        node.start()
        node.set_up("http://127.0.0.1:1024/unused", num_vnodes=1)
        yield node


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def example(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Example]:
    """Each of the examples."""
    with Example(request.param, tmp_path_factory.mktemp(request.param)) as example:
        yield example


@pytest.fixture
def payment(request: pytest.FixtureRequest) -> str:
    """A payment that no other test is about."""
    return f"{request.node.name}-{time.time_ns()}"


def body_of(payment: str) -> bytes:
    """A webhook of a sender whose JSON is not ours: white space, an escape, a big number."""
    return b'{ "meta" : {"payment":"%b", "n": 1.0e0, "x":"\\u00eb"} }' % payment.encode()


def signed(webhook_id: str, body: bytes, *, secret: str = SECRET) -> dict[str, str]:
    """The headers of a genuine webhook, signed by the reference library."""
    now = datetime.now(tz=UTC)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(webhook_id, now, body.decode()),
        "content-type": "application/json",
    }


def fire(node: NodeProcess, url: str, payment: str) -> dict[str, Any]:
    """A route to the receiver, and a job that is due; returns the job when it is delivered."""
    job_id = route = f"r{time.time_ns()}"
    settings = {"webhook_url": url, "secret": SECRET, "retry": {"schedule_ms": [100]}}
    status, answer = node.ask("PUT", f"{ROUTES}/{route}", settings)
    assert 201 == status, answer
    job = {"delay_ms": 0, "route": route, "meta": {"payment": payment}}
    status, answer = node.ask("PUT", f"{JOBS}/{job_id}", job)
    assert 201 == status, answer
    wait_until(
        lambda: node.ask("GET", f"{JOBS}/{job_id}")[1]["state"] == "delivered",
        "it is not delivered",
        120,
    )
    status, answer = node.ask("GET", f"{JOBS}/{job_id}")
    assert 200 == status, answer
    return dict(answer)


def test_a_job_has_its_effect_once(node: NodeProcess, example: Example, payment: str) -> None:
    """What a node fires is done; the same bytes again are answered 2xx, and nothing is done."""
    with Wire(example) as wire:
        job = fire(node, wire.url, payment)
        (passed,) = wire.passed
    assert (204, job["webhook_id"]) == (passed.status, passed.headers["webhook-id"])
    assert (["timed_out"], 1) == example.effects(payment)
    for _ in range(3):
        assert (204, b"") == example.post(passed.headers, passed.body)
    assert (["timed_out"], 1) == example.effects(payment)


def test_a_lost_answer_does_not_repeat_the_effect(
    node: NodeProcess, example: Example, payment: str
) -> None:
    """The node could not see that it was done, and sends again: recognised, and delivered."""
    with Wire(example, answers_lost=2) as wire:
        job = fire(node, wire.url, payment)
        assert [204, 204, 204] == [each.status for each in wire.passed]
        assert {job["webhook_id"]} == {each.headers["webhook-id"] for each in wire.passed}
    assert 3 == job["attempts"]
    assert (["timed_out"], 1) == example.effects(payment)


def test_a_repeat_that_is_signed_anew_is_recognised(example: Example, payment: str) -> None:
    """Retries come with another time and signature; the id is what counts."""
    body, webhook_id = body_of(payment), f"msg_{payment}"
    assert 204 == example.post(signed(webhook_id, body), body)[0]
    later = signed(webhook_id, body) | {"webhook-attempt": "2"}
    assert 204 == example.post({name.upper(): later[name] for name in later}, body)[0]
    assert (["timed_out"], 1) == example.effects(payment)
    assert 204 == example.post(signed(f"{webhook_id}_other", body), body)[0]
    assert (["timed_out"], 2) == example.effects(payment)


def test_forgeries_are_401(example: Example, payment: str) -> None:
    """Another secret, body, id or time, or no signature at all: nothing is done."""
    body, webhook_id = body_of(payment), f"msg_{payment}"
    good = signed(webhook_id, body)
    other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    compact = json.dumps(json.loads(body)).encode()
    old = str(int(time.time()) - 301)
    for headers, sent in (
        (signed(webhook_id, body, secret=other), body),
        (good, body + b" "),
        (good, compact),
        (good, b""),
        (good | {"webhook-id": "msg_other"}, body),
        (good | {"webhook-timestamp": old}, body),
        (good | {"webhook-signature": "v1,"}, body),
        ({"content-type": "application/json"}, body),
    ):
        assert 401 == example.post(headers, sent)[0]
    assert ([], 0) == example.effects(payment)
    assert [] == [each for each in example.rows("timemachine_webhooks") if each[0] == webhook_id]


HOSTILE = (
    b"",
    b" ",
    b",",
    b"v1,***",
    b"v1,a,b",
    b"v1,x  v1,y",
    b"\xff\xfe",
    "ë ✓ \U0001f600".encode(),
    b"' OR 1=1 --",
    b'%00%ff{}[]\\"',
    b"9" * 5_000,
    b"-1",
    b"1e400",
    b"NaN",
    b"a" * 7_000,
)


@pytest.mark.parametrize("name", [b"webhook-id", b"webhook-timestamp", b"webhook-signature"])
@pytest.mark.parametrize("twice", [False, True])
def test_hostile_headers_are_never_a_crash(
    example: Example, name: bytes, payment: str, *, twice: bool
) -> None:
    """Whatever stands in a header, also beside a good one, is refused by a 4xx."""
    body = body_of(payment)
    good = {key.encode(): value.encode() for key, value in signed(f"msg_{payment}", body).items()}
    for value in HOSTILE:
        lines = [
            key + b": " + (value if key == name and not twice else kept)
            for key, kept in good.items()
        ]
        if twice:
            lines.append(name + b": " + value)
        status = example.post_raw(lines, body)
        assert status is not None, example.log_tail()
        assert 400 <= status < 500, (value, status, example.log_tail())
    assert "Traceback" not in example.log_tail()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no JSON", 400),
        (b"", 400),
        (b"[" * 100_000, 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b'{"meta": 7}', 400),
        (b'{"meta": {}}', 400),
    ],
)
def test_genuine_but_useless_is_400(
    example: Example, body: bytes, status: int, payment: str
) -> None:
    """What the sender signed, but nobody can use, is the sender's fault, not a crash."""
    assert status == example.post(signed(f"msg_{payment}", body), body)[0]


def test_one_id_with_two_bodies_is_422(example: Example, payment: str) -> None:
    """A sender that gives one id to two webhooks hears of it; the second has no effect."""
    first, second = body_of(payment), body_of(f"{payment}-2")
    webhook_id = f"msg_{payment}"
    assert 204 == example.post(signed(webhook_id, first), first)[0]
    assert 422 == example.post(signed(webhook_id, second), second)[0]
    assert ([], 0) == example.effects(f"{payment}-2")


def test_in_progress_is_409(example: Example, payment: str) -> None:
    """While another worker has the webhook the sender is told to come again; then it is done."""
    body, webhook_id = body_of(payment), f"msg_{payment}"
    with closing(connect(example.database)) as connection:
        elsewhere = Dedupe(SQLiteStore(connection))
        claim = elsewhere.begin(webhook_id, fingerprint(body))
        assert isinstance(claim, New)
        assert 409 == example.post(signed(webhook_id, body), body)[0]
        elsewhere.release(claim)
    assert 204 == example.post(signed(webhook_id, body), body)[0]
    assert (["timed_out"], 1) == example.effects(payment)


def test_too_large_a_body_is_refused(example: Example, payment: str) -> None:
    """Who cannot sign cannot fill the memory either."""
    body = b"[" + b" " * 2 * 1024 * 1024 + b"]"
    lines = [f"{key}: {value}".encode() for key, value in signed("msg", body).items()]
    # Some hang up while it still comes.
    assert example.post_raw(lines, body) in {400, 413, None}
    assert 401 == example.post({}, b"")[0]


def test_other_methods_are_refused(example: Example) -> None:
    """A webhook is a POST."""
    assert 405 == example.post({}, b"", method="GET")[0]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_example_says_how_it_is_run(name: str) -> None:
    """The commands of these tests are those that the file and the README tell."""
    source = (FOLDER / f"{name}_app.py").read_text()
    readme = (FOLDER.parent / "README.md").read_text()
    line = f"WEBHOOK_SECRET=whsec_... {COMMANDS[name]}\n"
    assert f"    {line}" in source
    assert line in readme


def test_every_example_is_run() -> None:
    """There is none beside those that these tests run."""
    assert sorted(COMMANDS) == sorted(
        path.name.removesuffix("_app.py") for path in Path(FOLDER).glob("*.py")
    )
