"""The guard against requests into the inside: what is public, what is not, what may be allowed."""

from ipaddress import ip_address

import pytest

from timemachine.addresses import (
    OWN_ADDRESS,
    AddressPolicy,
    Verdict,
    classify,
    parse_address,
)

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255
128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0
191.255.255.255 192.0.1.0 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0
198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
2000::1 2001:1::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2606:4700::1111
3ffe::1 3fff:1000::1 ::ffff:8.8.8.8 2600::%eth0
""".split()

BLOCKED = """
0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.1.2.3 10.255.255.255 100.64.0.0 100.127.255.255
127.0.0.1 127.0.0.2 127.255.255.255 169.254.0.0 169.254.169.254 169.254.255.255 172.16.0.0
172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.255 192.0.2.1 192.88.99.1 192.168.0.0 192.168.1.1
192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 168.63.129.16
:: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254
::ffff:7f00:1 0:0:0:0:0:ffff:a00:1 ::1%lo 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::808:808
64:ff9b:1::1 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 100::1 2001::1 2001:0:ffff::1 2001:db8::1
2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 2002::1 2002:7f00:1::1 2002:a9fe:a9fe::1 3fff::1
3fff:fff:ffff::1 4000::1 5f00::1 8000::1 fc00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 fe80::1%eth0
febf::1 fec0::1 feff::1 ff00::1 ff02::1 ff0e::1
""".split()

UNREADABLE = [
    "",
    "%eth0",
    "localhost",
    "example.com",
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1/8",
    "127.0.0.256",
    "127.0.0.1.1",
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "[::1]",
    ":::1",
    "1::2::3",
    "::ffff:127.0.0.1.5",
    "g::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """What is plainly public may be connected to without having been allowed."""
    assert Verdict.PUBLIC is classify(address)
    assert AddressPolicy().permits(address, 443)


@pytest.mark.parametrize("address", BLOCKED)
def test_blocked(address: str) -> None:
    """Every range of the inside is refused, in whatever way the address is written or wrapped."""
    assert Verdict.BLOCKED is classify(address)
    assert not AddressPolicy().permits(address, 443)


@pytest.mark.parametrize("address", UNREADABLE)
def test_unreadable(address: str) -> None:
    """What is no address is refused; legacy forms are judged after resolution."""
    assert Verdict.UNREADABLE is classify(address)
    assert not AddressPolicy(("0.0.0.0/0", "::/0")).permits(address, 443)


def test_packed() -> None:
    """Packed addresses are judged like their text."""
    assert Verdict.BLOCKED is classify(b"\x7f\0\0\1")
    assert Verdict.BLOCKED is classify(ip_address("::ffff:10.0.0.1").packed)
    assert Verdict.PUBLIC is classify(ip_address("2606:4700::1111").packed)
    assert Verdict.UNREADABLE is classify(b"\x7f\0\0")


def test_is_stricter_than_the_standard_library() -> None:
    """What `is_global` lets through to the inside is refused here."""
    through = "224.0.0.1 ff02::1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 fec0::1 192.88.99.1".split()
    assert all(Verdict.BLOCKED is classify(each) for each in [*through, "168.63.129.16"])


def test_scope_and_mapping_are_removed() -> None:
    """One place has one spelling when it is judged and connected to."""
    assert ip_address("fe80::1") == parse_address("fe80::1%eth0")
    assert ip_address("10.0.0.1") == parse_address("::ffff:10.0.0.1")
    assert parse_address("nowhere") is None


def test_allowed_ranges() -> None:
    """An operator's ranges open exactly themselves."""
    policy = AddressPolicy(("10.1.0.0/16", "fd00::/8"))
    assert policy.permits("10.1.2.3", 80)
    assert policy.permits("::ffff:10.1.2.3", 80)
    assert policy.permits("fd12::1", 80)
    assert not policy.permits("10.2.0.1", 80)
    assert not policy.permits("127.0.0.1", 80)
    assert not policy.permits("fc00::1", 80)


