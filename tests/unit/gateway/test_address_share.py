"""What is kept for the clients of an address: counted once, and for the address that asked first."""

from types import SimpleNamespace
from typing import Any

from reactor.gateway.address_share import CONNECTIONS, AddressShare
from reactor.gateway.addresses import AddressUsage


def client(address: AddressUsage | None) -> Any:
    return SimpleNamespace(address=address)


def keys(name: str, number: int) -> list[str]:
    return [f"{name} {one}" for one in range(number)]


def test_the_connections_of_an_address_keep_a_bounded_number_together():
    share, one, other = AddressShare(10), AddressUsage("192.0.2.1"), AddressUsage("192.0.2.2")
    for number in range(CONNECTIONS):
        assert share.take(client(one), keys(f"of {number}", 10))
    assert not share.take(client(one), ["one more"])
    assert share.take(client(one), keys("of 3", 10))  # kept already
    assert share.take(client(other), ["one more"])
    share.release(["of 3 5", "unknown"])
    assert share.take(client(one), ["a new one"])
    assert not share.take(client(one), ["of 3 5"])


def test_nothing_is_left_of_what_was_released():
    share, address = AddressShare(10), AddressUsage("192.0.2.1")
    assert share.take(client(address), keys("a", 10))
    share.release(keys("a", 10))
    assert not share._owners
    assert not share._owned


def test_a_proxy_that_names_no_clients_has_more_and_a_trusted_one_no_limit():
    share, proxy = AddressShare(1), AddressUsage("192.0.2.1", 20)
    assert share.take(client(proxy), keys("a", CONNECTIONS * 20))
    assert not share.take(client(proxy), ["b"])
    assert share.take(client(None), keys("c", CONNECTIONS + 1))
