"""Requests into the inside: judged on the address connected to, once resolved and never again."""

import socket

import pytest

from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import LOOPBACK, Answers, Lab, request, until
from timemachine.addresses import OWN_ADDRESS, AddressPolicy
from timemachine.errors import InvalidRequest
from timemachine.outbound import parse_target
from timemachine.ports import REFUSED_PORTS

LITERALS = [
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "0.0.0.0",
    "[::]",
    "169.254.169.254",
    "①②⑦.⓪.⓪.①",
]
# What the system's resolver takes for 127.0.0.1 or 0.0.0.0, though it is no address as written.
LEGACY = ["127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "0"]


@pytest.mark.parametrize("host", [*LITERALS, *LEGACY, "localhost"])
async def test_the_inside_is_not_connected_to(lab: Lab, receiver: FaultReceiver, host: str) -> None:
    """However the inside is spelled, no connection is made and no route is accepted."""
    sender = lab.sender(AddressPolicy())
    url = f"http://{host}:{receiver.port}/"
    outcome = await lab.send(url, sender)
    assert ("blocked_address", "resolve") == (outcome.error_code, outcome.error_phase)
    assert not outcome.bytes_sent
    assert outcome.remote_ip is None
    with pytest.raises(InvalidRequest) as caught:
        await sender.check(parse_target(url)[0])
    assert "blocked_address" == caught.value.specific_code
    assert "allowed_private_cidrs" in caught.value.detail
    assert 0 == receiver.connections


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", *LEGACY[:5], "localhost"])
async def test_an_allowed_range_is_connected_to(
    lab: Lab, receiver: FaultReceiver, host: str
) -> None:
    """What is accepted when the route is written is also delivered to, by the same rule."""
    sender = lab.sender(AddressPolicy(("127.0.0.0/8",)))
    url = f"http://{host}:{receiver.port}/"
    await sender.check(parse_target(url)[0])
    outcome = await lab.send(url, sender)
    assert (200, "127.0.0.1") == (outcome.status, outcome.remote_ip)


async def test_ipv6(lab: Lab) -> None:
    """IPv6 literals work, with their brackets in the Host header."""
    with FaultReceiver(host="::1") as receiver:
        outcome = await lab.send(receiver.url("/"))
        assert (200, "::1") == (outcome.status, outcome.remote_ip)
        assert f"[::1]:{receiver.port}" == receiver.requests[0].headers["host"]


async def test_literals_do_not_reach_the_resolver(lab: Lab, receiver: FaultReceiver) -> None:
    """A literal is judged itself, not what a resolver makes of it."""
    resolver = Answers(["93.184.216.34"])
    sender = lab.sender(AddressPolicy(), resolver=resolver)
    assert "blocked_address" == (await lab.send(receiver.url("/"), sender)).error_code
    assert [] == resolver.asked


async def test_rebinding(lab: Lab, receiver: FaultReceiver) -> None:
    """A name that is public when it is checked and loopback when it is connected to is refused."""
    resolver = Answers(["255.255.255.255"], ["127.0.0.1"])
    sender = lab.sender(AddressPolicy(("240.0.0.0/4",)), resolver=resolver)
    url = f"http://rebind.example:{receiver.port}/"
    await sender.check(parse_target(url)[0])
    assert "network_unreachable" == (await lab.send(url, sender)).error_code
    outcome = await lab.send(url, sender)
    assert ("blocked_address", "resolve") == (outcome.error_code, outcome.error_phase)
    assert "rebind.example has no address that may be connected to." == outcome.error_message
    assert 0 == receiver.connections


async def test_a_name_is_resolved_once_for_each_connection(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """What is connected to is what was judged: there is no second lookup in between."""
    resolver = Answers(["127.0.0.1"], ["240.0.0.1"])
    sender = lab.sender(resolver=resolver)
    assert 200 == (await lab.send(f"http://name.example:{receiver.port}/", sender)).status
    assert ["name.example"] == resolver.asked


async def test_mixed_answers(lab: Lab, receiver: FaultReceiver) -> None:
    """Of a name's addresses only the permitted ones are connected to."""
    resolver = Answers(["10.255.255.1", "::1", "127.0.0.1", "not an address", "169.254.169.254"])
    sender = lab.sender(AddressPolicy(("127.0.0.0/8",)), resolver=resolver)
    url = f"http://mixed.example:{receiver.port}/"
    await sender.check(parse_target(url)[0])
    outcome = await lab.send(url, sender)
    assert (200, "127.0.0.1") == (outcome.status, outcome.remote_ip)


@pytest.mark.parametrize("answer", [["10.0.0.1", "::1"], ["nonsense"], ["::ffff:10.0.0.1"]])
async def test_no_permitted_answer(lab: Lab, answer: list[str]) -> None:
    """A name with nothing but inner addresses is refused, and says nothing about them."""
    sender = lab.sender(AddressPolicy(), resolver=Answers(answer))
    outcome = await lab.send("http://inner.example/", sender)
    assert "blocked_address" == outcome.error_code
    assert "inner.example has no address that may be connected to." == outcome.error_message


async def test_the_next_address_is_tried(lab: Lab, receiver: FaultReceiver) -> None:
    """An address that refuses does not stop a name that has another."""
    resolver = Answers(["::1", "127.0.0.2", "127.0.0.1"])
    sender = lab.sender(resolver=resolver)
    outcome = await lab.send(f"http://several.example:{receiver.port}/", sender)
    assert (200, "127.0.0.1") == (outcome.status, outcome.remote_ip)


async def test_an_address_that_is_silent_does_not_hold_up_the_next(lab: Lab) -> None:
    """The next address is tried beside one that does not answer."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as silent:
        port = silent.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
        with FaultReceiver(port=port) as receiver:
            sender = lab.sender(resolver=Answers(["127.0.0.2", "127.0.0.1"]))
            outcome = await lab.send(f"http://several.example:{port}/", sender)
            assert (200, "127.0.0.1") == (outcome.status, outcome.remote_ip)
            assert 1 == receiver.connections
            await until(lambda: sender.connections == 1)
        for filler in fillers:
            filler.close()


async def test_all_addresses_refuse(lab: Lab) -> None:
    """The failure told is the most telling one."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        policy = AddressPolicy((*LOOPBACK, "240.0.0.0/4"))
        sender = lab.sender(policy, resolver=Answers(["127.0.0.1", "255.255.255.255"]))
        outcome = await lab.send(f"http://several.example:{port}/", sender)
    assert ("connection_refused", "connect") == (outcome.error_code, outcome.error_phase)


async def test_a_burst_asks_the_resolver_once(lab: Lab, receiver: FaultReceiver) -> None:
    """Requests for one name share its lookup."""
    resolver = Answers(["127.0.0.1"])
    sender = lab.sender(resolver=resolver)
    sent = [lab.start(f"http://name.example:{receiver.port}/", sender) for _ in range(20)]
    assert {200} == {(await each.outcome()).status for each in sent}
    assert ["name.example"] == resolver.asked


async def test_one_who_leaves_does_not_end_the_lookup_of_others(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """A lookup goes on for those who still wait for it."""
    sender = lab.sender(resolver=Answers(["127.0.0.1"]))
    url = f"http://name.example:{receiver.port}/"
    first, second = lab.start(url, sender), lab.start(url, sender)
    await until(lambda: first.handle.phase == "resolve")
    assert first.handle.abort_if_unsent()
    assert 200 == (await second.outcome()).status


async def test_a_dead_name_is_asked_for_again(lab: Lab, receiver: FaultReceiver) -> None:
    """Failures are not remembered."""
    sender = lab.sender(resolver=Answers(OSError("not yet"), ["127.0.0.1"]))
    url = f"http://name.example:{receiver.port}/"
    assert "dns_error" == (await lab.send(url, sender)).error_code
    assert 200 == (await lab.send(url, sender)).status


async def test_a_name_that_is_unknown_when_the_route_is_written(lab: Lab) -> None:
    """Its record may come later: the route is accepted, since every attempt is judged."""
    await lab.sender(resolver=Answers(OSError("no"))).check(
        parse_target("http://later.example/")[0]
    )


async def test_a_port_that_is_not_for_webhooks(lab: Lab, receiver: FaultReceiver) -> None:
    """It is refused when the route is written and at every connect, and no name is looked up."""
    everything = ("0.0.0.0/0", "::/0")
    for host in ("127.0.0.1", "[::1]", "name.example"):
        resolver = Answers(["127.0.0.1"])
        sender = lab.sender(AddressPolicy(everything), resolver=resolver)
        for port in (25, 6379):
            url = f"http://{host}:{port}/"
            outcome = await lab.send(url, sender)
            assert ("blocked_address", "resolve") == (outcome.error_code, outcome.error_phase)
            assert "Webhooks may not go to the port of" in str(outcome.error_message)
            with pytest.raises(InvalidRequest, match=f"add {port} to allowed_ports") as caught:
                await sender.check(parse_target(url)[0])
            assert "blocked_address" == caught.value.specific_code
        assert [] == resolver.asked


async def test_a_port_that_the_operator_opens_and_closes(lab: Lab) -> None:
    """The same rule where it is stored and where it is connected to, and it may change."""
    with FaultReceiver(port=free_port(sorted(REFUSED_PORTS))) as receiver:
        sender = lab.sender(AddressPolicy(LOOPBACK, allowed_ports=[receiver.port]))
        await sender.check(parse_target(receiver.url("/"))[0])
        assert 200 == (await lab.send(receiver.url("/"), sender)).status
        sender.set_policy(AddressPolicy(LOOPBACK))
        assert "blocked_address" == (await lab.send(receiver.url("/"), sender)).error_code
        with pytest.raises(InvalidRequest, match="allowed_ports"):
            await sender.check(parse_target(receiver.url("/"))[0])
        assert 1 == receiver.connections


async def test_own_ports(lab: Lab, receiver: FaultReceiver) -> None:
    """The node's own ports are refused on all their addresses, whatever is allowed."""
    own = {("127.0.0.1", receiver.port)}
    sender = lab.sender(AddressPolicy(LOOPBACK, own))
    for host in ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"):
        url = f"http://{host}:{receiver.port}/"
        assert (await lab.send(url, sender)).status is None
    with pytest.raises(InvalidRequest, match=OWN_ADDRESS):
        await sender.check(parse_target(receiver.url("/"))[0])
    assert 0 == receiver.connections


async def test_own_ports_on_all_addresses(lab: Lab) -> None:
    """A listener on all addresses is refused on every address of the machine, and only there."""
    mine = address_of_this_machine()
    everything = ("0.0.0.0/0", "::/0")
    with FaultReceiver(host="0.0.0.0") as receiver:
        policy = AddressPolicy(everything, {("0.0.0.0", receiver.port)})
        sender = lab.sender(policy, phase_timeout_s=0.2)
        for host in ("127.0.0.1", "127.9.9.9", mine):
            url = f"http://{host}:{receiver.port}/"
            assert "blocked_address" == (await lab.send(url, sender)).error_code
            with pytest.raises(InvalidRequest, match=OWN_ADDRESS):
                await sender.check(parse_target(url)[0])
        elsewhere = await lab.send(f"http://240.0.0.1:{receiver.port}/", sender)
        assert "blocked_address" != elsewhere.error_code
        assert 0 == receiver.connections


async def test_a_policy_that_changes(lab: Lab, receiver: FaultReceiver) -> None:
    """Connections made under the old policy are dropped; the new one is asked from then on."""
    sender = lab.sender(AddressPolicy(LOOPBACK))
    assert 200 == (await lab.send(receiver.url("/"), sender)).status
    slow = lab.start(receiver.url("/slow/200"), sender)
    await until(lambda: len(receiver.requests) == 2)
    sender.set_policy(AddressPolicy())
    assert 0 == sender.idle
    assert "blocked_address" == (await lab.send(receiver.url("/"), sender)).error_code
    assert 200 == (await slow.outcome()).status
    await until(lambda: sender.connections == 0)
    assert 2 == len(receiver.requests)
    sender.set_policy(AddressPolicy(LOOPBACK))
    assert 200 == (await lab.send(receiver.url("/"), sender)).status


async def test_a_policy_that_changes_during_the_lookup(lab: Lab, receiver: FaultReceiver) -> None:
    """Nothing is sent to an address that has become forbidden while it was being connected to."""
    sender = lab.sender(AddressPolicy(LOOPBACK), resolver=Answers(["127.0.0.1"]))
    sent = lab.start(f"http://name.example:{receiver.port}/", sender)
    await until(lambda: sent.handle.phase == "resolve")
    sender.set_policy(AddressPolicy())
    outcome = await sent.outcome()
    assert ("blocked_address", False) == (outcome.error_code, outcome.bytes_sent)
    assert [] == receiver.requests


async def test_proxies_of_the_environment_are_not_used(
    lab: Lab, receiver: FaultReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve and connect unjudged."""
    with FaultReceiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        assert 200 == (await lab.send(request(receiver.url("/")))).status
        assert 0 == proxy.connections


def free_port(ports: list[int]) -> int:
    """The first of these ports that nobody listens on."""
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("all are taken")


def address_of_this_machine() -> str:
    """An address of this machine that is not loopback, or loopback when there is no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
