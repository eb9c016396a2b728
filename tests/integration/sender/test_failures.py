"""What goes wrong: one code, one phase and one safe sentence each, and never a second request."""

import asyncio
import errno
import socket
import ssl
import time

import pytest

from node.sender.failures import NoDescriptors, of_connecting, of_losing
from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import SHORT_MS, Answers, Lab, request, until
from timemachine.addresses import AddressPolicy


@pytest.mark.parametrize("path", ["/close/after-request", "/reset/after-request"])
async def test_closed_without_an_answer(lab: Lab, receiver: FaultReceiver, path: str) -> None:
    """A recipient that takes the request and goes is one failure, and sees one request only."""
    outcome = await lab.send(receiver.url(path))
    assert ("connection_reset", "headers") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 closed the connection without an answer." == outcome.error_message
    assert outcome.status is None
    assert outcome.bytes_sent
    assert "127.0.0.1" == outcome.remote_ip
    assert (1, 1) == (len(receiver.requests), receiver.connections)


@pytest.mark.parametrize("path", ["/close/before-reading", "/close/in-head"])
async def test_closed_in_the_middle(lab: Lab, receiver: FaultReceiver, path: str) -> None:
    """Half a head is no answer."""
    outcome = await lab.send(receiver.url(path))
    assert "connection_reset" == outcome.error_code
    assert outcome.error_phase in {"send", "headers"}
    assert outcome.bytes_sent
    assert 1 == receiver.connections


async def test_refused(lab: Lab) -> None:
    """Nobody listens: refused at once, nothing sent."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = await lab.send(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert ("connection_refused", "connect") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 refused the connection." == outcome.error_message
    assert "127.0.0.1" == outcome.remote_ip
    assert not outcome.bytes_sent


async def test_unreachable(lab: Lab) -> None:
    """An address without a route is unreachable, at once."""
    sender = lab.sender(AddressPolicy(("240.0.0.0/4",)))
    outcome = await lab.send("http://255.255.255.255:80/", sender)
    assert ("network_unreachable", "connect") == (outcome.error_code, outcome.error_phase)
    assert not outcome.bytes_sent


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/stall/before-reading", "/stall/after-request", "/stall/head", "/drip/head"]
)
async def test_no_answer_in_time(lab: Lab, receiver: FaultReceiver, path: str) -> None:
    """One deadline ends every kind of silence, slow heads included, and the connection with it."""
    began_s = time.monotonic()
    outcome = await lab.send(receiver.url(path), timeout_ms=SHORT_MS)
    assert ("timeout", "headers") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 did not answer in time." == outcome.error_message
    assert outcome.status is None
    assert outcome.bytes_sent
    # A difference of two floats: the loop tells its time in seconds since the machine began.
    assert SHORT_MS <= round(outcome.total_ms, 3)
    assert time.monotonic() - began_s < 10
    await until(lambda: lab.default.connections == 0)


async def test_a_request_that_is_not_taken(lab: Lab, receiver: FaultReceiver) -> None:
    """The deadline covers writing."""
    body = b"x" * 32 * 1024 * 1024
    what = request(receiver.url("/stall/before-reading"), body=body, timeout_ms=SHORT_MS)
    outcome = await lab.send(what)
    assert ("timeout", "send") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 did not take the whole request in time." == outcome.error_message
    assert outcome.bytes_sent


async def test_no_connection_in_time(lab: Lab) -> None:
    """The deadline covers connecting."""
    with full_listener() as port:
        outcome = await lab.send(f"http://127.0.0.1:{port}/", timeout_ms=SHORT_MS)
    assert ("timeout", "connect") == (outcome.error_code, outcome.error_phase)
    assert "127.0.0.1 did not accept the connection in time." == outcome.error_message
    assert not outcome.bytes_sent


async def test_connecting_has_a_limit_of_its_own(lab: Lab) -> None:
    """Connecting ends before the whole deadline."""
    sender = lab.sender(phase_timeout_s=0.2)
    with full_listener() as port:
        outcome = await lab.send(f"http://127.0.0.1:{port}/", sender)
    assert ("timeout", "connect") == (outcome.error_code, outcome.error_phase)
    assert not outcome.bytes_sent


async def test_resolving_has_a_limit_of_its_own(lab: Lab) -> None:
    """A resolver that hangs is a time-out of that phase, also for those who join its lookup."""

    async def hanging(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    sender = lab.sender(phase_timeout_s=0.2, resolver=hanging)
    sent = [lab.start("http://slow.example/", sender) for _ in range(3)]
    for each in sent:
        outcome = await each.outcome()
        assert ("timeout", "resolve") == (outcome.error_code, outcome.error_phase)
        assert "The name slow.example was not resolved in time." == outcome.error_message
        assert not outcome.bytes_sent


async def test_the_deadline_covers_resolving(lab: Lab) -> None:
    """Also the whole deadline ends a lookup."""

    async def hanging(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    sender = lab.sender(resolver=hanging)
    outcome = await lab.send("http://slow.example/", sender, timeout_ms=SHORT_MS)
    assert ("timeout", "resolve") == (outcome.error_code, outcome.error_phase)


async def test_deadlines_of_different_lengths(lab: Lab, receiver: FaultReceiver) -> None:
    """A long deadline that began first does not hold up a short one."""
    long = lab.start(receiver.url("/stall/after-request"))
    short = lab.start(receiver.url("/stall/after-request"), timeout_ms=SHORT_MS)
    assert "timeout" == (await short.outcome()).error_code
    assert [] == long.outcomes
    long.handle.abort()
    assert "shutdown" == (await long.outcome()).error_code


async def test_an_answer_that_came_during_a_stall_counts(lab: Lab, receiver: FaultReceiver) -> None:
    """A process that was stopped for longer than a deadline first reads what came in time."""
    await lab.send(receiver.url("/"))
    before = receiver.sent_bytes
    sent = lab.start(receiver.url("/"), timeout_ms=SHORT_MS)
    await asyncio.sleep(0)  # it is written
    # The loop stands still, as it does under SIGSTOP, until the answer is there, and for longer.
    receiver.wait_until(lambda: receiver.sent_bytes > before)
    time.sleep(2.5 * SHORT_MS / 1000)  # noqa: ASYNC251 - on purpose
    outcome = await sent.outcome()
    assert (200, None) == (outcome.status, outcome.error_code)


# --- resolving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), OSError("no"), UnicodeError()])
async def test_a_name_that_does_not_resolve(lab: Lab, error: Exception) -> None:
    """An unknown name is an error of its own, with no word of the resolver's."""
    sender = lab.sender(resolver=Answers(error))
    outcome = await lab.send("http://nowhere.example/", sender)
    assert ("dns_error", "resolve") == (outcome.error_code, outcome.error_phase)
    assert "The name nowhere.example could not be resolved." == outcome.error_message
    assert not outcome.bytes_sent


