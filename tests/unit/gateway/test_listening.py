"""The sockets that a process listens on."""

import socket
from contextlib import ExitStack

import pytest

from reactor.errors import AddressInUse, SettingError
from reactor.gateway.listening import bind_sockets
from tests.support.addresses import LOOPBACK, has

LISTED = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
LOCALHOST = sorted({str(address[0]) for family, *_, address in LISTED if has(family)})


def test_each_address_of_a_host_has_the_same_port() -> None:
    with ExitStack() as stack:
        bound = [stack.enter_context(sock) for sock in bind_sockets("localhost", 0)]
        assert sorted(sock.getsockname()[0] for sock in bound) == LOCALHOST
        assert len({sock.getsockname()[1] for sock in bound}) == 1


@pytest.mark.skipif(not has(socket.AF_INET6), reason="this machine has no IPv6")
def test_all_addresses_of_ipv6_accept_ipv4_as_well() -> None:
    (sock,) = bind_sockets("::", 0)
    with sock, socket.socket() as client:
        sock.listen()
        client.connect((LOOPBACK[socket.AF_INET], sock.getsockname()[1]))


def test_a_port_is_shared_by_those_who_both_want_that() -> None:
    with ExitStack() as stack:
        (first,) = bind_sockets("127.0.0.1", 0, shared=True)
        stack.enter_context(first)
        first.listen()
        port = first.getsockname()[1]
        (second,) = bind_sockets("127.0.0.1", port, shared=True)
        second.close()
        with pytest.raises(AddressInUse, match=f"port {port} on 127.0.0.1 is used .* another --port"):
            bind_sockets("127.0.0.1", port)


@pytest.mark.parametrize("taken", LOCALHOST)
def test_a_port_that_is_used_on_one_address_of_the_host_is_used(taken: str) -> None:
    (used,) = bind_sockets(taken, 0)
    with used:
        used.listen()
        with pytest.raises(AddressInUse, match="--admin-port"):
            bind_sockets("localhost", used.getsockname()[1], flags="--admin-")


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "2001:db8::1"])
def test_an_address_of_another_machine_is_an_error_that_names_the_flag(host: str) -> None:
    with pytest.raises(SettingError, match=f"cannot listen on {host} port 8765 .*--admin-host"):
        bind_sockets(host, 8765, flags="--admin-")