def test_nothing_is_allowed_by_default() -> None:
    """Without a range there is none, not even loopback."""
    assert not AddressPolicy().permits("127.0.0.1", 8080)
    assert not AddressPolicy(()).permits("::1", 8080)


def test_an_allowed_range_may_be_written_loosely() -> None:
    """Host bits do not matter, a lone address is a range, a mapped range is an IPv4 one."""
    assert AddressPolicy(("127.0.0.1/8",)).permits("127.9.9.9", 80)
    assert AddressPolicy(("192.168.1.7",)).permits("192.168.1.7", 80)
    assert AddressPolicy(("::ffff:10.0.0.0/104",)).permits("10.9.9.9", 80)


@pytest.mark.parametrize("text", ["", "here", "10.0.0.0/33", "::/129", "10.0.0.0/8/8"])
def test_no_range(text: str) -> None:
    """What is no range is refused when the policy is made."""
    with pytest.raises(ValueError):
        AddressPolicy((text,))


def test_allowing_nat64_does_not_open_the_inside() -> None:
    """Behind NAT64 the wrapped address counts."""
    policy = AddressPolicy(("64:ff9b::/96",))
    assert policy.permits("64:ff9b::808:808", 443)
    assert not policy.permits("64:ff9b::a9fe:a9fe", 443)
    assert not policy.permits("64:ff9b::7f00:1", 443)
    assert AddressPolicy(("64:ff9b::/96", "127.0.0.0/8")).permits("64:ff9b::7f00:1", 443)


def test_own_listeners_are_refused_whatever_is_allowed() -> None:
    """A node does not send to its own ports; other ports of the same address stay open."""
    policy = AddressPolicy(
        ("0.0.0.0/0", "::/0"), {("127.0.0.1", 8001), ("::1", 9001), ("1.2.3.4", 8001)}
    )
    assert not policy.permits("127.0.0.1", 8001)
    assert not policy.permits("::ffff:127.0.0.1", 8001)
    assert not policy.permits("0.0.0.0", 8001)
    assert not policy.permits("::1", 9001)
    assert not policy.permits("::", 9001)
    assert not policy.permits("1.2.3.4", 8001)
    assert policy.permits("127.0.0.1", 9001)
    assert policy.permits("127.0.0.2", 8001)
    assert policy.permits("1.2.3.4", 443)
    assert OWN_ADDRESS == policy.explain("127.0.0.1", 8001)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "node-1.internal"])
def test_a_listener_on_all_addresses(host: str) -> None:
    """All of loopback is refused on its port, and who connects is told to look at the rest."""
    policy = AddressPolicy(("0.0.0.0/0", "::/0"), {(host, 8001)})
    for address in ("127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"):
        assert not policy.permits(address, 8001)
        assert policy.permits(address, 8002)
    assert policy.listens_everywhere(8001)
    assert not policy.listens_everywhere(8002)


def test_a_listener_on_localhost() -> None:
    """The name stands for both loopback addresses."""
    policy = AddressPolicy(("127.0.0.0/8", "::1/128"), {("localhost", 8001)})
    assert not policy.permits("127.0.0.1", 8001)
    assert not policy.permits("::1", 8001)
    assert policy.permits("127.0.0.1", 8002)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("::1", "::1/128"),
        ("10.3.4.5", "10.0.0.0/8"),
        ("::ffff:192.168.3.4", "192.168.0.0/16"),
        ("fd00::7", "fc00::/7"),
        ("4000::1", "4000::/32"),
    ],
)
def test_a_refusal_names_the_range_to_allow(address: str, network: str) -> None:
    """And allowing it helps. The address itself, which a name may keep secret, is not shown."""
    sentence = AddressPolicy().explain(address, 80)
    assert f"add {network} to allowed_private_cidrs" in sentence
    assert address not in sentence.replace(network, "")
    assert AddressPolicy((network,)).permits(address, 80)


def test_explaining_the_rest() -> None:
    """Sentences also for what cannot be allowed, and for what need not be."""
    assert "cannot be read" in AddressPolicy().explain("nowhere")
    assert "public" in AddressPolicy().explain("8.8.8.8")