async def test_a_name_without_addresses(lab: Lab) -> None:
    """No addresses and no error is the same."""
    outcome = await lab.send("http://empty.example/", lab.sender(resolver=Answers([])))
    assert "dns_error" == outcome.error_code


async def test_the_system_does_not_know_the_name(lab: Lab) -> None:
    """The system's resolver answers for names that cannot exist."""
    # One character too long to be asked for: no name server, or the lack of one, has a part in it.
    name = ".".join(["a" * 63] * 3 + ["a" * 62])
    outcome = await lab.send(f"http://{name}/")
    assert ("dns_error", "resolve") == (outcome.error_code, outcome.error_phase)


# --- aborting -------------------------------------------------------------------------------------


async def test_abort_while_waiting_for_the_answer(lab: Lab, receiver: FaultReceiver) -> None:
    """Too late to call it back: the connection is cut and the outcome says why."""
    sent = lab.start(receiver.url("/stall/after-request"))
    await until(lambda: len(receiver.requests) == 1)
    assert not sent.handle.abort_if_unsent()
    sent.handle.abort()
    assert [] == sent.outcomes
    outcome = await sent.outcome()
    assert ("shutdown", "headers") == (outcome.error_code, outcome.error_phase)
    assert "This node stopped before 127.0.0.1 answered." == outcome.error_message
    assert outcome.bytes_sent
    await until(lambda: receiver.left == 1)


async def test_abort_before_it_is_sent(lab: Lab) -> None:
    """No byte has left, and the outcome says so."""
    with full_listener() as port:
        sent = lab.start(f"http://127.0.0.1:{port}/")
        await asyncio.sleep(0.05)
        sent.handle.abort()
        outcome = await sent.outcome()
    assert ("shutdown", "connect") == (outcome.error_code, outcome.error_phase)
    assert not outcome.bytes_sent


async def test_abort_after_a_success_has_begun(lab: Lab, receiver: FaultReceiver) -> None:
    """Cutting a body does not undo the acknowledgement."""
    sent = lab.start(receiver.url("/stall/body"))
    await until(lambda: receiver.sent_bytes > 0)
    await asyncio.sleep(0.01)  # the loop reads what has come before a timer is due
    sent.handle.abort()
    outcome = await sent.outcome()
    assert (200, None, b"half") == (outcome.status, outcome.error_code, outcome.body)


