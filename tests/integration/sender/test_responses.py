"""What comes back: statuses, heads, bodies, and what is no HTTP at all."""

import gzip

import pytest

from tests.faults.certificates import Certificates
from tests.faults.receiver import INVALID, RETRY_AFTER, FaultReceiver
from tests.integration.sender.harness import SHORT_MS, Lab, request, until
from timemachine import limits
from timemachine.retry import parse_retry_after

STATUSES = (
    "200 201 202 204 299 300 301 302 304 307 308 400 401 403 404 409 410 413 422 429"
    " 500 502 503 504 600"
).split()


@pytest.mark.parametrize("status", STATUSES)
async def test_status(lab: Lab, receiver: FaultReceiver, status: str) -> None:
    """Every status is an answer, and none is an error of the connection."""
    outcome = await lab.send(receiver.url(f"/status/{status}"))
    assert int(status) == outcome.status
    assert (None, None, None) == (
        outcome.error_code,
        outcome.error_phase,
        outcome.error_message,
    )
    assert outcome.bytes_sent
    assert "127.0.0.1" == outcome.remote_ip
    assert 1 == len(receiver.requests)


async def test_the_request_arrives_as_it_was_given(lab: Lab, receiver: FaultReceiver) -> None:
    """Head and body are sent byte for byte, in one request."""
    body = bytes(range(256)) * 300
    what = request(receiver.url("/a/b?c=%20d"), body=body)
    assert 200 == (await lab.send(what)).status
    (seen,) = receiver.requests
    assert what.head == seen.head + b"\r\n\r\n"
    assert body == seen.body
    assert "identity" == seen.headers["accept-encoding"]


async def test_a_large_body_arrives(lab: Lab, receiver: FaultReceiver) -> None:
    """A body larger than the socket's buffers arrives whole."""
    body = b"0123456789abcdef" * 512 * 1024
    assert 200 == (await lab.send(receiver.url("/"), body=body)).status
    assert body == receiver.requests[0].body


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
async def test_redirects_are_not_followed(lab: Lab, receiver: FaultReceiver, status: str) -> None:
    """A redirect is its own answer: the second hop is never contacted, only its host recorded."""
    with FaultReceiver() as other:
        url = receiver.url(f"/redirect/{status}?to={other.url('/visited?token=secret')}")
        outcome = await lab.send(url)
        here = await lab.send(receiver.url(f"/redirect/{status}"))
        assert int(status) == outcome.status == here.status
        assert "127.0.0.1" == outcome.headers["location"]
        assert 0 == other.connections
    assert 0 == receiver.visited
    assert 2 == len(receiver.requests)


async def test_headers_that_are_kept(lab: Lab, receiver: FaultReceiver) -> None:
    """Only the allow-list is kept, under lower-case names."""
    plain = await lab.send(receiver.url("/"))
    assert {"content-type": "text/plain", "server": "fault-receiver"} == plain.headers
    asked = await lab.send(receiver.url("/status/503?retry-after=seconds&webhook-delivery=disable"))
    assert {"retry-after": "7", "webhook-delivery": "disable"} == asked.headers


@pytest.mark.parametrize("form", RETRY_AFTER)
async def test_retry_after_is_handed_on(lab: Lab, receiver: FaultReceiver, form: str) -> None:
    """Retry-After comes out as it came, in whatever form; judging it is not the sender's."""
    outcome = await lab.send(receiver.url(f"/status/429?retry-after={form}"))
    assert 429 == outcome.status
    text = outcome.headers["retry-after"]
    understood = parse_retry_after(text, 0)
    assert (form in {"junk", "negative"}) == (understood is None)


async def test_interim_responses_are_skipped(lab: Lab, receiver: FaultReceiver) -> None:
    """The answer is the final response; headers of interim ones are not its."""
    outcome = await lab.send(receiver.url("/interim/5"))
    assert (200, b"finally", {}) == (outcome.status, outcome.body, outcome.headers)


