"""A whole node against recipients that do everything but answer as they should."""

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, Recipient, wait_until
from tests.faults.catalogue import ENDINGS, KEPT_BYTES, MIB, Ending, waits_for_deadline
from tests.faults.receiver import FaultReceiver

Told = tuple[str, int | None, str | None, str | None, bool]
"""Of an attempt: status, response status, error code, error phase, response truncated."""


def _told(ending: Ending) -> Told:
    """What an attempt that ends so tells of it."""
    if ending.outcome == "delivered":
        return ("succeeded", ending.status, None, None, ending.truncated)
    code = ending.code if ending.status is None else "status"
    return ("failed", ending.status, code, ending.phase, ending.truncated)


def _routes(node: NodeProcess, receiver: FaultReceiver, paths: Sequence[str], **more: Any) -> None:
    """A route for each path, named by its place."""
    for number, path in enumerate(paths):
        # What comes late answers the next request on its connection, for all that HTTP/1.1 can
        # tell: so no other route uses that one.
        host = "localhost" if path.startswith("/extra/") else None
        route = {"webhook_url": receiver.url(path, host=host), "retry": {"schedule_ms": []}, **more}
        status, answer = node.ask("PUT", f"{ROUTES}/r{number}", route)
        assert 201 == status, answer


def _attempt(node: NodeProcess, job_id: str) -> dict[str, Any]:
    """The only attempt of a job, once it has ended."""
    items: list[dict[str, Any]] = []

    def ended() -> bool:
        items[:] = node.ask("GET", f"{JOBS}/{job_id}/attempts")[1]["items"]
        return bool(items)

    wait_until(ended, f"the attempt of {job_id} does not end")
    (attempt,) = items
    return attempt


def _ending(attempt: dict[str, Any]) -> Told:
    return (
        attempt["status"],
        attempt["response_status"],
        attempt["error_code"],
        attempt["error_phase"],
        attempt["response_truncated"],
    )


def _body(attempt: dict[str, Any]) -> bytes:
    """What is kept of the body of a response."""
    body: str = attempt["response_body"]
    return b64decode(body) if attempt["response_body_encoding"] == "base64" else body.encode()


def test_every_attempt_says_how_it_ended(tmp_path: Path) -> None:
    """One request each; the attempt tells code, phase and status, and what is kept is bounded.

    A redirect is never followed, and only the host of where it points to is kept.
    """
    paths = list(ENDINGS)
    # Those that only the deadline ends come by themselves, after the others: so it can be short for
    # them, and what keeps the machine busy has no part in how they end.
    waves: tuple[list[int], list[int]] = ([], [])
    for number, path in enumerate(paths):
        waves[waits_for_deadline(path)].append(number)
    attempts: dict[str, dict[str, Any]] = {}
    with FaultReceiver() as receiver, NodeProcess(tmp_path / "data") as node:
        assert 201 == node.start().ask("PUT", COLLECTION)[0]
        _routes(node, receiver, paths)
        for wave, timeout_ms in zip(waves, (30_000, 2_000), strict=True):
            for number in wave:
                changed = {"timeout_ms": timeout_ms}
                assert 200 == node.ask("PATCH", f"{ROUTES}/r{number}", changed)[0]
            node.create([{"id": f"j{n}", "route": f"r{n}", "delay_ms": 0} for n in wave])
            attempts |= {paths[number]: _attempt(node, f"j{number}") for number in wave}
        jobs = node.drain()
        assert 0 == node.stop()
    expected = {path: _told(ending) for path, ending in ENDINGS.items()}
    assert expected == {path: _ending(attempt) for path, attempt in attempts.items()}
    states = {
        "delivered": ("delivered", None),
        "retry": ("dead", "exhausted"),
        "gone": ("dead", "gone"),
    }
    for number, path in enumerate(paths):
        job = jobs[f"j{number}"]
        assert states[ENDINGS[path].outcome] == (job["state"], job["reason"]), path
        assert len(_body(attempts[path])) <= KEPT_BYTES, path
    assert KEPT_BYTES == len(_body(attempts[f"/big/{128 * MIB}"]))
    assert 0 == receiver.visited
    assert "secret" not in str(attempts["/redirect/302"]["response_headers"])
    asked = [seen.path for seen in receiver.requests]
    assert len(set(asked)) == len(asked), "one attempt is one request"


def test_others_are_served_while_the_bad_ones_are_open(tmp_path: Path) -> None:
    """Sends that hang hold their own route's slots only, however many jobs wait behind them.

    All of a healthy route's jobs are delivered before a single one of the hanging sends ends.
    """
    paths = ["/stall/after-request", "/stall/head", "/stall/body", "/drip/head", "/drip/body"]
    flights, healthy = 30, 500
    with (
        FaultReceiver() as receiver,
        Recipient() as recipient,
        NodeProcess(tmp_path / "data") as node,
    ):
        node.start().set_up(recipient.url)
        _routes(node, receiver, paths, timeout_ms=60_000, max_in_flight=flights)
        node.create(
            [
                {"id": f"bad{number}", "route": f"r{number % len(paths)}", "delay_ms": 0}
                for number in range(10 * flights * len(paths))
            ]
        )
        hanging = flights * len(paths)
        receiver.wait(hanging)
        node.create([{"id": f"good{number}", "delay_ms": 0} for number in range(healthy)])
        recipient.wait(healthy)
        good = f"{JOBS}?limit=1000&state=delivered"
        wait_until(lambda: healthy == len(node.ask("GET", good)[1]["items"]), "they do not settle")
        assert (hanging, hanging, 0) == (len(receiver.requests), receiver.open, receiver.left)
        assert healthy == len(recipient.arrivals())


def test_endless_answers_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Thirty answers of 100 MiB at once, in bodies, trailers and heads: read no further than kept.

    The node's memory at its highest is hardly above what it was after thirty of 1 MiB, and most of
    the bytes never leave the recipient.
    """
    kinds = ("big", "trailers", "header")
    paths = [f"/{kind}/{size * MIB}" for size in (1, 100) for kind in kinds]
    with FaultReceiver() as receiver, NodeProcess(tmp_path / "data") as node:
        assert 201 == node.start().ask("PUT", COLLECTION)[0]
        _routes(node, receiver, paths)

        def send(first: int) -> None:
            jobs = [
                {"id": f"j{first}-{number}", "route": f"r{first + number % 3}", "delay_ms": 0}
                for number in range(30)
            ]
            node.create(jobs)
            node.drain()

        send(0)
        before_bytes, sent_bytes = node.memory_bytes("VmRSS"), receiver.sent_bytes
        node.forget_highest_memory()
        send(3)
        grown_bytes = node.memory_bytes("VmHWM") - before_bytes
        sent_bytes = receiver.sent_bytes - sent_bytes
        assert 0 == node.stop()
    assert 60 == len(receiver.requests)
    assert grown_bytes < 8 * MIB, f"{grown_bytes} bytes more"
    assert sent_bytes < 30 * 100 * MIB / 5, f"{sent_bytes} bytes were taken"
    print(f"{grown_bytes} bytes more, {sent_bytes} bytes taken")