@pytest.mark.parametrize("wait_s", [0.0, 0.05])
async def test_abort_if_unsent(lab: Lab, wait_s: float) -> None:
    """Called back in time: nothing is sent, and no outcome follows."""
    with full_listener() as port:
        sent = lab.start(f"http://127.0.0.1:{port}/", timeout_ms=SHORT_MS)
        await asyncio.sleep(wait_s)
        assert sent.handle.abort_if_unsent()
        assert not sent.handle.abort_if_unsent()
        sent.handle.abort()
        await until(lambda: lab.default.connections == 0)
        await asyncio.sleep(1.5 * SHORT_MS / 1000)
    assert [] == sent.outcomes


async def test_abort_if_unsent_after_the_answer(lab: Lab, receiver: FaultReceiver) -> None:
    """What has ended cannot be called back, and aborting it does nothing."""
    sent = lab.start(receiver.url("/"))
    await sent.outcome()
    assert not sent.handle.abort_if_unsent()
    sent.handle.abort()
    await asyncio.sleep(0.01)
    assert 1 == len(sent.outcomes)
    assert 200 == (await lab.send(receiver.url("/"))).status


async def test_closing_the_sender(lab: Lab, receiver: FaultReceiver) -> None:
    """Closing ends what is open with `shutdown`, and takes nothing new."""
    sender = lab.sender()
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    sent = [lab.start(receiver.url("/stall/after-request"), sender) for _ in range(5)]
    await receiver_has(receiver, 6)
    await sender.close()
    assert {"shutdown"} == {(await each.outcome()).error_code for each in sent}
    assert 0 == sender.connections
    late = await lab.send(receiver.url("/"), sender)
    assert ("shutdown", False) == (late.error_code, late.bytes_sent)
    assert 6 == len(receiver.requests)


async def receiver_has(receiver: FaultReceiver, count: int) -> None:
    """Wait for requests."""
    await until(lambda: len(receiver.requests) >= count)


class full_listener:  # noqa: N801 - used like a function
    """A listener whose queue is full: to connect takes for ever."""

    def __enter__(self) -> int:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        port: int = self.listener.getsockname()[1]
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            self.fillers.append(filler)
        return port

    def __exit__(self, *_: object) -> None:
        for filler in self.fillers:
            filler.close()
        self.listener.close()


# --- the vocabulary -------------------------------------------------------------------------------


def tls_alert(reason: str) -> ssl.SSLError:
    """What the ssl module raises for a recipient's alert."""
    error = ssl.SSLError(1, "[SSL] something with numbers in it")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "code", "phase"),
    [
        (None, "connection_reset", "headers"),
        (ConnectionResetError(), "connection_reset", "headers"),
        (BrokenPipeError(), "connection_reset", "send"),
        (OSError(errno.EHOSTUNREACH, "secret"), "network_unreachable", "headers"),
        (OSError(errno.ETIMEDOUT, "secret"), "timeout", "headers"),
        (OSError(errno.EIO, "secret"), "network_error", "headers"),
        (tls_alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "tls_error", "tls"),
        (ssl.SSLError(1, "secret"), "tls_error", "tls"),
        (RuntimeError("secret"), "network_error", "headers"),
    ],
)
def test_losing_a_connection(error: Exception | None, code: str, phase: str) -> None:
    """Whatever ends a connection has a code, a phase, and a sentence without the error's text."""
    failure = of_losing(error, "10.0.0.1")
    assert (code, phase, "10.0.0.1") == (failure.code, failure.phase, failure.remote_ip)
    sentence = failure.message("hooks.example")
    assert "hooks.example" in sentence
    assert "secret" not in sentence
    assert "10.0.0.1" not in sentence


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ECONNREFUSED, "secret"), "connection_refused"),
        (OSError(errno.ECONNRESET, "secret"), "connection_reset"),
        (OSError(errno.ENETUNREACH, "secret"), "network_unreachable"),
        (OSError(errno.EINVAL, "secret"), "network_unreachable"),
        (OSError(errno.ETIMEDOUT, "secret"), "timeout"),
        (OSError(errno.ENOBUFS, "secret"), "network_error"),
    ],
)
def test_failing_to_connect(error: OSError, code: str) -> None:
    """Whatever keeps a connection from being made has a code and a safe sentence."""
    failure = of_connecting(error, "10.0.0.1")
    assert (code, "connect") == (failure.code, failure.phase)
    assert "secret" not in failure.message("hooks.example")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_descriptors_is_not_the_recipients_fault(number: int) -> None:
    """It is no failure of the attempt at all."""
    with pytest.raises(NoDescriptors):
        of_connecting(OSError(number, ""), "10.0.0.1")


async def test_a_bug_in_the_resolver(lab: Lab) -> None:
    """What nobody foresaw ends the attempt, and is reported to the loop."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(context.get("exception"))
    )
    bug = KeyError("bug")
    outcome = await lab.send("http://name.example/", lab.sender(resolver=Answers(bug)))
    assert ("network_error", "connect") == (outcome.error_code, outcome.error_phase)
    assert [bug] == reported