async def test_interim_flood(lab: Lab, receiver: FaultReceiver) -> None:
    """Interim responses without end are no HTTP: they are cut, not read for ever."""
    outcome = await lab.send(receiver.url("/interim/flood"))
    assert ("protocol_error", "headers") == (outcome.error_code, outcome.error_phase)
    assert outcome.status is None
    assert outcome.bytes_sent
    await until(lambda: receiver.open == 0)


async def test_switching_protocols(lab: Lab, receiver: FaultReceiver) -> None:
    """Nobody asked for another protocol."""
    assert "protocol_error" == (await lab.send(receiver.url("/switch"))).error_code


@pytest.mark.parametrize("kind", INVALID)
async def test_invalid_http(lab: Lab, receiver: FaultReceiver, kind: str) -> None:
    """What is no HTTP/1.1 is a failure of its own, and ends at once."""
    outcome = await lab.send(receiver.url(f"/invalid/{kind}"))
    assert ("protocol_error", "headers") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 did not answer in HTTP/1.1." == outcome.error_message
    assert outcome.status is None
    assert outcome.bytes_sent
    await until(lambda: receiver.open == 0)


async def test_another_protocol(lab: Lab, receiver: FaultReceiver) -> None:
    """A 200 of a protocol that only looks like HTTP is no answer."""
    assert "protocol_error" == (await lab.send(receiver.url("/ice"))).error_code


@pytest.mark.parametrize("path", [f"/header/{limits.SENDER_HEAD_BYTES_MAX}", "/header/1048576"])
async def test_a_head_too_large(lab: Lab, receiver: FaultReceiver, path: str) -> None:
    """A response's head has a limit."""
    outcome = await lab.send(receiver.url(path))
    assert ("protocol_error", "headers") == (outcome.error_code, outcome.error_phase)
    await until(lambda: receiver.open == 0)


async def test_a_large_head(lab: Lab, receiver: FaultReceiver) -> None:
    """Below the limit a head is read, and a long value of it is cut."""
    long = await lab.send(receiver.url(f"/header/{limits.SENDER_HEAD_BYTES_MAX - 1024}"))
    assert 200 == long.status
    assert "x" * 1024 == long.headers["server"]
    assert 200 == (await lab.send(receiver.url("/headers/500"))).status


# --- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 65536])
async def test_a_body_up_to_the_cap(lab: Lab, receiver: FaultReceiver, chunk: int) -> None:
    """A body of exactly the cap is captured whole, however it is chunked."""
    cap = limits.ATTEMPT_BODY_BYTES_MAX
    outcome = await lab.send(receiver.url(f"/big/{cap}?chunk={chunk}"))
    assert 200 == outcome.status
    assert b"x" * cap == outcome.body
    assert type(outcome.body) is bytes
    assert not outcome.truncated


@pytest.mark.parametrize("more", [1, 1024 * 1024, 128 * 1024 * 1024])
async def test_a_body_beyond_the_cap(lab: Lab, receiver: FaultReceiver, more: int) -> None:
    """A larger body is cut at the cap and its connection closed: the rest is never fetched."""
    cap = limits.ATTEMPT_BODY_BYTES_MAX
    outcome = await lab.send(receiver.url(f"/big/{cap + more}"))
    assert 200 == outcome.status
    assert b"x" * cap == outcome.body
    assert outcome.truncated
    if more > 1:
        await until(lambda: receiver.open == 0)
        assert receiver.sent_bytes < 64 * 1024 * 1024


async def test_trailers_without_end(lab: Lab, receiver: FaultReceiver) -> None:
    """What follows a body is not read for ever, and is no header of the response."""
    outcome = await lab.send(receiver.url("/trailers/10485760"))
    assert (200, b"ok", {}) == (outcome.status, outcome.body, outcome.headers)
    await until(lambda: receiver.open == 0)


async def test_a_few_trailers(lab: Lab, receiver: FaultReceiver) -> None:
    """Trailers are no headers."""
    outcome = await lab.send(receiver.url("/trailers/10"))
    assert (200, b"ok", {}, False) == (
        outcome.status,
        outcome.body,
        outcome.headers,
        outcome.truncated,
    )


