"""What answers of recipients do to jobs and routes, by the rules of delivery: a whole node."""

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, wait_until
from tests.faults.receiver import RETRY_AFTER, FaultReceiver
from timemachine import limits
from timemachine.retry import parse_retry_after

STEADY = {"schedule_ms": [1_000], "jitter": 0}
"""A schedule that lets a test tell what Retry-After did to it."""


class Rules:
    """A node, its recipient, and a route for each test."""

    def __init__(self, node: NodeProcess, receiver: FaultReceiver) -> None:
        self.node = node
        self.receiver = receiver
        self._routes = 0
        self._jobs = 0

    def route(self, path: str, **fields: Any) -> str:
        """A new route to a behaviour."""
        self._routes += 1
        name = f"r{self._routes}"
        body = {"webhook_url": self.receiver.url(path), **fields}
        status, answer = self.node.ask("PUT", f"{ROUTES}/{name}", body)
        assert 201 == status, answer
        return name

    def job(self, route: str) -> str:
        """A new job that is due."""
        self._jobs += 1
        job_id = f"j{self._jobs}"
        self.node.create([{"id": job_id, "route": route, "delay_ms": 0}])
        return job_id

    def wait(self, job_id: str, state: str) -> dict[str, Any]:
        """Wait until a job is in a state."""
        seen: dict[str, Any] = {}

        def holds() -> bool:
            seen.update(self.node.ask("GET", f"{JOBS}/{job_id}")[1])
            return bool(seen["state"] == state)

        wait_until(holds, f"{job_id} does not become {state}")
        return seen

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """The attempts of a job."""
        return list(self.node.ask("GET", f"{JOBS}/{job_id}/attempts")[1]["items"])

    def came(self, job_id: str) -> int:
        """How often a job came."""
        return sum(
            seen.headers["timemachine-job-id"] == job_id for seen in list(self.receiver.requests)
        )

    def disabled(self, route: str) -> str | None:
        """Why a route is disabled."""
        reason: str | None = self.node.ask("GET", f"{ROUTES}/{route}")[1]["disabled"]
        return reason


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rules]:
    """One node for the module."""
    folder = tmp_path_factory.mktemp("rules") / "data"
    with FaultReceiver() as receiver, NodeProcess(folder) as node:
        assert 201 == node.start().ask("PUT", COLLECTION)[0]
        yield Rules(node, receiver)
        assert 0 == node.stop()
    assert [] == receiver.conflicts


def test_410_disables_the_route_and_404_does_not(rules: Rules) -> None:
    """R18: gone is the end of the delivery, and the route's other jobs are held."""
    gone, missing = rules.route("/status/410"), rules.route("/status/404")
    lost, other = rules.job(gone), rules.job(missing)
    assert "gone" == rules.wait(lost, "dead")["reason"]
    rules.wait(rules.job(gone), "held")
    rules.wait(other, "retrying")
    assert ("gone", None) == (rules.disabled(gone), rules.disabled(missing))


def test_429_makes_the_whole_route_wait(rules: Rules) -> None:
    """R19: the next job of the route is not even begun; when the route is changed it goes on."""
    route, other = rules.route("/status/429?retry-after=huge"), rules.route("/")
    first = rules.job(route)
    rules.wait(first, "retrying")
    second = rules.job(route)
    for _ in range(20):
        rules.wait(rules.job(other), "delivered")
    assert (1, 0) == (rules.came(first), rules.came(second))
    assert "scheduled" == rules.node.ask("GET", f"{JOBS}/{second}")[1]["state"]
    changed = {"webhook_url": rules.receiver.url("/")}
    assert 200 == rules.node.ask("PATCH", f"{ROUTES}/{route}", changed)[0]
    rules.wait(second, "delivered")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 502, 503, 504, 600])
def test_other_failures_are_tried_again_until_the_budget_is_spent(
    rules: Rules, status: int
) -> None:
    """R20, R21, R23: also 409 and 422, under one webhook-id, with one request an attempt (R35)."""
    route = rules.route(
        f"/status/{status}", retry={"schedule_ms": [10], "max_attempts": 3, "jitter": 0}
    )
    job_id = rules.job(route)
    assert "exhausted" == rules.wait(job_id, "dead")["reason"]
    assert 3 == rules.came(job_id)
    assert [status] * 3 == [each["response_status"] for each in rules.attempts(job_id)]


def test_a_status_that_the_route_takes_for_final(rules: Rules) -> None:
    """R21: `non_retryable_status` ends the delivery with the first of them."""
    route = rules.route("/status/400", non_retryable_status=[400])
    job_id = rules.job(route)
    assert "exhausted" == rules.wait(job_id, "dead")["reason"]
    assert 1 == rules.came(job_id)


def test_a_recipient_ends_a_delivery_or_disables_its_route(rules: Rules) -> None:
    """R22: by the response header `webhook-delivery`."""
    abort = rules.route("/status/503?webhook-delivery=abort-message")
    disable = rules.route("/status/503?webhook-delivery=disable")
    assert "aborted" == rules.wait(rules.job(abort), "dead")["reason"]
    rules.job(disable)
    wait_until(lambda: rules.disabled(disable) is not None, "the route stays enabled")
    assert "disabled_by_recipient" == rules.disabled(disable)
    assert rules.disabled(abort) is None
    rules.wait(rules.job(disable), "held")


@pytest.mark.parametrize("form", RETRY_AFTER)
def test_each_form_of_retry_after(rules: Rules, form: str) -> None:
    """R27: it only makes a delay longer, 24 hours at most; what is none, or past, does nothing."""
    job_id = rules.job(rules.route(f"/status/503?retry-after={form}", retry=STEADY))
    rules.wait(job_id, "retrying")
    attempt = rules.attempts(job_id)[0]
    delay_ms = attempt["next_attempt_time"] - attempt["ended_time"]
    if form in ("date", "rfc850", "asctime"):
        asked_ms = parse_retry_after(attempt["retry_after"], attempt["ended_time"])
        assert asked_ms is not None
        assert max(1_000, asked_ms) == delay_ms
        return
    expected = {"seconds": 7_000, "huge": limits.RETRY_AFTER_MS_MAX}
    assert expected.get(form, 1_000) == delay_ms


def test_the_largest_response_is_written_down(rules: Rules) -> None:
    """R43, R44: whatever a recipient sends fits, and what is no UTF-8 is shown as base64."""
    job_id = rules.job(rules.route("/largest"))
    rules.wait(job_id, "delivered")
    (attempt,) = rules.attempts(job_id)
    assert "base64" == attempt["response_body_encoding"]
    assert b"\xff" * limits.ATTEMPT_BODY_BYTES_MAX == b64decode(attempt["response_body"])
    assert not attempt["response_truncated"]
    kept = {"content-type", "date", "retry-after", "server", "webhook-delivery"}
    assert kept == set(attempt["response_headers"]), "a location that is none is not kept"
    assert 1 == rules.came(job_id)
