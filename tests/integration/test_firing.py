"""The whole path against a real node: from POST to a verified webhook, and the hard cases."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import standardwebhooks
import svix.webhooks

from tests.cluster.process import NodeProcess
from timemachine.receiver import Webhook, WebhookVerificationError
from timemachine.testing import RecordingReceiver

COLLECTION = "/v1/dbs/default/collections/jobs"
JOBS = f"{COLLECTION}/jobs"
ROUTES = "/v1/dbs/default/routes"
PATIENCE_S = 20.0


class Api:
    """A node and the simplest way to ask it."""

    def __init__(self, folder: Path) -> None:
        self.process = NodeProcess(folder / "data")
        self.process.start()
        self.numbers = iter(range(1_000_000))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(status, decoded body); `body` may be bytes, sent as they are."""
        connection = http.client.HTTPConnection(self.process.address, timeout=30)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, names)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def route(self, url: str, **fields: Any) -> str:
        """A new route."""
        name = f"r{next(self.numbers)}"
        status, answer = self.ask("PUT", f"{ROUTES}/{name}", {"webhook_url": url, **fields})
        assert 201 == status, answer
        return name

    def job(self, route: str, **fields: Any) -> dict[str, Any]:
        """A new job, due at once unless said otherwise."""
        body = {"route": route, **fields}
        if "trigger_time" not in body:
            body.setdefault("delay_ms", 0)
        status, answer = self.ask("POST", JOBS, body)
        assert 201 == status, answer
        return dict(answer)

    def wait(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        end = time.monotonic() + PATIENCE_S
        while True:
            status, job = self.ask("GET", f"{JOBS}/{quote(job_id, safe='')}")
            assert 200 == status, job
            if job["state"] in states:
                return dict(job)
            assert time.monotonic() < end, job
            time.sleep(0.01)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One node for the module."""
    api = Api(tmp_path_factory.mktemp("node"))
    assert 201 == api.ask("PUT", COLLECTION)[0]
    yield api
    assert 0 == api.process.stop()


@pytest.fixture
def recipient() -> Iterator[RecordingReceiver]:
    """A recipient for one test."""
    with RecordingReceiver() as recipient:
        yield recipient


def test_a_webhook_is_signed_and_says_what_it_is(api: Api, recipient: RecordingReceiver) -> None:
    """The foreign verifier accepts it, and every header of the contract is there."""
    route = api.route(recipient.url)
    secret = api.ask("GET", f"{ROUTES}/{route}/secret")[1]["secret"]
    job = api.job(route, id="signed/1", meta={"n": 1.0})
    (webhook,) = recipient.wait(1)
    verified = standardwebhooks.Webhook(secret).verify(webhook.body, webhook.headers)
    assert {"n": 1.0} == verified["meta"]
    assert ["id", "trigger_time", "meta", "route", "db", "collection", "version"] == list(verified)
    headers = webhook.headers
    assert job["webhook_id"] == headers["webhook-id"]
    assert f'"{job["webhook_id"]}"' == headers["idempotency-key"]
    assert ("1", "signed%2F1") == (headers["timemachine-attempt"], headers["timemachine-job-id"])
    assert str(job["trigger_time"]) == headers["timemachine-trigger-time"]
    assert webhook.arrived_ms >= job["trigger_time"]
    done = api.wait("signed/1", "delivered")
    assert (1, None) == (done["attempts"], done["next_attempt_time"])
    attempts = api.ask("GET", f"{JOBS}/signed%2F1/attempts")[1]["items"]
    assert [("succeeded", 204)] == [(a["status"], a["response_status"]) for a in attempts]


@pytest.mark.parametrize("body", ["job", "meta"])
def test_foreign_verifiers_accept_it_through_a_rotation(
    api: Api, recipient: RecordingReceiver, body: str
) -> None:
    """From `v1` to `v1a` and back: each holder of a key that signs verifies, no other does."""
    route = api.route(recipient.url, body=body)
    path = f"{ROUTES}/{route}/secret"
    first = api.ask("GET", path)[1]["secret"]
    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({"type": "v1a"}, ["v1a", "v1"]),
        ({"type": "v1"}, ["v1", "v1a", "v1"]),
        ({"type": "v1a", "grace_period_ms": 0}, ["v1a", "v1a", "v1"]),
    ]
    shared, public, gone = [first], [], []
    for number, (rotation, versions) in enumerate(steps, start=1):
        status, secret = api.ask("POST", f"{path}/rotate", rotation)
        assert 200 == status
        if rotation.get("grace_period_ms") == 0:
            gone.append(shared.pop())
        if secret["public_key"] is None:
            shared.append(secret["secret"])
        else:
            public.append(secret["public_key"])
        api.job(route, meta={"text": "Zoë ✓", "n": 1.0})
        webhook = recipient.wait(number)[-1]
        entries = webhook.headers["webhook-signature"].split(" ")
        assert versions == [entry.partition(",")[0] for entry in entries]
        for key in [*shared, *public]:
            assert json.loads(webhook.body) == Webhook(key).verify(webhook.body, webhook.headers)
        for key in shared:
            foreign = standardwebhooks.Webhook(key).verify(webhook.body, webhook.headers)
            assert json.loads(webhook.body) == foreign
            svix.webhooks.Webhook(key).verify(webhook.body, dict(webhook.headers))
        for key in gone:
            with pytest.raises(WebhookVerificationError):
                Webhook(key).verify(webhook.body, webhook.headers)
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                svix.webhooks.Webhook(key).verify(webhook.body, dict(webhook.headers))
    assert (1, 2, 1) == (len(shared), len(public), len(gone))


def test_smeared_jobs_come_at_their_own_moments(api: Api, recipient: RecordingReceiver) -> None:
    """Jobs of one moment spread over the time after it, each never before its part of it."""
    route = api.route(recipient.url, smear_ms=1_500)
    trigger_ms = int(time.time() * 1000) + 300
    jobs = {job["id"]: job for job in [api.job(route, trigger_time=trigger_ms) for _ in range(40)]}
    assert 20 < len({job["next_attempt_time"] for job in jobs.values()})
    for webhook in recipient.wait(40):
        job = jobs[json.loads(webhook.body)["id"]]
        assert trigger_ms <= job["next_attempt_time"] <= trigger_ms + 1_500
        assert job["next_attempt_time"] == trigger_ms + job.get("smear_ms", 0)
        assert webhook.arrived_ms >= job["next_attempt_time"]
        assert str(trigger_ms) == webhook.headers["timemachine-trigger-time"]


def test_the_same_request_twice_is_one_job(api: Api, recipient: RecordingReceiver) -> None:
    """POST and PUT repeat harmlessly before and after delivery; other content is refused."""
    route = api.route(recipient.url)
    job = {"id": "twice", "trigger_time": int(time.time() * 1000) + 300, "route": route, "meta": 1}
    assert 201 == api.ask("POST", JOBS, job)[0]
    assert 200 == api.ask("POST", JOBS, job)[0]
    assert 200 == api.ask("PUT", f"{JOBS}/twice", job)[0]
    assert 409 == api.ask("POST", JOBS, job | {"meta": 2})[0]
    delivered = api.wait("twice", "delivered")
    assert 200 == api.ask("POST", JOBS, job)[0]
    status, again = api.ask("PUT", f"{JOBS}/twice", job)
    assert (200, "delivered", 1) == (status, again["state"], again["version"])
    status, anew = api.ask("PUT", f"{JOBS}/twice", job | {"meta": 3})
    assert (200, 2) == (status, anew["version"])
    assert {"version": 1, "outcome": "already_delivered"} == anew["previous"]
    assert anew["webhook_id"] != delivered["webhook_id"]
    api.wait("twice", "delivered")
    assert 2 == len(recipient.wait(2))


@pytest.mark.parametrize("job_id", ["a_b", "a/b", "a%2Fb", "with space", "🕰️", "x" * 128, "batch"])
def test_ids_of_all_kinds(api: Api, recipient: RecordingReceiver, job_id: str) -> None:
    """Every id works wherever an id works."""
    route = api.route(recipient.url)
    path = f"{JOBS}/{quote(job_id, safe='')}"
    due = int(time.time() * 1000) + 3_600_000
    assert 201 == api.ask("PUT", path, {"trigger_time": due, "route": route})[0]
    assert job_id == api.ask("GET", path)[1]["id"]
    assert "cancelled" == api.ask("DELETE", path)[1]["outcome"]
    assert "cancelled" == api.ask("DELETE", path + "?purge=true")[1]["outcome"]
    assert 404 == api.ask("GET", path)[0]


def test_meta_is_delivered_byte_for_byte(api: Api, recipient: RecordingReceiver) -> None:
    """Numbers keep their digits, members their order, white space stays."""
    meta = (
        b'{"z": 1.0, "a":12345678901234567890123, "n": [ 1 , 2 ],"e":1E400,"u":"\xc3\xa9\\u00e9"}'
    )
    route = api.route(recipient.url)
    raw = b'{"id":"exact","delay_ms":0,"route":"%b","meta":%b}' % (route.encode(), meta)
    connection = http.client.HTTPConnection(api.process.address)
    connection.request("POST", JOBS, raw)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert (201, True) == (response.status, b'"meta":' + meta in body)
    assert b'"meta":' + meta + b"," in recipient.wait(1)[0].body


def test_bounds_of_meta(api: Api, recipient: RecordingReceiver) -> None:
    """256 KiB are taken, one byte more is a 413 that names the field; 65 levels are a 400."""
    route = api.route(recipient.url)
    job = {"trigger_time": 4_000_000_000_000, "route": route}
    size = 256 * 1024
    assert 201 == api.ask("POST", JOBS, job | {"meta": "x" * (size - 2)})[0]
    status, problem = api.ask("POST", JOBS, job | {"meta": "x" * (size - 1)})
    assert (413, True) == (status, "meta" in problem["detail"])
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    assert 201 == api.ask("POST", JOBS, job | {"meta": deep})[0]
    status, problem = api.ask("POST", JOBS, job | {"meta": [deep]})
    assert (400, "/meta") == (status, problem["errors"][0]["pointer"])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"",
        b'{"route":"r","delay_ms":NaN}',
        b'{"route":"r","delay_ms":"1"}',
        b'{"route":"r","delay_ms":1,"trigger_time":1}',
        b'{"route":"r","delay_ms":1,"trigger_tiem":1}',
        b'{"route":7,"delay_ms":1}',
        b'{"route":"r","delay_ms":1,"meta":' + b"[" * 100_000,
        b'{"route":"r","delay_ms":1,"meta":\xff}',
    ],
)
def test_bad_input_is_a_400_that_points(api: Api, body: bytes) -> None:
    """Malformed, of the wrong type, contradicting, misspelt, too deep: refused, with a pointer."""
    status, problem = api.ask("POST", JOBS, body)
    assert 400 == status
    assert isinstance(problem["errors"][0]["pointer"], str)


def test_far_future_and_past(api: Api, recipient: RecordingReceiver) -> None:
    """The year 9000 is accepted; the past fires at once and says so."""
    route = api.route(recipient.url)
    far = api.job(route, trigger_time="9000-01-01T00:00:00Z")
    assert ("scheduled", False) == (far["state"], "past_due" in far)
    past = api.job(route, trigger_time=1)
    assert past["past_due"]
    api.wait(past["id"], "delivered")


def test_ten_thousand_jobs_in_one_millisecond(api: Api, recipient: RecordingReceiver) -> None:
    """All fire, each once."""
    route = api.route(recipient.url, max_in_flight=200)
    due = int(time.time() * 1000) + 1_500
    for start in range(0, 10_000, 2_500):
        jobs = [
            {"id": f"burst-{number}", "trigger_time": due, "route": route}
            for number in range(start, start + 2_500)
        ]
        assert 2_500 == api.ask("POST", f"{JOBS}/batch", jobs)[1]["created"]
    received = recipient.wait(10_000, timeout_s=50)
    ids = {json.loads(webhook.body)["id"] for webhook in received}
    assert (10_000, 10_000) == (len(received), len(ids))


def test_a_purged_id_is_another_job(api: Api, recipient: RecordingReceiver) -> None:
    """Its successor has another webhook id, or receivers would take it for a repeat."""
    route = api.route(recipient.url)
    first = api.job(route, id="phoenix")
    api.wait("phoenix", "delivered")
    assert "already_delivered" == api.ask("DELETE", f"{JOBS}/phoenix?purge=true")[1]["outcome"]
    second = api.job(route, id="phoenix")
    assert (1, True) == (second["version"], first["webhook_id"] != second["webhook_id"])


def test_retries_until_dead_and_redrive(api: Api, recipient: RecordingReceiver) -> None:
    """Exactly `max_attempts` requests under one webhook id; redriven it keeps the id."""
    recipient.status = 500
    retry = {"schedule_ms": [20, 20], "max_attempts": 3, "jitter": 0}
    route = api.route(recipient.url, retry=retry)
    job = api.job(route)
    dead = api.wait(job["id"], "dead")
    assert ("exhausted", 3, 3) == (dead["reason"], dead["attempts"], len(recipient.received))
    recipient.status = 204
    assert 202 == api.ask("POST", f"{JOBS}/{job['id']}/redrive")[0]
    api.wait(job["id"], "delivered")
    assert {job["webhook_id"]} == {hook.headers["webhook-id"] for hook in recipient.received}
    numbers = [hook.headers["timemachine-attempt"] for hook in recipient.received]
    assert ["1", "2", "3", "4"] == numbers
    assert 409 == api.ask("POST", f"{JOBS}/{job['id']}/redrive")[0]


def test_gone_disables_the_route(api: Api, recipient: RecordingReceiver) -> None:
    """410 ends the job and disables its route; others wait as held until it is resumed."""
    recipient.status = 410
    route = api.route(recipient.url)
    assert "gone" == api.wait(api.job(route)["id"], "dead")["reason"]
    recipient.status = 204
    held = api.job(route)
    api.wait(held["id"], "held")
    assert "gone" == api.ask("GET", f"{ROUTES}/{route}")[1]["disabled"]
    assert 200 == api.ask("POST", f"{ROUTES}/{route}/resume")[0]
    api.wait(held["id"], "delivered")


def test_a_paused_route_holds_and_does_not_pin_the_offset(
    api: Api, recipient: RecordingReceiver
) -> None:
    """What is due waits as `held`, out of the offset's way, and is delivered after the resume."""
    route, other = api.route(recipient.url), api.route(recipient.url)
    assert 200 == api.ask("POST", f"{ROUTES}/{route}/pause")[0]
    jobs = [api.job(route, trigger_time=1_000 + number) for number in range(30)]
    for job in jobs:
        api.wait(job["id"], "held")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        api.wait(api.job(other)["id"], "delivered")
        rows = api.ask("GET", "/v1/cluster/vnodes")[1]["items"]
        touched = {job["vnode"] for job in jobs}
        low = min(row["offset"]["time"] for row in rows if row["index"] in touched)
        if low > 1_000_000:
            break
    assert low > 1_000_000
    assert 200 == api.ask("POST", f"{ROUTES}/{route}/resume")[0]
    for job in jobs:
        api.wait(job["id"], "delivered")


class Hang:
    """A recipient that reads requests and answers only when told to."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.arrived = threading.Semaphore(0)
        self.go = threading.Event()
        self.count = 0
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            if not connection.recv(65_536):
                return
            self.count += 1
            self.arrived.release()
            self.go.wait(PATIENCE_S)
            try:
                connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                return

    def close(self) -> None:
        """Answer what hangs, and listen no more."""
        self.go.set()
        # Before the descriptor is somebody else's: a thread that waits there would go on with it.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.accepting.join()
        self.listener.close()


@pytest.fixture
def hang() -> Iterator[Hang]:
    """A recipient that hangs."""
    hang = Hang()
    yield hang
    hang.close()


def test_delete_in_flight(api: Api, hang: Hang) -> None:
    """The answer says that a send is under way; no further attempt starts."""
    job = api.job(api.route(hang.url, retry={"schedule_ms": [0]}))
    assert hang.arrived.acquire(timeout=PATIENCE_S)
    assert "in_flight" == api.ask("DELETE", f"{JOBS}/{job['id']}")[1]["outcome"]
    hang.go.set()
    api.wait(job["id"], "cancelled")
    assert "in_flight" == api.ask("DELETE", f"{JOBS}/{job['id']}")[1]["outcome"]
    assert 1 == hang.count


def test_a_hanging_recipient_ends_at_its_deadline_and_hurts_nobody(
    api: Api, hang: Hang, recipient: RecordingReceiver
) -> None:
    """Its slots are its own; another route's jobs are delivered meanwhile."""
    slow = api.route(hang.url, timeout_ms=1000, retry={"schedule_ms": []}, max_in_flight=2)
    fine = api.route(recipient.url)
    stuck = [api.job(slow) for _ in range(50)]
    assert hang.arrived.acquire(timeout=PATIENCE_S)
    for _ in range(10):
        api.wait(api.job(fine)["id"], "delivered")
    dead = api.wait(stuck[0]["id"], "dead")
    assert "did not answer in time" in dead["last_error"]
    assert 200 == api.ask("DELETE", f"{ROUTES}/{slow}?force=true")[0]
    assert "route_deleted" == api.wait(stuck[-1]["id"], "dead")["reason"]


def test_at_most_once_does_not_repeat_what_may_have_arrived(api: Api, hang: Hang) -> None:
    """After a time-out it is dead, reason unknown; a refused connection is tried again."""
    fields = {"delivery": "at_most_once", "timeout_ms": 1000, "retry": {"schedule_ms": [10]}}
    job = api.job(api.route(hang.url, **fields))
    assert "unknown" == api.wait(job["id"], "dead")["reason"]
    assert 1 == hang.count
    with socket.socket() as silent:  # its port is nobody else's, and nobody listens there
        silent.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        refused = api.job(api.route(closed, **fields))
        assert "exhausted" == api.wait(refused["id"], "dead")["reason"]
    assert 10 == api.ask("GET", f"{JOBS}/{refused['id']}")[1]["attempts"]


def test_rate_is_kept(api: Api, recipient: RecordingReceiver) -> None:
    """Each period lets go `count` of them and no more."""
    route = api.route(recipient.url, rate={"count": 5, "period_ms": 500})
    start_ms = time.time_ns() // 1_000_000
    for _ in range(14):
        api.job(route)
    arrived = sorted(webhook.arrived_ms for webhook in recipient.wait(14))
    # Periods follow one another from the first job on. Two arrivals may be closer than that: the
    # machine may keep the first of them waiting.
    for periods in (1, 2):
        assert arrived[5 * periods] - start_ms >= 500 * periods, arrived


def test_redirects_are_not_followed(api: Api, recipient: RecordingReceiver) -> None:
    """A 302 is a failure, and the second hop is never contacted."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            text = f"HTTP/1.1 302 Found\r\nLocation: {recipient.url}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(text.encode())

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    job = api.job(api.route(url, retry={"schedule_ms": []}))
    assert "exhausted" == api.wait(job["id"], "dead")["reason"]
    assert not recipient.received
    thread.join()
    listener.close()


def test_private_addresses_are_refused_with_the_range_to_allow(api: Api) -> None:
    """Neither literals nor legacy forms get into the inside."""
    for host in ("10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]"):
        status, problem = api.ask("PUT", f"{ROUTES}/inside", {"webhook_url": f"http://{host}/"})
        assert (400, True) == (status, "allowed_private_cidrs" in problem["detail"]), problem


def test_idempotency_keys(api: Api, recipient: RecordingReceiver) -> None:
    """The first answer is given again; the key with another request is 422."""
    route = api.route(recipient.url)
    job = {"delay_ms": 3_600_000, "route": route, "meta": 1}
    status, first = api.ask("POST", JOBS, job, Idempotency_Key="k-1")
    again_status, again = api.ask("POST", JOBS, job, Idempotency_Key="k-1")
    assert (201, 201, first) == (status, again_status, again)
    assert "8" == first["id"][14]
    assert 422 == api.ask("POST", JOBS, job | {"meta": 2}, Idempotency_Key="k-1")[0]


def test_restart_drains_in_due_order(tmp_path: Path, recipient: RecordingReceiver) -> None:
    """What came due while the node was down is delivered afterwards, oldest first."""
    api = Api(tmp_path)
    assert 201 == api.ask("PUT", COLLECTION, {"num_vnodes": 5})[0]
    route = api.route(recipient.url, max_in_flight=1)
    due = int(time.time() * 1000) + 700
    jobs = [
        {"id": f"job-{number}", "trigger_time": due + number, "route": route}
        for number in range(300)
    ]
    assert 300 == api.ask("POST", f"{JOBS}/batch", jobs)[1]["created"]
    api.process.kill()
    time.sleep(1.2)
    api.process.start()
    received = recipient.wait(300, timeout_s=30)
    order = [json.loads(webhook.body)["trigger_time"] for webhook in received]
    assert sorted(order) == order
    assert 0 == api.process.stop()


def test_no_secret_is_plain_on_disk(tmp_path: Path, recipient: RecordingReceiver) -> None:
    """Neither signing secrets nor header values nor credentials of URLs."""
    api = Api(tmp_path)
    url = recipient.url.replace("http://", "http://user:pa55w0rd-of-url@")
    route = api.route(url, headers={"x-token": "t0ken-of-header"})
    secret = api.ask("GET", f"{ROUTES}/{route}/secret")[1]["secret"]
    shown = json.dumps(api.ask("GET", f"{ROUTES}/{route}")[1])
    assert 201 == api.ask("PUT", COLLECTION)[0]
    api.job(route)
    (webhook,) = recipient.wait(1)
    assert ("t0ken-of-header", True) == (
        webhook.headers["x-token"],
        webhook.headers["authorization"].startswith("Basic "),
    )
    assert 0 == api.process.stop()
    hidden = [secret, secret.removeprefix("whsec_"), "t0ken-of-header", "pa55w0rd-of-url"]
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        assert not [text for text in hidden if text.encode() in content], path
    assert not [text for text in hidden if text in shown]


def test_changes_that_race_with_the_due_moment(api: Api, recipient: RecordingReceiver) -> None:
    """Whatever the answer says of the replaced or deleted version is what the recipient saw."""
    route = api.route(recipient.url)
    told: dict[str, str] = {}
    for number in range(60):
        due = int(time.time() * 1000) + number % 30
        job = api.job(route, id=f"race-{number}", trigger_time=due, meta="old")
        if number % 2:
            answer = api.ask("DELETE", f"{JOBS}/{job['id']}")[1]
            told[job["id"]] = answer["outcome"]
        else:
            answer = api.ask("PATCH", f"{JOBS}/{job['id']}", {"meta": "new"})[1]
            told[job["id"]] = answer.get("previous", {}).get("outcome", "finished")
    for job_id, outcome in told.items():
        api.wait(job_id, "delivered", "cancelled")
        assert outcome in (
            *("cancelled", "in_flight", "already_delivered"),
            *("replaced", "finished"),
        )
    old = {
        body["id"]
        for webhook in recipient.received
        if (body := json.loads(webhook.body))["meta"] == "old"
    }
    for job_id, outcome in told.items():
        if outcome in ("cancelled", "replaced"):
            assert job_id not in old, f"{job_id}: {outcome}, and yet its old content was sent"
        elif outcome == "already_delivered":
            assert job_id in old