async def test_a_gzip_bomb_stays_packed(lab: Lab, receiver: FaultReceiver) -> None:
    """Responses are not decompressed: what is stored is what came over the wire."""
    outcome = await lab.send(receiver.url("/gzip-bomb"))
    assert 200 == outcome.status
    packed = gzip.compress(b"\0" * 16 * 1024 * 1024, mtime=0)
    assert packed[: limits.ATTEMPT_BODY_BYTES_MAX] == outcome.body


@pytest.mark.parametrize("path", ["/close/in-body", "/close/after-head", "/reset/in-body"])
async def test_a_success_whose_body_breaks_off(
    lab: Lab, receiver: FaultReceiver, path: str
) -> None:
    """From the head of a 2xx on the delivery is acknowledged, whatever becomes of the body."""
    outcome = await lab.send(receiver.url(path))
    assert (200, None, True) == (outcome.status, outcome.error_code, outcome.truncated)
    assert outcome.body == (b"" if "after-head" in path else b"half")


@pytest.mark.parametrize("path", ["/stall/body", "/drip/body"])
async def test_a_success_whose_body_does_not_end(
    lab: Lab, receiver: FaultReceiver, path: str
) -> None:
    """The deadline ends the reading, and the delivery stays acknowledged."""
    outcome = await lab.send(receiver.url(path), timeout_ms=SHORT_MS)
    assert (200, None, True) == (outcome.status, outcome.error_code, outcome.truncated)
    assert outcome.body.startswith(b"x") or b"half" == outcome.body
    await until(lambda: receiver.open == 0)


@pytest.mark.parametrize("path", ["/stall/body", "/close/in-body"])
async def test_a_refusal_whose_body_does_not_come(
    lab: Lab, receiver: FaultReceiver, path: str
) -> None:
    """A status that has arrived is the answer: 410 means gone, however its body ends."""
    outcome = await lab.send(receiver.url(f"{path}?code=410"), timeout_ms=SHORT_MS)
    assert (410, None, True) == (outcome.status, outcome.error_code, outcome.truncated)


# --- more than one response -----------------------------------------------------------------------


async def test_two_responses(lab: Lab, receiver: FaultReceiver) -> None:
    """A second response is nobody's: its connection is dropped, and the next request is clean."""
    outcome = await lab.send(receiver.url("/two-responses"))
    assert (200, b"first", {}) == (outcome.status, outcome.body, outcome.headers)
    await until(lambda: receiver.open == 0)
    assert b"ok" == (await lab.send(receiver.url("/"))).body
    assert 2 == receiver.connections


@pytest.mark.parametrize("kind", ["http", "https"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_a_response_that_nobody_asked_for(
    lab: Lab, certificates: Certificates, kind: str, *, seen: bool
) -> None:
    """Bytes on an idle connection end it; they do not answer the next request.

    Whether the event loop has come to read them before that request is made, or not.
    """
    secure = kind == "https"
    tls = certificates.trusting() if secure else None
    context = certificates.server("right") if secure else None
    with FaultReceiver(context=context) as receiver:
        outcome = await lab.send(receiver.url("/extra/late?after=50"), tls=tls)
        assert (200, b"asked") == (outcome.status, outcome.body)
        if seen:
            await until(lambda: lab.default.connections == 0)
        else:
            # The loop stands still while they arrive.
            receiver.stopping.wait(0.3)
            assert 1 == lab.default.idle
        again = await lab.send(receiver.url("/"), tls=tls)
        assert (200, b"ok") == (again.status, again.body)
        assert ["/extra/late?after=50", "/"] == [each.path for each in receiver.requests]
        assert 2 == receiver.connections


async def test_an_answer_before_the_request_is_read(lab: Lab, receiver: FaultReceiver) -> None:
    """A refusal that comes early counts, if it comes at all, and its connection is not used on."""
    outcome = await lab.send(receiver.url("/close/early"), body=b"x" * 4 * 1024 * 1024)
    assert outcome.status == 413 or outcome.error_code == "connection_reset"
    assert 200 == (await lab.send(receiver.url("/"))).status
    assert 2 == receiver.connections
