"""Counting connections by client address."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from reactor.gateway import addresses
from reactor.gateway.addresses import AddressLimiter, Decision
from reactor.gateway.proxy_notices import ProxyNotices
from reactor.settings import security
from reactor.settings.security import LOOPBACK


def make_limiter(**more: Any) -> AddressLimiter:
    options: dict[str, Any] = {"limit": 2, "rate": 0, "trusted": LOOPBACK}
    return AddressLimiter(**(options | more))


def test_ipv6_is_counted_by_its_64_network_and_mapped_ipv4_as_ipv4():
    limiter = make_limiter(limit=9)
    names = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.1", "fe80::1%eth0"]
    counted = [address.name for address, _ in (limiter.add(name, 0.0) for name in names) if address]
    assert counted == [
        "2001:db8::/64", "2001:db8::/64", "2001:db8:0:1::/64", "192.0.2.1", "192.0.2.1", "fe80::/64",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["1.2.3.4"], "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        (["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
        (["1.2.3.4, 127.0.0.9, 127.0.0.8"], "1.2.3.4"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["127.0.0.2"], "127.0.0.2"),
        (["1.2.3.4, unknown"], "127.0.0.1"),
        (["1.2.3.4, "], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
        (["1.2.3.4, \ud800"], "127.0.0.1"),
    ],
)
def test_the_client_address_is_the_right_most_that_is_not_a_trusted_proxy(forwarded, address):
    assert make_limiter().client_address("127.0.0.1", forwarded) == address
    assert make_limiter().client_address("8.8.8.8", forwarded) == "8.8.8.8"


@given(st.text(), st.lists(st.text()))
def test_any_text_is_tolerated_as_an_address(peer, forwarded):
    limiter = make_limiter()
    address, decision = limiter.add(limiter.client_address(peer, forwarded), 0.0)
    if address is not None:
        limiter.remove(address, decision)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 0.5)), max_size=60))
def test_no_address_is_accepted_more_often_than_its_rate(events):
    limiter = AddressLimiter(limit=0, rate=4, trusted=())
    now, accepted = 0.0, {name: list[float]() for name in "abc"}
    for name, stays, delay in events:
        now += delay
        address, decision = limiter.add(f"192.0.2.{ord(name)}", now)
        if decision is Decision.ACCEPT:
            accepted[name].append(now)
        if address is not None and not stays:
            limiter.remove(address, decision)
    for times in accepted.values():
        for start, first in enumerate(times):
            for count, last in enumerate(times[start:], 1):
                assert count <= 8 + 1 + (last - first) * 4 + 1e-6


def test_a_flood_from_one_address_leaves_it_its_rate():
    """Other clients behind the same address are still accepted at its rate."""
    limiter = AddressLimiter(limit=0, rate=10, trusted=())
    accepted = sum(limiter.add("192.0.2.1", number / 1000)[1] is Decision.ACCEPT for number in range(10_000))
    assert 100 <= accepted <= 125


def test_rejected_connections_do_not_count_as_accepted():
    limiter = make_limiter(limit=2)
    first = [limiter.add("192.0.2.1", 0.0) for _ in range(5)]
    decisions = [decision for _, decision in first]
    assert decisions == [Decision.ACCEPT] * 2 + [Decision.REJECT] * 2 + [Decision.DROP]
    for address, decision in first[1:3]:
        assert address is not None
        limiter.remove(address, decision)
    assert [limiter.add("192.0.2.1", 0.0)[1] for _ in range(3)] == [
        Decision.ACCEPT,
        Decision.REJECT,
        Decision.DROP,
    ]


def test_addresses_without_connections_are_pruned():
    limiter = make_limiter(rate=10)
    for number in range(5000):
        address, decision = limiter.add(str(socket.inet_ntoa(number.to_bytes(4))), number / 100)
        assert address is not None
        limiter.remove(address, decision)
    assert len(limiter._usage) < 2048


def test_the_address_of_a_trusted_proxy_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, proxies = make_limiter(limit=9), ProxyNotices()
    headers = Headers(Host="127.0.0.1:8765")

    def connect() -> None:
        limiter.add_unnamed(limiter.client_address("127.0.0.1", ()), 0.0)
        proxies.unnamed("127.0.0.1", headers)

    connect()
    for module in (addresses, security):
        monkeypatch.setattr(module, "ip_address", lambda text: pytest.fail(f"parsed {text} again"))
    connect()
